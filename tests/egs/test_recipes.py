"""The recipes: every file of conf/ is understood, run.sh says what is wrong, and all of it runs."""

import os
import re
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.frontend.front_end import FrontEnd
from pipeline.nn.config import load_model_config
from pipeline.text.phones import load_phone_map

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.parent for path in ROOT.glob("egs/*/run.sh"))
ARCHITECTURES = sorted(ROOT.glob("egs/*/conf/*.toml"))
TRAINING = sorted(ROOT.glob("egs/*/conf/*/train_*.conf"))
Run = Callable[..., subprocess.CompletedProcess[str]]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "egs"))


@pytest.fixture
def run(tmp_path) -> Run:
    """Run a recipe from ``tmp_path``, with this Python."""
    env = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "OMP_NUM_THREADS": "1",
    }

    def run(recipe: Path, *options: object) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(recipe / "run.sh"), *map(str, options)]
        return subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    return run


def fails(done: subprocess.CompletedProcess[str], status: int, *texts: str) -> None:
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    for text in texts:
        assert text in done.stderr, done.stderr


# ---- conf/ ---------------------------------------------------------------------------------------


def test_there_is_something_to_test():
    assert len(RECIPES) >= 2
    assert len(ARCHITECTURES) >= 10
    assert len(TRAINING) >= 10


@pytest.mark.parametrize("path", ARCHITECTURES, ids=name)
def test_an_architecture_loads(path):
    config = load_model_config(path)
    config.part(config.kind, str(path))
    if path.stem.startswith(("ctc_", "g12_ctc")):
        assert config.kind == "ctc"


@pytest.mark.parametrize("path", TRAINING, ids=name)
def test_options_of_a_training_are_understood(execute, path, tmp_path):
    kind = path.stem.split("_")[1]
    done = execute(
        f"train_{kind}.py", f"--config={path}", "x", "gone.txt", "x", "x", tmp_path / "m"
    )
    assert "gone.txt: cannot read these tokens" in done.err  # what comes after the options


@pytest.mark.parametrize("folder", sorted({path.parent for path in TRAINING}), ids=name)
def test_a_regime_has_all_three_networks(folder):
    assert {f"train_{kind}.conf" for kind in ("ctc", "predictor", "transducer")} <= {
        path.name for path in folder.iterdir()
    }


@pytest.mark.parametrize(
    ("recipe", "kind", "delta", "architecture"),
    [
        ("timit", "fbank", "delta", "trans_3l_250h"),
        ("timit", "mfcc", "delta_mfcc", "g12_transducer"),
        ("timit", "fbank", "delta", "demo"),
        ("speechocean762", "fbank", "delta", "model"),
    ],
)
def test_features_are_what_the_architectures_read(tmp_path, recipe, kind, delta, architecture):
    conf = ROOT / "egs" / recipe / "conf"
    shutil.copy(conf / f"{kind}.conf", tmp_path)
    shutil.copy(conf / f"{delta}.conf", tmp_path / "delta.conf")
    encoder = load_model_config(conf / f"{architecture}.toml").encoder
    assert FrontEnd.load(tmp_path).dim == encoder.input_dim


def test_the_tokens_of_the_papers_architectures():
    conf = ROOT / "egs" / "timit" / "conf"
    phones = load_phone_map(conf / "phones.60-48-39.map")
    assert load_model_config(conf / "trans_3l_250h.toml").num_tokens == len(phones.phones(61)) + 1
    assert load_model_config(conf / "g12_transducer.toml").num_tokens == len(phones.phones(39)) + 1


@pytest.mark.parametrize("path", sorted(ROOT.glob("egs/*/conf/*.conf")), ids=name)
def test_variables_of_a_run_are_its_options(run, path):
    """conf/smoke.conf and the like: name=value lines for run.sh."""
    if path.read_text().lstrip().startswith(("--", "#")) and "\n--" in path.read_text():
        return  # options of a program
    done = run(path.parent.parent, "--config", path, "--stage", "none")
    fails(done, 2, "--stage takes a whole number, not 'none'")
    regime = re.search(r"^regime=(\S+)", path.read_text(), re.M)
    assert not regime or (path.parent.parent / regime[1]).is_dir()


