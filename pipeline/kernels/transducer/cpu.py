"""The transducer's lattice and its loss from logits on a CPU, in compiled functions.

Functions and tensors are those of `plain.py`. The lattice is swept along its anti-diagonals
t + u = n, on which all cells are independent, several at a time, in float64 and in the log domain;
exponentials are cheap enough there that nothing need be rescaled, and nothing can underflow.
`joint_cpu.py` has the joiner's part.
"""

import math

import numpy as np
import torch
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import Doubles, Floats, Longs, kernel, part
from pipeline.kernels.compiler.simd import (
    absolute,
    beyond,
    lanes,
    largest,
    load,
    load_or,
    maximum,
    rounded,
    store,
    total,
    where_greater,
)
from pipeline.kernels.compiler.threads import run_parallel, spans
from pipeline.kernels.compiler.vector_math import exp, halves, log
from pipeline.kernels.transducer.joint_cpu import joint_arrows, joint_gradient
from pipeline.kernels.transducer.plain import Arrows, Lattice

__all__ = ["arrows", "joint_arrows", "joint_gradient", "logits_gradient", "sweep"]

NEVER = -1e290  # log of a probability of 0: what it is added to stays finite, and its exp is 0
IMPOSSIBLE = -1e280  # below this no path exists
NEGLIGIBLE = 1e-30  # smaller gradients are zero to rounding, and denormal numbers are slow


# ---- log-probabilities of the arrows -------------------------------------------------------------


@part
def log_sum_exp(x, x0, size):
    """ln Σ e^x of ``size`` numbers from x0 on; minus infinity where all are."""
    width = lanes(x)
    whole = size // width * width  # what fills vectors needs no masks
    best = load_or(x, x0 + whole, size - whole, -np.inf)
    for j in range(0, whole, width):
        best = maximum(best, load(x, x0 + j, width))
    top = largest(best)
    result = np.float64(top)
    if top != -np.inf:
        sums = exp(load_or(x, x0 + whole, size - whole, -np.inf) - top)
        for j in range(0, whole, width):
            sums = sums + exp(load(x, x0 + j, width) - top)
        result = np.float64(top) + math.log(total(sums))
    return result


@part
def _mass_near(x, x0, size, guess):
    """Σ e^(x - guess), which needs no search for the largest; -1 where it is not near 1."""
    width = lanes(x)
    whole = size // width * width
    sums = exp(load_or(x, x0 + whole, size - whole, -np.inf) - guess)
    for j in range(0, whole, width):
        sums = sums + exp(load(x, x0 + j, width) - guess)
    mass = total(sums)
    return mass if 0.02 < mass < 50.0 else -1.0


@part
def _log_norms(logits, at, vocab, count, mass, norm, cell):
    """ln Σ e^x of the cells of one frame; cells beside each other mostly have similar sums."""
    guess = rounded(log_sum_exp(logits, at, vocab), logits)
    for u in range(count):
        mass[u] = _mass_near(logits, at + u * vocab, vocab, guess)
        norm[cell + u] = mass[u]
    for u in range(0, count, lanes(mass)):
        store(mass, u, count - u, log(load_or(mass, u, count - u, 1.0)))
    for u in range(count):
        if norm[cell + u] < 0.0:
            norm[cell + u] = log_sum_exp(logits, at + u * vocab, vocab)
        else:
            norm[cell + u] = np.float64(guess) + mass[u]


@kernel
def _arrows(
    logits: Floats, targets: Longs, width: int, vocab: int, u_len: int, blank: int, null: Floats,
    label: Floats, norm: Doubles, mass: Floats, first: int, last: int,
) -> None:  # fmt: skip
    """Frames first … last of an utterance, to which the memory belongs. ``mass`` is (U + 1,)."""
    mode = simd.flush_denormals()
    for t in range(first, last):
        cell = t * width
        _log_norms(logits, cell * vocab, vocab, u_len + 1, mass, norm, cell)
        for u in range(u_len + 1):
            at, z = (cell + u) * vocab, norm[cell + u]
            null[cell + u] = -np.inf if z == -np.inf else logits[at + blank] - z
            if u < u_len:
                label[cell + u] = -np.inf if z == -np.inf else logits[at + targets[u]] - z
    simd.restore_denormals(mode)


