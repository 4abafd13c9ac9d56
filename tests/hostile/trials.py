"""Runs commands in forked processes with limits, and says how each ended."""

import contextlib
import gc
import os
import re
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 20  # more, and a command hangs
MEMORY = 6 * 2**30  # bytes beyond what the process has when it starts
MEMORY_DISK = (
    "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
)  # where nothing waits for a disk
OUTPUT = 200_000  # bytes of what a command says that are looked at

# How a command can end, from the worst on.
BAD = ("signal", "hang", "traceback", "unexpected", "silent", "unnamed")
GOOD = ("refused", "done")


@dataclass(frozen=True)
class Ending:
    """How a command ended, and what it said."""

    status: int  # minus the number of a signal, as subprocess has it
    said: str
    seconds: float

    def kind(self, names: tuple[str, ...]) -> str:
        """One of `BAD` or `GOOD`; an error must have one of ``names``."""
        if self.status in (-signal.SIGALRM, -signal.SIGXCPU):
            return "hang"
        if self.status < 0:
            return "signal"
        if "Traceback (most recent call last)" in self.said:
            return "traceback"
        if "please report this" in self.said:
            return "unexpected"
        if self.status == 0:
            return "done"
        return "refused" if any(name in self.said for name in names) else "unnamed"


class Trials:
    """Forks a process for each command, after all that commands import has been imported once.

    Args:
        template: a folder of which each command gets a copy of its own to work in.
    """

    def __init__(self, template: Path) -> None:
        self.template = template
        warm_up()

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """A copy of the template."""
        with tempfile.TemporaryDirectory(prefix="hostile", dir=MEMORY_DISK) as place:
            folder = Path(place) / "a" / "b"  # so that ".." is nobody else's
            shutil.copytree(self.template, folder, symlinks=True)
            yield folder

    def run(self, program: str, *arguments: str, folder: Path) -> Ending:
        """Run a program of bin/ or utils/ in a folder."""
        return forked(program, list(arguments), folder)


def warm_up() -> None:
    """Import what commands import; nothing may start a thread, which a fork would lose."""
    os.environ.setdefault("NUMBA_CACHE_DIR", os.path.expanduser("~/.cache/numba"))
    sys.path[:0] = [str(ROOT), str(ROOT / "utils")]
    import jinja2  # noqa: F401
    import jiwer  # noqa: F401
    import kaldi_native_fbank  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import numba  # noqa: F401
    import sentencepiece  # noqa: F401
    import soundfile  # noqa: F401
    import tensorboardX  # noqa: F401
    import torch._dynamo  # noqa: F401
    import typer._adapters  # noqa: F401

    import pipeline.cli
    import pipeline.decoding.decode_table
    import pipeline.training.run  # noqa: F401

    gc.collect()
    gc.freeze()  # so that children do not copy what they only look at


def find(program: str) -> Path:
    """Where a program stands."""
    return next(p for p in (ROOT / "bin" / program, ROOT / "utils" / program) if p.exists())


def forked(program: str, arguments: list[str], folder: Path) -> Ending:
    """Run a program in a process with limits on time and memory, and without input."""
    begun = time.monotonic()
    said = folder / ".said"
    child = os.fork()
    if child == 0:
        status = 70
        try:
            status = _inside(find(program), arguments, folder, said)
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it has started
    with open(said, "rb") as stream:
        text = stream.read(OUTPUT).decode("utf-8", "replace")
    code = os.waitstatus_to_exitcode(status)
    return Ending(code, text, time.monotonic() - begun)


def _inside(path: Path, arguments: list[str], folder: Path, said: Path) -> int:
    os.setsid()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(SECONDS)
    os.chdir(folder)
    os.environ.update(HOME=str(folder), PYTHONPATH=str(ROOT), LC_ALL="C.UTF-8")
    os.environ["PATH"] = f"{folder}/programs:{ROOT}/bin:{ROOT}/utils:{os.environ['PATH']}"
    os.environ["FAKE"] = f"{folder}/fake"  # of the stand-ins of Slurm
    out, nothing = (
        os.open(said, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND),
        os.open(os.devnull, 0),
    )
    for source, target in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    sys.stdin = os.fdopen(0)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    used = int(re.findall(r"\d+", Path("/proc/self/statm").read_text())[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**28, 2**28))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.argv = [str(path), *arguments]
    status: object = 0
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as leave:
        status = leave.code
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    return int(status or 0)
