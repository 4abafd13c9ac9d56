"""Joiner and transducer loss as one, so that the lattice of logits is never whole in memory.

`joint_transducer_loss` is for the output network of [G13], a tanh layer and a softmax layer over
each pair of a frame and a prefix; `sum_transducer_loss` for [G12], where two vectors are added.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.kernels.engines import engine
from pipeline.kernels.transducer.loss import (
    check_lattice,
    check_reduction,
    reduce_losses,
    scale,
)
from pipeline.kernels.transducer.plain import Joint, Lattice


def joint_transducer_loss(
    encoder: Tensor,
    predictor: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = -1,
    reduction: str = "mean",
) -> Tensor:
    """The loss of logits W tanh(f_t + g_u) + b, [G13] eq. 16-18, [G12] eq. 17.

    Args:
        encoder: what the encoder gives for each frame, (N, T, J): W_lh l_t + b_h.
        predictor: what the predictor gives for each prefix, (N, U+1, J): W_ph p_u.
        weight: W_hy, (V, J).
        bias: b_y, (V,).
        targets: token ids, (N, U), anything in the padding.
        logit_lengths: frames of each utterance, (N,), 1 … T.
        target_lengths: tokens of each utterance, (N,), 0 … U.
        blank: id of ∅; negative counts from the end.
        reduction: ``none`` (N,), ``mean`` over the batch, or ``sum``.

    Returns:
        As `transducer_loss`. Gradients of cells that a path visits with a probability below
        rounding, so that less than 2^-24 of each diagonal's 1 is left out, are not computed.

    Raises:
        ValueError: shapes, lengths or token ids that do not fit each other.
    """
    _check_same(encoder, predictor, "J")
    vocab, size = weight.shape
    if encoder.shape[2] != size or bias.shape != (vocab,):
        raise ValueError(
            f"weight is (V, J) = {tuple(weight.shape)}, so the encoder's need J = {size} numbers, "
            f"not {encoder.shape[2]}, and bias V = {vocab} numbers, not {tuple(bias.shape)}"
        )
    blank = _check(
        encoder, predictor, vocab, targets, logit_lengths, target_lengths, blank, reduction
    )
    whole = (x.long() for x in (targets, logit_lengths, target_lengths))
    losses: Tensor = _JointLoss.apply(encoder, predictor, weight, bias, *whole, blank)
    return reduce_losses(losses, reduction)


def _check_same(encoder: Tensor, predictor: Tensor, last: str) -> None:
    if encoder.dim() != 3 or predictor.dim() != 3 or encoder.shape[::2] != predictor.shape[::2]:
        raise ValueError(
            f"the encoder's are (N, T, {last}) and the predictor's (N, U+1, {last}), not "
            f"{tuple(encoder.shape)} and {tuple(predictor.shape)}"
        )


def _check(
    encoder: Tensor, predictor: Tensor, vocab: int, targets: Tensor,
    logit_lengths: Tensor, target_lengths: Tensor, blank: int, reduction: str,
) -> int:  # fmt: skip
    check_reduction(reduction)
    shape = (len(encoder), encoder.shape[1], predictor.shape[1], vocab)
    lattice = encoder.new_empty(1).expand(shape)  # a shape without memory
    return check_lattice(lattice, targets, logit_lengths, target_lengths, blank)


class _JointLoss(Function):
    @staticmethod
    def forward(
        ctx: Any,
        encoder: Tensor,
        predictor: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        logit_lengths: Tensor,
        target_lengths: Tensor,
        blank: int,
    ) -> Tensor:
        kernels = engine("transducer", encoder)
        inputs = (encoder, predictor, weight, bias, targets, logit_lengths, target_lengths)
        arrows = kernels.joint_arrows(Joint(*inputs, blank))
        lattice = kernels.sweep(arrows.null, arrows.label, logit_lengths, target_lengths)
        ctx.save_for_backward(*inputs, arrows.log_norm, *lattice)
        ctx.blank = blank
        log_prob: Tensor = lattice.log_prob.to(torch.promote_types(encoder.dtype, torch.float32))
        return -log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        *inputs, log_norm, log_prob, null, label = ctx.saved_tensors
        lattice = scale(Lattice(log_prob, null, label), grads[0][:, None, None])
        joint = Joint._make([*inputs, ctx.blank])
        gradients = engine("transducer", joint.encoder).joint_gradient(joint, log_norm, lattice)
        return *(g.to(x.dtype) for g, x in zip(gradients, inputs, strict=False)), *[None] * 4


# ---- the sum of [G12] ----------------------------------------------------------------------------


def sum_transducer_loss(
    encoder: Tensor,
    predictor: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = -1,
    reduction: str = "mean",
) -> Tensor:
    """The loss of logits f_t + g_u, [G12] eq. 12-17, from O(T + U) exponentials.

    Σ_k exp(f_t[k] + g_u[k]) is a product of two matrices of exponentials, as are the gradients.

    Args:
        encoder: f, (N, T, V).
        predictor: g, (N, U+1, V).
        targets, logit_lengths, target_lengths, blank, reduction: as `joint_transducer_loss`.

    Returns:
        As `transducer_loss`.

    Raises:
        ValueError: shapes, lengths or token ids that do not fit each other.
    """
    _check_same(encoder, predictor, "V")
    blank = _check(
        encoder,
        predictor,
        encoder.shape[2],
        targets,
        logit_lengths,
        target_lengths,
        blank,
        reduction,
    )
    losses: Tensor = _SumLoss.apply(
        encoder, predictor, targets.long(), logit_lengths.long(), target_lengths.long(), blank
    )
    return reduce_losses(losses, reduction)


def _exponentials(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """exp(x - max) and max over the outputs, float64; encoder of padding as zeros."""
    inside = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
    x = x.double().masked_fill(~inside[:, :, None], 0.0)
    top = x.amax(dim=2, keepdim=True).clamp(min=-1e300)
    return torch.exp(x - top), top


class _SumLoss(Function):
    @staticmethod
    def forward(
        ctx: Any,
        encoder: Tensor,
        predictor: Tensor,
        targets: Tensor,
        logit_lengths: Tensor,
        target_lengths: Tensor,
        blank: int,
    ) -> Tensor:
        f, f_top = _exponentials(encoder, logit_lengths)
        g, g_top = _exponentials(predictor, target_lengths + 1)
        sums = f @ g.transpose(1, 2)  # (N, T, U+1), the denominators of eq. 13
        log_norm = sums.log() + f_top + g_top.transpose(1, 2)
        for n in _underflown(sums):
            log_norm[n] = _dense_norm(encoder[n], predictor[n])
        null, label = _sum_arrows(encoder, predictor, targets, log_norm, blank)
        lattice = engine("transducer", null).sweep(null, label, logit_lengths, target_lengths)
        ctx.save_for_backward(
            encoder, predictor, targets, logit_lengths, target_lengths, log_norm, *lattice
        )
        ctx.blank = blank
        log_prob: Tensor = lattice.log_prob.to(torch.promote_types(encoder.dtype, torch.float32))
        return -log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        encoder, predictor, targets, t_len, u_len, log_norm, *saved = ctx.saved_tensors
        lattice = scale(Lattice(*saved), grads[0][:, None, None])
        occupancy = lattice.null + lattice.label
        f, f_top = _exponentials(encoder, t_len)
        g, g_top = _exponentials(predictor, u_len + 1)
        shares = torch.exp(f_top + g_top.transpose(1, 2) - log_norm)
        shares = torch.where(occupancy == 0, 0.0, shares * occupancy)
        d_encoder, d_predictor = f * (shares @ g), g * (shares.transpose(1, 2) @ f)
        for n in _underflown(f @ g.transpose(1, 2)):
            d_encoder[n], d_predictor[n] = _dense_shares(
                encoder[n], predictor[n], log_norm[n], occupancy[n]
            )
        d_encoder[..., ctx.blank] -= lattice.null.sum(dim=2)
        d_predictor[..., ctx.blank] -= lattice.null.sum(dim=1)
        vocab, width = encoder.shape[2], predictor.shape[1]
        one_hot = torch.nn.functional.one_hot(targets.clamp(0, vocab - 1), vocab).to(
            d_encoder.dtype
        )
        label = lattice.label[:, :, : width - 1]
        d_encoder -= label @ one_hot
        d_predictor[:, : width - 1] -= label.sum(dim=1)[:, :, None] * one_hot
        return d_encoder.to(encoder.dtype), d_predictor.to(predictor.dtype), None, None, None, None


def _sum_arrows(
    encoder: Tensor, predictor: Tensor, targets: Tensor, log_norm: Tensor, blank: int
) -> tuple[Tensor, Tensor]:
    """log Pr(∅|t,u) and log Pr(y_{u+1}|t,u), (N, T, U+1) float64, eq. 14 and 15."""
    f, g = encoder.double(), predictor.double()
    null = f[:, :, blank, None] + g[:, None, :, blank] - log_norm
    index = targets.clamp(0, encoder.shape[2] - 1)
    of_encoder = f.gather(2, index[:, None, :].expand(-1, f.shape[1], -1))
    of_predictor = g[:, :-1].gather(2, index[:, :, None]).transpose(1, 2)
    label = torch.full_like(null, -torch.inf)
    label[:, :, :-1] = of_encoder + of_predictor - log_norm[:, :, :-1]
    return null, label


# Where no output is probable to both networks the products of exponentials vanish even in float64;
# such an utterance is summed output by output instead, some frames at a time.


def _underflown(sums: Tensor) -> list[int]:
    return (sums < 1e-290).flatten(1).any(dim=1).nonzero().flatten().tolist()


def _frames_at_a_time(predictor: Tensor) -> int:
    return max(1, 2**20 // predictor.numel())


def _dense_norm(encoder: Tensor, predictor: Tensor) -> Tensor:
    step = _frames_at_a_time(predictor)
    parts = encoder.double().split(step)
    return torch.cat([(p[:, None] + predictor.double()).logsumexp(dim=2) for p in parts])


def _dense_shares(
    encoder: Tensor, predictor: Tensor, log_norm: Tensor, occupancy: Tensor
) -> tuple[Tensor, Tensor]:
    d_encoder = torch.zeros_like(encoder, dtype=torch.float64)
    d_predictor = torch.zeros_like(predictor, dtype=torch.float64)
    step = _frames_at_a_time(predictor)
    for start in range(0, len(encoder), step):
        part = slice(start, start + step)
        logits = encoder[part, None].double() + predictor.double()
        probs = torch.exp(logits - log_norm[part, :, None])
        visited = (occupancy[part] != 0)[..., None]
        probs = torch.where(visited, probs * occupancy[part, :, None], 0.0)
        d_encoder[part] = probs.sum(dim=1)
        d_predictor += probs.sum(dim=0)
    return d_encoder, d_predictor
