"""The pages: what they name exists, links lead somewhere, commands run as they are printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "egs").glob("*/*.md"))]
SOURCES = [
    path
    for folder in ("bin", "utils", "egs", "pipeline", "tests")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".sh", ".conf", ".toml", ".row"}
]
MADE = {"slurm.conf", "spectrogram.conf", "best.conf"}  # by a user, by tune_fusion.sh
OTHERS = {"nnodes", "rdzv-backend", "rdzv-id", "rdzv-endpoint", "gpus-per-node", "requeue"} | {
    *("open-mode", "signal", "cpus-per-task", "mem-per-cpu", "gres", "text")
}  # options of torchrun, Slurm and Kaldi


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_readme_is_one_page() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 130
    assert "missed" not in text


def test_the_readme_names_every_program() -> None:
    readme = README.read_text(encoding="utf-8")
    programs = [*(ROOT / "bin").glob("*.py"), *(ROOT / "utils").glob("*.py")]
    missing = [p.name for p in programs if not re.search(rf"\b{re.escape(p.name)}\b", readme)]
    assert not missing


def test_the_readme_leads_to_every_page() -> None:
    readme = README.read_text(encoding="utf-8")
    missing = [relative(page) for page in PAGES[1:] if f"({relative(page)})" not in readme]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        if not link.startswith("https://"):
            assert (page.parent / link.partition("#")[0]).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_files_that_are_named_exist(page: Path) -> None:
    there = [f"/{relative(path)}" for path in SOURCES]
    named = re.findall(
        r"(?<![\w*])[\w./-]*\w\.(?:py|sh|toml|conf)\b", page.read_text(encoding="utf-8")
    )
    for name in {name.lstrip("./") for name in named if name.islower()}:
        found = any(path.endswith(f"/{name}") for path in there)
        assert found or Path(name).name in MADE, name


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_options_that_are_named_exist(page: Path) -> None:
    code = "\n".join(p.read_text(encoding="utf-8", errors="ignore") for p in SOURCES)
    for option in set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", page.read_text(encoding="utf-8"))):
        name = option.removeprefix("no-").replace("-", "_")
        found = re.search(rf"(?<![\w-])--{option}\b|^ *{name}(=|: )", code, re.MULTILINE)
        assert found or option in OTHERS, f"--{option}"


# ---- commands as they are printed ----------------------------------------------------------------


def block(page: Path, heading: str) -> str:
    """The first commands under a heading."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r"```sh\n(.*?)```", text[text.index(f"# {heading}\n") :], re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone's egs/timit with a corpus of four short noises, as a user's and as the demo's."""
    recipe = tmp_path / "egs" / "timit"
    recipe.mkdir(parents=True)
    (recipe / "conf").symlink_to(ROOT / "egs" / "timit" / "conf")
    (recipe / "path.sh").write_text(f". {ROOT}/egs/timit/path.sh\n")
    for data in (recipe / "data", recipe / "demo" / "data"):
        for part in ("train", "dev"):
            make_data(data / part)
    tokens = enumerate(["<blk>", "sil", "aa", "b"])
    lines = "".join(f"{symbol} {number}\n" for number, symbol in tokens)
    (recipe / "demo" / "data" / "tokens.txt").write_text(lines)
    return tmp_path


def make_data(path: Path) -> None:
    """A data directory as a user begins with it, not in order: wav.scp, text and utt2spk."""
    random, lines = np.random.default_rng(0), {"wav.scp": "", "text": "", "utt2spk": ""}
    path.mkdir(parents=True)
    for utt in ("s2-b", "s1-a", "s2-a", "s1-b"):
        wav, form = path / f"{utt}.wav", "NIST" if "demo" in path.parts else "WAV"  # SPHERE
        samples = 0.1 * random.standard_normal(8000)
        soundfile.write(wav, samples, 16000, format=form, subtype="PCM_16")
        speaker = utt.partition("-")[0]
        values = (wav, "sil aa b sil", speaker)
        for file, value in zip(lines, values, strict=True):
            lines[file] += f"{utt} {value}\n"
    for file, text in lines.items():
        kept = sorted(text.splitlines(keepends=True)) if "demo" in path.parts else [text]
        (path / file).write_text("".join(kept))
    if "demo" in path.parts:
        (path / "spk2utt").write_text("s1 s1-a s1-b\ns2 s2-a s2-b\n")


def test_a_corpus_of_ones_own_and_a_step_of_kaldis(clone: Path) -> None:
    """The two blocks of commands, with our programs in the place of Kaldi's, which is not here."""
    own = block(README, "Bring Kaldi data and swap a step")
    swapped = block(ROOT / "docs" / "kaldi.md", "Features by Kaldi")
    for kaldis in ("compute-fbank-feats", "add-deltas"):
        assert f"{kaldis} " in swapped  # which reads no SPHERE; extract_segments.py gives it RIFF
        swapped = swapped.replace(f"{kaldis} ", f"{kaldis.replace('-', '_')}.py ")
    assert own.count("train_ctc.py") == swapped.count("train_ctc.py") == 1
    python = str(Path(sys.executable).parent)
    env = {**os.environ, "PATH": os.pathsep.join([python, os.environ["PATH"]])}
    for commands in (own, swapped):
        quick = commands.replace("train_ctc.py ", "train_ctc.py --epochs=1 ")
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", quick],
            cwd=clone,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    recipe = clone / "egs" / "timit"
    stream = [sys.executable, ROOT / "bin" / "extract_segments.py", "scp:data_kaldi/dev/wav.scp"]
    stream += ["data_kaldi/dev/whole", "ark:-"]
    cut = subprocess.run(stream, cwd=recipe, capture_output=True, check=True)
    assert cut.stdout.startswith(b"s1-a RIFF")
    assert (recipe / "demo/data/dev/s1-a.wav").read_bytes().startswith(b"NIST_1A")
    exp = recipe / "exp"
    for model in ("ctc", "ctc_kaldi"):
        assert (exp / model / "final.safetensors").exists()
        assert (exp / model / "front_end").is_dir() == (model == "ctc")
