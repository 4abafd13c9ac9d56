"""Single commands that are killed at random moments, and run again, end as if nothing had been."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.leftovers import is_temporary

ROOT = Path(__file__).resolve().parents[1]
KILLS = 2


def start(*command: object) -> subprocess.Popen[bytes]:
    """A command in a process group of its own."""
    folders = [Path(sys.executable).parent, ROOT / "bin", ROOT / "utils"]
    env = {
        **os.environ,
        "PATH": os.pathsep.join([*map(str, folders), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [*map(str, command)],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def kill_and_finish(command: list[object], *, longest: float) -> None:
    """Run a command to its end that is killed at random moments before."""
    randomly = random.Random(str(command[0]))
    for _ in range(KILLS):
        process = start(*command)
        time.sleep(randomly.uniform(0.2, longest))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    process = start(*command)
    said = process.communicate()[1].decode()
    assert process.returncode == 0, said


def unfinished(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if is_temporary(path.name)]


@pytest.fixture
def data(trained: Path, tmp_path: Path) -> Path:
    """The toy corpus as data of a decoding: feats.scp, text, utt2spk, spk2utt."""
    from pipeline.data.data_dir import invert, read_map, write_map

    folder = trained / "toy" / "dev"
    made = tmp_path / "data"
    made.mkdir()
    for name in ("feats.scp", "text", "utt2spk", "utt2num_frames"):
        (made / name).write_bytes((folder / name).read_bytes())
    speakers = invert(read_map(made / "utt2spk"))
    write_map(made / "spk2utt", {spk: " ".join(utts) for spk, utts in speakers.items()})
    return made


def test_decoding_and_scoring(trained: Path, data: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        decode = ["decode.sh", "--nj", 2, "decode_ctc.py", trained / "ctc", data, folder]
        score = ["score.py", "--replications=50", data, folder]
        for command, longest in ((decode, 1.5), (score, 0.6)):
            if folder is whole:
                assert start(*command).communicate()[1] is not None
            else:
                kill_and_finish(command, longest=longest)
    for name in ("hyp.txt", "hyp.ctm", "nbest", ".hyp.ctm.sha256", "scoring/wer"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert unfinished(killed) == unfinished(data) == []


def test_training(make_toy, tmp_path: Path) -> None:
    toy = make_toy(tmp_path / "toy")
    found = []
    for name in ("whole", "killed"):
        options = ("--epochs=20", "--patience=0", "--save-every=0", "--optimizer=adam")
        command = [ROOT / "bin" / "train_ctc.py", *toy.arguments(tmp_path / name, *options)]
        if name == "whole":
            process = start(sys.executable, *command)
            assert process.communicate()[1] is not None
        else:
            kill_and_finish([sys.executable, *command], longest=1.5)
        found.append((tmp_path / name / "final.safetensors").read_bytes())
    assert found[0] == found[1]
    assert unfinished(tmp_path / "killed") == []
