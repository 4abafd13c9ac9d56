"""feats_options.py and make_feats.sh: what decides values reaches DATA/conf in any spelling."""

import random
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.data.data_dir import read_map, write_map
from pipeline.frontend.feature_options import FbankOptions, MfccOptions, SpectrogramOptions
from pipeline.frontend.front_end import FrontEnd
from pipeline.tables import read_matrix

KINDS = {"fbank": FbankOptions, "mfcc": MfccOptions, "spectrogram": SpectrogramOptions}
VALUES: dict[str, list[object]] = {
    "sample_frequency": [16000.0],
    "frame_length": [20.0, 25.0, 32.0],
    "frame_shift": [5.0, 8.0, 12.5],
    "preemphasis_coefficient": [0.0, 0.5, 0.97],
    "dither": [0.0, 1.5],
    "window_type": ["povey", "hamming", "rectangular", "blackman"],
    "blackman_coeff": [0.42, 0.3],
    "energy_floor": [0.0, 1.0],
    "num_mel_bins": [15, 20],
    "low_freq": [20.0, 100.0, 300.0],
    "high_freq": [0.0, 3400.0, -400.0],
    "num_ceps": [5, 12],
    "max_feature_vectors": [-1, 100],
    "cepstral_lifter": [0.0, 22.0],
}
TRUE, FALSE = (
    ("=true", "=T", "=1", "=True", " true", ""),
    ("=false", "=f", "=0", "=FALSE", " false"),
)


def spelled(draw: random.Random, name: str, value: object) -> str:
    """An option in one of Kaldi's spellings, or one of this project's, as a word or two."""
    shown = name if draw.random() < 0.5 else name.replace("_", "-")
    shown = shown.title() if draw.random() < 0.2 else shown
    if isinstance(value, bool):
        if not value and draw.random() < 0.3:
            return f"--no-{name.replace('_', '-')}"
        return f"--{shown}{draw.choice(TRUE if value else FALSE)}"
    text = draw.choice(["{}", "'{}'", '"{}"']).format(value)
    return f"--{shown}{draw.choice(['=', ' '])}{text}"


def random_options(seed: int, folder: Path) -> tuple[str, str, dict[str, object], list[str]]:
    """A kind, a text of --options, the values that it means, and its options of reading."""
    draw = random.Random(seed)
    kind = draw.choice(sorted(KINDS))
    said: list[tuple[str, object]] = []
    for field in draw.sample(fields(KINDS[kind]), 6):
        choices = [True, False] if field.type in (bool, "bool") else VALUES[field.name]
        said += [(field.name, draw.choice(choices)) for _ in range(draw.choice([1, 1, 2]))]
    draw.shuffle(said)
    words = [spelled(draw, *option) for option in said]
    meant: dict[str, object] = {}
    if draw.random() < 0.5:  # some of them in a file, which the others win over
        inside = {"low_freq": 150.0} if kind != "spectrogram" else {"dither": 0.5}
        lines = [f"--{name}={value}\n" for name, value in inside.items()]
        (folder / "more options.conf").write_text("# more\n" + "".join(lines))
        words.insert(draw.randrange(len(words) + 1), f"--config='{folder}/more options.conf'")
        meant |= inside
    meant |= dict(said)
    reading = draw.sample(["--allow-pipes=true", "--channel=0", "--min-duration=0.01"], 2)
    for option in reading:
        words.insert(draw.randrange(len(words) + 1), option)
    return kind, "  ".join(words), meant, reading


