"""The recipes: all files of conf/ are valid, run.sh reports errors, and the recipes run."""

import json
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
import soundfile

from pipeline.frontend.front_end import FrontEnd
from pipeline.nn.config import load_model_config
from pipeline.scoring.results import read_score
from pipeline.text.phones import load_phone_map

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.parent for path in ROOT.glob("egs/*/run.sh"))
ARCHITECTURES = sorted(ROOT.glob("egs/*/conf/**/*.toml"))
TRAINING = sorted(ROOT.glob("egs/*/conf/**/train_*.conf"))
Run = Callable[..., subprocess.CompletedProcess[str]]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "egs"))


@pytest.fixture
def run(tmp_path) -> Run:
    """Run a recipe, or a script of its own, from ``tmp_path``, with this Python."""
    env = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "OMP_NUM_THREADS": "1",
    }

    def run(recipe: Path, *options: object) -> subprocess.CompletedProcess[str]:
        script = recipe / "run.sh" if recipe.is_dir() else recipe
        command = ["bash", str(script), *map(str, options)]
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


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in ROOT.glob("egs/*/conf/*/train_*.conf")}), ids=name
)
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
        ("speechocean762", "fbank", "delta", "framewise/lstmp"),
        ("speechocean762", "fbank", "delta", "encoders/lstmp"),
        ("speechocean762", "spectrogram", None, "deep_speech2/small"),
        ("speechocean762", "spectrogram", None, "encoders/deep_speech2"),
        ("mandarin", "fbank", None, "demo"),
        ("mandarin", "fbank", None, "model"),
    ],
)
def test_features_are_what_the_architectures_read(tmp_path, recipe, kind, delta, architecture):
    conf = ROOT / "egs" / recipe / "conf"
    shutil.copy(conf / f"{kind}.conf", tmp_path)
    if delta:
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


# ---- run.sh --------------------------------------------------------------------------------------

COMMANDS = [
    "prepare_data.py",
    "make_feats.sh",
    "compute_cmvn_stats.py",
    "train_tokenizer.py",
    "train_ctc.py",
    "train_predictor.py",
    "train_transducer.py",
    "decode.sh",
    "decode_ctc.py",
    "decode_transducer.py",
    "score.sh",
    "print_results.py",
    "plot_posteriors.py",
    "plot_sensitivity.py",
    "plot_lattice.py",
    "plot_confusions.py",
    "plot_training.py",
    "make_report.py",
    "make_ngram_lm.py",
    "tune_fusion.sh",
]


@pytest.mark.parametrize("recipe", RECIPES, ids=name)
def test_a_recipe_shows_its_commands(recipe):
    text = (recipe / "run.sh").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for command in COMMANDS:
        assert any(f"{command} " in line for line in lines), command
    shared = (ROOT / "utils" / "recipe.sh").read_text()
    assert set(re.findall(r"\b[a-z_]+\.(?:py|sh)\b", shared)) <= {
        *("once.py", "parse_options.sh", "job_words.sh", "path.sh", "cmd.sh")
    }


@pytest.mark.parametrize("script", sorted(ROOT.glob("egs/*/run.sh")) + sorted(
    ROOT.glob("egs/*/local/run_tables.sh")), ids=name)  # fmt: skip
def test_every_option_is_explained(script):
    text = script.read_text()
    comment, _, rest = text.partition("\nset -euo pipefail\n")
    declared = re.findall(r"^([a-z_]+)=", rest.partition("parse_options.sh")[0], re.MULTILINE)
    for option in declared:
        if option not in ("lm_order", "demo_size"):  # beside where they are declared
            assert f"--{option.replace('_', '-')}" in comment, option


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


