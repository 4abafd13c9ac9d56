"""The transducer's lattice and its loss from logits on a CPU, in compiled functions.

Functions and tensors as in `transducer_plain.py`. The lattice is swept along its anti-diagonals
t + u = n, on which all cells are independent, several at a time, in float64 and in the log domain;
exponentials are cheap enough there that nothing need be rescaled, and nothing can underflow.
`transducer_joint_cpu.py` has the joiner's part.
"""

import math

import numpy as np
import torch
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import kernel
from pipeline.kernels.compiler.products import flat
from pipeline.kernels.compiler.simd import (
    absolute,
    lanes,
    largest,
    load,
    load_or,
    maximum,
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


@kernel
def log_sum_exp(x, x0, size):
    """ln Σ e^x of ``size`` numbers from x0 on; minus infinity where all are."""
    width = lanes(x)
    whole = size // width * width  # what fills vectors needs no masks
    best = load_or(x, x0 + whole, size - whole, -np.inf)
    for j in range(0, whole, width):
        best = maximum(best, load(x, x0 + j, width))
    top = largest(best)
    if top == -np.inf:
        return top
    sums = exp(load_or(x, x0 + whole, size - whole, -np.inf) - top)
    for j in range(0, whole, width):
        sums = sums + exp(load(x, x0 + j, width) - top)
    return np.float64(top) + math.log(total(sums))


@kernel
def _mass_near(x, x0, size, guess):
    """Σ e^(x - guess), which needs no search for the largest; -1 where it is not near 1."""
    width = lanes(x)
    whole = size // width * width
    sums = exp(load_or(x, x0 + whole, size - whole, -np.inf) - guess)
    for j in range(0, whole, width):
        sums = sums + exp(load(x, x0 + j, width) - guess)
    mass = total(sums)
    return mass if 0.02 < mass < 50.0 else -1.0


@kernel
def _log_norms(logits, at, vocab, count, mass, norm, cell):
    """ln Σ e^x of the cells of one frame; cells beside each other mostly have similar sums."""
    guess = logits.dtype.type(log_sum_exp(logits, at, vocab))
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
def _arrows(logits, targets, sizes, lengths, blank, null, label, norm, n, first, last):
    """Frames first … last of utterance n. ``sizes`` is T, U + 1, V; ``lengths`` its T and U."""
    mode = simd.flush_denormals()
    frames, width, vocab = sizes
    u_len = lengths[1]
    mass = np.empty(u_len + 1, logits.dtype)
    for t in range(first, last):
        cell = (n * frames + t) * width
        _log_norms(logits, cell * vocab, vocab, u_len + 1, mass, norm, cell)
        for u in range(u_len + 1):
            at, z = (cell + u) * vocab, norm[cell + u]
            null[cell + u] = -np.inf if z == -np.inf else logits[at + blank] - z
            if u < u_len:
                k = targets[n * (width - 1) + u]
                label[cell + u] = -np.inf if z == -np.inf else logits[at + k] - z
    simd.restore_denormals(mode)


def arrows(
    logits: Tensor, targets: Tensor, logit_lengths: Tensor, target_lengths: Tensor, blank: int
) -> Arrows:
    """See `transducer_plain.arrows`; float32 or float64."""
    n, frames, width, vocab = logits.shape
    logits = logits.contiguous()
    null, label = (logits.new_empty(n, frames, width) for _ in range(2))
    norm = torch.empty_like(null, dtype=torch.float64)
    arrays = flat(logits), flat(targets.contiguous())
    outs = flat(null), flat(label), flat(norm)
    lengths = [*zip(logit_lengths.tolist(), target_lengths.tolist(), strict=True)]

    def job(k: int, first: int, last: int) -> None:
        _arrows(*arrays, (frames, width, vocab), lengths[k], blank, *outs, k, first, last)

    run_over_frames(job, [t for t, _ in lengths])
    return Arrows(null, label, norm)


def run_over_frames(job, frames: list[int]) -> None:
    """``job(n, first, last)`` over all frames of all utterances, cut for the threads."""
    parts = torch.get_num_threads()
    pieces = [(n, *span) for n, t in enumerate(frames) for span in spans(t, 1, parts)]
    run_parallel([lambda one=one: job(*one) for one in pieces])  # type: ignore[misc]


# ---- the lattice ---------------------------------------------------------------------------------


@kernel
def _log_add(a, b):
    return maximum(a, b) + log(1.0 + exp(0.0 - absolute(a - b)))


@kernel
def _skew(cells, at, frames, columns, width, stride, out):
    """Cells (t, u) to row t + u, column u, the impossible as `NEVER`."""
    for t in range(frames):
        for u in range(columns):
            value = np.float64(cells[at + t * width + u])
            out[(t + u) * stride + u] = NEVER if value < IMPOSSIBLE else value


@kernel
def _unskew(rows, stride, frames, width, out, at, columns):
    for t in range(frames):
        for u in range(columns):
            value = rows[(t + u) * stride + u]
            out[at + t * width + u] = value if value > NEGLIGIBLE else 0.0


@kernel
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


@kernel
def _posteriors(null, label, diagonals, columns, stride, alpha, log_prob, beta):
    """log β, [G12] eq. 18, row by row, and with it the posterior of each arrow in its place."""
    lane = lanes(alpha)
    beta[:] = NEVER
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
def _sweep(null, label, frames, columns, width, at, out_null, out_label):
    """One utterance: log Pr(y|x); the posteriors of its arrows are written."""
    mode = simd.flush_denormals()
    diagonals = frames + columns - 1
    stride = columns + 2
    skewed_null = np.full(diagonals * stride, NEVER)
    skewed_label = np.full(diagonals * stride, NEVER)
    alpha = np.full(diagonals * stride, NEVER)
    _skew(null, at, frames, columns, width, stride, skewed_null[1:])
    _skew(label, at, frames, columns - 1, width, stride, skewed_label[1:])
    _forward_variables(skewed_null, skewed_label, diagonals, columns, stride, alpha)
    last = (diagonals - 1) * stride + columns
    log_prob = alpha[last] + skewed_null[last]
    if log_prob > IMPOSSIBLE:
        _posteriors(skewed_null, skewed_label, diagonals, columns, stride, alpha, log_prob,
                    np.empty(stride + 1))  # fmt: skip
        _unskew(skewed_null[1:], stride, frames, width, out_null, at, columns)
        _unskew(skewed_label[1:], stride, frames, width, out_label, at, columns - 1)
    elif log_prob <= IMPOSSIBLE:
        log_prob = -np.inf
    simd.restore_denormals(mode)
    return log_prob


def sweep(null: Tensor, label: Tensor, logit_lengths: Tensor, target_lengths: Tensor) -> Lattice:
    """See `transducer_plain.sweep`; float32 or float64."""
    n, frames, width = null.shape
    null, label = null.contiguous(), label.contiguous()
    posteriors = torch.zeros_like(null), torch.zeros_like(null)
    arrays = flat(null), flat(label)
    outs = flat(posteriors[0]), flat(posteriors[1])
    log_prob = np.empty(n)

    def job(k: int, t: int, u: int) -> None:
        log_prob[k] = _sweep(*arrays, t, u + 1, width, k * frames * width, *outs)

    lengths = enumerate(zip(logit_lengths.tolist(), target_lengths.tolist(), strict=True))
    run_parallel([lambda k=k, t=t, u=u: job(k, t, u) for k, (t, u) in lengths])  # type: ignore[misc]
    return Lattice(torch.from_numpy(log_prob), *posteriors)


# ---- the gradient in the logits ------------------------------------------------------------------


@kernel
def _logits_gradient(
    logits, targets, sizes, lengths, blank, norm, null, label, out, n, first, last
):  # fmt: skip
    mode = simd.flush_denormals()
    frames, width, vocab = sizes
    t_len, u_len = lengths
    for t in range(first, last):
        for u in range(width):
            cell = (n * frames + t) * width + u
            at = cell * vocab
            occupancy = null[cell] + label[cell]
            if t >= t_len or u > u_len or occupancy == 0.0:
                out[at : at + vocab] = 0.0
                continue
            high, low = halves(norm[cell], logits)
            whole = vocab // lanes(out) * lanes(out)
            for j in range(0, whole, lanes(out)):
                g = occupancy * exp(load(logits, at + j, lanes(out)) - high - low)
                store(out, at + j, lanes(out), where_greater(absolute(g), NEGLIGIBLE, g))
            g = occupancy * exp(load(logits, at + whole, vocab - whole) - high - low)
            store(out, at + whole, vocab - whole, where_greater(absolute(g), NEGLIGIBLE, g))
            out[at + blank] -= null[cell]
            if u < u_len:
                out[at + targets[n * (width - 1) + u]] -= label[cell]
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
    """See `transducer_plain.logits_gradient`; float32 or float64."""
    n, frames, width, vocab = logits.shape
    out = torch.empty_like(logits, memory_format=torch.contiguous_format)
    arrays = flat(logits.contiguous()), flat(targets.contiguous())
    cells = [flat(x.contiguous()) for x in (log_norm, lattice.null, lattice.label)]
    lengths = [*zip(logit_lengths.tolist(), target_lengths.tolist(), strict=True)]
    out_ = flat(out)

    def job(k: int, first: int, last: int) -> None:
        sizes = (frames, width, vocab)
        _logits_gradient(*arrays, sizes, lengths[k], blank, *cells, out_, k, first, last)

    run_over_frames(job, [frames] * n)
    return out
