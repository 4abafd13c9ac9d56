"""The joiner of [G13] and the transducer's loss as one on a CPU: no lattice of logits in memory.

Forward, the cells of one frame are joined, multiplied by the output weights and normalised while
they are in the cache; three numbers a cell are kept. Backward, only cells that a path is likely to
visit are joined again, a batch at a time: what is left out of each diagonal's probability of 1 is
below rounding. Frames are dealt out in `PIECES` whose partial sums are added in order, so results
do not depend on the number of threads.
"""

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import kernel
from pipeline.kernels.compiler.products import (
    TILE_ROWS,
    TILE_VECTORS,
    flat,
    packed_panels,
    panel_product,
    tile,
)
from pipeline.kernels.compiler.simd import (
    absolute,
    lanes,
    largest,
    load,
    maximum,
    splat,
    store,
    total,
    where_greater,
)
from pipeline.kernels.compiler.threads import run_parallel
from pipeline.kernels.compiler.vector_math import exp, halves, tanh
from pipeline.kernels.transducer.plain import Arrows, Lattice

FEW = 48  # prefixes of a frame that are joined at a time
BATCH = 192  # cells of the backward pass that are joined at a time
PIECES = 8
NEGLIGIBLE = 1e-30
FACTORED = 20.0  # below this e^2row times e^2column is far from overflow and underflow
FAR_BELOW = -1e30  # the logit of outputs that are there only to fill a register


@kernel
def _most(x, x0, count):
    """Largest absolute value; NaN does not count."""
    best = splat(x, 0.0)
    for j in range(0, count, lanes(x)):
        best = maximum(absolute(load(x, x0 + j, count - j)), best)
    return largest(best)


@kernel
def _exponentials(x, x0, count, factored, out):
    """e^2x where ``factored``, else x."""
    for j in range(0, count, lanes(x)):
        value = load(x, x0 + j, count - j)
        if factored:
            value = exp(2.0 * value)
        store(out, x0 + j, count - j, value)


@kernel
def join(rows, r0, columns, c0, factored, out, o0, size):
    """tanh(row + column), [G13] eq. 16; ``factored`` inputs are e^2row and e^2column."""
    if factored:  # tanh(x) = 1 - 2 / (1 + e^2x)
        for j in range(0, size, lanes(out)):
            left = size - j
            grown = 1.0 + load(rows, r0 + j, left) * load(columns, c0 + j, left)
            store(out, o0 + j, left, 1.0 - 2.0 / grown)
    else:
        for j in range(0, size, lanes(out)):
            left = size - j
            store(out, o0 + j, left, tanh(load(rows, r0 + j, left) + load(columns, c0 + j, left)))


@kernel
def output_rows(hidden, cells, size, panels, bias, logits, padded):
    """Logits (cells, padded) of hidden vectors (cells, size), [G13] eq. 17."""
    panel = TILE_VECTORS * lanes(bias)
    for i in range(cells):
        logits[i * padded : (i + 1) * padded] = bias
    for j in range(0, padded, panel):
        panel_product(hidden, 0, size, 1, panels, j * size, logits, j, padded, cells, size, panel)


@kernel
def log_sum_exp(x, x0, padded):
    """Of ``padded`` numbers, a whole number of vectors; float64."""
    width = lanes(x)
    best = load(x, x0, width)
    for j in range(width, padded, width):
        best = maximum(best, load(x, x0 + j, width))
    top = largest(best)
    sums = splat(x, 0.0)
    for j in range(0, padded, width):
        sums = sums + exp(load(x, x0 + j, width) - top)
    return np.float64(top) + math.log(total(sums))


