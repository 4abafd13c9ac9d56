"""Which process of an asynchronous training does what, and how it starts and ends.

Rank 0 is the coordinator, the next ranks are the shards, all others are workers.
"""

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from pipeline.errors import PipelineError, UsageError
from pipeline.models.model_dir import ModelDir
from pipeline.nn.models import Model
from pipeline.training.asynchronous.coordinator import Coordinator
from pipeline.training.asynchronous.engine import Engine, Lost, RpcEngine
from pipeline.training.asynchronous.link import Link
from pipeline.training.asynchronous.shard import Shard, split_by_size, trained
from pipeline.training.asynchronous.shards import Shards, shard_name
from pipeline.training.asynchronous.worker import StreamWorker, Worker
from pipeline.training.augment import Streams
from pipeline.training.dataset import Utterance
from pipeline.training.distributed.processes import World, portable
from pipeline.training.interrupts import Interrupts
from pipeline.training.objectives.objective import Objective
from pipeline.training.train_options import FramewiseTrainOptions, TrainOptions

S = TypeVar("S", bound=Shard)

log = logging.getLogger("pipeline")

BEAT = 1.0  # seconds between looks of a shard for the coordinator
GOODBYE = 10.0  # seconds in which a lost worker waits to be told how the training ended
COORDINATOR = "coordinator"


def worker_name(number: int) -> str:
    """What the processes call a worker."""
    return f"worker{number}"


@dataclass(frozen=True)
class Roles:
    """How many processes there are, and which one this is."""

    rank: int
    size: int
    shards: int

    @property
    def workers(self) -> int:
        """The number of workers."""
        return self.size - 1 - self.shards

    @property
    def number(self) -> int:
        """Of this process among those of its kind, from 1."""
        return self.rank - self.shards if self.is_worker else self.rank

    @property
    def is_worker(self) -> bool:
        """Whether this process computes gradients."""
        return self.rank > self.shards

    @property
    def name(self) -> str:
        """What the processes call this one."""
        if self.rank == 0:
            return COORDINATOR
        return worker_name(self.number) if self.is_worker else shard_name(self.rank)

    @property
    def worker_names(self) -> list[str]:
        """The names of all workers."""
        return [worker_name(n + 1) for n in range(self.workers)]

    def require_enough(self) -> None:
        """Raise UsageError if no process is left to be a worker."""
        if self.workers < 1:
            raise UsageError(
                f"--async with --shards={self.shards} needs {self.shards + 2} processes or more (a "
                f"coordinator, the shards, workers), not {self.size}; start it with torchrun "
                "--nproc-per-node=N or srun --ntasks=N, or give --async=hogwild on one machine"
            )


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a trainer is made from."""

    model: Model
    objective: Objective
    directory: ModelDir
    options: TrainOptions
    train: list[Utterance]
    dev: list[Utterance]
    device: torch.device
    streams: Streams

    def make(self, kind: Callable[..., Any], world: World | None = None) -> Any:
        """A trainer of some kind; without a world, it is alone."""
        return kind(
            self.model.to(self.device), self.objective, self.directory, self.options,
            train=self.train, dev=self.dev, device=self.device, streams=self.streams,
            world=world or World.alone(),
        )  # fmt: skip

    @property
    def by_streams(self) -> bool:
        """Whether workers read subsequences of streams, not batches."""
        return isinstance(self.options, FramewiseTrainOptions) and self.options.used_streams > 0

    def items_of(self, trainer: Any) -> Callable[[int], list[int]]:
        """The numbers of utterances of the items of an epoch; see `Item`."""
        if self.by_streams:
            return lambda epoch: [1] * len(self.train)
        size = self.options.push_every

        def sizes(epoch: int) -> list[int]:
            counts = [len(batch) for batch in trainer._batches(epoch)]
            return [sum(counts[n : n + size]) for n in range(0, len(counts), size)]

        return sizes

    def work(self, link: Link, workers: int) -> None:
        """Work as a worker until the training is over."""
        if self.by_streams:
            self.make(StreamWorker).work(link, workers=workers)
        else:
            self.make(Worker).work(link)


def names_of_parts(parts: Parts) -> list[list[str]]:
    """The names of the weights of each shard. Raises UsageError if there are too many shards."""
    weights, _ = trained(parts.model, parts.objective.auxiliary)
    if parts.options.shards > len(weights):
        raise UsageError(
            f"--shards must be at most {len(weights)}, the number of this model's weight tensors, "
            f"not {parts.options.shards}"
        )
    return split_by_size(weights, parts.options.shards)


def make_shard(parts: Parts, number: int, names: Sequence[Sequence[str]], kind: type[S]) -> S:
    """A shard whose tensors are those of this process's model; the first one has the buffers."""
    weights, buffers = trained(parts.model, parts.objective.auxiliary)
    return kind(
        number,
        {name: weights[name] for name in names[number - 1]},
        buffers if number == 1 else {},
        parts.options,
        divide_by_staleness=parts.options.divide_by_staleness,
    )


