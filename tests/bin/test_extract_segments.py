"""extract_segments.py: what is cut, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import soundfile

Run = Callable[..., CompletedProcess[bytes]]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """One recording of a second at 16 kHz whose sample i is i % 1000."""
    soundfile.write(tmp_path / "r.wav", (np.arange(16000) % 1000).astype(np.int16), 16000)
    (tmp_path / "wav.scp").write_text(f"r {tmp_path}/r.wav\n")
    return tmp_path


def run_with(run_bin: Run, corpus: Path, segments: str) -> CompletedProcess[bytes]:
    (corpus / "segments").write_text(segments)
    return run_bin(
        "extract_segments.py", f"scp:{corpus}/wav.scp", corpus / "segments",
        f"ark,scp:{corpus}/o.ark,{corpus}/o.scp",
    )  # fmt: skip


def test_samples_are_cut_at_the_times(run_bin: Run, corpus: Path) -> None:
    done = run_with(run_bin, corpus, "u1 r 0.1 0.35\nu2 r 0.5 -1\nu3 r 0.75 1.2\n")
    assert done.returncode == 0, done.stderr
    frames = run_bin(
        "compute_fbank_feats.py", f"scp:{corpus}/o.scp", "ark,t:/dev/null",
        f"--write-utt2dur=ark,t:{corpus}/dur",
    )  # fmt: skip
    assert frames.returncode == 0, frames.stderr
    assert [float(x.split()[1]) for x in (corpus / "dur").read_text().splitlines()] == [
        0.25, 0.5, 0.25,
    ]  # fmt: skip
    offset = int((corpus / "o.scp").read_text().splitlines()[0].rpartition(":")[2])
    cut = np.frombuffer((corpus / "o.ark").read_bytes()[offset + 44 :], "<i2", count=4000)
    assert (cut == np.arange(1600, 5600) % 1000).all()


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ("u1 r 0.1 3.0\n", b"u1: the segment ends at 3.0 s"),
        ("u1 r 2.0 3.0\n", b"lies outside the recording of 1.000 s"),
        ("u1 r 0.5 0.55\n", b"less than --min-segment-length"),
        ("u1 q 0.1 0.3\n", b"u1: recording q is not in"),
        ("u1 r nan 0.3\n", b"is not of the form UTT RECO START END"),
        ("u1 r 0.1\n", b"is not of the form UTT RECO START END"),
    ],
)
def test_what_cannot_be_cut_is_named(
    run_bin: Run, corpus: Path, segments: str, message: bytes
) -> None:
    done = run_with(run_bin, corpus, segments)
    assert done.returncode == 1
    assert message in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["scp", "ark"])
def test_utterances_come_in_the_order_of_segments(
    run_bin: Run, corpus: Path, seed: int, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    names = [f"r{n}" for n in range(4)]
    for n, name in enumerate(names):
        soundfile.write(corpus / f"{name}.wav", np.full(8000, n, np.int16), 16000)
    order = list(rng.permutation(names))  # of the recordings; a failing one is among them
    (corpus / "wav.scp").write_text("".join(f"{name} {corpus}/{name}.wav\n" for name in order))
    source = f"scp:{corpus}/wav.scp"
    if kind == "ark":
        whole = corpus / "whole"
        whole.write_text("".join(f"{name} {name} 0 -1\n" for name in sorted(names)))
        run_bin("extract_segments.py", source, whole, f"ark:{corpus}/w.ark", check=True)
        source = f"ark:{corpus}/w.ark"
    wanted = {f"u{n:02d}": str(rng.choice([*names, "none"])) for n in range(30)}
    (corpus / "segments").write_text(
        "".join(f"{utt} {reco} 0.{n % 3} -1\n" for n, (utt, reco) in enumerate(wanted.items()))
    )
    done = run_bin(
        "extract_segments.py", source, corpus / "segments", f"ark,scp:{corpus}/o.ark,{corpus}/o.scp"
    )
    written = [line.split()[0] for line in (corpus / "o.scp").read_text().splitlines()]
    assert written == [utt for utt, reco in wanted.items() if reco != "none"]
    assert done.stderr.count(b"recording none is not in") == list(wanted.values()).count("none")
    for line in (corpus / "o.scp").read_text().splitlines():
        utt, _, place = line.partition(" ")
        offset = int(place.rpartition(":")[2])
        sample = np.frombuffer((corpus / "o.ark").read_bytes()[offset + 44 :], "<i2", count=1)[0]
        assert sample == int(wanted[utt][1:])
