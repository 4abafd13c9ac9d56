"""files.sh, sourced by a script: locks, temporary files and digests."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.seals import check_sidecar, sidecar

FILES = Path(__file__).resolve().parents[2] / "utils" / "files.sh"
Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start a script that sources files.sh, in ``tmp_path``."""

    def run(text: str) -> subprocess.Popen[str]:
        python = str(Path(sys.executable).parent)
        return subprocess.Popen(
            ["bash", "-c", f"set -euo pipefail\n. {FILES}\n{text}", "step.sh"],
            cwd=tmp_path,
            env={**os.environ, "PATH": os.pathsep.join([python, os.environ["PATH"]])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


def status(process: subprocess.Popen[str]) -> int:
    process.communicate()
    return process.returncode


def test_one_script_at_a_time_writes_a_folder(start: Start, tmp_path: Path) -> None:
    text = "lock_folder d; echo $$ > d/who; sleep 0.4; [ $(cat d/who) = $$ ]; echo done >> d/log"
    three = [start(text) for _ in range(3)]
    said = [process.communicate()[1] for process in three]
    assert [process.returncode for process in three] == [0, 0, 0], said
    assert (tmp_path / "d" / "log").read_text() == "done\n" * 3
    waiting = "WARNING (step.sh) d: another process writes here; waiting for its end"
    assert sum(waiting in text for text in said) >= 2
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["log", "who"]


def test_a_lock_outlives_a_killed_script_while_its_programs_run(
    start: Start, tmp_path: Path
) -> None:
    first = start("lock_folder d; touch d/begun; sleep 1.2 & wait")
    while not (tmp_path / "d" / "begun").exists():
        time.sleep(0.02)
    first.kill()
    begun = time.monotonic()
    second = start("lock_folder d")
    assert second.wait() == 0
    assert time.monotonic() - begun > 0.5
    first.communicate()
    second.communicate()
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["begun"]


def test_what_a_killed_script_left_goes(start: Start, tmp_path: Path) -> None:
    first = start("lock_folder d; temporary d/a; mkdir d/log; temporary d/log/b; kill -KILL $$")
    left = first.communicate()[0].split()
    assert len(left) == 2
    assert all((tmp_path / name).exists() for name in left)
    assert status(start("lock_folder d")) == 0
    assert not any((tmp_path / name).exists() for name in left)


def test_a_planted_lock_is_refused(start: Start, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / ".lock").symlink_to(tmp_path / "victim")
    process = start("lock_folder d")
    assert "d/.lock: a symbolic link, not a lock; remove it" in process.communicate()[1]
    assert process.returncode == 1
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("umask", ["022", "077", "002"])
def test_permissions(start: Start, tmp_path: Path, umask: str) -> None:
    text = f"umask {umask}; n=$(temporary 'a b'); stat -c %a \"$n\"; publish \"$n\" 'a b'"
    assert start(text).communicate()[0] == "600\n"
    assert stat.S_IMODE((tmp_path / "a b").stat().st_mode) == 0o666 & ~int(umask, 8)


def test_a_digest_and_a_folder_that_goes(start: Start, tmp_path: Path) -> None:
    (tmp_path / "hyp.ctm").write_text("a 1 0 1 b\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").write_text("")
    assert status(start("seal hyp.ctm; discard d; discard d")) == 0
    assert sidecar(tmp_path / "hyp.ctm").exists()
    check_sidecar(tmp_path / "hyp.ctm", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hyp.ctm.sha256", "hyp.ctm"]