# ---- on torch.distributed.rpc --------------------------------------------------------------------


def run(parts: Parts, roles: Roles, world: World) -> None:
    """Do this process's part of the training; the processes of ``world`` part.

    Raises:
        PipelineError: in the coordinator: see `Coordinator`.
        SystemExit: in the others, without a message, if the training fails.
    """
    names = names_of_parts(parts)
    served: Any = Member()
    if roles.rank == 0:
        served = coordinator = parts.make(Coordinator)
    elif not roles.is_worker:
        served = _ShardMember(make_shard(parts, roles.number, names, Shard))
    engine = RpcEngine(
        roles.name, served, threads=parts.options.threads, minutes=parts.options.timeout
    )
    address, port = world.meeting_place()
    hosts = world.gather(socket.gethostname())
    world.part()
    engine.connect(rank=roles.rank, size=roles.size, address=address, port=port)
    try:
        if roles.rank == 0:
            log.info(
                "asynchronous: %d workers, %d shards of %s weights, on %s",
                roles.workers,
                roles.shards,
                ", ".join(f"{sum(_sizes(parts, part)):,}" for part in names),
                ", ".join(dict.fromkeys(hosts)),
            )
            _coordinate(parts, roles, engine, coordinator)
        elif roles.is_worker:
            weights, buffers = trained(parts.model, parts.objective.auxiliary)
            link = Link(engine, roles.number, names, weights, buffers)
            work(parts, link, engine, served, roles.workers)
        else:
            _wait_for_the_end(engine, served)
    finally:
        engine.leave()


def _sizes(parts: Parts, names: Sequence[str]) -> list[int]:
    weights, _ = trained(parts.model, parts.objective.auxiliary)
    return [weights[name].numel() for name in names]


class Member:
    """What a process is called for."""

    def __init__(self) -> None:
        self.leaving = threading.Event()
        self.status = 0

    def ping(self) -> None:
        """Show that this process is there."""

    def leave(self, status: int) -> None:
        """End with an exit status: the training has."""
        self.status = status
        self.leaving.set()


class _ShardMember(Member):
    """A shard, and when to end."""

    def __init__(self, shard: Shard) -> None:
        super().__init__()
        self.shard = shard

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["shard"], name)


def _coordinate(parts: Parts, roles: Roles, engine: Engine, coordinator: Coordinator) -> None:
    status = 1
    others = [*(shard_name(n + 1) for n in range(roles.shards)), *roles.worker_names]
    try:
        coordinator.prepare_to_serve(
            engine,
            Shards(engine, roles.shards, parts.directory),
            workers=roles.worker_names,
            items_of=parts.items_of(coordinator),
        )
        coordinator.run()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
        raise
    except PipelineError as error:
        status = error.exit_code
        raise
    finally:
        coordinator.leave()
        for answer in [engine.call(to, "leave", status) for to in others]:
            try:
                answer.wait()
            except Lost as error:
                log.debug("%s", error)


def work(parts: Parts, link: Link, engine: Engine, member: Member, workers: int) -> None:
    """Work, and report errors to the coordinator.

    Raises:
        SystemExit: without a message, if the training ends otherwise than well.
    """
    try:
        parts.work(link, workers)
    except Lost as error:
        _tell(engine, "missed", error)
        if not member.leaving.wait(GOODBYE):
            raise SystemExit(1) from error
        raise SystemExit(member.status) from error
    except Exception as error:
        _tell(engine, "failed", link.worker, portable(error, worker_name(link.worker)))
        member.leaving.wait(GOODBYE)
        raise SystemExit(1) from error
    member.leaving.wait(GOODBYE)
    if member.status:
        raise SystemExit(member.status)


def _tell(engine: Engine, method: str, *args: Any) -> None:
    try:
        engine.call(COORDINATOR, method, *args).wait()
    except Lost as error:
        log.debug("%s", error)


def _wait_for_the_end(engine: Engine, member: Member) -> None:
    """Answer calls until the coordinator says that the training has ended, or is lost."""
    with Interrupts():  # a signal is the coordinator's to act on, which needs the shards to save
        while not member.leaving.wait(BEAT):
            try:
                engine.call(COORDINATOR, "ping").wait()
            except Lost as error:
                if member.leaving.is_set():
                    break
                raise SystemExit(1) from error
    if member.status:
        raise SystemExit(member.status)
