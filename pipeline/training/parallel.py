"""Several processes that train one model together, as torchrun starts them.

Each computes a part of every batch; gradients of the summed loss are added, so that the result is
that of one process with the same batches, to rounding.
"""

import os
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class World:
    """The processes of a training; one alone where torchrun did not start it."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0")) if self.size > 1 else 0
        self.device = device or torch.device("cpu")
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of a batch, or of the dev set."""
        return list(items[self.rank :: self.size])

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over the processes, float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace each gradient by its sum over the processes, in one message."""
        if self.size == 1:
            return
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        whole = torch.cat([part.flatten() for part in parts])
        dist.all_reduce(whole)
        for parameter, part in zip(
            parameters, torch.split(whole, [p.numel() for p in parameters]), strict=True
        ):
            parameter.grad = part.view_as(parameter)

    def gather(self, mine: Any) -> list[Any]:
        """What each process has."""
        if self.size == 1:
            return [mine]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, mine)
        return found

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        """End the connection to the others."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
