#!/usr/bin/env python3
"""Run a command, unless it was run before and neither its inputs nor its outputs have changed.

Usage: once.py [--inputs A,B …] [--outputs C,D …] [--via "WORD …"] [--digest] STAMP COMMAND …

A path may hold commas where --input PATH and --output PATH name it alone.

e.g.: once.py --inputs data/train/wav.scp,conf/fbank.conf --outputs data/train/feats.scp \\
        exp/.done/feats_train make_feats.sh data/train feats

STAMP records the command line and a digest of every input and output. If all of them are as
recorded, nothing is run. Otherwise the command is run, and STAMP is written if it succeeds. A
directory stands for all files below it, and scp:FILE for FILE and the files that it names. --via
names the program that runs the command, such as "slurm.py LOG". It is not recorded, nor are options
that change no result: --nj, --cmd, --device and --threads. While another once.py with the same
STAMP runs, this one waits for its end.

Files up to 4 MiB are compared by content. Files above that, files in the folders of a directory,
and files that an scp names are compared by size and time of change. Where these are the same but
the number of the file on disk or the time of its last renaming or copying differs, or the file was
changed within two seconds of the recording, the content decides: all of it up to 256 MiB for an
input or output, else samples of large files. So a change goes unseen only in the unsampled parts of
a large file, and in files of large folders, whose size and time somebody has set back. --digest
compares all files by their whole content, which reads all of them each time; a step that was
recorded without it is run once more.

Exit status: that of COMMAND; 1 if an input is missing or COMMAND did not make an output; 2 for
wrong usage; 126 or 127 if there is no such COMMAND to run.

See also: run.py, clean_up.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import hashlib
import json
import logging
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files import locked, write_text
from pipeline.leftovers import is_temporary

LARGE = 4 << 20  # bytes of a file that is compared by content each time
MOST = 256 << 20  # bytes of an input that are read to compare its content in case of doubt
FEW = 1000  # files of a directory that are read in case of doubt
SAMPLE, SAMPLES = 64 << 10, 64  # bytes of a sample of a large file, and their number
RACY_S = 2.0  # a file that changed so shortly before may change again and keep its time
IRRELEVANT = {"--nj", "--cmd", "--device", "--threads"}


class Facts:
    """What is known of inputs and outputs; ``whole`` if all are compared by their content."""

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole

    def of(self, path: Path) -> str:
        """What a file or directory holds, as a short text; ``missing`` if it is not there."""
        if str(path).startswith("scp:"):
            script = Path(str(path)[4:])
            if not script.is_file():
                return "missing"
            lines = [self._line(Path(name), follow=True) for name in named(script)]
            return "scp " + _sha256(script.read_bytes() + "\n".join(lines).encode())
        if path.is_dir():
            seen = sorted(p for p in path.iterdir() if not p.name.startswith("."))
            lines = [f"{p.name} {self.of(p)}" for p in seen if p.is_file()]
            inner = (file for p in seen if p.is_dir() for file in below(p))
            lines += [self._line(file, follow=False) for file in inner]
            return "dir " + _sha256("\n".join(lines).encode())
        if not path.exists():
            return "missing"
        facts = path.stat()
        if facts.st_size > LARGE and not self.whole:
            return f"large {facts.st_size} {facts.st_mtime_ns}"
        return "sha256 " + whole_content(path)

    def _line(self, path: Path, *, follow: bool) -> str:
        """A file in a folder of a directory, or one that an scp names."""
        try:
            facts = os.stat(path, follow_symlinks=follow or self.whole)
        except FileNotFoundError:
            return f"{path} missing"
        if self.whole and stat.S_ISREG(facts.st_mode):
            return f"{path} {whole_content(path)}"
        return f"{path} {facts.st_size} {facts.st_mtime_ns}"


def named(script: Path) -> list[str]:
    """The files that an scp names, sorted, if they exist."""
    lines = script.read_bytes().decode(errors="replace").splitlines()
    rest = [line.split(None, 1)[1:] for line in lines]
    names = {re.sub(r"(:\d+)?(\[[^]]*\])?$", "", words[0].strip()) for words in rest if words}
    return sorted(n for n in names if not n.endswith("|") and os.path.exists(n))


def below(folder: Path) -> Iterator[Path]:
    """All files below a folder but those that a command is about to write."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_temporary(name))
        for name in sorted(names):
            if not is_temporary(name):
                yield Path(place, name)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def whole_content(path: Path) -> str:
    """SHA-256 of all bytes of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content(path: Path) -> str:
    """SHA-256 of all bytes of a file, or of its size and of samples if it is very large."""
    size = path.stat().st_size
    if size <= MOST:
        return whole_content(path)
    digest = hashlib.sha256(b"%d" % size)
    with open(path, "rb") as stream:
        for number in range(SAMPLES):
            stream.seek((size - SAMPLE) * number // (SAMPLES - 1))
            digest.update(stream.read(SAMPLE))
    return digest.hexdigest()


def by_time(path: Path) -> list[Path]:
    """The files of an input or output that are compared by size and time."""
    if str(path).startswith("scp:"):
        script = Path(str(path)[4:])
        return [Path(name) for name in named(script)] if script.is_file() else []
    if path.is_dir():
        seen = sorted(p for p in path.iterdir() if not p.name.startswith("."))
        large = [p for p in seen if p.is_file() and p.stat().st_size > LARGE]
        return large + [file for p in seen if p.is_dir() for file in below(p)]
    return [path] if path.is_file() and path.stat().st_size > LARGE else []


def marks(path: Path) -> dict[str, object]:
    """What tells that a file was replaced or written though its size and time are the same."""
    lines, newest = [], 0.0
    for file in by_time(path):
        try:
            facts = os.stat(file)
        except FileNotFoundError:
            continue
        lines.append(f"{file} {facts.st_ino} {facts.st_ctime_ns}")
        newest = max(newest, facts.st_ctime, facts.st_mtime)
    return {"files": _sha256("\n".join(lines).encode()), "newest": newest}


def contents(path: Path) -> str:
    """One digest of the content of the files of `by_time`; empty if they are too much to read."""
    files = [file for file in by_time(path) if file.is_file()]
    if len(files) > FEW or (len(files) > 1 and sum(f.stat().st_size for f in files) > MOST):
        return ""
    return _sha256("\n".join(f"{file} {content(file)}" for file in files).encode())


def replaced(path: Path, recorded: object) -> bool:
    """Whether files that have kept their size and time have another content than was recorded."""
    if not isinstance(recorded, dict) or not recorded.get("content"):
        return False  # a stamp of an older version, or too much to read
    racy = float(recorded["newest"]) > float(recorded["at"]) - RACY_S
    if marks(path)["files"] == recorded["files"] and not racy:
        return False
    return contents(path) != recorded["content"]


def relevant(command: list[str]) -> list[str]:
    """The command without options that change no result, in either dialect."""
    kept, skip = [], False
    for argument in command:
        name = argument.partition("=")[0]
        if skip:
            skip = False
        elif name in IRRELEVANT:
            skip = "=" not in argument
        else:
            kept.append(argument)
    return kept


def record(
    command: list[str], inputs: list[Path], outputs: list[Path], *, whole: bool
) -> dict[str, object]:
    """All that decides whether a step is done."""
    facts = Facts(whole=whole)
    return {
        "command": relevant(command),
        "inputs": {str(p): facts.of(p) for p in inputs},
        "outputs": {str(p): facts.of(p) for p in outputs},
    }


def is_done(stamp: Path, now: dict[str, object]) -> bool:
    """Whether a step is as its stamp says."""
    try:
        before = json.loads(stamp.read_text())
        same = all(before[name] == now[name] for name in now)
        doubts = dict(before.get("marks", {}))
        return same and not any(replaced(Path(path), doubts[path]) for path in doubts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def parse(arguments: list[str]) -> tuple[dict[str, list[Path]], list[str], bool, list[str]]:
    """The inputs and outputs, the words of --via, whether --digest is given, and the rest."""
    lists: dict[str, list[Path]] = {"--inputs": [], "--outputs": []}
    via: list[str] = []
    whole = False
    option = re.compile(r"(--(?:inputs?|outputs?|via|digest))(?:=(.*))?", re.DOTALL)
    while arguments:
        match = option.fullmatch(arguments[0])
        if match is None:
            break
        arguments.pop(0)
        if match[1] == "--digest":
            whole = match[2] in (None, "true")
            continue
        value = match[2] if match[2] is not None else (arguments.pop(0) if arguments else "")
        if match[1] == "--via":
            via = shlex.split(value)
            continue
        one = match[1] in ("--input", "--output") or Path(value).exists()
        paths = [Path(p) for p in ([value] if one else value.split(",")) if p]
        lists[match[1].removesuffix("s") + "s"] += paths
    return lists, via, whole, arguments


def main(arguments: list[str]) -> int:
    """Parse, and do the step unless another process does."""
    logging.basicConfig(format="%(levelname)s (once.py) %(message)s")
    lists, via, whole, arguments = parse(arguments)
    if arguments and arguments[0] in ("--help", "-h"):
        print(__doc__)
        return 0
    if len(arguments) < 2 or arguments[0].startswith("-"):
        print((__doc__ or "").split("\n\n")[1], file=sys.stderr)
        return 2
    stamp, command = Path(arguments[0]), arguments[1:]
    missing = [str(p) for p in lists["--inputs"] if Facts(whole=False).of(p) == "missing"]
    if missing:
        print(
            f"ERROR (once.py) {', '.join(missing)}: missing; run the earlier stages",
            file=sys.stderr,
        )
        return 1
    stamp.parent.mkdir(parents=True, exist_ok=True)
    lock = stamp.with_name(f".{stamp.name}.lock")
    with locked(lock, where=stamp, waiting="another process does this step; waiting") as held:
        return do(stamp, via, command, lists, whole=whole, lock=held)


def do(
    stamp: Path,
    via: list[str],
    command: list[str],
    lists: dict[str, list[Path]],
    *,
    whole: bool,
    lock: int | None,
) -> int:
    """Compare, run, record."""
    inputs, outputs = lists["--inputs"], lists["--outputs"]
    if is_done(stamp, record(command, inputs, outputs, whole=whole)):
        print(f"LOG (once.py) already done: {stamp.name}", file=sys.stderr)
        return 0
    stamp.unlink(missing_ok=True)
    status = run([*via, *command], lock)
    if status != 0:
        return status if status > 0 else 128 - status
    absent = [str(p) for p in outputs if not p.exists()]
    if absent:
        print(f"ERROR (once.py) {command[0]} did not make {', '.join(absent)}", file=sys.stderr)
        return 1
    done = record(command, inputs, outputs, whole=whole)
    if not whole:
        doubtful = [p for p in [*inputs, *outputs] if by_time(p)]
        done["marks"] = {
            str(p): {**marks(p), "at": time.time(), "content": contents(p)} for p in doubtful
        }
    write_text(stamp, json.dumps(done, indent=1) + "\n")
    return 0


def run(command: list[str], lock: int | None) -> int:
    """Run a command and wait for its end, also when a signal asks us to stop.

    The command inherits the lock, so that it holds if only this process is killed. ONCE_STEP tells
    a training to wait for another one that a killed run has left behind. The terminal sends Ctrl-C
    to the command, too; what asks only us to terminate is passed on.
    """
    inherited = [] if lock is None else [lock]
    env = {**os.environ, "ONCE_STEP": command[0]}
    with subprocess.Popen(command, pass_fds=inherited, env=env) as child:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, lambda signum, frame: None)
        signal.signal(signal.SIGTERM, lambda signum, frame: child.terminate())
        return child.wait()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PipelineError as error:
        print(f"ERROR (once.py) {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except FileNotFoundError as error:
        print(f"ERROR (once.py) {error.filename}: not found", file=sys.stderr)
        sys.exit(127)
    except OSError as error:
        print(f"ERROR (once.py) {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(126 if isinstance(error, PermissionError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
