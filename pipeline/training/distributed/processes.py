"""Several processes that train one model together, as torchrun or srun starts them.

Each computes a part of every batch; gradients of the summed loss are added, so that the result is
that of one process with the same batches, to rounding: synchronous stochastic gradient descent, as
in D. Amodei et al., "Deep Speech 2", 2016. When one fails, all end, and the error is told once.
"""

import contextlib
import importlib
import os
import re
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.errors import PipelineError, UsageError
from pipeline.training.distributed.launcher import Place, find_place
from pipeline.training.distributed.rendezvous import meet

T = TypeVar("T")

MINUTES = 10.0
LONGEST = 1e6  # minutes
NUMBERS = 8  # in a message; all have as many, so that any two messages meet


class World:
    """The processes of a training; one alone where neither torchrun nor srun started several.

    Counts, errors and signals go by gloo; where a GPU computes, gradients go by NCCL. What the
    processes exchange always begins with `sum`, where the failure of one is told to all.
    """

    def __init__(self, minutes: float = MINUTES) -> None:
        """Meet the others.

        Args:
            minutes: how long to wait for another process, here and later.

        Raises:
            UsageError: the environment does not say which of how many this is.
            PipelineError: the others are not there within this time.
        """
        place = find_place(os.environ)
        self.rank, self.size, self.local_rank = place.rank, place.size, place.local_rank
        self.device = torch.device("cpu")  # where gradients are
        self.ended = False
        self._gradients: Any = None  # the group that adds them; None: as all else
        self._wait = timedelta(minutes=min(minutes, LONGEST) if minutes > 0.0 else MINUTES)
        self._who = f"rank {self.rank} of {self.size} on {socket.gethostname()}"
        if self.size > 1:
            self._meet(place)

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    # ---- parts and sums --------------------------------------------------------------------------

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of a batch, or of the dev set."""
        return list(items[self.rank :: self.size])

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over the processes, float64; at most 7 numbers.

        Raises:
            Exception: what another process failed with, in the first one.
            SystemExit: the same, without a word, in those after it.
            PipelineError: another process is lost.
        """
        return list(values) if self.size == 1 else self._exchange(values, None)

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace each gradient by its sum over the processes, in one message."""
        if self.size == 1:
            return
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        whole = torch.cat([part.flatten() for part in parts])
        with self._connected():
            dist.all_reduce(whole, group=self._gradients)
        for parameter, part in zip(
            parameters, torch.split(whole, [p.numel() for p in parameters]), strict=True
        ):
            parameter.grad = part.view_as(parameter)

    def average_buffers(self, buffers: Sequence[Tensor]) -> None:
        """Replace each buffer by its mean over the processes, in one message."""
        if self.size == 1 or not buffers:
            return
        whole = torch.cat([buffer.flatten() for buffer in buffers])
        with self._connected():
            dist.all_reduce(whole, group=self._gradients)
        parts = torch.split(whole / self.size, [b.numel() for b in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))

    def gather(self, mine: Any) -> list[Any]:
        """What each process has."""
        self.wait()
        return [mine] if self.size == 1 else self._gather(mine)

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, for all: they need not see the same files at once."""
        made = [make() if self.is_first else None]
        self.wait()
        if self.size > 1:
            with self._connected():
                dist.broadcast_object_list(made, src=0)
        return made[0]  # type: ignore[return-value]  # None only where it was made

    def wait(self) -> None:
        """Until all are here. Raises what `sum` raises."""
        self.sum([])

    # ---- one for all -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What fails within the block in one process ends it in all; they leave it together."""
        try:
            yield
            self.wait()
        except Exception as error:
            if self.size > 1 and not self.ended:
                self._exchange([], _portable(error, self._who))
            raise

    def require_same(self, facts: Mapping[str, object]) -> None:
        """Raise UsageError, naming the facts, unless they are the same in all processes."""
        there = self.gather(dict(facts))
        for rank, other in enumerate(there):
            changed = [
                f"{name}: {there[0].get(name)!r} in rank 0, {other.get(name)!r} in rank {rank}"
                for name in facts
                if other.get(name) != there[0].get(name)
            ]
            if changed:
                raise UsageError(
                    "the processes of one training run the same command on the same files; set "
                    "WORLD_SIZE=1 for separate trainings:\n  " + "\n  ".join(changed)
                )

    def use(self, device: torch.device) -> None:
        """Compute on this device from now on.

        Raises:
            UsageError: some processes have a GPU and some none, or two have the same.
        """
        self.device = device
        name = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
        found = self.gather((socket.gethostname(), name))
        without = [host for host, gpu in found if not gpu]
        if 0 < len(without) < len(found):
            raise UsageError(
                f"no GPU for {len(without)} of {self.size} processes (on {without[0]}), but one "
                "for the others; give --device=cpu, or ask for as many GPUs as processes"
            )
        for gpu in {gpu for gpu in found if gpu[1]}:
            if found.count(gpu) > 1:
                raise UsageError(
                    f"{gpu[0]}: {found.count(gpu)} processes have the same GPU; start one process "
                    "a GPU (torchrun --nproc-per-node, srun --ntasks-per-node)"
                )
        if self.size > 1 and device.type == "cuda":
            with self._connected():
                self._gradients = dist.new_group(backend="nccl", timeout=self._wait)

    def leave(self) -> None:
        """End the connection to the others."""
        if self.size > 1 and dist.is_initialized():
            if self.ended and self._gradients is not None:
                self._gradients.abort()  # does not wait for who is lost
            dist.destroy_process_group()

    # ---- messages --------------------------------------------------------------------------------

    def _meet(self, place: Place) -> None:
        # Its functions have the group for a default. Imported later, they would keep its threads
        # alive to the interpreter's end, which then now and then is an abort.
        importlib.import_module("torch.distributed.nn")
        try:
            dist.init_process_group(
                "gloo",
                store=meet(place, self._wait),
                rank=self.rank,
                world_size=self.size,
                timeout=self._wait,
            )
        except (RuntimeError, ValueError) as error:
            raise PipelineError(
                f"{self._who}: does not meet the others at {place.address}:{place.port} "
                f"({_reason(error)}); are all of them started? MASTER_ADDR, MASTER_PORT and "
                "GLOO_SOCKET_IFNAME name another place"
            ) from error

    def _exchange(self, values: Sequence[float], failure: Exception | None) -> list[float]:
        """Sums, unless a process has failed."""
        count = len(values)
        padding = [0.0] * (NUMBERS - 1 - count)
        message = torch.tensor([float(failure is not None), *values, *padding], dtype=torch.float64)
        with self._connected():
            dist.all_reduce(message)
        failed, *sums = message.tolist()
        if failed > 0.0:
            self._end(failure)
        return sums[:count]

    def _end(self, failure: Exception | None) -> None:
        failures = self._gather(failure)
        self.ended = True
        error = next(filter(None, failures))
        if self.is_first:
            raise error
        raise SystemExit(getattr(error, "exit_code", 1))

    def _gather(self, mine: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        with self._connected():
            dist.all_gather_object(found, mine)
        return found

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            self.ended = True
            raise PipelineError(
                f"{self._who}: has lost another process ({_reason(error)}); the last checkpoint "
                "is kept, and the same command goes on from it"
            ) from error


def _portable(error: Exception, who: str) -> Exception:
    """An error that can be sent, with where it happened if it is no person's."""
    if isinstance(error, PipelineError | OSError | MemoryError):
        return error
    what = RuntimeError(f"{who}: {type(error).__name__}: {error}".partition("\n")[0])
    what.add_note(traceback.format_exc())
    return what


def _reason(error: Exception) -> str:
    """The first sentence, without torch's places in its source."""
    line = re.sub(r"^\[\S*\] ", "", str(error).partition("\n")[0])
    return line.partition(". ")[0].rstrip(".")
