"""The transducer's lattice in plain torch: any device, any floating dtype.

An engine turns logits into the log-probabilities of the lattice's arrows, sweeps the lattice for
log Pr(y|x) and the posterior probability of every arrow, and turns posteriors into gradients, with
the logits in memory or, for the joiner of [G13], without. All engines have the functions of this
module and share its `Arrows` and `Lattice`.

Lattices are (N, T, U+1). A cell (t, u) is inside where t < logit_lengths and u <= target_lengths;
out of it lead the arrow ∅ and, where u < target_lengths, the arrow of the next label. What stands
outside is neither read nor, in arrows, defined; posteriors and gradients there are 0. Half
precision is computed with as float32. ``blank`` is not negative here.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

NEGLIGIBLE = 1e-30  # smaller posteriors and gradients are zero to rounding, and denormals are slow
TILE = {"cpu": 2**18}  # numbers of the joiner's lattice that exist at a time: what a cache holds
LARGE_TILE = 2**24  # on other devices


class Arrows(NamedTuple):
    """Log-probabilities of what leads out of each cell, (N, T, U+1), in nats."""

    null: Tensor  # ln Pr(∅|t,u), [G12] eq. 15
    label: Tensor  # ln Pr(y_{u+1}|t,u), eq. 14
    log_norm: Tensor  # ln Σ_k e^{logit k}, float64: of 1e4, float32 keeps three decimals


class Lattice(NamedTuple):
    """What a sweep finds; null + label is the probability that a path visits the cell."""

    log_prob: Tensor  # (N,) float64, ln Pr(y|x); minus infinity where no path exists
    null: Tensor  # (N, T, U+1), posterior probability of the arrow ∅; 1 for the last
    label: Tensor  # (N, T, U+1), that of the next label's arrow


def arrows(
    logits: Tensor, targets: Tensor, logit_lengths: Tensor, target_lengths: Tensor, blank: int
) -> Arrows:
    """[G12] eq. 13-15 from logits (N, T, U+1, V).

    Args:
        logits: anything in the padding.
        targets: (N, U) int64, anything in the padding.
        logit_lengths: (N,) int64, 1 … T.
        target_lengths: (N,) int64, 0 … U.
        blank: id of ∅.
    """
    values = logits.to(compute_dtype(logits))
    log_norm = _log_norm(values)
    index = next_labels(targets, logits.shape[3])[:, None, :, None]
    label = values.gather(3, index.expand(-1, values.shape[1], -1, -1)).squeeze(3)
    null = values[..., blank]
    return Arrows(_log_ratio(null, log_norm), _log_ratio(label, log_norm), log_norm)


def sweep(null: Tensor, label: Tensor, logit_lengths: Tensor, target_lengths: Tensor) -> Lattice:
    """Forward-backward over the arrows, [G12] eq. 16-19, in float64 and in the log domain.

    All cells of an anti-diagonal t + u = n are independent; the loop is over these.
    """
    inside, has_label = _masks(null, logit_lengths, target_lengths)
    null_rows = _skew(null.double().masked_fill(~inside, -torch.inf))
    label_rows = _skew(label.double().masked_fill(~has_label, -torch.inf))
    alpha = _forward_variables(null_rows, label_rows)
    last = (logit_lengths - 1 + target_lengths, torch.arange(len(null), device=null.device))
    log_prob = (alpha + null_rows)[*last, target_lengths]
    posteriors = _posteriors(alpha - log_prob[:, None], null_rows, label_rows, last, target_lengths)
    possible = torch.isfinite(log_prob)[:, None, None]
    kept = [_unskew(rows, null.shape[1]) for rows in posteriors]
    kept = [torch.where(possible & (p > NEGLIGIBLE), p, 0.0).to(null.dtype) for p in kept]
    return Lattice(log_prob, *kept)


def logits_gradient(
    logits: Tensor,
    targets: Tensor,
    log_norm: Tensor,
    lattice: Lattice,
    blank: int,
    logit_lengths: Tensor,
    target_lengths: Tensor,
) -> Tensor:
    """∂L/∂logits, [G12] eq. 20 through the softmax: occupancy · softmax less the posteriors.

    ``lattice`` is that of `sweep` times the upstream gradient of each utterance; ``log_norm`` is
    of `arrows`. (N, T, U+1, V) in the dtype of ``logits``, exactly 0 where below `NEGLIGIBLE`.
    """
    occupancy = (lattice.null + lattice.label)[..., None]
    gradient = _less(logits.to(lattice.null.dtype), log_norm[..., None]).exp_().mul_(occupancy)
    gradient[..., blank] -= lattice.null
    index = next_labels(targets, logits.shape[3])[:, None, :, None]
    index = index.expand(-1, logits.shape[1], -1, -1)
    gradient.scatter_add_(3, index, -lattice.label[..., None])
    inside, _ = _masks(log_norm, logit_lengths, target_lengths)
    gradient.masked_fill_(~inside[..., None] | (occupancy == 0), 0.0)
    return gradient.masked_fill_(gradient.abs() < NEGLIGIBLE, 0.0).to(logits.dtype)


# ---- the joiner of [G13] -------------------------------------------------------------------------


class Joint(NamedTuple):
    """What the joiner of [G13] reads of a batch, and its output layer."""

    encoder: Tensor  # W_lh l_t + b_h, (N, T, J), anything in the padding
    predictor: Tensor  # W_ph p_u, (N, U+1, J), anything in the padding
    weight: Tensor  # W_hy, (V, J)
    bias: Tensor  # b_y, (V,)
    targets: Tensor  # (N, U) token ids
    logit_lengths: Tensor  # (N,) frames
    target_lengths: Tensor  # (N,) tokens
    blank: int


def joint_arrows(joint: Joint) -> Arrows:
    """`arrows` of the logits W tanh(f_t + g_u) + b, [G13] eq. 16-17, some frames at a time.

    f is the encoder's, g the predictor's of the `Joint`; anything may stand in their padding.
    """
    encoder, predictor, weight, bias, targets, logit_lengths, target_lengths, blank = joint
    dtype = compute_dtype(encoder)
    encoder, predictor, weight, bias = (x.to(dtype) for x in (encoder, predictor, weight, bias))
    shape = (*encoder.shape[:2], predictor.shape[1])
    found = Arrows(*(encoder.new_zeros(shape, dtype=d) for d in (dtype, dtype, torch.float64)))
    following = next_labels(targets, len(bias))
    for n, frames, prefixes in _tiles(encoder, predictor, weight, logit_lengths, target_lengths):
        hidden = torch.tanh(encoder[n, frames, None] + predictor[n, prefixes])
        logits = torch.nn.functional.linear(hidden, weight, bias)
        log_norm = _log_norm(logits)
        index = following[n, prefixes].expand(len(logits), -1)[..., None]
        found.log_norm[n, frames, prefixes] = log_norm
        found.null[n, frames, prefixes] = _log_ratio(logits[..., blank], log_norm)
        label = logits.gather(2, index).squeeze(2)
        found.label[n, frames, prefixes] = _log_ratio(label, log_norm)
    return found


def joint_gradient(
    joint: Joint, log_norm: Tensor, lattice: Lattice
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of encoder, predictor, weight and bias, from logits computed once more.

    ``lattice`` is that of `sweep` times the upstream gradient; ``log_norm`` is of `joint_arrows`.
    Cells below `thresholds` are left out. In the dtype computed in; the order of all sums is fixed.
    """
    encoder, predictor, weight, bias, targets, logit_lengths, target_lengths, blank = joint
    dtype = compute_dtype(encoder)
    encoder, predictor, weight, bias = (x.to(dtype) for x in (encoder, predictor, weight, bias))
    outs = [torch.zeros_like(x) for x in (encoder, predictor, weight, bias)]
    following = next_labels(targets, len(bias))
    least = thresholds(lattice, logit_lengths, target_lengths)
    for n, frames, prefixes in _tiles(encoder, predictor, weight, logit_lengths, target_lengths):
        null, label = lattice.null[n, frames, prefixes], lattice.label[n, frames, prefixes]
        # A NaN, which comes with the upstream gradient, is not below anything.
        t, u = (~((null + label).abs() <= least[n])).nonzero(as_tuple=True)
        if not len(t):
            continue
        hidden = torch.tanh(encoder[n, frames][t] + predictor[n, prefixes][u])
        logits = torch.addmm(bias, hidden, weight.t())
        g = _less(logits, log_norm[n, frames, prefixes][t, u, None])
        g.exp_().mul_((null + label)[t, u, None])
        g[:, blank] -= null[t, u]
        g.scatter_add_(1, following[n, u, None], -label[t, u, None])
        g.masked_fill_(g.abs() < NEGLIGIBLE, 0.0)
        # A tile with zeros for what was left out: adding by index has no fixed order on a GPU.
        d_sums = encoder.new_zeros(*null.shape, encoder.shape[2])
        d_sums[t, u] = (g @ weight) * (1 - hidden * hidden)
        outs[0][n, frames] += d_sums.sum(dim=1)
        outs[1][n, prefixes] += d_sums.sum(dim=0)
        outs[2].addmm_(g.t(), hidden)
        outs[3] += g.sum(dim=0)
    return outs[0], outs[1], outs[2], outs[3]