@kernel
def _joint_arrows(
    inputs, panels, bias, targets, sizes, u_len, blank, null, label, norm, n, first, last
):  # fmt: skip
    """Frames first … last of utterance n. ``sizes`` is T, U + 1, J."""
    mode = simd.flush_denormals()
    rows, columns, factored = inputs
    frames, width, size = sizes
    padded = bias.size
    hidden, logits = np.empty(FEW * size, rows.dtype), np.empty(FEW * padded, rows.dtype)
    for t in range(first, last):
        row, cell = (n * frames + t) * size, (n * frames + t) * width
        for u0 in range(0, u_len + 1, FEW):
            count = min(FEW, u_len + 1 - u0)
            for i in range(count):
                join(rows, row, columns, (n * width + u0 + i) * size, factored,
                      hidden, i * size, size)  # fmt: skip
            output_rows(hidden, count, size, panels, bias, logits, padded)
            for i in range(count):
                u, at = u0 + i, i * padded
                z = log_sum_exp(logits, at, padded)
                norm[cell + u] = z
                null[cell + u] = logits[at + blank] - z
                if u < u_len:
                    label[cell + u] = logits[at + targets[n * (width - 1) + u]] - z
    simd.restore_denormals(mode)


# ---- backward ------------------------------------------------------------------------------------


@kernel
def _cell_gradient(logits, at, padded, norm, null, label, blank, target):
    """∂L/∂logits of one cell in place: occupancy · softmax less the posteriors of its arrows."""
    occupancy = null + label
    high, low = halves(norm, logits)
    for j in range(0, padded, lanes(logits)):
        g = occupancy * exp(load(logits, at + j, padded) - high - low)
        store(logits, at + j, padded, where_greater(absolute(g), NEGLIGIBLE, g))
    logits[at + blank] -= null
    logits[at + target] -= label


@kernel
def _add(source, s0, target, t0, size):
    for j in range(0, size, lanes(target)):
        left = size - j
        store(target, t0 + j, left, load(target, t0 + j, left) + load(source, s0 + j, left))


@kernel
def _weight_gradient(logits, padded, hidden, size, cells, vocab, d_weight):
    """∂L/∂W (V, J) += gᵀ h over a batch of cells."""
    panel = TILE_VECTORS * lanes(hidden)
    for j in range(0, size, panel):
        columns = min(panel, size - j)
        for v in range(0, vocab, TILE_ROWS):
            tile(min(TILE_ROWS, vocab - v), logits, v, 1, padded, hidden, j, size,
                 d_weight, v * size + j, size, cells, columns)  # fmt: skip


@kernel
def _hidden_gradient(logits, padded, hidden, size, cells, vocab, panels, out):
    """∂L/∂(row + column): (g W) (1 - h²) for a batch of cells."""
    panel = TILE_VECTORS * lanes(hidden)
    out[: cells * size] = 0.0
    for j in range(0, size, panel):
        panel_product(logits, 0, padded, 1, panels, j * vocab, out, j, size, cells, vocab,
                      min(panel, size - j))  # fmt: skip
    for at in range(0, cells * size, lanes(out)):
        left = cells * size - at
        h = load(hidden, at, left)
        store(out, at, left, load(out, at, left) * (1.0 - h * h))


@kernel
def _flush_batch(
    batch, cells, hidden, logits, rest, sizes, panels, bias, backwards, blank, outs
):  # fmt: skip
    """The gradients of the cells in a batch; ``batch`` has their row, column and target."""
    size, vocab = sizes
    norm, null, label, scratch = rest
    d_rows, d_columns, d_weight, d_bias = outs
    padded = bias.size
    output_rows(hidden, cells, size, panels, bias, logits, padded)
    for i in range(cells):
        _cell_gradient(logits, i * padded, padded, norm[i], null[i], label[i], blank, batch[i, 2])
        _add(logits, i * padded, d_bias, 0, vocab)
    _weight_gradient(logits, padded, hidden, size, cells, vocab, d_weight)
    _hidden_gradient(logits, padded, hidden, size, cells, vocab, backwards, scratch)
    for i in range(cells):
        _add(scratch, i * size, d_rows, batch[i, 0], size)
        _add(scratch, i * size, d_columns, batch[i, 1], size)