@pytest.mark.parametrize("seed", range(40))
def test_options_in_any_spelling_reach_the_file(execute, tmp_path, seed):
    kind, options, meant, reading = random_options(seed, tmp_path)
    conf = tmp_path / f"{kind}.conf"
    conf.write_text("--frame_shift=9\n--no-round-to-power-of-two=false  # of a user\n--channel=0\n")
    done = execute("feats_options.py", f"--options={options}", conf, tmp_path / "out")
    assert done.status == 0, (options, done.err)
    out = tmp_path / "out" / done.out.strip()
    expected = KINDS[kind](**{"frame_shift": 9.0, **meant})
    assert FrontEnd.load(out / "conf").options == expected, options
    assert (out / "frame_shift").read_text() == f"{expected.frame_shift / 1000:g}\n"
    words = (out / "compute.words").read_text().split("\0")[:-1]
    assert {word.partition("=")[0] for word in words} == {
        option.partition("=")[0] for option in [*reading, "--channel=0"]
    }


def test_a_file_that_says_it_all_is_copied(execute, tmp_path):
    text = "# a comment\n--num-mel-bins=5\n--use-energy\n"
    (tmp_path / "fbank.conf").write_text(text)
    (tmp_path / "x.conf").write_text("--delta-order=1\n--allow-pipes=false\n")
    done = execute(
        "feats_options.py", "--options=--channel=1 --use_energy=t", "--segments",
        f"--delta-conf={tmp_path}/x.conf", tmp_path / "fbank.conf", tmp_path / "out",
    )  # fmt: skip
    assert done.status == 0, done.err
    out = tmp_path / "out" / done.out.strip()
    assert (out / "conf" / "fbank.conf").read_text() == text
    assert FrontEnd.load(out / "conf").delta.delta_order == 1
    assert (out / "cut.words").read_text() == "--channel=1\0"
    assert (out / "compute.words").read_text() == ""


def test_other_options_are_in_another_folder(execute, tmp_path):
    """A job that still runs keeps its own, and its command line differs."""
    (tmp_path / "fbank.conf").write_text("--num-mel-bins=5\n")
    found = [
        execute("feats_options.py", f"--options={text}", tmp_path / "fbank.conf", tmp_path).out
        for text in ("--low-freq=30", "--low_freq 30.0", "--low-freq=31", "--channel=0")
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--low-freq=9000", "--low-freq must be 0 Hz to less than 8000 Hz"),
        ("--low-freq=nan", "--low-freq must be a finite number, not nan"),
        ("--low-freq=x", "Invalid value for '--low-freq'"),
        ("--lo-freq=1", "No such option: --lo-freq"),
        ("--low-freq", "--low-freq"),
        ("--use-energy=maybe", "--use-energy must be true or false, not 'maybe'"),
        ("low-freq=3", "unexpected extra argument(s) (low-freq=3)"),
        ("--low-freq='3", "--options: No closing quotation"),
        ("--help", "--help cannot be among these options; run compute_fbank_feats.py --help"),
        ("--config=gone.conf", "gone.conf: cannot read this options file"),
        ("--max-overshoot=1", "--max-overshoot=1.0: applies only to a data directory with a file"),
        ("--channel=-2", "--channel must be -1 or more, not -2"),
    ],
)
def test_options_that_are_wrong(execute, tmp_path, options, said):
    (tmp_path / "fbank.conf").write_text("--num-mel-bins=5\n")
    done = execute("feats_options.py", f"--options={options}", tmp_path / "fbank.conf", "out")
    assert (done.status, done.out) == (2, "")
    assert said in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--low-freq=9000", "--low-freq must be 0 Hz to less than 8000 Hz"),
        ("--frame-shift=inf", "--frame-shift must be a finite number, not inf"),
        ("--num-mel-bins=x", "Input should be a valid integer"),
        ("--raw-energy=2", "--raw-energy must be true or false, not '2'"),
        ("--low-freq", "--low-freq needs a value"),
    ],
)
def test_the_line_of_a_wrong_value_is_named(execute, tmp_path, line, said):
    conf = tmp_path / "fbank.conf"
    conf.write_text(f"# one\n--num-mel-bins=5\n{line}\n")
    done = execute("feats_options.py", conf, tmp_path / "out")
    assert done.status == 2
    assert f"{conf}:3: " in done.err
    assert said in done.err


