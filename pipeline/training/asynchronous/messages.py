"""What the processes of an asynchronous training send each other."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from pipeline.training.step import Counts


class Item(NamedTuple):
    """Examples of an epoch that one worker gets at a time, numbered from 0.

    They are the batches of one push; in truncated backpropagation, an utterance.
    """

    epoch: int
    number: int


@dataclass(frozen=True)
class Pulled:
    """The weights of a shard, and which version they are."""

    version: int
    weights: list[Tensor]
    buffers: list[Tensor]


@dataclass(frozen=True)
class Push:
    """A worker's gradients for a shard.

    Attributes:
        worker: its number, from 1.
        serial: the number of the push among those of the worker.
        epoch: that the examples belong to.
        item: the examples, whose gradients a shard takes only once; None: any part of some.
        rate: the learning rate.
        norm: the norm of all gradients, also those for other shards, before they were clipped.
        version: of the weights that the gradients were computed at.
        gradients: in the order of the shard's weights; None for weights that took no part.
        buffers: running averages after the computation, and as they were pulled.
    """

    worker: int
    serial: int
    epoch: int
    item: Item | None
    rate: float
    norm: float
    version: int
    gradients: Sequence[Tensor | None]
    buffers: tuple[Sequence[Tensor], Sequence[Tensor]] = ((), ())


APPLIED, KNOWN, REFUSED = "applied", "known", "refused"  # what a shard does with a push


@dataclass(frozen=True)
class Report:
    """What a worker has done since its last report.

    Attributes:
        finished: the items whose gradients all shards have.
        epoch: that the counts belong to.
        counts: of loss, tokens, frames and skipped utterances.
        steps: the number of gradients computed.
        megabytes: moved to and from the shards.
        waiting: seconds in which the worker waited for others.
        seconds: all of them.
    """

    finished: tuple[Item, ...] = ()
    epoch: int = 0
    counts: Counts = field(default_factory=Counts)
    steps: int = 0
    megabytes: float = 0.0
    waiting: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Work:
    """The coordinator's answer to a worker: items; none if there is nothing now.

    Attributes:
        items: to compute.
        leave: whether the training is over.
        finished: the number of utterances of the asked epoch that are done.
    """

    items: tuple[Item, ...] = ()
    leave: bool = False
    finished: int = 0
