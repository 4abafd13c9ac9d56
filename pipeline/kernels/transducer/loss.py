"""The transducer's log-loss over padded batches, with an exact gradient.

The reference is `reference.py`; the work is done by an engine
(`plain.py`, `cpu.py`, `cuda.py`). Where the logits come from a
joiner, `joint_loss.py` gives the same loss without having them all in memory.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.kernels.engines import engine
from pipeline.kernels.transducer.plain import Lattice


def transducer_loss(
    logits: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = -1,
    clamp: float = -1.0,
    reduction: str = "mean",
    fused_log_softmax: bool = True,
) -> Tensor:
    """-ln Pr(y|x), [G12] eq. 17, with the gradient of eq. 20-22; called as torchaudio's rnnt_loss.

    Args:
        logits: joiner outputs before the softmax, (N, T, U+1, V), anything in the padding; float16
            and bfloat16 are computed with as float32.
        targets: token ids, (N, U), anything in the padding.
        logit_lengths: frames of each utterance, (N,), 1 … T.
        target_lengths: tokens of each utterance, (N,), 0 … U.
        blank: id of ∅; negative counts from the end.
        clamp: above 0, gradients of the logits are cut to ± this, per utterance of upstream 1.
        reduction: ``none`` (N,), ``mean`` over the batch, or ``sum``.
        fused_log_softmax: false where ``logits`` already are log-probabilities.

    Returns:
        The loss in nats, float32 (float64 for float64 logits). Infinite, with a gradient of 0, for
        targets that have no path of probability above 0; NaN where a logit is.

    Raises:
        ValueError: shapes, lengths or token ids that do not fit each other.
    """
    blank = check_lattice(logits, targets, logit_lengths, target_lengths, blank)
    check_reduction(reduction)
    if isinstance(clamp, str):
        raise TypeError("clamp is a number; give the reduction by its name, reduction=…")
    lengths = (logit_lengths.long(), target_lengths.long())
    values = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
    if logits.is_cuda:
        values = logits
    apply = _FromLogits.apply if fused_log_softmax else _FromLogProbs.apply
    losses: Tensor = apply(values, targets.long(), *lengths, blank, clamp)
    return reduce_losses(losses, reduction)


def check_reduction(reduction: str) -> None:
    """Raise ValueError for an unknown one."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction is none, mean or sum, not {reduction!r}")


def reduce_losses(losses: Tensor, reduction: str) -> Tensor:
    """Losses (N,) as they are, their mean or their sum."""
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def check_lattice(
    logits: Tensor, targets: Tensor, logit_lengths: Tensor, target_lengths: Tensor, blank: int
) -> int:
    """The blank's id, 0 … V - 1, if all fits a lattice of logits (N, T, U+1, V); else ValueError.

    Only the shape of ``logits`` is looked at.
    """
    if logits.dim() != 4 or targets.dim() != 2:
        raise ValueError(
            f"logits are (N, T, U+1, V) and targets (N, U), not {tuple(logits.shape)} and "
            f"{tuple(targets.shape)}"
        )
    if not logits.is_floating_point():
        raise ValueError(f"logits are floating-point numbers, not {logits.dtype}")
    n, t_max, u_max, vocab = logits.shape
    if targets.shape[0] != n or logit_lengths.shape != (n,) or target_lengths.shape != (n,):
        raise ValueError("logits, targets and both lengths need the same batch size")
    if targets.shape[1] != u_max - 1:
        raise ValueError(f"logits have U+1 = {u_max}, so targets need {u_max - 1} columns")
    if n and not (int(logit_lengths.min()) >= 1 and int(logit_lengths.max()) <= t_max):
        raise ValueError(f"logit_lengths must lie in 1 … {t_max}")
    if n and not (int(target_lengths.min()) >= 0 and int(target_lengths.max()) <= u_max - 1):
        raise ValueError(f"target_lengths must lie in 0 … {u_max - 1}")
    if not -vocab <= blank < vocab:
        raise ValueError(f"blank {blank} is no id of {vocab} outputs")
    blank %= vocab
    inside = torch.arange(u_max - 1, device=targets.device) < target_lengths[:, None]
    if bool((inside & ((targets < 0) | (targets >= vocab) | (targets == blank))).any()):
        raise ValueError(f"targets must lie in 0 … {vocab - 1} and not be the blank, {blank}")
    return blank


class _FromLogits(Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        logit_lengths: Tensor,
        target_lengths: Tensor,
        blank: int,
        clamp: float,
    ) -> Tensor:
        kernels = engine("transducer", logits)
        arrows = kernels.arrows(logits, targets, logit_lengths, target_lengths, blank)
        lattice = kernels.sweep(arrows.null, arrows.label, logit_lengths, target_lengths)
        ctx.save_for_backward(
            logits, targets, logit_lengths, target_lengths, arrows.log_norm, *lattice
        )
        ctx.blank, ctx.clamp = blank, clamp
        log_prob: Tensor = lattice.log_prob.to(torch.promote_types(logits.dtype, torch.float32))
        return -log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        logits, targets, logit_lengths, target_lengths, log_norm, *saved = ctx.saved_tensors
        lattice, upstream = Lattice(*saved), grads[0][:, None, None]
        scaled = lattice if ctx.clamp > 0 else scale(lattice, upstream)
        gradient = engine("transducer", logits).logits_gradient(
            logits, targets, log_norm, scaled, ctx.blank, logit_lengths, target_lengths
        )
        if ctx.clamp > 0:
            gradient = gradient.clamp_(-ctx.clamp, ctx.clamp) * upstream[..., None]
        return gradient.to(logits.dtype), None, None, None, None, None


def scale(lattice: Lattice, upstream: Tensor) -> Lattice:
    """Posteriors times the upstream gradient, (N, 1, 1)."""
    upstream = upstream.to(lattice.null.dtype)
    return Lattice(lattice.log_prob, lattice.null * upstream, lattice.label * upstream)


class _FromLogProbs(Function):
    @staticmethod
    def forward(
        ctx: Any,
        log_probs: Tensor,
        targets: Tensor,
        logit_lengths: Tensor,
        target_lengths: Tensor,
        blank: int,
        clamp: float,
    ) -> Tensor:
        index = _label_index(log_probs, targets)
        label = log_probs.gather(3, index).squeeze(3).contiguous()
        null = log_probs[..., blank].contiguous()
        lattice = engine("transducer", null).sweep(null, label, logit_lengths, target_lengths)
        ctx.save_for_backward(index, *lattice)
        ctx.blank, ctx.clamp, ctx.like = blank, clamp, (log_probs.shape, log_probs.dtype)
        log_prob: Tensor = lattice.log_prob.to(torch.promote_types(log_probs.dtype, torch.float32))
        return -log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        index, _, null, label = ctx.saved_tensors
        shape, dtype = ctx.like
        gradient = null.new_zeros(shape)
        gradient.scatter_(3, index, -label[..., None])
        gradient[..., ctx.blank] -= null
        if ctx.clamp > 0:
            gradient.clamp_(-ctx.clamp, ctx.clamp)
        gradient *= grads[0][:, None, None, None]
        return gradient.to(dtype), None, None, None, None, None


def _label_index(log_probs: Tensor, targets: Tensor) -> Tensor:
    """(N, T, U+1, 1): the id of the label arrow out of each cell; any id where there is none."""
    n, frames, width, vocab = log_probs.shape
    following = targets.new_zeros(n, width)
    following[:, :-1] = targets.clamp(0, vocab - 1)
    return following[:, None, :, None].expand(n, frames, width, 1)
