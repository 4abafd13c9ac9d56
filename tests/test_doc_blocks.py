"""Every block of commands, output or configuration in the pages does or holds what it says.

Each block of commands runs in bash as printed, in order, with stand-ins that write down what they
are called with; every call is then checked against the parser of the real program. So no block
needs a cluster, a GPU, TIMIT or Kaldi here. Most blocks also run for real: those of README.md's
“Bring Kaldi data” and docs/kaldi.md in test_docs.py, the others below under the marker slow, on a
corpus of noise, with stand-ins for Slurm, our programs in the place of Kaldi's, one epoch, and
one weight to choose from. What runs only with stand-ins: the whole recipes (tests/egs runs them on
a small corpus), tests/run.sh (this is it), tests/bench (minutes; tests/bench/test_bench.py), and
torchrun and srun (tests/training/distributed, tests/slurm).
"""

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile

from pipeline import cli
from pipeline.jobs.command_line import Settings
from pipeline.jobs.slurm_options import SlurmOptions
from pipeline.nn.config import load_model_config
from pipeline.notations import expand_config, take_standard_options

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "egs").glob("*/*.md")),
]
FOLDERS = [ROOT / "bin", ROOT / "utils", *sorted((ROOT / "egs").glob("*/local"))]
KALDIS = {
    "compute-fbank-feats": "compute_fbank_feats.py",
    "add-deltas": "add_deltas.py",
    "compute-wer": "compute_wer.py",
}
OTHERS = ("torchrun", "srun", "sbatch", "scontrol", "python3")
REST = "conf/demo.toml data/tokens.txt data/train data/dev exp/x"  # what “…” stands for


class Block(NamedTuple):
    """What stands between two fences of a page."""

    page: Path
    number: int  # from 1
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}#{self.number}"


