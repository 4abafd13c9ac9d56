"""CTC's log-loss, [G13] section 3.1, with the same bytes on every run and every device.

torch's own is right, but not reproducible on CUDA, where it adds with atomics, and slower on a CPU.
The sums over alignments are an engine's: `plain.py`, `cpu.py`, `cuda.py`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.kernels.engines import engine
from pipeline.kernels.transducer.loss import check_reduction


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor | Sequence[int],
    target_lengths: Tensor | Sequence[int],
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """-ln Pr(y|x), called as ``torch.nn.functional.ctc_loss``.

    Args:
        log_probs: (T, N, V), or (T, V) for one utterance; anything in the padding.
        targets: token ids, (N, U), anything in the padding; or all after each other in one row.
        input_lengths: frames of each utterance, (N,), 0 … T.
        target_lengths: tokens of each utterance, (N,).
        blank: id of the blank.
        reduction: ``none`` (N,), ``sum``, or ``mean``: over the batch, of losses a token.
        zero_infinity: whether an infinite loss, of an utterance too short for its tokens, is 0.

    Returns:
        The loss in nats; NaN where a log-probability of the blank or of a token of the utterance is
        NaN or plus infinity. Its gradient in ``log_probs`` is exact: -Pr(k at t | y, x), zero where
        the loss is infinite or NaN. (torch gives the gradient in the logits before the softmax
        instead; behind a log-softmax both come to the same.)

    Raises:
        ValueError: shapes, lengths or token ids that do not fit each other.
    """
    check_reduction(reduction)
    single = log_probs.dim() == 2
    if single:
        log_probs = log_probs[:, None]
    if log_probs.dim() != 3:
        raise ValueError(f"log_probs are (T, N, V) or (T, V), not {tuple(log_probs.shape)}")
    frames = _lengths(input_lengths, log_probs)
    labels = _lengths(target_lengths, log_probs)
    padded = _padded(targets, labels, log_probs.shape[1])
    blank = _check(log_probs, padded, frames, labels, blank)
    values = log_probs.transpose(0, 1)
    losses: Tensor = _CtcLoss.apply(values, padded, frames, labels, blank)
    if zero_infinity:
        losses = torch.where(torch.isinf(losses), 0.0, losses)
    if reduction == "mean":
        return (losses / labels.clamp(min=1).to(losses.dtype)).mean()
    if reduction == "sum":
        return losses.sum()
    return losses[0] if single else losses


def _lengths(lengths: Tensor | Sequence[int], log_probs: Tensor) -> Tensor:
    found = torch.as_tensor(lengths, dtype=torch.int64, device=log_probs.device).reshape(-1)
    if found.shape != (log_probs.shape[1],):
        raise ValueError(f"{log_probs.shape[1]} utterances need as many lengths, not {len(found)}")
    if len(found) and int(found.min()) < 0:
        raise ValueError("lengths must not be negative")
    return found


def _padded(targets: Tensor, labels: Tensor, count: int) -> Tensor:
    """(N, U) int64 on the device of the lengths, from targets of either form."""
    targets = targets.to(labels.device, torch.int64)
    if targets.dim() == 1 and count and len(targets) == int(labels.sum()):
        parts = targets.split(labels.tolist())
        return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
    if targets.dim() == 1 and count <= 1:
        targets = targets.expand(count, -1)
    if targets.dim() != 2 or len(targets) != count:
        raise ValueError(
            f"targets are (N, U), or as many numbers as target_lengths sum to, not "
            f"{tuple(targets.shape)}"
        )
    return targets


def _check(log_probs: Tensor, targets: Tensor, frames: Tensor, labels: Tensor, blank: int) -> int:
    t_max, n, vocab = log_probs.shape
    if n and int(frames.max()) > t_max:
        raise ValueError(f"input_lengths must lie in 0 … {t_max}")
    if n and int(labels.max()) > targets.shape[1]:
        raise ValueError(f"target_lengths must lie in 0 … {targets.shape[1]}")
    if not 0 <= blank < vocab:
        raise ValueError(f"blank {blank} is no id of {vocab} outputs")
    inside = torch.arange(targets.shape[1], device=targets.device) < labels[:, None]
    if bool((inside & ((targets < 0) | (targets >= vocab) | (targets == blank))).any()):
        raise ValueError(f"targets must lie in 0 … {vocab - 1} and not be the blank, {blank}")
    return blank


class _CtcLoss(Function):
    @staticmethod
    def forward(
        ctx: Any, log_probs: Tensor, targets: Tensor, frames: Tensor, labels: Tensor, blank: int
    ) -> Tensor:
        values = log_probs if log_probs.dtype == torch.float64 else log_probs.float()
        safe = targets.clamp(0, log_probs.shape[2] - 1)
        sums = engine("ctc", values).sweep(values, safe, frames, labels, blank)
        ctx.save_for_backward(sums.posteriors)
        ctx.dtype = log_probs.dtype
        log_prob: Tensor = sums.log_prob.to(values.dtype)
        return -log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (posteriors,) = ctx.saved_tensors
        gradient = posteriors * -grads[0][:, None, None]
        return gradient.to(ctx.dtype), None, None, None, None
