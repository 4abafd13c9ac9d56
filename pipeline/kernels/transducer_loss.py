"""The transducer's log-loss over padded batches, with an exact gradient.

The reference is `transducer_loss_reference.py`. The lattice is swept along its anti-diagonals
t + u = n, on which all cells are independent, in float64 and for the whole batch at once; the
gradient in the logits is formed in the forward pass, so nothing but it is kept for backward.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# A gradient smaller than this is zero to rounding; left in, such denormal numbers make the matrix
# products of the backward pass many times slower on a CPU.
NEGLIGIBLE = 1e-30


def transducer_loss(
    logits: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = -1,
    reduction: str = "mean",
) -> Tensor:
    """-ln Pr(y|x), [G12] eq. 17, with the gradient of eq. 20-22.

    Args:
        logits: joiner outputs before the softmax, (N, T, U+1, V), anything in the padding.
        targets: token ids, (N, U), anything in the padding.
        logit_lengths: frames of each utterance, (N,), 1 … T.
        target_lengths: tokens of each utterance, (N,), 0 … U.
        blank: id of ∅; negative counts from the end, as in ``torchaudio``.
        reduction: ``none`` (N,), ``mean`` over the batch, or ``sum``.

    Returns:
        The loss in nats, float32 (float64 for float64 logits).

    Raises:
        ValueError: shapes, lengths or token ids that do not fit each other.
    """
    blank = _check(logits, targets, logit_lengths, target_lengths, blank)
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction is none, mean or sum, not {reduction!r}")
    losses: Tensor = _TransducerLoss.apply(logits, targets, logit_lengths, target_lengths, blank)
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def _check(
    logits: Tensor, targets: Tensor, logit_lengths: Tensor, target_lengths: Tensor, blank: int
) -> int:
    if logits.dim() != 4 or targets.dim() != 2:
        raise ValueError(
            f"logits are (N, T, U+1, V) and targets (N, U), not {tuple(logits.shape)} and "
            f"{tuple(targets.shape)}"
        )
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


def _skew(cells: Tensor) -> Tensor:
    """(N, T, U+1) -> (T+U, N, U+1): row n holds the cells t = n - u, else minus infinity."""
    n, t_max, u_max = cells.shape
    diagonals = t_max + u_max - 1
    padded = cells.new_full((n, diagonals, u_max), -torch.inf)
    # In a row-major (T+U, U+1) array the cell (t + u, u) lies u·(U+1) after (t, u).
    view = padded.as_strided(
        (n, t_max, u_max), (diagonals * u_max, u_max, u_max + 1), padded.storage_offset()
    )
    view.copy_(cells)
    return padded.transpose(0, 1)


def _unskew(rows: Tensor, t_max: int) -> Tensor:
    """The inverse of `_skew`."""
    contiguous = rows.transpose(0, 1).contiguous()
    n, diagonals, u_max = contiguous.shape
    return contiguous.as_strided((n, t_max, u_max), (diagonals * u_max, u_max, u_max + 1))


def _forward_variables(null: Tensor, label: Tensor) -> Tensor:
    """log α along the diagonals, [G12] eq. 16. All (T+U, N, U+1) and skewed."""
    alpha = torch.full_like(null, -torch.inf)
    alpha[0, :, 0] = 0.0
    for n in range(1, null.shape[0]):
        alpha[n] = alpha[n - 1] + null[n - 1]
        from_below = alpha[n - 1, :, :-1] + label[n - 1, :, :-1]
        alpha[n, :, 1:] = torch.logaddexp(alpha[n, :, 1:], from_below)
    return alpha


def _backward_variables(null: Tensor, label: Tensor, final: Tensor) -> Tensor:
    """log β along the diagonals, [G12] eq. 18. ``final`` marks (T_n, U_n) in (T+U, N, U+1)."""
    beta = torch.full_like(null, -torch.inf)
    above = torch.full_like(null[0], -torch.inf)
    for n in reversed(range(null.shape[0])):
        beta[n] = above + null[n]
        beta[n, :, :-1] = torch.logaddexp(beta[n, :, :-1], above[:, 1:] + label[n, :, :-1])
        beta[n] = torch.where(final[n], null[n], beta[n])
        above = beta[n]
    return beta


class _TransducerLoss(Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        logit_lengths: Tensor,
        target_lengths: Tensor,
        blank: int,
    ) -> Tensor:
        values = logits if logits.dtype == torch.float64 else logits.float()
        n, t_max, u_max, vocab = values.shape
        log_norm = values.logsumexp(dim=-1)
        t = torch.arange(t_max, device=logits.device)[None, :, None]
        u = torch.arange(u_max, device=logits.device)[None, None, :]
        t_len, u_len = logit_lengths[:, None, None], target_lengths[:, None, None]
        inside = (t < t_len) & (u <= u_len)
        next_label = torch.zeros(n, u_max, dtype=torch.int64, device=logits.device)
        next_label[:, :-1] = targets.clamp(0, vocab - 1)
        index = next_label[:, None, :, None].expand(n, t_max, u_max, 1)
        null = (values[..., blank] - log_norm).double()
        label = (values.gather(3, index).squeeze(3) - log_norm).double()
        null = null.masked_fill(~inside, -torch.inf)
        label = label.masked_fill(~(inside & (u < u_len)), -torch.inf)
        final = (t == t_len - 1) & (u == u_len)

        null_rows, label_rows = _skew(null), _skew(label)
        final_rows = _skew(torch.where(final, 0.0, -torch.inf).double()) == 0
        alpha = _unskew(_forward_variables(null_rows, label_rows), t_max)
        beta = _unskew(_backward_variables(null_rows, label_rows, final_rows), t_max)
        log_z = beta[:, 0, 0]
        if ctx.needs_input_grad[0]:
            gradient = _gradient(
                values, log_norm, alpha, beta, log_z, null, label, index, blank, final
            )
            # Whatever stands in the padding of the logits, NaN included, changes nothing.
            ctx.save_for_backward(gradient.masked_fill_(~inside[..., None], 0.0))
        ctx.logits_dtype = logits.dtype
        return -log_z.to(values.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        scaled = gradient * grads[0][:, None, None, None]
        return scaled.to(ctx.logits_dtype), None, None, None, None


def _gradient(
    values: Tensor,
    log_norm: Tensor,
    alpha: Tensor,
    beta: Tensor,
    log_z: Tensor,
    null: Tensor,
    label: Tensor,
    index: Tensor,
    blank: int,
    final: Tensor,
) -> Tensor:
    """∂L/∂logits: occupancy · softmax less the posterior of each arrow, (N, T, U+1, V)."""
    before = alpha - log_z[:, None, None]
    arrow_null = torch.full_like(beta, -torch.inf)
    arrow_null[:, :-1] = beta[:, 1:]
    arrow_null = torch.where(final, 0.0, arrow_null) + before + null
    arrow_label = torch.full_like(beta, -torch.inf)
    arrow_label[:, :, :-1] = beta[:, :, 1:]
    arrow_label = arrow_label + before + label
    occupancy = (before + beta).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    gradient = torch.exp(values + (occupancy.to(values.dtype) - log_norm)[..., None])
    gradient[..., blank] -= arrow_null.exp().to(values.dtype)
    gradient.scatter_add_(3, index, -arrow_label.exp().to(values.dtype)[..., None])
    return gradient.masked_fill_(gradient.abs() < NEGLIGIBLE, 0.0)
