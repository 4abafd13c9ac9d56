"""What a training leaves beside its model: a log, and how the model came about."""

import contextlib
import fcntl
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import torch

from pipeline.data_dir import DataDir, atomic_write_text
from pipeline.errors import ModelError
from pipeline.training.parallel import World

log = logging.getLogger("pipeline")


@contextlib.contextmanager
def log_file(directory: Path, world: World) -> Iterator[None]:
    """Make the directory, if need be, and log to its ``train.log``, too; the first process does.

    At most one training at a time may be here. A directory that was made for one that failed
    before it had a ``config.json`` is removed again.
    """
    if not world.is_first:
        log.setLevel(max(log.level, logging.WARNING))
        yield
        return
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "train.log"
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        with path.open("rb") as lock:
            _lock(lock, directory)
            yield
    finally:
        log.removeHandler(handler)
        handler.close()
        if is_new and not (directory / "config.json").exists():
            shutil.rmtree(directory, ignore_errors=True)


def _lock(file: BinaryIO, directory: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ModelError(
            f"{directory}: another training writes here; wait for it, or give another directory"
        ) from error
    except OSError:  # some file systems cannot lock
        log.debug("%s: no locks here", directory)


def write_provenance(
    directory: Path, train_dir: Path, dev_dir: Path, *, seed: int, world: World
) -> None:
    """Write ``provenance.json``: how the model in a directory came about."""
    facts = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": _git_commit(),
        "seed": seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: version(name) for name in ("numpy", "kaldi-native-fbank", "soundfile")},
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": world.size,
        "train_data_sha256": DataDir(train_dir).content_hash(),
        "dev_data_sha256": DataDir(dev_dir).content_hash(),
    }
    atomic_write_text(directory / "provenance.json", json.dumps(facts, indent=2) + "\n")


def _git_commit() -> str:
    """The commit of this program, with ``-dirty`` for changes, or ``unknown``."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
