"""The gradient of a batch, computed one utterance at a time if memory is too small for all.

A network with batch normalisation cannot be computed so, since its statistics are those of the
whole batch: a batch too large for the memory is left out.
"""

import logging
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.training.dataset import Batch
from pipeline.training.distributed.norms import NormSums
from pipeline.training.objectives.objective import Objective

log = logging.getLogger("pipeline")


class Counts(NamedTuple):
    """Counts of the utterances that an update was computed from."""

    nats: float = 0.0  # their summed loss
    tokens: int = 0
    frames: int = 0
    skipped: int = 0  # utterances that needed more memory than there is

    def plus(self, other: "Counts") -> "Counts":
        """The sum of two counts."""
        return Counts(
            self.nats + other.nats,
            self.tokens + other.tokens,
            self.frames + other.frames,
            self.skipped + other.skipped,
        )


class GradientSum:
    """Computes ∂L/∂w of the loss L summed over the utterances of a batch."""

    def __init__(
        self,
        objective: Objective,
        parameters: Sequence[Tensor],
        device: torch.device,
        precision: str,
        norms: NormSums,
    ) -> None:
        self.objective, self.parameters = objective, parameters
        self.device, self.precision, self.norms = device, precision, norms

    def add(self, batch: Batch | None) -> tuple[Counts, str]:
        """Set the gradients to those of a batch; they must be None before.

        If the batch needs more memory than there is, its utterances are computed one by one, or
        left out if the network has batch normalisation. Without an utterance of the batch, None,
        this process only takes part in the sums of the others' batch normalisation.

        Returns:
            The counts, and the ids of the utterances whose loss is not finite, separated by commas.
        """
        self.norms.begin()
        if batch is None:
            self.norms.finish()
            return Counts(), ""
        try:
            return self._backward(batch.to(self.device))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if self.norms.has_failed or not _is_out_of_memory(error):
                raise
        # After the block, because the tensors that the exception refers to are freed only here.
        if self.norms.norms:
            return self._left_out(batch)
        total, wrong = Counts(), []
        self._clear()
        for one in batch.each():
            before = [p.grad for p in self.parameters]
            self._clear()
            counts, utt_id = self._alone(one)
            for parameter, gradient in zip(self.parameters, before, strict=True):
                if gradient is not None:
                    parameter.grad = (
                        gradient if parameter.grad is None else parameter.grad + gradient
                    )
            total = total.plus(counts)
            wrong.append(utt_id)
        return total, ", ".join(filter(None, wrong))

    def _left_out(self, batch: Batch) -> tuple[Counts, str]:
        """No gradients of a batch, and the exchanges that others wait for."""
        self._clear()
        self.norms.finish()
        log.warning(
            "a batch of %d utterances and up to %d frames needs more memory than there is, and "
            "batch normalisation needs it whole; skipped: give a lower --batch-frames",
            len(batch.utt_ids),
            int(batch.lengths.max()),
        )
        return Counts(skipped=len(batch.utt_ids)), ""

    def _alone(self, batch: Batch) -> tuple[Counts, str]:
        """The gradients of one utterance, or none if it needs more memory than there is."""
        try:
            return self._backward(batch.to(self.device))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        self._clear()
        log.warning(
            "%s: %d frames need more memory than there is; skipped",
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
    """Whether an error means that memory is full; on a CPU torch raises a plain RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return "DefaultCPUAllocator" in str(error) or "out of memory" in str(error)
