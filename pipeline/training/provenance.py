"""The log of a training, the lock on its directory, and the provenance of its model."""

import contextlib
import fcntl
import json
import logging
import math
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
from pipeline.seals import sealed
from pipeline.training.distributed.processes import World

log = logging.getLogger("pipeline")

RESTARTS = ("TORCHELASTIC_MAX_RESTARTS", "SLURM_RESTART_COUNT")
LOCK_PATIENCE = 120.0  # seconds


@contextlib.contextmanager
def log_file(directory: Path, world: World) -> Iterator[None]:
    """Lock a model directory, making it if necessary, and also log to its ``train.log``.

    Only the first process does this; the others log warnings only. The lock allows one training at
    a time, on all machines if the file system locks across machines. If the training fails before
    it has written ``config.json``, a directory that was made for it is removed again.

    Raises:
        ModelError: another training has the lock.
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
        with path.open("ab") as lock:  # NFS locks only files that are open for writing
            _lock(lock, directory)
            is_ours = True
            yield
    finally:
        log.removeHandler(handler)
        handler.close()
        if is_new and is_ours and not (directory / "config.json").exists():
            shutil.rmtree(directory, ignore_errors=True)


def _lock(file: BinaryIO, directory: Path) -> None:
    """Take the lock, which ends with the process. After a machine is lost, the server of the file
    system may keep its lock for a while, so a training that may be a restart waits for it. A step
    of a recipe waits until the other training has ended, which a killed run may have left."""
    again = any(os.environ.get(name, "0") != "0" for name in RESTARTS)
    patience = math.inf if "ONCE_STEP" in os.environ else LOCK_PATIENCE if again else 0.0
    end, waited = time.monotonic() + patience, False
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
        except OSError:  # the file system has no locks
            log.debug("%s: this file system has no locks", directory)
            return
        else:
            return


def write_provenance(
    directory: Path, train_dir: Path, dev_dir: Path, *, seed: int, world: World
) -> None:
    """Write ``provenance.json``: the command, versions, seed and data that a model comes from."""
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
    write_text(directory / "provenance.json", sealed(json.dumps(facts, indent=2) + "\n"))


def _git_commit() -> str:
    """The commit of this program, with ``-dirty`` after local changes, or ``unknown``."""
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