def arrows(
    logits: Tensor, targets: Tensor, logit_lengths: Tensor, target_lengths: Tensor, blank: int
) -> Arrows:
    """See `plain.arrows`; float32 or float64."""
    n, frames, width, vocab = logits.shape
    logits = logits.contiguous()
    null, label = (logits.new_empty(n, frames, width) for _ in range(2))
    norm = torch.empty_like(null, dtype=torch.float64)
    targets, labels = targets.contiguous(), target_lengths.tolist()
    compiled = _arrows[logits.dtype]

    def job(k: int, first: int, last: int) -> None:
        mass = logits.new_empty(labels[k] + 1)
        compiled(logits[k], targets[k], width, vocab, labels[k], blank, null[k], label[k], norm[k],
                 mass, first, last)  # fmt: skip

    run_over_frames(job, logit_lengths.tolist())
    return Arrows(null, label, norm)


def run_over_frames(job, frames: list[int]) -> None:
    """``job(n, first, last)`` over all frames of all utterances, cut for the threads."""
    parts = torch.get_num_threads()
    pieces = [(n, *span) for n, t in enumerate(frames) for span in spans(t, 1, parts)]
    run_parallel([lambda one=one: job(*one) for one in pieces])  # type: ignore[misc]


# ---- the lattice ---------------------------------------------------------------------------------


@part
def _log_add(a, b):
    return maximum(a, b) + log(1.0 + exp(0.0 - absolute(a - b)))


@part
def _skew(cells, at, frames, columns, width, stride, out):
    """Cells (t, u) to row t + u, column u, the impossible as `NEVER`."""
    for t in range(frames):
        for u in range(columns):
            value = np.float64(cells[at + t * width + u])
            out[(t + u) * stride + u] = NEVER if value < IMPOSSIBLE else value


@part
def _unskew(rows, stride, frames, width, out, at, columns):
    for t in range(frames):
        for u in range(columns):
            value = rows[(t + u) * stride + u]
            out[at + t * width + u] = value if value > NEGLIGIBLE else 0.0


@part
def _forward_variables(null, label, diagonals, columns, stride, alpha):
    """log α, [G12] eq. 16, skewed. Column 0 of every row stands at offset 1, after a `NEVER`."""
    lane = lanes(alpha)
    alpha[1] = 0.0
    for n in range(1, diagonals):
        row, before = n * stride + 1, (n - 1) * stride + 1
        for u in range(0, columns, lane):
            left = columns - u
            straight = load(alpha, before + u, left) + load(null, before + u, left)
            from_below = load(alpha, before + u - 1, left) + load(label, before + u - 1, left)
            store(alpha, row + u, left, _log_add(straight, from_below))


@part
def _posteriors(null, label, diagonals, columns, stride, alpha, log_prob, beta):
    """log β, [G12] eq. 18, row by row, and with it the posterior of each arrow in its place."""
    lane = lanes(alpha)
    for u in range(stride + 1):
        beta[u] = NEVER
    beta[columns] = 0.0  # beyond the last blank
    for n in range(diagonals - 1, -1, -1):
        row = n * stride + 1
        for u in range(0, columns, lane):
            left = columns - u
            straight = load(beta, 1 + u, left) + load(null, row + u, left)
            upwards = load(beta, 2 + u, left) + load(label, row + u, left)
            arrived = load(alpha, row + u, left) - log_prob
            store(null, row + u, left, exp(arrived + straight))
            store(label, row + u, left, exp(arrived + upwards))
            store(beta, 1 + u, left, _log_add(straight, upwards))


@kernel
def _sweep(
    null: Floats, label: Floats, frames: int, columns: int, width: int, out_null: Floats,
    out_label: Floats, memory: Doubles,
) -> float:  # fmt: skip
    """One utterance: log Pr(y|x); the posteriors of its arrows are written.

    ``memory`` has `_memory` numbers.
    """
    mode = simd.flush_denormals()
    diagonals = frames + columns - 1
    stride = columns + 2
    size = diagonals * stride
    for i in range(3 * size):
        memory[i] = NEVER
    skewed_null, skewed_label = memory, beyond(memory, size)
    alpha, beta = beyond(memory, 2 * size), beyond(memory, 3 * size)
    _skew(null, 0, frames, columns, width, stride, beyond(skewed_null, 1))
    _skew(label, 0, frames, columns - 1, width, stride, beyond(skewed_label, 1))
    _forward_variables(skewed_null, skewed_label, diagonals, columns, stride, alpha)
    last = (diagonals - 1) * stride + columns
    log_prob: float = alpha[last] + skewed_null[last]
    if log_prob > IMPOSSIBLE:
        _posteriors(skewed_null, skewed_label, diagonals, columns, stride, alpha, log_prob, beta)
        _unskew(beyond(skewed_null, 1), stride, frames, width, out_null, 0, columns)
        _unskew(beyond(skewed_label, 1), stride, frames, width, out_label, 0, columns - 1)
    elif log_prob <= IMPOSSIBLE:
        log_prob = -np.inf
    simd.restore_denormals(mode)
    return log_prob


