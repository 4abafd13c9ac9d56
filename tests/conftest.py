"""Fixtures that every test may use."""

import contextlib
import io
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# A shell starts background jobs with Ctrl-C ignored, which programs inherit; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples every time, so that a red run is about the change; HYPOTHESIS_PROFILE=explore
# draws new ones.
settings.register_profile("repeat", derandomize=True)
settings.register_profile("explore")
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def golden() -> Path:
    """Outputs of the real Kaldi and NIST programs; each folder's README names the command."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def run_bin() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run a program of ``bin/``, ``utils/`` or ``egs/`` as a user would: bytes in, bytes out."""

    def run(
        name: str, *args: object, stdin: bytes | None = None, check: bool = False, **kwargs: object
    ) -> subprocess.CompletedProcess[bytes]:
        program = next(
            p for p in (ROOT / "bin" / name, ROOT / "utils" / name, ROOT / name) if p.exists()
        )
        folders = [Path(sys.executable).parent, ROOT / "bin", ROOT / "utils"]
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": os.pathsep.join([*map(str, folders), os.environ["PATH"]]),
            "LC_ALL": "C.UTF-8",
        }
        done = subprocess.run(
            [sys.executable, str(program), *map(str, args)],
            input=b"" if stdin is None else stdin,
            capture_output=True,
            env=env,
            check=False,
            **kwargs,
        )
        if check:
            assert done.returncode == 0, done.stderr.decode()
        return done

    return run


# ---- small models on made-up features ------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """How a command that ran in this process ended, and what it wrote."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def execute() -> Callable[..., Done]:
    """Run a program of ``bin/`` or ``utils/`` in this process: torch is imported only once."""

    def run(name: str, *args: object) -> Done:
        program = next(p for p in (ROOT / "bin" / name, ROOT / "utils" / name) if p.exists())
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
        argv, handler = sys.argv, signal.getsignal(signal.SIGTERM)
        sys.argv = [str(program), *map(str, args)]
        status = 0
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                runpy.run_path(str(program), run_name="__main__")
        except SystemExit as leave:
            status = leave.code
        finally:
            sys.argv = argv
            signal.signal(signal.SIGTERM, handler)
            if "torch" in sys.modules:  # else what tests after this one compute would differ
                sys.modules["torch"].set_flush_denormal(False)
        out.flush()
        return Done(status, out.buffer.getvalue().decode(), err.getvalue())

    return run


ARCHITECTURE = """
[encoder]
input_dim = 6
layers = 1
cells = 16

[predictor]
cells = 16

[joiner]
kind = "sum"
"""


@dataclass(frozen=True)
class Toy:
    """A corpus of three phones, each a direction in the space of six features."""

    path: Path

    @property
    def train(self) -> Path:
        return self.path / "train"

    @property
    def dev(self) -> Path:
        return self.path / "dev"

    def arguments(self, model_dir: Path, *options: str) -> list[object]:
        """The command line of a training into ``model_dir``."""
        files = [self.path / "model.toml", self.path / "tokens.txt", self.train, self.dev]
        return ["--threads=1", "--device=cpu", *options, *files, model_dir]

    def write_feats(self, folder: Path, feats: dict[str, np.ndarray]) -> None:
        """Write features of a data directory, their counts and their statistics."""
        from pipeline.data.data_dir import write_map
        from pipeline.frontend.cmvn import CmvnStats
        from pipeline.tables import MatrixWriter, write_matrix

        stats = CmvnStats.zeros(next(iter(feats.values())).shape[1])
        with MatrixWriter(f"ark,scp:{folder}/feats.ark,{folder}/feats.scp") as writer:
            for utt, matrix in feats.items():
                writer.write(utt, matrix)
                if np.isfinite(matrix).all():
                    stats.accumulate(matrix)
        write_map(folder / "utt2num_frames", {u: str(len(m)) for u, m in feats.items()})
        write_matrix(str(folder / "cmvn.ark"), stats.matrix)