RUN_TABLES = ROOT / "egs" / "timit" / "local" / "run_tables.sh"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rows", "nonsense"], "--rows: no conf/rows/nonsense.row; there are ctc_1l_250h "),
        (["--train-cmd", ""], "--train-cmd is empty"),
        (["--train-cmd", "slurm.py --gpu 1", "--rows", "x"], "--rows: no conf/rows/x.row"),
        (["--stage", "4"], "unknown option --stage"),
        (["row"], "unexpected 'row'; options only"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(run, tmp_path, options, said):
    fails(run(RUN_TABLES, "--corpus", tmp_path, "--work", "work", *options), 2, said)
    assert not (tmp_path / "work").exists()


# ---- all of it -----------------------------------------------------------------------------------


def write_tones(path: Path, phones: list[str], random: np.random.Generator) -> None:
    """A recording of 0.1 s of a tone and a little noise for each phone."""
    times = np.arange(1600) / 16000
    parts = [np.sin(2 * np.pi * 400 * (len(p) + ord(p[0]) % 7) * times) for p in phones]
    samples = 8000 * np.concatenate(parts) + random.normal(0, 100, size=1600 * len(phones))
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as wav:
        wav.setparams((1, 2, 16000, len(samples), "NONE", ""))
        wav.writeframes(samples.astype("<i2").tobytes())


def make_corpus(root: Path) -> None:
    """A corpus in TIMIT's layout: four speakers with three sentences each."""
    lists = ROOT / "egs" / "timit" / "conf"
    dev, test = ((lists / f"{part}_spk.list").read_text().split()[0] for part in ("dev", "test"))
    random = np.random.default_rng(0)
    phones = ["h#", "sh", "iy", "h#"]
    for top, speaker in (("TRAIN", "fcjf0"), ("TRAIN", "mabc0"), ("TEST", dev), ("TEST", test)):
        for sentence in ("SX1", "SX2", "SI1"):
            path = root / top / "DR1" / speaker.upper() / f"{sentence}.WAV"
            write_tones(path, phones, random)
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
    fails(done, 1, "ctc: was trained with other options or data", "seed: 0 before, 5 now")
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


RECORDER = """#!/bin/sh
# A program for --train-cmd that records what it is to run, and runs it.
log=$1; shift
printf '%s\\n' "$log $*" >> "$(dirname "$0")/record"
exec "$@" > "$log" 2>&1
"""


@pytest.mark.slow
def test_a_row_of_the_papers_tables_is_trained_by_train_cmd(run, tmp_path):
    make_corpus(tmp_path / "TIMIT")
    recorder = tmp_path / "recorder"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    options = ["--corpus", "TIMIT", "--allow-partial", "true", "--work", "work", "--nj", "1"]
    options += ["--rows", "ctc_1l_250h", "--epochs", "1", "--beam", "2"]
    options += ["--train-cmd", recorder, "--train-launch", "env LAUNCHED=1"]
    done = run(RUN_TABLES, *options)
    assert done.returncode == 0, done.stderr
    exp = tmp_path / "work" / "exp" / "tables"
    phases = [line.split() for line in (tmp_path / "record").read_text().splitlines()]
    names = ["ctc_1l_250h_train_ctc", "ctc_1l_250h_train_ctc_noise"]
    assert [phase[0] for phase in phases] == [str(exp / "log" / f"{name}.log") for name in names]
    for phase, folder in zip(phases, names, strict=True):
        assert phase[1:4] == ["env", "LAUNCHED=1", "train_ctc.py"]
        assert phase[-1] == str(exp / folder)
    assert f"--init={exp}/{names[0]}" in phases[1]
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("CTC-1l-250h")]
    score = read_score(exp / names[1] / "decode_test")
    assert score.name == "PER"
    assert row.split()[-2:] == [f"{score.total.error_rate:.2f}", "23.9"]
    again = run(RUN_TABLES, *options)
    assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr
    assert len((tmp_path / "record").read_text().splitlines()) == len(phases)


def make_speechocean(root: Path) -> None:
    """A corpus in the layout of speechocean762: six speakers with two utterances each."""
    random = np.random.default_rng(0)
    (root / "resource").mkdir(parents=True)
    words = ""
    for part, speakers in (("train", range(1, 6)), ("test", range(7, 8))):
        folder = root / part
        folder.mkdir()
        tables: dict[str, str] = dict.fromkeys(("wav.scp", "text", "utt2spk", "spk2gender"), "")
        for speaker in speakers:
            tables["spk2gender"] += f"{speaker:04}\tf\n"
            for utt in (f"{speaker:05}{number:04}" for number in range(2)):
                path = root / "WAVE" / f"SPEAKER{speaker:04}" / f"{utt}.WAV"
                write_tones(path, ["dh", "ah", "z", "uw"], random)
                tables["wav.scp"] += f"{utt}\t{path.relative_to(root)}\n"
                tables["text"] += f"{utt}\tTHE ZOO\n"
                tables["utt2spk"] += f"{utt} {speaker:04}\n"
                words += f"{utt}.0\tDH_B AH0_E\n{utt}.1\tZ_B UW1_E\n"
        for file, text in tables.items():
            (folder / file).write_text(text)
    (root / "resource" / "text-phone").write_text(words)