def _tiles(
    encoder: Tensor,
    predictor: Tensor,
    weight: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
) -> Iterator[tuple[int, slice, slice]]:
    """Utterance, frames and prefixes of pieces of the batch's lattices, without the padding."""
    limit = TILE.get(encoder.device.type, LARGE_TILE)
    lengths = zip(logit_lengths.tolist(), target_lengths.tolist(), strict=True)
    for n, (t_len, u_len) in enumerate(lengths):
        step = max(1, limit // ((u_len + 1) * max(weight.shape)))
        for start in range(0, t_len, step):
            yield n, slice(start, min(start + step, t_len)), slice(0, u_len + 1)


# ---- shared by the engines -----------------------------------------------------------------------


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of arrows, posteriors and sums: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def next_labels(targets: Tensor, vocab: int) -> Tensor:
    """(N, U+1): the id of each prefix's next label; some valid id where there is none."""
    following = targets.new_zeros(len(targets), targets.shape[1] + 1)
    following[:, :-1] = targets.clamp(0, vocab - 1)
    return following


def thresholds(lattice: Lattice, logit_lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """(N,): what a diagonal's cells with an occupancy up to this sum to is below rounding.

    The posterior of the last ∅ is 1, so what stands in its place is the upstream gradient.
    """
    index = torch.arange(len(logit_lengths), device=logit_lengths.device)
    upstream = lattice.null[index, logit_lengths - 1, target_lengths].abs()
    return upstream * (torch.finfo(upstream.dtype).eps / 2 / lattice.null.shape[2])


# ---- parts ---------------------------------------------------------------------------------------


def _log_ratio(value: Tensor, log_norm: Tensor) -> Tensor:
    """value - log_norm; minus infinity where all outputs have the probability 0."""
    ratio = (value - log_norm).masked_fill_(log_norm == -torch.inf, -torch.inf)
    return ratio.masked_fill_(log_norm == torch.inf, torch.nan).to(value.dtype)


def _log_norm(logits: Tensor) -> Tensor:
    top = logits.amax(dim=-1, keepdim=True)
    base = top.masked_fill(top.isinf(), 0.0)
    return (logits - base).logsumexp(dim=-1) + base.squeeze(-1).double()


def _less(logits: Tensor, log_norm: Tensor) -> Tensor:
    """logits - log_norm in the dtype of the logits: less a rounded number, less what that left."""
    high = log_norm.to(logits.dtype)
    return (logits - high).sub_((log_norm - high).to(logits.dtype))


def _masks(cells: Tensor, logit_lengths: Tensor, target_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """(N, T, U+1): whether a cell is inside, and whether a label's arrow leads out of it."""
    t = torch.arange(cells.shape[1], device=cells.device)[None, :, None]
    u = torch.arange(cells.shape[2], device=cells.device)[None, None, :]
    t_len, u_len = logit_lengths[:, None, None], target_lengths[:, None, None]
    return (t < t_len) & (u <= u_len), (t < t_len) & (u < u_len)


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
    return padded.transpose(0, 1).contiguous()


def _unskew(rows: Tensor, t_max: int) -> Tensor:
    """The inverse of `_skew`."""
    contiguous = rows.transpose(0, 1).contiguous()
    n, diagonals, u_max = contiguous.shape
    return contiguous.as_strided((n, t_max, u_max), (diagonals * u_max, u_max, u_max + 1))


def _forward_variables(null: Tensor, label: Tensor) -> Tensor:
    """log α along the diagonals, [G12] eq. 16. All (T+U, N, U+1) and skewed."""
    alpha = torch.full_like(null, -torch.inf)
    alpha[0, :, 0] = 0.0
    for n in range(1, len(null)):
        alpha[n] = alpha[n - 1] + null[n - 1]
        from_below = alpha[n - 1, :, :-1] + label[n - 1, :, :-1]
        alpha[n, :, 1:] = torch.logaddexp(alpha[n, :, 1:], from_below)
    return alpha


def _posteriors(
    before: Tensor,
    null: Tensor,
    label: Tensor,
    last: tuple[Tensor, Tensor],
    target_lengths: Tensor,
) -> tuple[Tensor, Tensor]:
    """The posterior of each arrow, from log β along the diagonals, [G12] eq. 18.

    ``before`` is log α - log Pr(y|x); ``last`` the diagonal of (T_n, U_n) and the index of n.
    """
    final = torch.zeros_like(null, dtype=torch.bool)
    final[*last, target_lengths] = True
    straight, upwards = torch.full_like(null, -torch.inf), torch.full_like(label, -torch.inf)
    beta = torch.full_like(null[0], -torch.inf)
    for n in reversed(range(len(null))):
        straight[n] = beta.masked_fill(final[n], 0.0) + null[n]
        upwards[n, :, :-1] = beta[:, 1:] + label[n, :, :-1]
        beta = torch.logaddexp(straight[n], upwards[n])
    return straight.add_(before).exp_(), upwards.add_(before).exp_()
