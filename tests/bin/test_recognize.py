"""recognize.py: from recordings to tokens, with only a model directory."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch


@pytest.fixture
def record(tmp_path) -> Callable[..., Path]:
    """Write a recording of noise."""

    def make(name: str, *, rate: int = 16000, channels: int = 1, seconds: float = 0.4) -> Path:
        random = np.random.default_rng(len(name))
        samples = random.normal(0, 0.1, size=(int(rate * seconds), channels))
        soundfile.write(tmp_path / name, samples, rate)
        return tmp_path / name

    return make


@pytest.fixture
def recognize(trained, execute) -> Callable[..., object]:
    return lambda *arguments, model="transducer": execute(
        "recognize.py", "--device=cpu", trained / model, *arguments
    )


def fails(done, status: int, *texts: str) -> None:
    assert done.status == status, done.err
    assert "Traceback" not in done.err
    for text in texts:
        assert text in done.err, done.err


@pytest.mark.parametrize("model", ["ctc", "transducer"])
def test_it_gives_what_features_and_decode_give(
    trained, execute, recognize, record, tmp_path, model
):
    recordings = [record("a.wav"), record("b.flac", seconds=0.7), record("c.ogg")]
    (tmp_path / "wav.scp").write_text("".join(f"{p.stem} {p}\n" for p in recordings))
    conf = trained / model / "front_end" / "fbank.conf"
    feats, hyp = f"ark:{tmp_path}/feats.ark", tmp_path / "hyp"
    execute("compute_fbank_feats.py", f"--config={conf}", f"scp:{tmp_path}/wav.scp", feats)
    execute(f"decode_{model}.py", "--device=cpu", trained / model, feats, f"ark,t:{hyp}")
    done = recognize(*recordings, model=model)
    fails(done, 0, "Done 3 recordings, 0 failed")
    decoded = [line.partition(" ")[2].strip() for line in hyp.read_text().splitlines()]
    expected = [f"{p}\t{tokens}" for p, tokens in zip(recordings, decoded, strict=True)]
    assert done.out.splitlines() == expected


def test_a_recording_that_fails_is_named_and_the_others_go_on(recognize, record, tmp_path):
    good, last = record("good.wav"), record("last.wav")
    stereo, slow, short = (
        record("stereo.wav", channels=2),
        record("slow.wav", rate=8000),
        record("short.wav", seconds=0.001),
    )
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is not a recording\n")
    cut = record("cut.wav")
    cut.write_bytes(cut.read_bytes()[:2000])
    bad = [tmp_path / n for n in ("gone.wav", "empty.wav", "text.wav")] + [stereo, slow, short, cut]
    bad.append(tmp_path)  # a directory
    done = recognize(good, *bad, last)
    fails(done, 1, "Done 2 recordings, 8 failed")
    assert [line.partition("\t")[0] for line in done.out.splitlines()] == [str(good), str(last)]
    for path in bad:
        (line,) = [x for x in done.err.splitlines() if f" {path}: " in x]
        assert line.count(str(path)) == 1, line
    assert "of 8000 Hz, but the model 16000; resample it" in done.err
    assert "--sample-frequency" not in done.err  # no option of this program


@pytest.mark.parametrize("rate", [8000, 44100])
def test_another_rate_is_resampled_if_asked_for(
    trained, execute, recognize, record, tmp_path, rate
):
    wav = record("a.wav", rate=rate, seconds=0.7)
    done = recognize("--resample=true", wav, model="ctc")
    fails(done, 0, "Done 1 recordings, 0 failed")
    (tmp_path / "wav.scp").write_text(f"a {wav}\n")
    conf, scp = trained / "ctc" / "front_end" / "fbank.conf", f"scp:{tmp_path}/wav.scp"
    for program, hyp in (("compute", "hyp1"), ("decode", "hyp2")):
        features = ["--from-audio", "--resample", trained / "ctc", scp]
        if program == "compute":
            feats = f"ark:{tmp_path}/feats.ark"
            made = execute("compute_fbank_feats.py", f"--config={conf}", "--resample", scp, feats)
            assert made.status == 0, made.err
            features = [trained / "ctc", feats]
        execute("decode_ctc.py", "--device=cpu", *features, f"ark,t:{tmp_path}/{hyp}")
        assert (tmp_path / hyp).read_text().split() == ["a", *done.out.split()[1:]]


def test_a_name_that_looks_like_a_command_is_not_run(recognize, tmp_path):
    fails(recognize(f"touch {tmp_path}/sign |"), 1, "nothing was done")
    assert not (tmp_path / "sign").exists()


def test_a_model_without_a_front_end_fails_once(trained, execute, record, tmp_path):
    path = Path(shutil.copytree(trained / "ctc", tmp_path / "ctc"))
    shutil.rmtree(path / "front_end")
    done = execute("recognize.py", "--device=cpu", path, record("a.wav"), record("b.wav"))
    fails(done, 1, "no record of how its features were made", "use decode_*.py")
    assert done.err.count("has no record") == 1
    assert done.out == ""


def test_models_that_recognise_nothing(recognize, execute, record, tmp_path):
    wav = record("a.wav")
    fails(recognize(wav, model="predictor"), 1, "a prediction network alone cannot recognise")
    fails(execute("recognize.py", tmp_path / "gone", wav), 1, "gone: not a model directory")


def test_wrong_usage(recognize, record, monkeypatch):
    wav = record("a.wav")
    fails(recognize("--beam=0", wav), 2, "--beam must be 1 or more, not 0")
    fails(recognize("--device=nonsense", wav), 2, "--device must be one of")
    fails(recognize(), 2, "Missing argument")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fails(recognize("--device=cuda", wav), 2, "torch sees no CUDA device")


def test_greedy_and_length_normalised(recognize, record):
    wav = record("a.wav")
    assert recognize("--beam=1", wav).status == 0
    assert recognize("--length-normalise=true", wav).status == 0


def test_a_reader_that_closes_early(trained, record):
    import os
    import subprocess
    import sys

    root = Path(__file__).resolve().parents[2]
    wav = record("a.wav")
    process = subprocess.Popen(
        [sys.executable, root / "bin/recognize.py", "--device=cpu", trained / "ctc", *[wav] * 50],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 141
    assert b"Traceback" not in err