@kernel
def _joint_gradient(
    inputs, panels, bias, backwards, targets, sizes, u_len, blank, norm, null, label,
    threshold, n, first, last, outs,
):  # fmt: skip
    """Frames first … last of utterance n; ``d_columns`` of ``outs`` is this piece's alone."""
    mode = simd.flush_denormals()
    rows, columns, factored = inputs
    frames, width, size, vocab = sizes
    hidden = np.empty(BATCH * size, rows.dtype)
    logits = np.empty(BATCH * bias.size, rows.dtype)
    scratch = np.empty(BATCH * size, rows.dtype)
    batch = np.empty((BATCH, 3), np.int64)
    cell_norm, cell_null = np.empty(BATCH), np.empty(BATCH, rows.dtype)
    cell_label = np.empty(BATCH, rows.dtype)
    rest = (cell_norm, cell_null, cell_label, scratch)
    count = 0
    for t in range(first, last):
        row, cell = (n * frames + t) * size, (n * frames + t) * width
        for u in range(u_len + 1):
            if abs(null[cell + u] + label[cell + u]) <= threshold:
                continue  # NaN goes on
            join(rows, row, columns, (n * width + u) * size, factored,
                  hidden, count * size, size)  # fmt: skip
            batch[count, 0], batch[count, 1] = row, u * size
            batch[count, 2] = targets[n * (width - 1) + u] if u < u_len else blank
            cell_norm[count] = norm[cell + u]
            cell_null[count], cell_label[count] = null[cell + u], label[cell + u]
            count += 1
            if count == BATCH:
                _flush_batch(batch, count, hidden, logits, rest, (size, vocab), panels, bias,
                             backwards, blank, outs)  # fmt: skip
                count = 0
    if count:
        _flush_batch(batch, count, hidden, logits, rest, (size, vocab), panels, bias,
                     backwards, blank, outs)  # fmt: skip
    simd.restore_denormals(mode)


# ---- tensors -------------------------------------------------------------------------------------


