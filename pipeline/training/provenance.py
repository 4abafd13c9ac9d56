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

from pipeline.data.data_dir import DataDir
from pipeline.errors import ModelError
from pipeline.files import write_text
from pipeline.training.distributed.processes import World

log = logging.getLogger("pipeline")

RESTARTS = ("TORCHELASTIC_MAX_RESTARTS", "SLURM_RESTART_COUNT")
LOCK_PATIENCE = 120.0  # seconds


@contextlib.contextmanager
def log_file(directory: Path, world: World) -> Iterator[None]:
    """Make the directory, if need be, and log to its ``train.log``, too; the first process does.

    At most one training at a time may be here: whatever machine it runs on, where the file system
    locks across machines. A directory that was made for one that failed before it had a
    ``config.json`` is removed again.
    """
    if not world.is_first:
        log.setLevel(logging.WARNING)
        yield
        return
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "train.log"
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    is_ours = False
    try:
        with path.open("ab") as lock:  # NFS locks only what is open for writing
            _lock(lock, directory)
            is_ours = True
            yield
    finally:
        log.removeHandler(handler)
        handler.close()
        if is_new and is_ours and not (directory / "config.json").exists():
            shutil.rmtree(directory, ignore_errors=True)


def _lock(file: BinaryIO, directory: Path) -> None:
    """The lock ends with its process. That of a lost one may live on for a while: a server has to
    notice that its machine is gone. So a training that may be a restart waits."""
    again = any(os.environ.get(name, "0") != "0" for name in RESTARTS)
    end, waited = time.monotonic() + (LOCK_PATIENCE if again else 0.0), False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            if time.monotonic() >= end:
                raise ModelError(
                    f"{directory}: another training writes here; wait for it, or give another "
                    "directory"
                ) from error
            if not waited:
                log.warning("%s: another training writes here; waiting for its end", directory)
            waited = True
            time.sleep(1.0)
        except OSError:  # some file systems cannot lock
            log.debug("%s: no locks here", directory)
            return
        else:
            return


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
    write_text(directory / "provenance.json", json.dumps(facts, indent=2) + "\n")


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