def _toy_set(toy: Toy, folder: Path, utterances: int, seed: int, noise: int) -> None:
    from pipeline.data.data_dir import write_map

    random, noisy = np.random.default_rng(seed), np.random.default_rng(noise)
    (folder / "conf").mkdir(parents=True)
    (folder / "conf" / "fbank.conf").write_text("--num-mel-bins=5\n--use-energy=true\n--dither=0\n")
    feats, text = {}, {}
    for number in range(utterances):
        utt = f"s{number // 2}-u{number}"
        phones = [int(random.integers(3))]
        for step in random.integers(1, 3, size=number % 3 + 1):  # no phone twice in a row
            phones.append((phones[-1] + int(step)) % 3)
        text[utt] = " ".join("abc"[p] for p in phones)
        means = np.repeat(np.eye(6)[phones], random.integers(4, 7, size=len(phones)), axis=0)
        feats[utt] = (means + noisy.normal(0, 0.1, size=means.shape)).astype(np.float32)
    write_map(folder / "text", text)
    write_map(folder / "utt2spk", {utt: utt.partition("-")[0] for utt in text})
    toy.write_feats(folder, feats)


def make_toy_corpus(path: Path, *, utterances: int = 4, seed: int = 1) -> Toy:
    """Make a toy corpus with its tokens and an architecture that reads it."""
    toy = Toy(path)
    _toy_set(toy, toy.train, utterances, seed, 1)
    _toy_set(toy, toy.dev, utterances, seed, 2)  # the same said again
    (path / "tokens.txt").write_text("<blk> 0\na 1\nb 2\nc 3\n")
    (path / "model.toml").write_text(ARCHITECTURE)
    return toy


@pytest.fixture(scope="session")
def make_toy() -> Callable[..., Toy]:
    """`make_toy_corpus`."""
    return make_toy_corpus


@pytest.fixture
def toy(make_toy: Callable[..., Toy], tmp_path: Path) -> Toy:
    """A toy corpus that a test may spoil."""
    return make_toy(tmp_path / "toy")


LEARN = ("--optimizer=adam", "--learning-rate=0.03", "--schedule=linear", "--stop-on=error-rate")


@pytest.fixture(scope="session")
def trained(
    make_toy: Callable[..., Toy],
    execute: Callable[..., Done],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Models that have learnt a toy corpus: ctc, predictor, transducer, and toy; not to change."""
    path = tmp_path_factory.mktemp("trained")
    toy = make_toy(path / "toy")
    starts = (f"--init-ctc={path}/ctc", f"--init-predictor={path}/predictor")
    for kind, epochs, more in (("ctc", 40, ()), ("predictor", 3, ()), ("transducer", 60, starts)):
        options = (*LEARN, f"--epochs={epochs}", "--patience=0", *more)
        done = execute(f"train_{kind}.py", *toy.arguments(path / kind, *options))
        assert done.status == 0, done.err
        (path / f"{kind}.err").write_text(done.err)
    return path


@pytest.fixture
def asynchronous_epoch() -> Callable[..., dict[str, object]]:
    """A line of ``metrics.jsonl`` of an asynchronous training: two shards, a team of two."""

    def make(epoch: int, *, team: int = 2, **changes: object) -> dict[str, object]:
        share = {"steps": 4, "utterances": 8, "steps_per_second": 2.0}
        entry = {
            "updates": 8,
            "utterances": 16,
            "staleness": [{"0": 6, "1": 2}, {"0": 4, "3": 4}],
            "workers": {
                f"worker{n}": {**share, "megabytes": 1.5, "waiting_seconds": 0.5 * n}
                for n in range(1, team + 1)
            },
            "items_given_back": 0,
            "refused": 0,
            "lost": [],
            **changes,
        }
        scores = {"train_loss": 2.0, "dev_loss": 1.0, "dev_error_rate": 30.0, "metric": "PER"}
        return {"epoch": epoch, **scores, "best": True, "asynchronous": entry}

    return make