def _memory(frames: int, columns: int) -> int:
    """Numbers that the sweep over a lattice takes: three of it skewed, and a row."""
    return (3 * (frames + columns - 1) + 1) * (columns + 2) + 1


def sweep(null: Tensor, label: Tensor, logit_lengths: Tensor, target_lengths: Tensor) -> Lattice:
    """See `plain.sweep`; float32 or float64."""
    width = null.shape[2]
    null, label = null.contiguous(), label.contiguous()
    posteriors = torch.zeros_like(null), torch.zeros_like(null)
    log_prob = torch.empty(len(null), dtype=torch.float64)
    compiled = _sweep[null.dtype]

    def job(k: int, t: int, u: int) -> None:
        memory = torch.empty(_memory(t, u + 1), dtype=torch.float64)
        outs = posteriors[0][k], posteriors[1][k]
        log_prob[k] = compiled(null[k], label[k], t, u + 1, width, *outs, memory)

    lengths = enumerate(zip(logit_lengths.tolist(), target_lengths.tolist(), strict=True))
    run_parallel([lambda k=k, t=t, u=u: job(k, t, u) for k, (t, u) in lengths])  # type: ignore[misc]
    return Lattice(log_prob, *posteriors)


# ---- the gradient in the logits ------------------------------------------------------------------


@kernel
def _logits_gradient(
    logits: Floats, targets: Longs, width: int, vocab: int, t_len: int, u_len: int, blank: int,
    norm: Doubles, null: Floats, label: Floats, out: Floats, first: int, last: int,
) -> None:  # fmt: skip
    """Frames first … last of an utterance, to which the memory belongs."""
    mode = simd.flush_denormals()
    for t in range(first, last):
        for u in range(width):
            cell = t * width + u
            at = cell * vocab
            occupancy = null[cell] + label[cell]
            if t >= t_len or u > u_len or occupancy == 0.0:
                for j in range(vocab):
                    out[at + j] = 0.0
            else:
                high, low = halves(norm[cell], logits)
                whole = vocab // lanes(out) * lanes(out)
                for j in range(0, whole, lanes(out)):
                    g = occupancy * exp(load(logits, at + j, lanes(out)) - high - low)
                    store(out, at + j, lanes(out), where_greater(absolute(g), NEGLIGIBLE, g))
                g = occupancy * exp(load(logits, at + whole, vocab - whole) - high - low)
                store(out, at + whole, vocab - whole, where_greater(absolute(g), NEGLIGIBLE, g))
                out[at + blank] -= null[cell]
                if u < u_len:
                    out[at + targets[u]] -= label[cell]
    simd.restore_denormals(mode)


def logits_gradient(
    logits: Tensor,
    targets: Tensor,
    log_norm: Tensor,
    lattice: Lattice,
    blank: int,
    logit_lengths: Tensor,
    target_lengths: Tensor,
) -> Tensor:
    """See `plain.logits_gradient`; float32 or float64."""
    n, frames, width, vocab = logits.shape
    out = torch.empty_like(logits, memory_format=torch.contiguous_format)
    logits, targets = logits.contiguous(), targets.contiguous()
    cells = [x.contiguous() for x in (log_norm, lattice.null, lattice.label)]
    lengths = [*zip(logit_lengths.tolist(), target_lengths.tolist(), strict=True)]
    compiled = _logits_gradient[logits.dtype]

    def job(k: int, first: int, last: int) -> None:
        of_cells = [x[k] for x in cells]
        compiled(logits[k], targets[k], width, vocab, *lengths[k], blank, *of_cells, out[k], first,
                 last)  # fmt: skip

    run_over_frames(job, [frames] * n)
    return out
