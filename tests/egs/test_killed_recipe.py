"""A recipe that is killed again and again ends as one that never was."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.leftovers import is_temporary
from pipeline.seals import read_text, unsealed

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs" / "timit"
KILLS = 20


def start(work: Path) -> subprocess.Popen[bytes]:
    """The smoke recipe, in a process group of its own."""
    command = [RECIPE / "run.sh", "--config", RECIPE / "conf" / "smoke.conf", "--work", work]
    with (work.parent / f"{work.name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def results(work: Path) -> dict[str, object]:
    """What the recipe is run for: weights, hypotheses, scores."""
    exp = work / "exp"
    found: dict[str, object] = {}
    for name in ("*/final.safetensors", "*/decode_*/hyp.*", "*/decode_*/nbest"):
        for path in exp.glob(name):
            found[str(path.relative_to(exp))] = path.read_bytes()
    for path in exp.glob("*/decode_*/scoring/score.json"):
        score = unsealed(read_text(path))
        found[str(path.relative_to(exp))] = {
            k: v for k, v in score.items() if k not in ("data_dir", "decode_dir")
        }
    return found


def unfinished(work: Path) -> list[Path]:
    """What is there under a temporary name."""
    return [
        path
        for path in sorted(work.rglob("*"))
        if is_temporary(path.name) or path.suffix in (".partial", ".part", ".tmp")
    ]


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_the_same(tmp_path: Path) -> None:
    whole, work = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, work):
        folder.mkdir()
    begun = time.monotonic()
    assert start(whole).wait() == 0
    longest = (time.monotonic() - begun) / 8
    randomly, killed = random.Random(int(os.environ.get("SEED", "1"))), 0
    while killed < KILLS:
        process = start(work)
        try:
            assert process.wait(randomly.uniform(0.0, longest)) == 0
        except subprocess.TimeoutExpired:
            killed += 1
        else:  # it has come to its end: from here on all is done
            break
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    assert killed >= KILLS // 2
    assert start(work).wait() == 0
    assert len(results(whole)) > 10
    assert results(work) == results(whole)
    assert unfinished(work) == []
