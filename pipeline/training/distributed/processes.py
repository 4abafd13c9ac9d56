"""Several processes, started by torchrun or srun, that train one model together.

This is synchronous stochastic gradient descent, as in D. Amodei et al., "Deep Speech 2", 2016: each
process computes a part of every batch, and the gradients of the summed loss are added. The result
is that of one process with the same batches, up to rounding. If one process fails, all end, and the
error is reported once.
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
from pipeline.training.distributed.launcher import ProcessInfo, find_process
from pipeline.training.distributed.rendezvous import rendezvous

T = TypeVar("T")

MINUTES = 10.0
LONGEST = 1e6  # minutes
NUMBERS = 8  # of every message, so that a report of a failure can be summed with any other message


class World:
    """The processes of a training; a single one unless torchrun or srun started several.

    Counts, errors and signals are exchanged through gloo, gradients on GPUs through NCCL. Every
    exchange begins with `sum`, which reports the failure of one process to all.
    """

    def __init__(self, minutes: float = MINUTES, process: ProcessInfo | None = None) -> None:
        """Connect to the other processes.

        Args:
            minutes: the longest time to wait for another process, now and later.
            process: which process this is; None: as the environment says.

        Raises:
            UsageError: the environment does not state the rank and the number of processes.
            PipelineError: the other processes do not come in time.
        """
        process = process or find_process(os.environ)
        self.rank, self.size, self.local_rank = process.rank, process.size, process.local_rank
        self.device = torch.device("cpu")  # of the gradients
        self.ended = False
        self._gradients: Any = None  # the process group for gradients; None: the default group
        self._address = process.address
        self._wait = timedelta(minutes=min(minutes, LONGEST) if minutes > 0.0 else MINUTES)
        self._who = f"rank {self.rank} of {self.size} on {socket.gethostname()}"
        if self.size > 1:
            self._connect(process)

    @classmethod
    def alone(cls) -> "World":
        """One process, whatever the environment says."""
        return cls(process=ProcessInfo())

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the process that writes the files."""
        return self.rank == 0

    # ---- parts and sums --------------------------------------------------------------------------

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of a batch or of the dev set."""
        return list(items[self.rank :: self.size])

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums of up to 7 numbers over the processes, in float64.

        Raises:
            Exception: another process has failed; in rank 0, with the error of that process.
            SystemExit: another process has failed; in the other ranks, without a message.
            PipelineError: the connection to another process is lost.
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

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in one message for each dtype."""
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            alike = [tensor for tensor in tensors if tensor.dtype == dtype]
            whole = torch.cat([tensor.flatten() for tensor in alike])
            with self._connected():
                dist.all_reduce(whole, group=self._gradients)
            parts = torch.split(whole, [tensor.numel() for tensor in alike])
            for tensor, part in zip(alike, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def summed(self, sums: Tensor) -> Tensor:
        """The sum of a tensor over the processes. Raises what `sum` raises."""
        self.wait()
        whole = sums.clone()
        if self.size > 1:
            with self._connected():
                dist.all_reduce(whole, group=self._gradients)
        return whole

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
        """The objects that the processes pass, by rank."""
        self.wait()
        return [mine] if self.size == 1 else self._gather(mine)

    def from_first(self, make: Callable[[], T]) -> T:
        """What ``make`` returns in rank 0, in all processes; only rank 0 need see the files."""
        made = [make() if self.is_first else None]
        self.wait()
        if self.size > 1:
            with self._connected():
                dist.broadcast_object_list(made, src=0)
        return made[0]  # type: ignore[return-value]  # None only if ``make`` returned it

    def wait(self) -> None:
        """Wait until all processes are here. Raises what `sum` raises."""
        self.sum([])

    # ---- failures and agreement ------------------------------------------------------------------

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block that all processes leave together; an exception in one ends it in all."""
        try:
            yield
            self.wait()
        except Exception as error:
            if self.size > 1 and not self.ended:
                self._exchange([], portable(error, self._who))
            raise

    def require_same(self, facts: Mapping[str, object]) -> None:
        """Raise UsageError, naming the differences, unless the facts agree in all processes."""
        there = self.gather(dict(facts))
        for rank, other in enumerate(there):
            changed = [
                f"{name}: {there[0].get(name)!r} in rank 0, {other.get(name)!r} in rank {rank}"
                for name in facts
                if other.get(name) != there[0].get(name)
            ]
            if changed:
                raise UsageError(
                    "the processes of one training must run the same command on the same files; "
                    "set WORLD_SIZE=1 for separate trainings:\n  " + "\n  ".join(changed)
                )

    def use(self, device: torch.device) -> None:
        """Use a device from now on.

        Raises:
            UsageError: only some of the processes have a GPU, or two have the same one.
        """
        self.device = device
        name = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
        found = self.gather((socket.gethostname(), name))
        without = [host for host, gpu in found if not gpu]
        if 0 < len(without) < len(found):
            raise UsageError(
                f"no GPU for {len(without)} of {self.size} processes (on {without[0]}), while the "
                "others have one; give --device=cpu, or ask for as many GPUs as processes"
            )
        for gpu in {gpu for gpu in found if gpu[1]}:
            if found.count(gpu) > 1:
                raise UsageError(
                    f"{gpu[0]}: {found.count(gpu)} processes have the same GPU; start one process "
                    "per GPU (torchrun --nproc-per-node, srun --ntasks-per-node)"
                )
        if self.size > 1 and device.type == "cuda":
            with self._connected():
                self._gradients = dist.new_group(backend="nccl", timeout=self._wait)

    def meeting_place(self) -> tuple[str, int]:
        """Address and free port of rank 0, for connections of another kind."""

        def find() -> tuple[str, int]:
            with socket.socket() as found:
                found.bind(("", 0))
                return self._address, int(found.getsockname()[1])

        return self.from_first(find)

    def part(self) -> None:
        """Let each process go on alone: errors stay where they are."""
        self.wait()
        self.leave()
        self.rank, self.size = 0, 1

    def leave(self) -> None:
        """Close the connection to the other processes."""
        if self.size > 1 and dist.is_initialized():
            if self.ended and self._gradients is not None:
                self._gradients.abort()  # does not wait for a lost process
            dist.destroy_process_group()

    # ---- messages --------------------------------------------------------------------------------

    def _connect(self, process: ProcessInfo) -> None:
        # The functions of this module take the current process group as a default value. If it is
        # imported later, they keep the group's threads alive until the interpreter exits, which
        # then sometimes aborts.
        importlib.import_module("torch.distributed.nn")
        try:
            dist.init_process_group(
                "gloo",
                store=rendezvous(process, self._wait),
                rank=self.rank,
                world_size=self.size,
                timeout=self._wait,
            )
        except (RuntimeError, ValueError) as error:
            raise PipelineError(
                f"{self._who}: no rendezvous with the others at {process.address}:{process.port} "
                f"({_reason(error)}); are all of them started? MASTER_ADDR, MASTER_PORT and "
                "GLOO_SOCKET_IFNAME choose another address, port or network interface"
            ) from error

    def _exchange(self, values: Sequence[float], failure: Exception | None) -> list[float]:
        """Sums over the processes; raises as `sum` does if a process has failed."""
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
                f"{self._who}: lost the connection to another process ({_reason(error)}); the last "
                "checkpoint is kept, and the same command continues from it"
            ) from error


def portable(error: Exception, who: str) -> Exception:
    """An error that can be sent to rank 0; a programming error gets its rank and traceback."""
    if isinstance(error, PipelineError | OSError | MemoryError):
        return error
    what = RuntimeError(f"{who}: {type(error).__name__}: {error}".partition("\n")[0])
    what.add_note(traceback.format_exc())
    return what


def _reason(error: Exception) -> str:
    """The first sentence of an error of torch, without the location in torch's source code."""
    line = re.sub(r"^\[\S*\] ", "", str(error).partition("\n")[0])
    return line.partition(". ")[0].rstrip(".")
