"""CTC's forward-backward sums on a CPU, in a compiled function; float64 in the log domain.

`sweep` as in `ctc_plain.py`. The states of a frame are summed several at a time; they are
independent of each other given the frame before.
"""

import numpy as np
import torch
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import kernel
from pipeline.kernels.compiler.products import flat
from pipeline.kernels.compiler.simd import lanes, load, maximum, minimum, store
from pipeline.kernels.compiler.threads import run_parallel
from pipeline.kernels.compiler.vector_math import exp, log
from pipeline.kernels.ctc.plain import CtcSums, states

NEVER = -1e290  # log of a probability of 0: what it is added to stays finite, and its exp is 0
IMPOSSIBLE = -1e280


@kernel
def _log_add_3(a, b, c):
    top = maximum(maximum(a, b), c)
    return top + log(exp(a - top) + exp(b - top) + exp(c - top))


@kernel
def _emitted(log_probs, at, outputs, o0, count, out):
    """ln Pr of each state's output at one frame, to ``out`` from 2 on."""
    for s in range(count):
        value = np.float64(log_probs[at + outputs[o0 + s]])
        out[2 + s] = NEVER if value < IMPOSSIBLE else value


@kernel
def _forward_variables(log_probs, start, vocab, outputs, o0, blocked, frames, count, alpha):
    """ln α of every frame; a row of ``alpha`` has two states in front that are never reached."""
    stride = count + 4
    emitted = np.full(stride, NEVER)
    for t in range(frames):
        row, before = t * stride + 2, (t - 1) * stride + 2
        _emitted(log_probs, start + t * vocab, outputs, o0, count, emitted)
        if t == 0:
            for s in range(count):
                alpha[row + s] = emitted[2 + s] + (0.0 if s < 2 else NEVER)
            continue
        for s in range(0, count, lanes(alpha)):
            left = count - s
            two = load(alpha, before + s - 2, left) + load(blocked, s, left)
            reached = _log_add_3(
                load(alpha, before + s, left), load(alpha, before + s - 1, left), two
            )
            store(alpha, row + s, left, reached + load(emitted, 2 + s, left))


@kernel
def _at_end(alpha, row, count):
    """ln Pr(y|x) from the last frame's α; NaN where one is no number, which it stays."""
    for s in range(count):
        if not alpha[row + s] < np.inf:
            return np.nan
    one, two = alpha[row + count - 1], alpha[row + count - 2]
    top = max(one, two)
    return top + np.log(np.exp(one - top) + np.exp(two - top))


@kernel
def _posteriors(
    log_probs, start, vocab, outputs, o0, blocked, frames, count, alpha, log_prob, out
):  # fmt: skip
    """ln β frame by frame from the last, and Pr(k at t | y, x) added up in ``out``."""
    stride = count + 4
    beta, after = np.full(stride, NEVER), np.full(stride, NEVER)
    emitted, shares = np.full(stride, NEVER), np.empty(stride)
    skip = np.full(stride, NEVER)
    for s in range(count - 2):
        skip[s] = blocked[s + 2]
    for s in range(max(0, count - 2), count):
        beta[2 + s] = 0.0
    for t in range(frames - 1, -1, -1):
        if t < frames - 1:
            for s in range(0, count, lanes(beta)):
                left = count - s
                two = load(after, 4 + s, left) + load(skip, s, left)
                one = load(after, 3 + s, left)
                store(beta, 2 + s, left, _log_add_3(load(after, 2 + s, left), one, two))
        _emitted(log_probs, start + t * vocab, outputs, o0, count, emitted)
        row = t * stride + 2
        for s in range(0, count, lanes(beta)):
            left = count - s
            later = load(beta, 2 + s, left)
            # Of log-probabilities so large that rounding is a factor, no share exceeds 1 either.
            share = minimum(load(alpha, row + s, left) + later - log_prob, 0.0)
            store(shares, s, left, exp(share))
            store(after, 2 + s, left, later + load(emitted, 2 + s, left))
        for s in range(count):
            out[start + t * vocab + outputs[o0 + s]] += shares[s]


@kernel
def _sweep(log_probs, start, vocab, outputs, o0, skips, frames, count, out):
    """One utterance: ln Pr(y|x); ``out`` is zero before."""
    if frames == 0:
        return 0.0 if count == 1 else -np.inf
    mode = simd.flush_denormals()
    alpha = np.full(frames * (count + 4), NEVER)
    blocked = np.empty(count)
    for s in range(count):
        blocked[s] = 0.0 if skips[o0 + s] else NEVER
    _forward_variables(log_probs, start, vocab, outputs, o0, blocked, frames, count, alpha)
    log_prob = _at_end(alpha, (frames - 1) * (count + 4) + 2, count)
    if log_prob > IMPOSSIBLE:
        _posteriors(log_probs, start, vocab, outputs, o0, blocked, frames, count, alpha, log_prob,
                    out)  # fmt: skip
    elif log_prob <= IMPOSSIBLE:
        log_prob = -np.inf
    simd.restore_denormals(mode)
    return log_prob


def sweep(
    log_probs: Tensor, targets: Tensor, lengths: Tensor, target_lengths: Tensor, blank: int
) -> CtcSums:
    """See `ctc_plain.sweep`; float32 or float64."""
    n, frames, vocab = log_probs.shape
    outputs, _, skips = states(targets, target_lengths, blank)
    width = outputs.shape[1]
    posteriors = torch.zeros_like(log_probs, memory_format=torch.contiguous_format)
    arrays = flat(log_probs.contiguous()), flat(outputs), flat(skips), flat(posteriors)
    log_prob = np.empty(n)

    def job(k: int, t: int, u: int) -> None:
        log_prob[k] = _sweep(arrays[0], k * frames * vocab, vocab, arrays[1], k * width, arrays[2],
                             t, 2 * u + 1, arrays[3])  # fmt: skip

    each = enumerate(zip(lengths.tolist(), target_lengths.tolist(), strict=True))
    run_parallel([lambda k=k, t=t, u=u: job(k, t, u) for k, (t, u) in each])  # type: ignore[misc]
    return CtcSums(torch.from_numpy(log_prob), posteriors)
