"""All shards of a training, as the coordinator sees them; and the sets of files of their states.

A set of files is whole or does not count::

    checkpoints/sets/000012/shard-1.pt … shard-S.pt    written by the shards
    checkpoints/sets/000012/whole.pt                   written last, by the coordinator
"""

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.errors import ModelError
from pipeline.models.model_dir import ModelDir
from pipeline.models.weights import load_state, save_state
from pipeline.training.asynchronous.engine import Engine

log = logging.getLogger("pipeline")

KEPT_SETS = 2
STILL = 5.0  # seconds to wait for a push that only some shards have
PAUSE = 0.002


def shard_name(number: int) -> str:
    """What the processes call a shard."""
    return f"shard{number}"


class Shards:
    """Takes consistent copies of the weights, and writes and reads sets of files."""

    def __init__(self, engine: Engine, count: int, directory: ModelDir) -> None:
        self.engine, self.names = engine, [shard_name(n + 1) for n in range(count)]
        self.directory = directory
        self.number = 0  # of the last set

    def _each(self, method: str, *args: Any) -> list[Any]:
        return [a.wait() for a in [self.engine.call(to, method, *args) for to in self.names]]

    # ---- copies ----------------------------------------------------------------------------------

    def snapshot(self, first_open: int) -> None:
        """Let all shards keep a copy of their state, after the same pushes of all workers.

        Workers wait meanwhile, for some milliseconds.

        Args:
            first_open: the oldest epoch that is not closed.
        """
        if len(self.names) > 1:
            marks: dict[int, int] = {}
            for serials in self._each("hold"):
                for worker, serial in serials.items():
                    marks[worker] = max(serial, marks.get(worker, -1))
            end = time.monotonic() + STILL
            while not all(self._each("advance", marks)) and time.monotonic() < end:
                time.sleep(PAUSE)  # the push is on its way; or its worker has been lost
        self._each("snapshot", first_open)
        self._each("release")

    def copies(self) -> dict[str, Tensor]:
        """The weights and buffers of the last snapshot, by name."""
        return {name: tensor for part in self._each("copies") for name, tensor in part.items()}

    def seen(self) -> tuple[list[dict[int, dict[int, int]]], dict[int, list[int]]]:
        """Of the snapshot: each shard's staleness by epoch, and the items that all have."""
        staleness, applied = zip(*self._each("seen"), strict=True)
        epochs = set.intersection(*(set(found) for found in applied))
        common = {e: set.intersection(*(set(found[e]) for found in applied)) for e in epochs}
        return list(staleness), {epoch: sorted(numbers) for epoch, numbers in common.items()}

    # ---- files -----------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """The folder of the sets."""
        return self.directory.sets_path

    def write(self, state: dict[str, Any]) -> None:
        """Write the snapshot as a new set, and remove old sets.

        Args:
            state: what the coordinator keeps.
        """
        self.number += 1
        path = self.folder / f"{self.number:06d}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        answers = [
            self.engine.call(name, "write", str(path / _file_of(name))) for name in self.names
        ]
        for answer in answers:
            answer.wait()
        save_state({**state, "shards": len(self.names)}, path / "whole.pt")
        for old in self._sets()[:-KEPT_SETS]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self) -> dict[str, Any] | None:
        """Let the shards take over the last whole set; returns the coordinator's part of it.

        Raises:
            ModelError: there are whole sets, but none can be used.
        """
        failure: ModelError | None = None
        for path in reversed(self._sets()):
            if not (path / "whole.pt").exists():
                log.debug("%s: not whole; it does not count", path)
                continue
            try:
                state = self._load(path)
            except Exception as error:  # whatever torch raises for another form
                reason = str(error).partition("\n")[0]
                failure = failure or ModelError(
                    f"{path}: this set of checkpoints cannot be used ({reason}); remove it to "
                    "continue from an older one or start again"
                )
            else:
                if failure is not None:
                    log.warning("%s; continuing from %s", failure, path)
                self.number = int(path.name)
                return state
        if failure is not None:
            raise failure
        return None

    def _load(self, path: Path) -> dict[str, Any]:
        state = load_state(path / "whole.pt")
        if state["shards"] != len(self.names):
            raise ValueError(f"it is of {state['shards']} shards, not {len(self.names)}")
        for name, answer in [
            (name, self.engine.call(name, "load", str(path / _file_of(name))))
            for name in self.names
        ]:
            try:
                answer.wait()
            except KeyError as error:
                raise ValueError(f'{_file_of(name)} lacks "{error.args[0]}"') from error
        return state

    def _sets(self) -> Sequence[Path]:
        return sorted(p for p in self.folder.glob("*") if p.name.isdecimal())


def _file_of(name: str) -> str:
    return f"shard-{name.removeprefix('shard')}.pt"