# ---- what is typed -------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES, ids=name)
def test_help(run, recipe):
    done = run(recipe, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "./run.sh --corpus" in done.stdout
    assert "--stop-stage" in done.stdout


@pytest.mark.parametrize("recipe", RECIPES, ids=name)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--stage", "x"], "--stage takes a whole number, not 'x'"),
        (["--stage", "-1"], "--stage takes a whole number, not '-1'"),
        (["--stage="], "--stage takes a whole number, not ''"),
        (["--stop-stage", "2.5"], "--stop-stage takes a whole number, not '2.5'"),
        (["--stage", "5", "--stop-stage", "4"], "--stage 5 is after --stop-stage 4"),
        (["--stage", "11"], "--stage 11 is after --stop-stage 10: nothing to do"),
        (["--nj", "0"], "--nj must be 1 or more"),
        (["--nj", "many"], "--nj takes a whole number, not 'many'"),
        (["--cmd", ""], "--cmd is empty"),
        (["--allow-partial", "perhaps"], "--allow-partial is true or false"),
        (["--nonsense", "1"], "unknown option --nonsense"),
        (["--stage"], "--stage needs a value"),
        (["--config", "gone.conf"], "gone.conf: cannot read this file"),
        (["/data/TIMIT"], "unexpected '/data/TIMIT'; options only"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(run, recipe, tmp_path, options, said):
    fails(run(recipe, "--corpus", tmp_path, "--work", "work", *options), 2, said)
    assert not (tmp_path / "work").exists()


def test_speechocean762_needs_its_corpus(run):
    fails(run(ROOT / "egs" / "speechocean762"), 2, "give the corpus")


# ---- all of it -----------------------------------------------------------------------------------


def make_corpus(root: Path) -> None:
    """A corpus in TIMIT's layout: four speakers, three sentences each, a tone for every phone."""
    lists = ROOT / "egs" / "timit" / "conf"
    dev, test = ((lists / f"{part}_spk.list").read_text().split()[0] for part in ("dev", "test"))
    random = np.random.default_rng(0)
    phones = ["h#", "sh", "iy", "h#"]
    for top, speaker in (("TRAIN", "fcjf0"), ("TRAIN", "mabc0"), ("TEST", dev), ("TEST", test)):
        for sentence in ("SX1", "SX2", "SI1"):
            path = root / top / "DR1" / speaker.upper() / f"{sentence}.WAV"
            path.parent.mkdir(parents=True, exist_ok=True)
            times = np.arange(1600) / 16000
            parts = [np.sin(2 * np.pi * 400 * (len(p) + ord(p[0]) % 7) * times) for p in phones]
            samples = 8000 * np.concatenate(parts) + random.normal(0, 100, size=6400)
            with wave.open(str(path), "wb") as wav:
                wav.setparams((1, 2, 16000, 6400, "NONE", ""))
                wav.writeframes(samples.astype("<i2").tobytes())
            lines = [f"{1600 * i} {1600 * (i + 1)} {p}\n" for i, p in enumerate(phones)]
            path.with_suffix(".PHN").write_text("".join(lines))


@pytest.fixture
def small(tmp_path) -> list[object]:
    """Options of a run on a tiny corpus with tiny networks."""
    make_corpus(tmp_path / "TIMIT")
    (tmp_path / "model.toml").write_text(
        "[encoder]\ninput_dim = 123\nlayers = 1\ncells = 4\n"
        '[predictor]\ncells = 4\n[joiner]\nkind = "sum"\n'
    )
    (tmp_path / "regime").mkdir()
    for kind in ("ctc", "ctc_noise", "predictor", "transducer"):
        text = "--optimizer=adam\n--learning-rate=0.01\n--epochs=2\n"
        text += "--weight-noise=0.05\n--stop-on=error-rate\n" if "noise" in kind else ""
        (tmp_path / "regime" / f"train_{kind}.conf").write_text(text)
    options = ["--corpus", "TIMIT", "--allow-partial", "true", "--work", "work", "--nj", "1"]
    return [*options, "--model", "model.toml", "--regime", "regime", "--beam", "2"]


@pytest.mark.slow
def test_from_recordings_to_a_table(run, small, tmp_path):
    timit = ROOT / "egs" / "timit"
    before = sorted(p for p in timit.rglob("*") if "__pycache__" not in str(p))
    done = run(timit, *small)
    assert done.returncode == 0, done.stderr
    for stage in range(1, 9):
        assert f"LOG (run.sh) stage {stage}:" in done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines if line][:2] == ["TIMIT:", "model"]  # the table, no more
    for kind in ("ctc", "transducer"):
        (row,) = [line for line in lines if line[:1] == [kind]]
        assert row[2:4] == ["dev", "%PER"]
        model = tmp_path / "work" / "exp" / ("ctc_noise" if kind == "ctc" else kind)
        for part in ("dev", "test"):
            files = {p.name for p in (model / f"decode_{part}").iterdir()}
            assert {"hyp.txt", "nbest", "scoring", "log"} <= files
    # Nothing is written into the recipe, and what is done is not done again.
    assert sorted(p for p in timit.rglob("*") if "__pycache__" not in str(p)) == before
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "work/exp/.done").iterdir()}
    again = run(timit, *small)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "work/exp/.done").iterdir()} == stamps
    assert again.stderr.count("already done") == len(stamps)


@pytest.mark.slow
def test_a_transducer_follows_its_ctc_network(run, small, tmp_path):
    timit, exp = ROOT / "egs" / "timit", tmp_path / "work" / "exp"
    assert run(timit, *small, "--stop-stage", 6).returncode == 0
    conf = tmp_path / "regime" / "train_ctc.conf"
    conf.write_text(conf.read_text() + "--seed=5\n")
    done = run(timit, *small, "--stage", 4, "--stop-stage", 6)
    fails(done, 1, "ctc: was trained with other options or data", "seed: 0 there, 5 now")
    shutil.rmtree(exp / "ctc")
    shutil.rmtree(exp / "ctc_noise")
    done = run(timit, *small, "--stage", 4, "--stop-stage", 6)
    fails(done, 1, "transducer: was trained with other options or data", "starts_sha256")
    shutil.rmtree(exp / "transducer")
    done = run(timit, *small, "--stage", 4, "--stop-stage", 6)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("already done") == 3  # both CTC networks and the predictor


@pytest.mark.slow
def test_a_failing_stage_stops_the_run(run, small, tmp_path):
    path = next((tmp_path / "TIMIT" / "TEST").rglob("SX1.WAV"))
    path.write_bytes(path.read_bytes()[:3000])
    done = run(ROOT / "egs" / "timit", *small)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "SX1.WAV" in done.stderr
    assert "stage 3" not in done.stderr