def _pieces(frames: list[int]) -> list[list[tuple[int, int, int]]]:
    """`PIECES` lists of (utterance, first, last) with about equally many frames."""
    edges = [sum(frames) * k // PIECES for k in range(PIECES + 1)]
    pieces = []
    for begin, end in itertools.pairwise(edges):
        piece, start = [], 0
        for n, count in enumerate(frames):
            first, last = max(begin - start, 0), min(end - start, count)
            if first < last:
                piece.append((n, first, last))
            start += count
        pieces.append(piece)
    return pieces


class _Operands:
    """Contiguous inputs and the weights in the order in which they are read."""

    def __init__(
        self,
        rows: Tensor,
        columns: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        lengths: tuple[Tensor, Tensor],
    ) -> None:
        self.vocab, self.size = weight.shape
        self.shape = (rows.shape[1], columns.shape[1], self.size)
        self.targets = flat(targets.contiguous())
        self.weight = flat(weight.contiguous())
        self.panels = packed_panels(self.weight, self.vocab, self.size, True)
        padded = len(self.panels) // self.size
        self.bias = np.full(padded, FAR_BELOW, self.weight.dtype)
        self.bias[: self.vocab] = bias.detach().numpy()
        self.frames, self.labels = lengths[0].tolist(), lengths[1].tolist()
        self.rows = flat(torch.empty_like(rows, memory_format=torch.contiguous_format))
        self.columns = flat(torch.empty_like(columns, memory_format=torch.contiguous_format))
        self.factored = [False] * len(rows)
        sources = flat(rows.contiguous()), flat(columns.contiguous())
        run_parallel([lambda n=n: self._prepare(n, *sources) for n in range(len(rows))])  # type: ignore[misc]

    def _prepare(self, n: int, rows: np.ndarray, columns: np.ndarray) -> None:
        """Exponentials of T + U vectors instead of T · U where the numbers allow it."""
        frames, width, size = self.shape
        r0, r_count = n * frames * size, self.frames[n] * size
        c0, c_count = n * width * size, (self.labels[n] + 1) * size
        most = max(_most(rows, r0, r_count), _most(columns, c0, c_count))
        self.factored[n] = most < FACTORED
        _exponentials(rows, r0, r_count, self.factored[n], self.rows)
        _exponentials(columns, c0, c_count, self.factored[n], self.columns)

    def inputs(self, n: int) -> tuple[np.ndarray, np.ndarray, bool]:
        """Of utterance n, as `join` reads them."""
        return self.rows, self.columns, self.factored[n]

    def run(self, job: Any) -> None:
        """``job(piece, n, first, last)`` for all frames, the frames of a piece in order."""

        def work(index: int, piece: list[tuple[int, int, int]]) -> None:
            for one in piece:
                job(index, *one)

        pieces = enumerate(_pieces(self.frames))
        run_parallel([lambda k=k, piece=piece: work(k, piece) for k, piece in pieces])  # type: ignore[misc]


def joint_arrows(
    rows: Tensor,
    columns: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
) -> Arrows:
    """See `transducer_plain.joint_arrows`; float32 or float64."""
    operands = _Operands(rows, columns, weight, bias, targets, (logit_lengths, target_lengths))
    n, frames, width = len(rows), rows.shape[1], columns.shape[1]
    null, label = (rows.new_empty(n, frames, width) for _ in range(2))
    norm = torch.empty_like(null, dtype=torch.float64)
    outs = flat(null), flat(label), flat(norm)

    def job(_: int, k: int, first: int, last: int) -> None:
        _joint_arrows(operands.inputs(k), operands.panels, operands.bias, operands.targets,
                      operands.shape, operands.labels[k], blank, *outs, k, first, last)  # fmt: skip

    operands.run(job)
    return Arrows(null, label, norm)


def joint_gradient(
    rows: Tensor,
    columns: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    log_norm: Tensor,
    lattice: Lattice,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `transducer_plain.joint_gradient`; float32 or float64."""
    operands = _Operands(rows, columns, weight, bias, targets, (logit_lengths, target_lengths))
    vocab, size, width = operands.vocab, operands.size, columns.shape[1]
    backwards = packed_panels(operands.weight, vocab, size, False)
    cells = [flat(x.contiguous()) for x in (log_norm, lattice.null, lattice.label)]
    at_end = lattice.null[torch.arange(len(rows)), logit_lengths - 1, target_lengths]
    # The last blank has the posterior 1: what stands there is the upstream gradient.
    thresholds = (at_end.abs() * torch.finfo(rows.dtype).eps / 2 / width).tolist()
    d_rows, d_columns = torch.zeros_like(rows.contiguous()), torch.zeros_like(columns.contiguous())
    d_weight, d_bias = rows.new_zeros(PIECES, vocab, size), rows.new_zeros(PIECES, vocab)
    partial: dict[tuple[int, int], Tensor] = {}

    def job(piece: int, k: int, first: int, last: int) -> None:
        partial[k, piece] = rows.new_zeros(operands.labels[k] + 1, size)
        outs = (flat(d_rows), flat(partial[k, piece]), flat(d_weight[piece]), flat(d_bias[piece]))
        _joint_gradient(operands.inputs(k), operands.panels, operands.bias, backwards,
                        operands.targets, (*operands.shape, vocab), operands.labels[k], blank,
                        *cells, thresholds[k], k, first, last, outs)  # fmt: skip

    operands.run(job)
    for (k, _), columns_of in sorted(partial.items()):
        d_columns[k, : len(columns_of)] += columns_of
    return d_rows, d_columns, d_weight.sum(dim=0), d_bias.sum(dim=0)
