"""CTC's forward-backward sums in plain torch: any device, and the same result on every run.

Engines of this family have one function, `sweep`.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class CtcSums(NamedTuple):
    """What the sums over all alignments give."""

    # (N,) ln Pr(y|x), float64; minus infinity where no alignment exists; NaN where any of the
    # states' log-probabilities is NaN or plus infinity, whether an alignment passes there or not
    log_prob: Tensor
    posteriors: Tensor  # (N, T, V) Pr(output k at frame t | y, x); 0 in the padding


def states(targets: Tensor, target_lengths: Tensor, blank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The states of an alignment: a blank before, between and after the tokens.

    Returns:
        Their outputs (N, S), S = 2U + 1; which of them are inside (N, S); and where the state two
        before may be left directly, (N, S): tokens that differ from the one before them.
    """
    n, most = targets.shape
    outputs = targets.new_full((n, 2 * most + 1), blank)
    outputs[:, 1::2] = targets
    s = torch.arange(2 * most + 1, device=targets.device)
    inside = s < (2 * target_lengths + 1)[:, None]
    outputs = outputs.masked_fill(~inside, blank)
    skips = torch.zeros_like(inside)
    skips[:, 2:] = (outputs[:, 2:] != blank) & (outputs[:, 2:] != outputs[:, :-2])
    return outputs, inside, skips


def sweep(
    log_probs: Tensor, targets: Tensor, lengths: Tensor, target_lengths: Tensor, blank: int
) -> CtcSums:
    """Sums over all alignments of each utterance, float64 in the log domain.

    Args:
        log_probs: (N, T, V).
        targets: (N, U) token ids, in the padding as well.
        lengths: (N,) frames, 0 … T.
        target_lengths: (N,) tokens, 0 … U.
        blank: id of the blank.
    """
    n, frames, _ = log_probs.shape
    outputs, inside, skips = states(targets, target_lengths, blank)
    index = outputs[:, None, :].expand(n, frames, -1)
    emitted = log_probs.double().gather(2, index).masked_fill(~inside[:, None], -torch.inf)
    emitted = emitted.transpose(0, 1)  # (T, N, S)
    final = inside & (torch.arange(inside.shape[1], device=inside.device)
                      >= (2 * target_lengths - 1)[:, None])  # fmt: skip
    alpha = torch.full_like(emitted, -torch.inf)
    alpha[:1, :, :2] = emitted[:1, :, :2]
    for t in range(1, frames):
        alpha[t] = _step(alpha[t - 1], skips) + emitted[t]
    log_prob = _at_end(alpha, lengths, final)
    in_time = torch.arange(frames, device=lengths.device) < lengths[:, None]
    wrong = (in_time.t()[..., None] & ~(emitted < torch.inf)).any(dim=2).any(dim=0)
    log_prob = log_prob.masked_fill(wrong, torch.nan)
    posteriors = torch.zeros_like(alpha)
    beta = torch.full_like(final, -torch.inf, dtype=torch.float64)
    back_skips = torch.zeros_like(skips)
    back_skips[:, :-2] = skips[:, 2:]
    for t in reversed(range(frames)):
        last = (lengths == t + 1)[:, None]
        if t + 1 < frames:
            beta = _step((beta + emitted[t + 1]).flip(1), back_skips.flip(1)).flip(1)
        beta = torch.where(last, torch.where(final, 0.0, -torch.inf), beta)
        # Of log-probabilities so large that rounding is a factor, no share exceeds 1 either.
        posteriors[t] = torch.exp((alpha[t] + beta - log_prob[:, None]).clamp(max=0.0))
    possible = torch.isfinite(log_prob)[:, None] & in_time
    shares = posteriors.transpose(0, 1).nan_to_num(nan=0.0).masked_fill(~possible[..., None], 0.0)
    one_hot = torch.nn.functional.one_hot(outputs, log_probs.shape[2]).to(shares.dtype)
    return CtcSums(log_prob, (shares @ one_hot).to(log_probs.dtype))


def _step(before: Tensor, skips: Tensor) -> Tensor:
    """ln of the sum over the states from which each state is reached, (N, S)."""
    one = torch.nn.functional.pad(before, (1, 0), value=-torch.inf)[:, :-1]
    two = torch.nn.functional.pad(before, (2, 0), value=-torch.inf)[:, :-2]
    two = two.masked_fill(~skips, -torch.inf)
    return torch.logsumexp(torch.stack([before, one, two]), dim=0)


def _at_end(alpha: Tensor, lengths: Tensor, final: Tensor) -> Tensor:
    """ln Pr(y|x): the last token or the blank after it at the last frame; no frames, no tokens."""
    n = torch.arange(len(lengths), device=lengths.device)
    empty = torch.where(final.sum(dim=1) == 1, 0.0, -torch.inf).double()  # U = 0
    if not len(alpha):
        return empty
    last = alpha[(lengths - 1).clamp(min=0), n].masked_fill(~final, -torch.inf).logsumexp(dim=1)
    return torch.where(lengths > 0, last, empty)
