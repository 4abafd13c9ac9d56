#!/usr/bin/env python3
"""Run a command, unless it was run before and neither its inputs nor its outputs have changed.

Usage: once.py [--inputs A,B …] [--outputs C,D …] [--via "WORD …"] STAMP COMMAND [ARGUMENT …]

A path may hold commas where --input PATH and --output PATH name it alone.

e.g.: once.py --inputs data/train/wav.scp,conf/fbank.conf --outputs data/train/feats.scp \\
        exp/.done/feats_train make_feats.sh data/train feats

STAMP records the command line and a digest of every input and output. If all of them are as
recorded, nothing is run. Otherwise the command is run, and STAMP is written if it succeeds. A
directory stands for all files below it, and scp:FILE for FILE and the files that it names. Files
above 4 MiB, files in the folders of a directory, and files that an scp names are compared by size
and time of change, all others by content. --via names the program that runs the command, such as
"slurm.py LOG". It is not recorded, nor are options that change no result: --nj, --cmd, --device and
--threads.

Exit status: that of COMMAND; 1 if an input is missing or COMMAND did not make an output; 2 for
wrong usage; 126 or 127 if there is no such COMMAND to run.

See also: run.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

LARGE = 4 << 20
IRRELEVANT = {"--nj", "--cmd", "--device", "--threads"}


def digest(path: Path) -> str:
    """What a file or directory holds, as a short text; ``missing`` if it is not there."""
    if str(path).startswith("scp:"):
        return script(Path(str(path)[4:]))
    if path.is_dir():
        seen = sorted(p for p in path.iterdir() if not p.name.startswith("."))
        lines = [f"{p.name} {digest(p)}" for p in seen if p.is_file()]
        lines += [line for p in seen if p.is_dir() for line in tree(p)]
        return "dir " + hashlib.sha256("\n".join(lines).encode()).hexdigest()
    if not path.exists():
        return "missing"
    facts = path.stat()
    if facts.st_size > LARGE:
        return f"large {facts.st_size} {facts.st_mtime_ns}"
    return "sha256 " + hashlib.sha256(path.read_bytes()).hexdigest()


def script(path: Path) -> str:
    """The content of an scp, and size and time of change of the files that it names."""
    if not path.is_file():
        return "missing"
    content = path.read_bytes()
    rest = [line.split(None, 1)[1:] for line in content.decode(errors="replace").splitlines()]
    names = {re.sub(r"(:\d+)?(\[[^]]*\])?$", "", words[0].strip()) for words in rest if words}
    lines = []
    for name in sorted(names):
        if not name.endswith("|") and os.path.exists(name):
            facts = os.stat(name)
            lines.append(f"{name} {facts.st_size} {facts.st_mtime_ns}")
    return "scp " + hashlib.sha256(content + "\n".join(lines).encode()).hexdigest()


def tree(folder: Path) -> list[str]:
    """Name, size and time of change of every file below a folder."""
    lines = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            facts = os.stat(os.path.join(place, name), follow_symlinks=False)
            lines.append(f"{place}/{name} {facts.st_size} {facts.st_mtime_ns}")
    return lines


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


def record(command: list[str], inputs: list[Path], outputs: list[Path]) -> dict[str, object]:
    """All that decides whether a step is done."""
    return {
        "command": relevant(command),
        "inputs": {str(p): digest(p) for p in inputs},
        "outputs": {str(p): digest(p) for p in outputs},
    }


def main(arguments: list[str]) -> int:
    """Parse, compare, run, record."""
    lists: dict[str, list[Path]] = {"--inputs": [], "--outputs": []}
    via: list[str] = []
    option = re.compile(r"(--(?:inputs?|outputs?|via))(?:=(.*))?", re.DOTALL)
    while arguments and (match := option.fullmatch(arguments[0])):
        arguments.pop(0)
        value = match[2] if match[2] is not None else (arguments.pop(0) if arguments else "")
        if match[1] == "--via":
            via = shlex.split(value)
            continue
        whole = match[1] in ("--input", "--output") or Path(value).exists()
        paths = [Path(p) for p in ([value] if whole else value.split(",")) if p]
        lists[match[1].removesuffix("s") + "s"] += paths
    if arguments and arguments[0] in ("--help", "-h"):
        print(__doc__)
        return 0
    if len(arguments) < 2 or arguments[0].startswith("-"):
        print((__doc__ or "").split("\n\n")[1], file=sys.stderr)
        return 2
    stamp, command = Path(arguments[0]), arguments[1:]
    inputs, outputs = lists["--inputs"], lists["--outputs"]
    missing = [str(p) for p in inputs if digest(p) == "missing"]
    if missing:
        print(
            f"ERROR (once.py) {', '.join(missing)}: missing; run the earlier stages",
            file=sys.stderr,
        )
        return 1
    if _recorded(stamp) == record(command, inputs, outputs):
        print(f"LOG (once.py) already done: {stamp.name}", file=sys.stderr)
        return 0
    stamp.unlink(missing_ok=True)
    status = run([*via, *command])
    if status != 0:
        return status if status > 0 else 128 - status
    absent = [str(p) for p in outputs if not p.exists()]
    if absent:
        print(f"ERROR (once.py) {command[0]} did not make {', '.join(absent)}", file=sys.stderr)
        return 1
    stamp.parent.mkdir(parents=True, exist_ok=True)
    temporary = stamp.with_name(f".{stamp.name}.tmp.{os.getpid()}")
    temporary.write_text(json.dumps(record(command, inputs, outputs), indent=1) + "\n")
    temporary.replace(stamp)
    return 0


def run(command: list[str]) -> int:
    """Run a command and wait for its end, also when a signal asks us to stop.

    The terminal sends Ctrl-C to the command, too; what asks only us to terminate is passed on.
    """
    with subprocess.Popen(command) as child:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, lambda signum, frame: None)
        signal.signal(signal.SIGTERM, lambda signum, frame: child.terminate())
        return child.wait()


def _recorded(stamp: Path) -> object:
    try:
        return json.loads(stamp.read_text())
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except FileNotFoundError as error:
        print(f"ERROR (once.py) {error.filename}: not found", file=sys.stderr)
        sys.exit(127)
    except OSError as error:
        print(f"ERROR (once.py) {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(126 if isinstance(error, PermissionError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
