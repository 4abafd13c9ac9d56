"""A worker's exchanges with the shards and the coordinator, and what they cost."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.training.asynchronous.engine import Engine
from pipeline.training.asynchronous.messages import REFUSED, Item, Pulled, Push, Report, Work
from pipeline.training.asynchronous.shards import shard_name
from pipeline.training.step import Counts

MEGABYTE = 1e6


class Link:
    """Pulls weights, pushes gradients and asks for work."""

    def __init__(
        self,
        engine: Engine,
        worker: int,
        parts: Sequence[Sequence[str]],
        weights: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        *,
        shares_memory: bool = False,
    ) -> None:
        """Begin without an exchange.

        Args:
            engine: for the calls.
            worker: the number of this worker, from 1.
            parts: the names of the weights of each shard; the first one has the buffers too.
            weights: of this worker's copy, by name.
            buffers: the same.
            shares_memory: whether these are the shards' own, so that pulling needs no copy.
        """
        self.engine, self.worker, self.shares_memory = engine, worker, shares_memory
        self._weights = [[weights[name] for name in part] for part in parts]
        self._buffers = [list(buffers.values()), *([] for _ in parts[1:])]
        self._names = [shard_name(n + 1) for n in range(len(parts))]
        self._versions = [0] * len(parts)
        self._pulled: list[list[Tensor]] = [[] for _ in parts]
        self._serial = 0
        self._done = Report()
        self._since = time.monotonic()

    # ---- the shards ------------------------------------------------------------------------------

    def pull(self) -> None:
        """Take over the weights of all shards."""
        if self.shares_memory:
            self._versions = [a.version for a in self._wait([("peek", ())] * len(self._names))]
            return
        for n, found in enumerate(self._wait([("pull", ())] * len(self._names))):
            self._take(n, found)

    def _take(self, n: int, found: Pulled) -> None:
        self._versions[n], self._pulled[n] = found.version, found.buffers
        with torch.no_grad():
            for mine, value in zip(self._weights[n], found.weights, strict=True):
                mine.copy_(value)
            for mine, value in zip(self._buffers[n], found.buffers, strict=True):
                mine.copy_(value)
        self._count([*found.weights, *found.buffers])

    def push(
        self,
        gradients: Mapping[int, Tensor | None],
        *,
        epoch: int,
        item: Item | None,
        rate: float,
        norm: float,
    ) -> list[str]:
        """Send gradients to all shards.

        Args:
            gradients: those of each weight, by the weight's ``id``.
            epoch: that the examples belong to.
            item: the examples; None: a part of some.
            rate: the learning rate.
            norm: the norm of all gradients.

        Returns:
            The names of the shards that refused theirs, because they are not finite.
        """
        self._serial += 1
        pushes = []
        for n, weights in enumerate(self._weights):
            mine = [gradients[id(w)] for w in weights]
            mine = [None if g is None else g.detach().cpu() for g in mine]
            buffers: tuple[Sequence[Tensor], Sequence[Tensor]] = ((), ())
            if self._pulled[n]:
                buffers = [b.cpu() for b in self._buffers[n]], self._pulled[n]
            push = Push(
                self.worker, self._serial, epoch, item, rate, norm, self._versions[n], mine, buffers
            )
            pushes.append(("push", (push,)))
            if not self.shares_memory:
                self._count([*(g for g in mine if g is not None), *buffers[0], *buffers[1]])
        replies = self._wait(pushes)
        return [name for name, r in zip(self._names, replies, strict=True) if r == REFUSED]

    def _wait(self, calls: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        started = time.monotonic()
        answers = [
            self.engine.call(to, method, *args)
            for to, (method, args) in zip(self._names, calls, strict=True)
        ]
        found = [answer.wait() for answer in answers]
        self._spent(started)
        return found

    # ---- the coordinator -------------------------------------------------------------------------

    def next(self, *, wanted: int, newest: int | None) -> Work:
        """Report what is done, and ask for items.

        Args:
            wanted: how many.
            newest: of no later epoch than this one; None: of any.
        """
        started = time.monotonic()
        report = self._report()
        found: Work = self.engine.call(
            "coordinator", "next", self.worker, report, wanted, newest
        ).wait()
        self._spent(started)
        return found

    def refused(self, items: Sequence[Item], utt_ids: Sequence[str], shards: Sequence[str]) -> None:
        """Say that shards refused the gradients of some items, which others shall try.

        Raises:
            ModelError: it is the second time.
        """
        self.engine.call("coordinator", "refused", self.worker, items, utt_ids, shards).wait()

    def count(
        self, epoch: int, counts: Counts, *, steps: int, finished: Sequence[Item] = ()
    ) -> None:
        """Note for the next report what was done."""
        done = self._done
        if done.epoch not in (0, epoch):
            self.next(wanted=0, newest=None)
            done = self._done
        self._done = Report(
            (*done.finished, *finished),
            epoch,
            done.counts.plus(counts),
            done.steps + steps,
            done.megabytes,
            done.waiting,
        )

    def _report(self) -> Report:
        now, done = time.monotonic(), self._done
        seconds, self._since, self._done = now - self._since, now, Report()
        return Report(
            done.finished,
            done.epoch,
            done.counts,
            done.steps,
            done.megabytes,
            done.waiting,
            seconds,
        )

    def _count(self, tensors: Sequence[Tensor]) -> None:
        size = sum(t.numel() * t.element_size() for t in tensors) / MEGABYTE
        self._done = _with(self._done, megabytes=self._done.megabytes + size)

    def _spent(self, started: float) -> None:
        waited = time.monotonic() - started
        self._done = _with(self._done, waiting=self._done.waiting + waited)


def _with(report: Report, **changes: float) -> Report:
    return Report(**{**vars(report), **changes})