@pytest.mark.slow
def test_speechocean762_with_statistics_of_speakers(run, small, tmp_path):
    make_speechocean(tmp_path / "corpus")
    text = "--optimizer=adam\n--learning-rate=0.03\n--patience=0\n--epochs="
    for kind, epochs in (("ctc", 60), ("ctc_noise", 1), ("transducer", 60)):
        conf = tmp_path / "regime" / f"train_{kind}.conf"
        conf.write_text(f"{text}{epochs}\n--cmvn=speaker\n")
    options = ["corpus" if option == "TIMIT" else option for option in small]
    recipe = ROOT / "egs" / "speechocean762"
    done = run(recipe, *options)
    assert done.returncode == 0, done.stderr
    exp = tmp_path / "work" / "exp"
    for model in (exp / "ctc_noise", exp / "transducer"):
        for part in ("dev", "test"):
            assert read_score(model / f"decode_{part}").name == "PER"
    assert done.stdout.count("%PER") == 4
    pictures = sorted(path.stem for path in (exp / "pictures").iterdir())
    assert pictures == sorted(
        [f"{what}_{kind}" for what in ("confusions", "posteriors", "sensitivity")
         for kind in ("ctc", "transducer")] + ["lattice", "training"]
    )  # fmt: skip
    stamps = list((exp / ".done").iterdir())
    again = run(recipe, *options)
    assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr
    assert again.stderr.count("already done") == len(stamps)


@pytest.mark.slow
def test_words_of_speechocean762_stand_beside_its_phones(run, small, tmp_path):
    make_speechocean(tmp_path / "corpus")
    (tmp_path / "regime" / "train_ctc_noise.conf").unlink()
    options = ["corpus" if option == "TIMIT" else option for option in small]
    recipe = ROOT / "egs" / "speechocean762"
    done = run(recipe, *options, "--stop-stage", "3")
    assert done.returncode == 0, done.stderr
    tokens = (tmp_path / "work" / "data" / "tokens.txt").read_bytes()
    feats = (tmp_path / "work" / "feats" / "train").stat().st_mtime_ns
    done = run(recipe, *options, "--stop-stage", "8", "--units", "char")
    assert done.returncode == 0, done.stderr
    assert (done.stdout.count("%WER"), done.stdout.count("%CER")) == (4, 4)
    assert "%PER" not in done.stdout
    score = read_score(tmp_path / "work" / "exp_char" / "ctc" / "decode_dev")
    assert (score.name, score.beside.name) == ("WER", "CER")
    assert (tmp_path / "work" / "data" / "tokens.txt").read_bytes() == tokens
    assert (tmp_path / "work" / "feats" / "train").stat().st_mtime_ns == feats
    done = run(recipe, *options, "--units", "char", "--stage", "11", "--stop-stage", "11")
    assert done.returncode == 0, done.stderr
    exp = tmp_path / "work" / "exp_char"
    for kind in ("ctc", "transducer"):
        assert "--word-lm=" in (exp / kind / "tune_dev" / "best.conf").read_text()
        assert read_score(exp / kind / "decode_fused_test").beside.name == "CER"


@pytest.mark.slow
def test_speechocean762_compares_encoders_and_asks_more(run, tmp_path):
    make_speechocean(tmp_path / "corpus")
    local = ROOT / "egs" / "speechocean762" / "local"
    shared = ["--work", "work", "--nj", "1", "--device", "cpu"]
    corpus = ["--corpus", "corpus", "--allow-partial", "true", *shared]
    tables = ["--encoders", "lstm", "--units", "phone char", "--beam", "2"]
    done = run(local / "compare_encoders.sh", *corpus, *tables)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    phone, char = rows[0], rows[3]
    assert phone[:3] == ["| encoder", "trained as", "weights"]
    assert ("PER" in phone, "WER" in phone) == (True, False)
    assert {"WER", "CER", "WER with LM", "CER with LM"} <= set(char)
    assert [row[:2] for row in rows[1:3]] == [["| lstm", "CTC"], ["| lstm", "transducer"]]
    again = run(local / "compare_encoders.sh", *corpus, *tables)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    done = run(local / "run_framewise.sh", "--work", "work/fbank", "--tag", "lstm", *shared[2:])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("%PER") == 2
    done = run(local / "ask_deep_speech2.sh", *corpus, "--epochs", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("PER") == 8


@pytest.mark.parametrize(
    ("script", "options", "said"),
    [
        ("ask_deep_speech2.sh", ["--epoch", "1"], "--epoch"),
        ("run_framewise.sh", ["--networks", "none"], "no conf/framewise/none.toml"),
    ],
)
def test_wrong_options_of_comparisons(run, tmp_path, script, options, said):
    (tmp_path / "corpus").mkdir()
    corpus = ["--corpus", "corpus"] if script != "run_framewise.sh" else []
    done = run(ROOT / "egs" / "speechocean762" / "local" / script, *corpus, *options)
    fails(done, 2, said)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("units", "--units is phone, char, bigram, bpe or unigram, not 'letter'"),
        ("features", "--features is fbank or spectrogram, not 'letter'"),
    ],
)
def test_speechocean762_knows_its_choices_before_it_begins(run, tmp_path, option, said):
    (tmp_path / "corpus").mkdir()
    options = ["--corpus", "corpus", "--work", "work", f"--{option}", "letter"]
    fails(run(ROOT / "egs" / "speechocean762", *options), 2, said)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--units", "phone chr"],
            "--units: 'chr' is none of phone, char, bigram, bpe",
        ),
        (["--encoders", "lstm gru"], "--encoders: no conf/encoders/gru.toml; there are blstm"),
    ],
)
def test_a_comparison_knows_all_its_parts_before_it_begins(run, tmp_path, options, said):
    script = ROOT / "egs" / "speechocean762" / "local" / "compare_encoders.sh"
    fails(run(script, "--corpus", tmp_path, "--work", "work", *options), 2, said)
    assert not (tmp_path / "work").exists()


