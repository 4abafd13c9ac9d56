"""CTC's forward-backward sums on a CPU, in a compiled function; float64 in the log domain.

`sweep` is that of `plain.py`. The states of a frame are summed several at a time; given the frame
before, they are independent of each other.
"""

import math

import numpy as np
import torch
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import Bools, Doubles, Floats, Longs, kernel, part
from pipeline.kernels.compiler.simd import beyond, lanes, load, maximum, minimum, store
from pipeline.kernels.compiler.threads import run_parallel
from pipeline.kernels.compiler.vector_math import exp, log
from pipeline.kernels.ctc.plain import CtcSums, states

NEVER = -1e290  # log of a probability of 0: what it is added to stays finite, and its exp is 0
IMPOSSIBLE = -1e280


@part
def _log_add_3(a, b, c):
    top = maximum(maximum(a, b), c)
    return top + log(exp(a - top) + exp(b - top) + exp(c - top))


@part
def _emitted(log_probs, at, outputs, count, out):
    """ln Pr of each state's output at one frame, to ``out`` from 2 on."""
    for s in range(count):
        value = np.float64(log_probs[at + outputs[s]])
        out[2 + s] = NEVER if value < IMPOSSIBLE else value


@part
def _forward_variables(log_probs, vocab, outputs, blocked, frames, count, alpha, emitted):
    """ln α of every frame; a row of ``alpha`` has two states in front that are never reached."""
    stride = count + 4
    for t in range(frames):
        row, before = t * stride + 2, (t - 1) * stride + 2
        _emitted(log_probs, t * vocab, outputs, count, emitted)
        if t == 0:
            for s in range(count):
                alpha[row + s] = emitted[2 + s] + (0.0 if s < 2 else NEVER)
        else:
            for s in range(0, count, lanes(alpha)):
                left = count - s
                two = load(alpha, before + s - 2, left) + load(blocked, s, left)
                here, one = load(alpha, before + s, left), load(alpha, before + s - 1, left)
                reached = _log_add_3(here, one, two)
                store(alpha, row + s, left, reached + load(emitted, 2 + s, left))


@part
def _at_end(alpha, row, count):
    """ln Pr(y|x) from the last frame's α; NaN where one is not a number, which it stays."""
    one, two = alpha[row + count - 1], alpha[row + count - 2]
    top = max(one, two)
    result = top + math.log(math.exp(one - top) + math.exp(two - top))
    for s in range(count):
        if not alpha[row + s] < np.inf:
            result = np.nan
    return result


@part
def _posteriors(
    log_probs, vocab, outputs, blocked, frames, count, alpha, log_prob, emitted, memory, out
):  # fmt: skip
    """ln β frame by frame from the last, and Pr(k at t | y, x) added up in ``out``."""
    stride = count + 4
    beta, after = memory, beyond(memory, stride)
    shares, skip = beyond(memory, 2 * stride), beyond(memory, 3 * stride)
    for s in range(count - 2):
        skip[s] = blocked[s + 2]
    for s in range(max(0, count - 2), count):
        beta[2 + s] = 0.0
    for t in range(frames - 1, -1, -1):
        if t < frames - 1:
            for s in range(0, count, lanes(beta)):
                left = count - s
                two = load(after, 4 + s, left) + load(skip, s, left)
                here, one = load(after, 2 + s, left), load(after, 3 + s, left)
                store(beta, 2 + s, left, _log_add_3(here, one, two))
        _emitted(log_probs, t * vocab, outputs, count, emitted)
        row = t * stride + 2
        for s in range(0, count, lanes(beta)):
            left = count - s
            later = load(beta, 2 + s, left)
            # Of log-probabilities so large that rounding is a factor, no share exceeds 1 either.
            share = minimum(load(alpha, row + s, left) + later - log_prob, 0.0)
            store(shares, s, left, exp(share))
            store(after, 2 + s, left, later + load(emitted, 2 + s, left))
        for s in range(count):
            out[t * vocab + outputs[s]] += shares[s]


@kernel
def _sweep(
    log_probs: Floats, vocab: int, outputs: Longs, skips: Bools, frames: int, count: int,
    out: Floats, memory: Doubles,
) -> float:  # fmt: skip
    """One utterance: ln Pr(y|x). ``out`` is zero before; ``memory`` has `_memory` numbers."""
    if frames == 0:
        return 0.0 if count == 1 else -np.inf
    mode = simd.flush_denormals()
    stride = count + 4
    for i in range((frames + 6) * stride):
        memory[i] = NEVER
    alpha, blocked = beyond(memory, 6 * stride), memory
    emitted, rest = beyond(memory, stride), beyond(memory, 2 * stride)
    for s in range(count):
        blocked[s] = 0.0 if skips[s] != 0 else NEVER
    _forward_variables(log_probs, vocab, outputs, blocked, frames, count, alpha, emitted)
    log_prob: float = _at_end(alpha, (frames - 1) * stride + 2, count)
    if log_prob > IMPOSSIBLE:
        _posteriors(log_probs, vocab, outputs, blocked, frames, count, alpha, log_prob, emitted,
                    rest, out)  # fmt: skip
    elif log_prob <= IMPOSSIBLE:
        log_prob = -np.inf
    simd.restore_denormals(mode)
    return log_prob


def _memory(frames: int, count: int) -> int:
    """Numbers that the sums of so many frames and states take; vectors may reach beyond a row."""
    return (frames + 6) * (count + 4)


def sweep(
    log_probs: Tensor, targets: Tensor, lengths: Tensor, target_lengths: Tensor, blank: int
) -> CtcSums:
    """See `plain.sweep`; float32 or float64."""
    vocab = log_probs.shape[2]
    outputs, _, skips = states(targets, target_lengths, blank)
    posteriors = torch.zeros_like(log_probs, memory_format=torch.contiguous_format)
    log_probs, outputs, skips = log_probs.contiguous(), outputs.contiguous(), skips.contiguous()
    log_prob = torch.empty(len(log_probs), dtype=torch.float64)
    compiled = _sweep[log_probs.dtype]

    def job(k: int, t: int, u: int) -> None:
        count = 2 * u + 1
        memory = torch.empty(_memory(t, count), dtype=torch.float64)
        log_prob[k] = compiled(
            log_probs[k], vocab, outputs[k], skips[k], t, count, posteriors[k], memory
        )

    each = enumerate(zip(lengths.tolist(), target_lengths.tolist(), strict=True))
    run_parallel([lambda k=k, t=t, u=u: job(k, t, u) for k, (t, u) in each])  # type: ignore[misc]
    return CtcSums(log_prob, posteriors)
