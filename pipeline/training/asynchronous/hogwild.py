"""Asynchronous training on one machine without locks: all workers change the same memory.

B. Recht, C. Ré, S. Wright, F. Niu, "Hogwild: A Lock-Free Approach to Parallelizing Stochastic
Gradient Descent", 2011. The weights and the optimiser's values are in shared memory. The first
process hands out examples and evaluates; the workers are its forks.
"""

import copy
import dataclasses
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, NoReturn

import torch
from torch import Tensor

from pipeline.training.asynchronous.coordinator import Coordinator
from pipeline.training.asynchronous.engine import Answer, Given, LocalEngine, Lost
from pipeline.training.asynchronous.guard import die_with_parent
from pipeline.training.asynchronous.link import Link
from pipeline.training.asynchronous.roles import (
    COORDINATOR,
    Member,
    Parts,
    make_shard,
    names_of_parts,
    work,
    worker_name,
)
from pipeline.training.asynchronous.shard import Shard, trained
from pipeline.training.asynchronous.shards import Shards, shard_name

log = logging.getLogger("pipeline")

LAST = 10.0  # seconds for the workers to end by themselves
SHARD = shard_name(1)


def _shared(tensor: Any) -> Tensor:
    """The same tensor, moved to shared memory."""
    moved: Tensor = tensor.share_memory_()
    return moved


class SharedShard(Shard):
    """A shard in shared memory. Each fork has an object of its own, with a lock of its own."""

    def share(self) -> None:
        """Move all tensors to shared memory, before the forks."""
        self._make_state()
        self._updates = _shared(torch.zeros((), dtype=torch.int64))
        for tensor in [*self.weights.values(), *self.buffers.values(), *self.average.weights]:
            _shared(tensor)
        for values in self.optimizer.state.values():
            for value in values.values():
                if isinstance(value, Tensor):
                    _shared(value)

    def _make_state(self) -> None:
        """Let the optimiser make its values, by a step of nothing."""
        before = [weight.detach().clone() for weight in self.weights.values()]
        for weight in self.weights.values():
            weight.grad = torch.zeros_like(weight)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for weight, value in zip(self.weights.values(), before, strict=True):
                weight.copy_(value)
        for values in self.optimizer.state.values():
            for value in values.values():
                if isinstance(value, Tensor):
                    value.zero_()

    @property
    def version(self) -> int:
        """The number of updates by all workers."""
        return int(self._updates)

    @version.setter
    def version(self, value: int) -> None:
        if "_updates" in self.__dict__:
            self._updates.fill_(value)

    def take_seen(self) -> dict[int, Counter[int]]:
        """The staleness that this fork has seen since the last call."""
        found, self.staleness = self.staleness, {}
        return found

    def add_seen(self, seen: dict[int, Counter[int]]) -> None:
        """Add the staleness that another fork has seen."""
        with self._lock:
            for epoch, counts in seen.items():
                self.staleness.setdefault(epoch, Counter()).update(counts)


class ForkEngine:
    """A worker's engine: the coordinator is at the other end of a pipe, the shard is here."""

    def __init__(self, pipe: Connection, shard: SharedShard) -> None:
        self.pipe, self.shard = pipe, shard

    def call(self, to: str, method: str, *args: Any) -> Answer:
        """See `Engine.call`."""
        if to != COORDINATOR:
            return LocalEngine({SHARD: self.shard}).call(to, method, *args)
        try:
            self.pipe.send((method, args, self.shard.take_seen()))
            found, error = self.pipe.recv()
        except (EOFError, OSError) as problem:
            return Given(error=Lost(to, str(problem) or "its process has ended"))
        return Given(found, error)


class Forks:
    """The workers, as the coordinator's process sees them."""

    def __init__(self, shard: SharedShard) -> None:
        self.shard = shard
        self.pids: dict[str, int] = {}
        self.pipes: dict[Connection, str] = {}

    def call(self, to: str, method: str, *args: Any) -> Answer:
        """The coordinator's engine, see `Engine.call`; workers are only pinged."""
        if to == SHARD:
            return LocalEngine({SHARD: self.shard}).call(to, method, *args)
        if to in self.pipes.values():
            return Given()
        return Given(error=Lost(to, "its process has ended"))

    def start(self, parts: Parts, names: Sequence[Sequence[str]]) -> None:
        """Fork the workers."""
        ends = [Pipe() for _ in range(parts.options.workers)]
        for number, (here, there) in enumerate(ends, start=1):
            pid = os.fork()
            if pid == 0:
                for n, (theirs, other) in enumerate(ends, start=1):
                    theirs.close()
                    if n != number:  # else an end that this fork has would hide its death
                        other.close()
                _become_worker(parts, names, number, ForkEngine(there, self.shard))
            self.pids[worker_name(number)] = pid
            self.pipes[here] = worker_name(number)
        for _, there in ends:
            there.close()

    def answer(self, coordinator: Coordinator) -> None:
        """Answer the workers' calls until all have ended."""
        while self.pipes:
            for pipe in wait(list(self.pipes)):
                assert isinstance(pipe, Connection)
                try:
                    method, args, seen = pipe.recv()
                    self.shard.add_seen(seen)
                    answer = LocalEngine({COORDINATOR: coordinator}).call(
                        COORDINATOR, method, *args
                    )
                    assert isinstance(answer, Given)
                    pipe.send((answer.value, answer.error))
                except (EOFError, OSError):
                    del self.pipes[pipe]

    def end(self) -> None:
        """Wait for the workers' ends, and kill those that do not."""
        end = time.monotonic() + LAST
        for pid in self.pids.values():
            while os.waitpid(pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > end:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    break
                time.sleep(0.02)


def _become_worker(
    parts: Parts, names: Sequence[Sequence[str]], number: int, engine: ForkEngine
) -> NoReturn:
    """Work in the fork, and end it without what its parent would do at its end."""
    status = 1
    try:
        die_with_parent()
        log.setLevel(logging.WARNING)
        weights, buffers = trained(parts.model, parts.objective.auxiliary)
        link = Link(engine, number, names, weights, buffers, shares_memory=True)
        member = Member()
        member.leaving.set()
        work(parts, link, engine, member, parts.options.workers)
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        os._exit(status)


def run(parts: Parts) -> None:
    """Train with ``--workers`` forks. Raises what `Coordinator.run` does."""
    names = names_of_parts(parts)
    model, objective = copy.deepcopy((parts.model, parts.objective))  # evaluated, not trained
    shard = make_shard(parts, 1, names, SharedShard)
    shard.share()
    forks = Forks(shard)
    forks.start(parts, names)
    coordinator = dataclasses.replace(parts, model=model, objective=objective).make(Coordinator)
    answering = threading.Thread(target=forks.answer, args=(coordinator,), daemon=True)
    log.info(
        "asynchronous: %s share the memory",
        ", ".join(f"{name} (process {pid})" for name, pid in forks.pids.items()),
    )
    try:
        coordinator.prepare_to_serve(
            forks,
            Shards(forks, 1, parts.directory),
            workers=list(forks.pids),
            items_of=parts.items_of(coordinator),
        )
        answering.start()
        coordinator.run()
    finally:
        coordinator.leave()
        forks.end()