def make_mandarin(root: Path, numbers: str = "一二三四", items: int = 60) -> None:
    """A folder of MP3s at two rates: a tone for each of four characters, and one that is rare."""
    random = np.random.default_rng(0)
    for part, most, rate in (("sentences", 4, 24000), ("words", 2, 22050)):
        (root / part).mkdir(parents=True)
        lines = []
        for item in range(items):
            text = "".join(random.choice(list(numbers), size=random.integers(1, most + 1)))
            text += "零" if item == items - 1 else ""
            tones = [np.sin(np.arange(rate // 5) * (0.05 + 0.08 * (ord(c) % 7))) for c in text]
            soundfile.write(root / part / f"{item}.mp3", 0.3 * np.concatenate(tones), rate)
            lines.append(f"{item}\t{text}。\n")
        (root / f"{part}.tsv").write_text("".join(lines), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(("units", "name"), [("char", "CER"), ("pinyin", "TSER")])
def test_mandarin_from_mp3_to_the_errors_on_unseen(run, small, tmp_path, units, name):
    make_mandarin(tmp_path / "corpus")
    make_mandarin(tmp_path / "other", "一二五", 4)
    (tmp_path / "model.toml").write_text(
        "[encoder]\ninput_dim = 81\nlayers = 1\ncells = 8\n"
        '[predictor]\ncells = 4\n[joiner]\nkind = "sum"\n'
    )
    for kind, epochs in (("ctc", 20), ("predictor", 2), ("transducer", 2)):
        conf = f"--optimizer=adam\n--learning-rate=0.03\n--batch-size=8\n--epochs={epochs}\n"
        conf += "--cmvn=speaker\n" if kind != "predictor" else ""
        (tmp_path / "regime" / f"train_{kind}.conf").write_text(conf)
    options = ["corpus" if option == "TIMIT" else option for option in small]
    recipe = ROOT / "egs" / "mandarin"
    options += ["--units", units, "--eval-corpus", "other", "--stop-stage", 8]
    done = run(recipe, *options)
    assert done.returncode == 0, done.stderr
    exp = tmp_path / "work" / units / "exp"
    sets = {"dev", "test_sentences", "test_words", "eval_sentences", "eval_words"}
    for model in (exp / "ctc", exp / "transducer"):
        for part in sets:
            assert read_score(model / f"decode_{part}").name == name
        metrics = (model / "metrics.jsonl").read_text().splitlines()
        assert json.loads(metrics[-1])["metric"] == name
    assert f"%{name} of " in done.stdout
    (row,) = [line.split() for line in done.stdout.splitlines() if "ctc/decode_eval_words" in line]
    assert row[5:] >= ["1,"], row  # 五 does not occur in training
    again = run(recipe, *options)
    assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--units", "words"], 2, "--units is char or pinyin, not 'words'"),
        (["--eval-corpus", "gone"], 1, "--eval-corpus: no folder"),
    ],
)
def test_wrong_options_of_mandarin(run, tmp_path, options, status, said):
    done = run(ROOT / "egs" / "mandarin", "--corpus", tmp_path, "--work", "work", *options)
    fails(done, status, said)
    assert not (tmp_path / "work").exists()
