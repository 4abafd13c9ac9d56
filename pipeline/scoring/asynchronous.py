"""What an epoch of an asynchronous training leaves in ``metrics.jsonl``.

A worker pulls weights, computes a gradient and pushes it. Its staleness is the number of updates
that a shard made in between.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import reduce
from typing import Any


@dataclass(frozen=True)
class Staleness:
    """How often each staleness was seen."""

    counts: Mapping[int, int] = field(default_factory=dict)

    @property
    def pushes(self) -> int:
        """The number of pushes."""
        return sum(self.counts.values())

    @property
    def mean(self) -> float:
        """The mean over all pushes; NaN without any."""
        return self.sum() / self.pushes if self.pushes else math.nan

    @property
    def largest(self) -> int:
        """The largest one seen; 0 without pushes."""
        return max((late for late, count in self.counts.items() if count), default=0)

    def sum(self, power: int = 1) -> int:
        """The sum over all pushes, of powers."""
        return sum(late**power * count for late, count in self.counts.items())

    def plus(self, other: "Staleness") -> "Staleness":
        """Both together."""
        keys = sorted({*self.counts, *other.counts})
        return Staleness({k: self.counts.get(k, 0) + other.counts.get(k, 0) for k in keys})


@dataclass(frozen=True)
class WorkerShare:
    """What one worker did."""

    steps: int = 0  # gradients computed
    utterances: int = 0
    seconds: float = 0.0  # from its reports to the coordinator, waiting included
    megabytes: float = 0.0  # moved to and from the shards
    waiting: float = 0.0  # seconds

    @property
    def speed(self) -> float:
        """Steps per second."""
        return self.steps / self.seconds if self.seconds else 0.0

    @property
    def share_waiting(self) -> float:
        """The share of its time in which it waited for others, 0 … 1."""
        return min(1.0, self.waiting / self.seconds) if self.seconds else 0.0

    def plus(self, other: "WorkerShare") -> "WorkerShare":
        """Both together."""
        return WorkerShare(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Asynchronous:
    """An epoch of an asynchronous training, or several.

    Attributes:
        updates: how many were made.
        utterances: how many were trained.
        staleness: as each shard saw it.
        workers: by their names; of an epoch only those that took part in it.
        given_back: batches that others trained, because a worker was lost or a shard refused.
        refused: batches with a gradient that was not finite.
        lost: the workers that have ended before the training.
    """

    updates: int
    utterances: int
    staleness: tuple[Staleness, ...]
    workers: Mapping[str, WorkerShare]
    given_back: int
    refused: int
    lost: tuple[str, ...]

    def plus(self, other: "Asynchronous") -> "Asynchronous":
        """Both together."""
        shards = max(len(self.staleness), len(other.staleness))
        none = [(Staleness(),) * (shards - len(one.staleness)) for one in (self, other)]
        pairs = zip((*self.staleness, *none[0]), (*other.staleness, *none[1]), strict=True)
        names = dict.fromkeys([*self.workers, *other.workers])
        nothing = WorkerShare()
        return Asynchronous(
            self.updates + other.updates,
            self.utterances + other.utterances,
            tuple(one.plus(two) for one, two in pairs),
            {
                name: self.workers.get(name, nothing).plus(other.workers.get(name, nothing))
                for name in sorted(names, key=_order)
            },
            self.given_back + other.given_back,
            self.refused + other.refused,
            tuple(dict.fromkeys([*self.lost, *other.lost])),
        )


def _order(name: str) -> tuple[int, str]:
    """worker2 before worker10."""
    return len(name), name


def total(epochs: Sequence[Asynchronous]) -> Asynchronous:
    """All epochs of a training, of which there is at least one."""
    return reduce(Asynchronous.plus, epochs)


def together(shards: Iterable[Staleness]) -> Staleness:
    """Several shards as one."""
    return reduce(Staleness.plus, shards, Staleness())


# ---- reading -------------------------------------------------------------------------------------


def asynchronous_of(row: Mapping[str, Any]) -> Asynchronous:
    """The entry ``asynchronous`` of a line.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, OverflowError: it is damaged.
    """
    return Asynchronous(
        _count(row["updates"]),
        _count(row["utterances"]),
        _shards(row["staleness"]),
        {str(name): _share(done) for name, done in row["workers"].items()},
        _count(row["items_given_back"]),
        _count(row["refused"]),
        tuple(str(name) for name in row["lost"]),
    )


def _shards(rows: Sequence[Any]) -> tuple[Staleness, ...]:
    if not rows:
        raise ValueError("no shard")
    return tuple(_staleness(seen) for seen in rows)


def _staleness(seen: Mapping[str, Any]) -> Staleness:
    counts = {_count(late): _count(count) for late, count in seen.items()}
    return Staleness(dict(sorted(counts.items())))


def _share(row: Mapping[str, Any]) -> WorkerShare:
    steps, speed = _count(row["steps"]), _amount(row["steps_per_second"])
    return WorkerShare(
        steps,
        _count(row["utterances"]),
        steps / speed if speed else 0.0,
        _amount(row["megabytes"]),
        _amount(row["waiting_seconds"]),
    )


def _count(value: Any) -> int:
    if (number := int(value)) < 0:
        raise ValueError(f"{value} is below 0")
    return number


def _amount(value: Any) -> float:
    if not 0.0 <= (number := float(value)) < math.inf:
        raise ValueError(f"{value} is no amount")
    return number