# ---- make_feats.sh -------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path) -> Path:
    """A data directory of two recordings with two channels, one of them by a pipe."""
    noise = np.random.default_rng(0).normal(0, 0.1, size=(4000, 2))
    folder = tmp_path / "data"
    folder.mkdir()
    for utt in ("s-a", "s-b"):
        soundfile.write(tmp_path / f"{utt}.wav", noise[:: 1 if utt == "s-a" else -1], 16000)
    wavs = {"s-a": f"{tmp_path}/s-a.wav", "s-b": f"cat '{tmp_path}/s-b.wav' |"}
    write_map(folder / "wav.scp", wavs)
    write_map(folder / "utt2spk", dict.fromkeys(wavs, "s"))
    write_map(folder / "spk2utt", {"s": "s-a s-b"})
    write_map(folder / "text", dict.fromkeys(wavs, "a b"))
    return folder


def load(path: Path) -> dict[str, np.ndarray]:
    return {utt: read_matrix(rx) for utt, rx in read_map(path).items()}


@pytest.mark.parametrize(("seed", "segments"), [(3, False), (4, True)])
def test_features_computed_again_by_the_file_are_the_same(run_step, data, tmp_path, seed, segments):
    kind, options, _, _ = random_options(seed, tmp_path)
    (tmp_path / f"{kind}.conf").write_text("--frame-length=25\n")
    (tmp_path / "delta.conf").write_text("--delta_order=1\n")
    reading = "--allow_pipes=true --Channel 1"
    if segments:
        (data / "wav.scp").rename(data / "whole")
        recordings = {utt.replace("s-", "r-"): rx for utt, rx in read_map(data / "whole").items()}
        write_map(data / "wav.scp", recordings)
        write_map(data / "segments", {"s-a": "r-a 0 0.25", "s-b": "r-b 0 0.25"})
        reading += " --min-segment-length=0.2"
    done = run_step(
        "make_feats.sh", "--nj", 2, "--options", f"{options} {reading}",
        "--conf", f"{kind}.conf", "--delta-conf", "delta.conf", "data", "feats",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    front_end = FrontEnd.load(data / "conf")
    assert (data / "frame_shift").read_text() == f"{front_end.frame_shift_ms / 1000:g}\n"
    for utt, feats in load(data / "feats.scp").items():
        samples, _ = soundfile.read(tmp_path / f"{utt}.wav", dtype="int16")
        np.testing.assert_array_equal(front_end(samples[:, 1].astype(np.float32), 16000), feats)


def test_bad_recordings_are_left_out_whatever_the_jobs(run_step, data, tmp_path):
    conf = tmp_path / "fbank.conf"
    conf.write_text("--num-mel-bins=5\n")
    (tmp_path / "delta.conf").write_text("--delta-order=1\n")
    found = []
    for utt in ("s-a", "s-b"):
        soundfile.write(tmp_path / f"{utt}.wav", np.ones(4000) * 0.1, 16000)
    write_map(data / "wav.scp", {utt: f"{tmp_path}/{utt}.wav" for utt in ("s-a", "s-b")})
    (tmp_path / "s-b.wav").write_bytes(b"RIFF")
    for nj in (1, 2):
        done = run_step(
            "make_feats.sh", "--nj", nj, "--skip-bad", "true", "--conf", "fbank.conf",
            "--delta-conf", "delta.conf", "data", "feats",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert list(load(data / "feats.scp")) == ["s-a"]
        found += load(data / "feats.scp").values()
    assert all(np.array_equal(matrix, found[0]) for matrix in found)
    (tmp_path / "s-a.wav").write_bytes(b"RIFF")
    done = run_step("make_feats.sh", "--nj", 2, "--skip-bad", "true", "--conf", "fbank.conf",
                    "data", "feats")  # fmt: skip
    assert done.returncode == 1
    assert "data: none of its recordings could be read; see " in done.stderr
    assert len(load(data / "feats.scp")) == 1  # what was there