def blocks_of(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [Block(page, number, *parts) for number, parts in enumerate(found, start=1)]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
COMMANDS = [block for block in BLOCKS if block.language == "sh"]


def ids(block: Block) -> str:
    return block.name


def test_every_fence_is_a_block_that_is_tested() -> None:
    for page in PAGES:
        assert page.read_text("utf-8").count("```") == 2 * len(blocks_of(page)), page
    assert len(COMMANDS) >= 20
    # Blocks that are not commands; a new one needs a test of its own here.
    assert {block.name for block in BLOCKS if block.language != "sh"} == {
        *("README.md#2", "README.md#6", "docs/cluster.md#4", "docs/models.md#1"),
        "docs/streaming.md#2",  # tests/decoding/test_streaming.py runs it
        *("docs/scoring.md#1", "egs/speechocean762/RESULTS.md#2", "egs/timit/RESULTS.md#2"),
        *("egs/mandarin/README.md#2", "egs/mandarin/RESULTS.md#2", "egs/mandarin/RESULTS.md#4"),
    }


# ---- blocks that are not commands ----------------------------------------------------------------


def text_of(name: str) -> str:
    (block,) = [block for block in BLOCKS if block.name == name]
    return block.text


def test_tables_are_those_that_were_measured() -> None:
    table = text_of("egs/timit/RESULTS.md#2")
    assert text_of("README.md#2").partition("\n\n")[2] == table.partition("\n\n")[2] or (
        text_of("README.md#2").endswith(table)
    )
    rate, interval, rule = text_of("docs/scoring.md#1").splitlines()
    assert rate in table
    low, high = re.findall(r"[\d.]+", interval.partition("[")[2])
    assert f"{rate}, 95 % in {float(low):.1f} to {float(high):.1f}" in table
    assert rule.startswith(
        "Rule: folded to 39 phones by phones.60-48-39.map, q dropped; sil scored"
    )
    counts = r"%[PWC]ER .*\]|next-token error \d+\.\d %, .* bits a token"
    row = rf"(\w+ +[\d,]+| +) +(dev|test\w*) +({counts})"
    names = [f"egs/{r}/RESULTS.md#2" for r in ("timit", "speechocean762", "mandarin")]
    for name in [*names, "egs/mandarin/RESULTS.md#4"]:
        lines = text_of(name).strip().splitlines()
        assert lines[0].split() == ["model", "weights", "set", "error", "rate"]
        assert all(re.match(row, line) for line in lines[1:])


def test_the_folder_of_recordings_is_read(tmp_path: Path, run_bin: Callable[..., Any]) -> None:
    """The recipe's page shows the tables of a folder; a recording is made for each line."""
    for line in text_of("egs/mandarin/README.md#2").splitlines():
        name, content = line.split(maxsplit=1)
        content = content.removeprefix("(may be left out) ").replace("<tab>", "\t")
        if name.endswith("/"):
            (tmp_path / name).mkdir()
            (tmp_path / name / content.partition(" ")[0]).touch()
        else:
            (tmp_path / name).write_text(f"{content}\n", encoding="utf-8")
    (tmp_path / "speakers.tsv").unlink()  # which would need a line for the word
    program = "egs/mandarin/local/prepare_data.py"
    run_bin(program, "--only=eval", tmp_path, tmp_path / "data", check=True)
    text = (tmp_path / "data" / "eval_words" / "text").read_text(encoding="utf-8")
    assert text == "words-word0003 一下\n"


def test_the_tree_is_there() -> None:
    known = {f"/{path.relative_to(ROOT)}" for path in (ROOT / "pipeline").rglob("*")}
    known |= {f"/{path.name}" for path in ROOT.iterdir()}
    for line in text_of("README.md#6").splitlines():
        for path in re.match(r" *((?:[\w/.]+/ ?)+)", line)[1].split():  # type: ignore[index]
            assert any(name.endswith(f"/{path.rstrip('/')}") for name in known), path


def test_the_architecture_loads(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(text_of("docs/models.md#1"))
    config = load_model_config(tmp_path / "model.toml")
    assert (config.num_tokens, config.encoder.input_dim) == (62, 123)


def test_the_slurm_conf_is_read(tmp_path: Path) -> None:
    """tests/utils/test_slurm_conf.py reads it by the rules of Kaldi's slurm.pl, too."""
    (tmp_path / "slurm.conf").write_text(text_of("docs/cluster.md#4"))
    words = SlurmOptions(str(tmp_path / "slurm.conf")).arguments({"mem": "2G", "gpu": "1"})
    assert words == ["--partition=gpu", "--gres=gpu:1", "--mem-per-cpu=2G"]


# ---- commands, with stand-ins --------------------------------------------------------------------

RECORDER = """#!/bin/sh
printf '%s\\0' "$(readlink -f "$0")" "$@" >> "$RECORD"; printf '\\n\\0' >> "$RECORD"
"""


def start_of(block: Block) -> str:
    """The folder, below the root, in which a reader of the page stands."""
    if re.search(r"(^|[\s;])(\./egs/|cd egs/|\./tests/|tests/|bin/)", block.text):
        return "."
    page = block.page.relative_to(ROOT)
    return str(page.parent) if page.parts[0] == "egs" else "egs/timit"


def recorded(tmp_path: Path, block: Block) -> list[list[str]]:
    """The calls of all programs of a block, in order, where every program is a stand-in."""
    programs = tmp_path / "programs"
    programs.mkdir()
    names = {path.name for folder in FOLDERS for path in folder.iterdir() if path.suffix}
    scripts = ["tests/run.sh", "egs/timit/local/run_tables.sh", "bin/train_ctc.py"]
    recipes = ("timit", "speechocean762", "mandarin")
    scripts += [f"egs/{recipe}/run.sh" for recipe in recipes]
    scripts += [str(path.relative_to(ROOT)) for path in ROOT.glob("egs/*/local/*.sh")]
    places = [programs / name for name in {*names, *KALDIS, *OTHERS}]
    for place in [*places, *(tmp_path / script for script in scripts)]:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(RECORDER)
        place.chmod(0o755)
    recipe = tmp_path / "egs" / "timit"
    (recipe / "path.sh").write_text("")
    (recipe / "demo/exp/ctc/decode_test/scoring").mkdir(parents=True)
    for part in ("train", "dev", "test"):
        (recipe / "demo/data" / part).mkdir(parents=True)
        (recipe / "demo/data" / part / "wav.scp").write_text("a a.wav\n")
    env = {"PATH": f"{programs}:/usr/bin:/bin", "RECORD": str(tmp_path / "record")}
    text = block.text.replace("…", REST)
    done = subprocess.run(
        ["/bin/bash", "-e", "-u", "-o", "pipefail", "-c", text],
        cwd=tmp_path / start_of(block), env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    calls = (tmp_path / "record").read_text().removesuffix("\n\0").split("\n\0")
    return [call.removesuffix("\0").split("\0") for call in calls]


@pytest.fixture(scope="module")
def parse() -> Callable[[str, list[str]], None]:
    """Parse the arguments of a program as it does itself, and do nothing else."""
    commands: dict[str, Any] = {}

    def command_of(program: str) -> Any:
        if program not in commands:
            path = next(folder / program for folder in FOLDERS if (folder / program).exists())
            spec = importlib.util.spec_from_file_location(program.removesuffix(".py"), path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(sys.modules, module.__name__, module)
                spec.loader.exec_module(module)
                main = module.main
                if "run(options_from_fields(main))" in path.read_text():
                    main = cli.options_from_fields(main)
                commands[program] = cli._typer_command(main)
        return commands[program]

    def check(program: str, arguments: list[str]) -> None:
        command = command_of(program)
        arguments = [
            word for word in arguments if not word.endswith("/best.conf")
        ]  # made by a step
        arguments, _, _ = take_standard_options(arguments)
        command.make_context(program, expand_config(command, arguments, {}))

    return check


def check_script(path: Path, words: list[str], parse: Callable[[str, list[str]], None]) -> None:
    """Check the options and the number of the arguments of a script that has parse_options.sh."""
    text = path.read_text()
    before = text.partition("parse_options.sh")[0].partition("\nset -euo pipefail\n")[2]
    declared = set(re.findall(r"^([a-z_]+)=", before, re.MULTILINE))
    given, rest = {}, list(words)
    while rest and rest[0].startswith("--"):
        name, equals, value = rest.pop(0)[2:].partition("=")
        assert name.replace("-", "_") in declared, f"{path.name}: --{name}"
        given[name] = value if equals else rest.pop(0)
    counts = re.findall(r"\$# -ne (\d+)", before + text)
    if path.name == "score.sh":
        assert len(rest) >= 2
        assert len(rest) % 2 == 0
    else:
        assert len(rest) == (int(counts[0]) if counts else 0), f"{path.name} {rest}"
    for name in ("cmd", "train-cmd"):
        if program := shlex.split(given.get(name, "")):
            settings = Settings([*program[1:], "JOB=1:2", "x.JOB.log", "true"])
            if program[0] == "slurm.py":
                SlurmOptions(None).arguments(settings.options)
    options = shlex.split(given.get("options", ""))
    if path.name in ("decode.sh", "sweep_beam.sh", "tune_fusion.sh"):
        parse(rest[0], [*options, rest[1], "scp:x", "ark:y"])
    elif path.name == "score.sh":
        parse("score.py", [*options, *rest[:2]])
    for conf in ("conf", "delta-conf", "model"):
        assert conf not in given or Path(given[conf]).is_file(), given[conf]
    assert "rows" not in given or all(
        Path(f"conf/rows/{row}.row").is_file() for row in given["rows"].split()
    )


def check_call(call: list[str], parse: Callable[[str, list[str]], None]) -> None:
    """Check one call against the parser of the real program."""
    program, words = Path(call[0]).name, call[1:]
    program = KALDIS.get(program, program)
    if program == "python3":
        script = ROOT / words[0]
        text = script.read_text() + (ROOT / "tests" / "bench" / "measure.py").read_text()
        place = next((n for n, w in enumerate(words) if n and "/" in w), len(words))
        for word in words[1:place]:
            assert f'"{word.partition("=")[0]}"' in text, word
        if place < len(words):  # of bench_sgd.py: the files and options of a training
            rest = [word.replace("--config=", f"--config={ROOT}/") for word in words[place:]]
            parse("train_ctc.py", [*rest, "model"])
    elif program in ("torchrun", "srun"):
        while words[0].startswith("--"):
            words.pop(0)
        assert (ROOT / words[0]).is_file()
        parse(Path(words[0]).name, words[1:])
    elif program == "scontrol":
        assert words == ["requeue"]
    elif program.endswith(".sh"):
        path = next((f / program for f in FOLDERS if (f / program).exists()), Path())
        if program == "run.sh":
            path = ROOT.joinpath(*Path(call[0]).parts[-3:])  # egs/NAME/run.sh
        if not path.is_file():
            path = ROOT / "tests" / "run.sh"
        check_script(path, words, parse)
    else:
        parse(program, words)


@pytest.mark.parametrize("block", COMMANDS, ids=ids)
def test_a_block_calls_programs_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parse: Callable, block: Block
) -> None:
    text = block.text
    if "$SLURM_JOB_ID" in text:  # a batch script: its trap of 143 is not taken here
        assert text.startswith("#!/bin/bash\n#SBATCH ")
    calls = recorded(tmp_path, block)
    assert calls
    page = block.page.relative_to(ROOT)
    recipe = page.parts[1] if page.parts[0] == "egs" else "timit"
    monkeypatch.chdir(ROOT / "egs" / recipe)
    for call in calls:
        check_call(call, parse)
    named = set(re.findall(r"(?<![\w./-])([a-z][\w-]*\.(?:py|sh))(?= )", text)) - {"slurm.py"}
    shown = re.findall(r"#.*", text)
    called = {word for call in calls for word in (Path(call[0]).name, *call[1:])}
    for name in named:
        assert name in called or any(name in comment for comment in shown), name


def test_what_is_wrong_in_a_block_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parse: Callable
) -> None:
    """The test above fails for an option, a file, an argument or a quote that is wrong."""
    good = "cd egs/timit && . ./path.sh\n"
    good += "decode.sh --nj 2 --options '--beam=1' decode_ctc.py e d f\n"
    wrong = [
        good.replace("--nj", "--jobs"), good.replace("--beam", "--width"), good.replace(" f", ""),
        good.replace("1'", "1"), good.replace("--beam=1", "--beam=few"), good + "no_such.py\n",
        good + "train_predictor.py --config=conf/demo/train_ctc.conf m t a b e\n",
        good + "make_feats.sh --conf conf/gone.conf data/a feats/a\n",
        good + "make_feats.sh --cmd 'slurm.py --memory 2G' data/a feats/a\n",
    ]  # fmt: skip
    for number, text in enumerate([good, *wrong]):
        block, place = Block(ROOT / "README.md", 1, "sh", text), tmp_path / str(number)
        place.mkdir()
        failed = ""
        try:
            for call in recorded(place, block):
                monkeypatch.chdir(ROOT / "egs" / "timit")
                check_call(call, parse)
        except Exception as error:
            failed = repr(error)
        assert bool(failed) == (number > 0), text


# ---- commands, for real --------------------------------------------------------------------------


class Site:
    """A clone's egs/timit with recordings of noise, Slurm's stand-ins, and compute-wer's."""

    def __init__(self, path: Path) -> None:
        self.path, self.recipe = path, path / "egs" / "timit"
        programs, slurm = path / "programs", ROOT / "tests" / "utils" / "fake_slurm.py"
        for folder in (programs, path / "fake", self.recipe):
            folder.mkdir(parents=True)
        (self.recipe / "conf").symlink_to(ROOT / "egs" / "timit" / "conf")
        (self.recipe / "path.sh").write_text(f". {ROOT}/egs/timit/path.sh\n")
        for name in ("sbatch", "squeue", "scancel"):
            (programs / name).write_text(slurm.read_text().replace("__file__", repr(str(slurm))))
        (programs / "compute-wer").write_text('#!/bin/sh\nexec compute_wer.py "$@"\n')
        for program in programs.iterdir():
            program.chmod(0o755)
        folders = [str(programs), str(Path(sys.executable).parent), f"{ROOT}/bin", f"{ROOT}/utils"]
        path_variable = os.pathsep.join([*folders, os.environ["PATH"]])
        self.env = {**os.environ, "PATH": path_variable, "FAKE": str(path / "fake")}
        self.env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        random = np.random.default_rng(0)
        for part in ("train", "dev", "test", "big"):
            data = self.recipe / "data" / part
            data.mkdir(parents=True)
            utts = [f"{part}{speaker}-{number}" for speaker in (2, 1) for number in (2, 1)]
            for utt in utts:
                samples = 0.1 * random.standard_normal(8000)
                soundfile.write(data / f"{utt}.wav", samples, 16000, subtype="PCM_16")
            lines = [(utt, data / f"{utt}.wav", utt.partition("-")[0]) for utt in utts]
            for file, column in (("wav.scp", 1), ("utt2spk", 2)):
                (data / file).write_text("".join(f"{line[0]} {line[column]}\n" for line in lines))
            (data / "text").write_text("".join(f"{utt} h# sh iy h#\n" for utt in utts))

    def run(self, text: str, folder: str = "egs/timit") -> str:
        """Run commands; what they print."""
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", text], cwd=self.path / folder, env=self.env,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stderr}"
        return done.stdout

    def block(self, name: str, **changes: str) -> str:
        """Run a block as printed, but for these words."""
        (block,) = [block for block in BLOCKS if block.name == name]
        text = block.text
        for old, new in changes.items():
            text = text.replace(f"{old} ", f"{old} {new} ")
        return self.run(text, start_of(block))


@pytest.mark.slow
def test_the_blocks_run_for_real_in_the_order_of_use(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.run(
        "for set in train dev test big; do fix_data_dir.py data/$set; done\n"
        "for set in train dev test; do make_feats.sh --delta-conf conf/delta.conf data/$set "
        "feats/$set; done\n"
        "compute_cmvn_stats.py scp:data/train/feats.scp data/train/cmvn.ark\n"
        "train_tokenizer.py --phone-map=conf/phones.60-48-39.map --phone-set=61 "
        "ark:data/train/text data/tokens.txt\n"
    )
    epochs = {f"train_{kind}.py": "--epochs=1" for kind in ("ctc", "predictor", "transducer")}
    site.block("docs/training.md#1", **epochs)
    exp = site.recipe / "exp"
    for model in ("ctc", "predictor", "transducer", "transducer_noise"):
        assert (exp / model / "final.safetensors").is_file()

    site.run("cp data/test/wav.scp . && make_ngram_lm.py ark:data/train/text 3gram.arpa")
    site.block("docs/search.md#1")
    site.block("docs/search.md#2", **{"tune_fusion.sh": "--weights 0.1 --bonuses 0"})
    assert (site.recipe / "hyp.txt").read_text().count("\n") == 4
    assert (exp / "ctc" / "tune_dev" / "best.conf").is_file()

    site.run("decode.sh decode_ctc.py exp/ctc data/test exp/ctc/decode_test")
    assert site.block("docs/scoring.md#2").count("%PER") == 2

    site.run("score.py --map=conf/phones.60-48-39.map data/test exp/ctc/decode_test")
    site.run("mkdir -p demo && cp -r exp demo/exp")
    assert site.block("docs/kaldi.md#2").startswith("%WER ")

    site.run("mv exp/ctc exp/ctc_noise && cp data/test/test2-1.wav a.wav")
    samples, rate = soundfile.read(site.recipe / "a.wav")
    soundfile.write(site.recipe / "b.flac", samples, rate)
    site.block("docs/cluster.md#2")
    site.block("docs/cluster.md#3")
    assert (exp / "ctc_noise" / "decode_big" / "scoring" / "wer").is_file()
    heard = site.block("README.md#5").splitlines()[:2]
    assert [line.partition("\t")[0] for line in heard] == ["a.wav", "b.flac"]
    calls = (tmp_path / "fake" / "calls").read_text()
    assert calls.count("sbatch") >= 5
