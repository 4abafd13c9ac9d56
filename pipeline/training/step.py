"""Gradients of a batch, by as much of it at a time as memory has room for."""

import logging
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.training.dataset import Batch
from pipeline.training.objectives.objective import Objective

log = logging.getLogger("pipeline")


class Counts(NamedTuple):
    """What an update was made from."""

    nats: float = 0.0
    tokens: int = 0
    frames: int = 0
    skipped: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """The sum."""
        return Counts(
            self.nats + other.nats,
            self.tokens + other.tokens,
            self.frames + other.frames,
            self.skipped + other.skipped,
        )


class GradientSum:
    """Adds up ∂L/∂w of losses summed over utterances."""

    def __init__(
        self,
        objective: Objective,
        parameters: Sequence[Tensor],
        device: torch.device,
        precision: str,
    ) -> None:
        self.objective, self.parameters = objective, parameters
        self.device, self.precision = device, precision

    def add(self, batch: Batch) -> tuple[Counts, str]:
        """Gradients of a batch, which must be the first to be added, and whose loss is not finite.

        Where it takes more memory than there is, its utterances are taken one by one.
        """
        try:
            return self._backward(batch.to(self.device))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        # Beyond this block, since what an exception holds on to is freed only here.
        total, wrong = Counts(), []
        self._clear()
        for one in batch.each():
            before = [p.grad for p in self.parameters]
            self._clear()
            counts, whose = self._alone(one)
            for parameter, gradient in zip(self.parameters, before, strict=True):
                if gradient is not None:
                    parameter.grad = (
                        gradient if parameter.grad is None else parameter.grad + gradient
                    )
            total = total.plus(counts)
            wrong.append(whose)
        return total, ", ".join(filter(None, wrong))

    def _alone(self, batch: Batch) -> tuple[Counts, str]:
        """Gradients of one utterance, or none where it takes more memory than there is."""
        try:
            return self._backward(batch.to(self.device))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        self._clear()
        log.warning(
            "%s: %d frames take more memory than there is; skipped",
            batch.utt_ids[0],
            int(batch.lengths[0]),
        )
        return Counts(skipped=1), ""

    def _backward(self, batch: Batch) -> tuple[Counts, str]:
        with self._precision():
            losses = self.objective.losses(batch)
        total = losses.sum()
        total.backward()  # type: ignore[no-untyped-call]
        nats = float(total.detach())
        wrong = "" if math.isfinite(nats) else _not_finite(batch, losses)
        return Counts(nats, int(batch.target_lengths.sum()), int(batch.lengths.sum())), wrong

    def _precision(self) -> AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


def _not_finite(batch: Batch, losses: torch.Tensor) -> str:
    pairs = zip(batch.utt_ids, losses.tolist(), strict=True)
    return ", ".join(utt for utt, loss in pairs if not math.isfinite(loss)) or "a whole batch"


def _is_out_of_memory(error: BaseException) -> bool:
    """torch reports a CPU's full memory as any other error."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return "DefaultCPUAllocator" in str(error) or "out of memory" in str(error)
