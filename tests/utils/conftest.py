"""Fixtures of the tests of utils/."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_step(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a step in ``tmp_path``, as a recipe does."""
    folders = [Path(sys.executable).parent, ROOT / "bin", ROOT / "utils"]
    env = {
        **os.environ,
        "PATH": os.pathsep.join([str(tmp_path / "bin"), *map(str, folders), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "LC_ALL": "C",
        "OMP_NUM_THREADS": "1",
    }

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*map(str, command)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def make_data_dir(tmp_path: Path) -> Callable[..., Path]:
    """Make a valid data directory of speakers s01, s02, ... with utterances s01-u1, s01-u2, ..."""

    def make(name: str = "train", *, speakers: int = 3, utts: int = 4, prefix: str = "s") -> Path:
        path = tmp_path / "data" / name
        path.mkdir(parents=True)
        spks = [f"{prefix}{n:02d}" for n in range(1, speakers + 1)]
        ids = {spk: [f"{spk}-u{n}" for n in range(1, utts + 1)] for spk in spks}
        pairs = [(utt, spk) for spk in spks for utt in ids[spk]]
        files = {
            "wav.scp": [f"{utt} wav/{utt}.wav" for utt, _ in pairs],
            "text": [f"{utt} sil a b sil" for utt, _ in pairs],
            "utt2spk": [f"{utt} {spk}" for utt, spk in pairs],
            "spk2utt": [f"{spk} {' '.join(ids[spk])}" for spk in spks],
            "spk2gender": [f"{spk} {'mf'[n % 2]}" for n, spk in enumerate(spks)],
            "feats.scp": [f"{utt} feats.ark:{n}" for n, (utt, _) in enumerate(pairs)],
            "utt2num_frames": [f"{utt} {100 + n}" for n, (utt, _) in enumerate(pairs)],
        }
        for file, lines in files.items():
            (path / file).write_text("".join(line + "\n" for line in lines))
        return path

    return make
