"""recognize.py: from recordings to tokens, with only a model directory."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
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


# ---- --stream ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forwards(make_toy, execute, tmp_path_factory) -> Path:
    """A CTC model that reads forwards only."""
    path = tmp_path_factory.mktemp("forwards")
    toy = make_toy(path / "toy")
    text = (toy.path / "model.toml").read_text()
    (toy.path / "model.toml").write_text(
        text.replace("cells = 16", "cells = 16\nbidirectional = false", 1)
    )
    options = ("--optimizer=adam", "--learning-rate=0.03", "--epochs=10", "--patience=0")
    done = execute("train_ctc.py", *toy.arguments(path / "ctc", *options))
    assert done.status == 0, done.err
    return path / "ctc"


@pytest.mark.parametrize("chunk_ms", [7, 100, 5000])
def test_a_stream_gives_what_the_whole_recording_gives(forwards, execute, record, chunk_ms):
    recordings = [record("a.wav", seconds=1.1), record("b.flac")]
    whole = execute("recognize.py", "--device=cpu", forwards, *recordings)
    options = ("--stream", f"--chunk-ms={chunk_ms}", "--device=cpu")
    done = execute("recognize.py", *options, forwards, *recordings)
    fails(done, 0, "Done 2 recordings, 0 failed", f"PARTIAL\t{recordings[0]}\t")
    assert done.out == whole.out != ""
    assert "PARTIAL" not in done.out


def pcm(path: Path) -> bytes:
    return soundfile.read(path, dtype="int16")[0].astype("<i2").tobytes()


@pytest.mark.parametrize(
    "kind", ["wav", "wav of a pipe", "wav of no length", "raw", "float", "flac"]
)
def test_standard_input_is_read_as_it_comes(forwards, execute, record, monkeypatch, kind, tmp_path):
    wav = record("a.wav", seconds=0.6)
    data, options = wav.read_bytes(), ["--stream", "--device=cpu"]
    if kind.startswith("wav of"):
        place, size = data.index(b"data") + 4, (b"\xff" if kind == "wav of a pipe" else b"\0") * 4
        data = data[:4] + size + data[8:place] + size + data[place + 4 :]
    elif kind == "raw":
        data, options = pcm(wav), [*options, "--raw-rate=16000"]
    elif kind == "float":
        soundfile.write(tmp_path / "f.wav", *soundfile.read(wav), subtype="FLOAT")
        data = (tmp_path / "f.wav").read_bytes()
    elif kind == "flac":
        soundfile.write(tmp_path / "f.flac", *soundfile.read(wav))
        data = (tmp_path / "f.flac").read_bytes()
    whole = execute("recognize.py", "--device=cpu", forwards, wav)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    done = execute("recognize.py", *options, forwards, "-")
    fails(done, 0)
    assert done.out == whole.out.replace(str(wav), "-")


def test_a_header_in_raw_samples_and_half_a_sample(forwards, execute, record, tmp_path):
    wav, raw = record("a.wav"), tmp_path / "a.raw"
    options = ("--stream", "--raw-rate=16000", "--device=cpu")
    done = execute("recognize.py", *options, forwards, wav)
    fails(done, 1, f"{wav}: begins as a WAV file, not with raw samples; leave off --raw-rate")
    raw.write_bytes(pcm(wav)[:-1])
    done = execute("recognize.py", *options, forwards, raw)
    fails(done, 1, f"{raw}: ends within a sample of 16 bits")
    done = execute("recognize.py", "--raw-rate=16000", forwards, raw)
    fails(done, 2, "--raw-rate is for --stream; give both")
    done = execute("recognize.py", "--stream", "--raw-rate=8000", "--device=cpu", forwards, raw)
    fails(done, 1, "has a sample rate of 8000 Hz, but the model 16000")


def test_raw_samples_without_their_rate(forwards, execute, record, monkeypatch):
    data = pcm(record("a.wav"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    done = execute("recognize.py", "--stream", "--device=cpu", forwards, "-")
    fails(done, 1, "-: ", "or --raw-rate, if these are raw 16-bit samples")


def test_a_wav_that_ends_early_on_standard_input(forwards, execute, record, monkeypatch):
    data = record("a.wav").read_bytes()[:-100]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    done = execute("recognize.py", "--stream", "--device=cpu", forwards, "-")
    fails(done, 1, "-: ", "6350 samples of 6400")


def test_a_model_of_both_directions_cannot_stream(recognize, record):
    fails(
        recognize("--stream", record("a.wav")), 1, "cannot read a stream", "bidirectional = false"
    )


def streaming(*arguments: object) -> subprocess.Popen[bytes]:
    """`recognize.py --stream`, which reads standard input."""
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, root / "bin/recognize.py", "--stream", "--device=cpu", *arguments],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ctrl_c(process: subprocess.Popen[bytes]) -> bytes:
    """What it prints after Ctrl-C, while nothing tells the end of its standard input."""
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    with process.stderr, process.stdout, process.stdin:
        err = process.stderr.read()
        assert b"interrupted" in err
        assert b"Traceback" not in err
        return process.stdout.read()


def test_ctrl_c_prints_what_was_heard(forwards, record):
    process = streaming("--raw-rate=16000", forwards, "-")
    process.stdin.write(pcm(record("a.wav", seconds=2.0)))  # and nothing tells the end
    process.stdin.flush()
    while line := process.stderr.readline():  # after one on the kernels, if they are compiled
        if line.startswith(b"PARTIAL\t-\t"):
            break
    assert re.fullmatch(r"-\t[abc ]+\n", ctrl_c(process).decode())


@pytest.mark.parametrize("options", [[], ["--raw-rate=16000"]])
def test_ctrl_c_before_anything_is_heard(forwards, record, options):
    """Also while a header is waited for; recordings after it are not read."""
    first, last = record("first.wav"), record("last.wav")
    first.write_bytes(pcm(first)) if options else None
    process = streaming(*options, forwards, first, "-", last)
    assert process.stdout.readline().startswith(f"{first}\t".encode())
    time.sleep(0.5)  # until standard input is waited for
    assert ctrl_c(process) == b""
