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
from pipeline.kernels.compiler.compiling import Doubles, Floats, Longs, kernel, part
from pipeline.kernels.compiler.products import (
    TILE_VECTORS,
    packed_panels,
    panel_product,
    panel_products,
)
from pipeline.kernels.compiler.simd import (
    absolute,
    beyond,
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
from pipeline.kernels.transducer.plain import Arrows, Joint, Lattice

FEW = 48  # prefixes of a frame that are joined at a time
BATCH = 192  # cells of the backward pass that are joined at a time
PIECES = 8
NEGLIGIBLE = 1e-30
FACTORED = 20.0  # below this e^2row times e^2column is far from overflow and underflow
FAR_BELOW = -1e30  # the logit of outputs that are there only to fill a register


@kernel
def _most(x: Floats, count: int) -> float:
    """Largest absolute value; NaN does not count."""
    best = splat(x, 0.0)
    for j in range(0, count, lanes(x)):
        best = maximum(absolute(load(x, j, count - j)), best)
    return np.float64(largest(best))


@kernel
def _exponentials(x: Floats, count: int, factored: int, out: Floats) -> None:
    """e^2x where ``factored``, else x."""
    for j in range(0, count, lanes(x)):
        value = load(x, j, count - j)
        if factored != 0:
            value = exp(2.0 * value)
        store(out, j, count - j, value)


@part
def join(encoder, e0, predictor, p0, factored, out, o0, size):
    """tanh(f + g), [G13] eq. 16, of encoder and predictor; ``factored``: of e^2f and e^2g."""
    if factored != 0:  # tanh(x) = 1 - 2 / (1 + e^2x)
        for j in range(0, size, lanes(out)):
            left = size - j
            grown = 1.0 + load(encoder, e0 + j, left) * load(predictor, p0 + j, left)
            store(out, o0 + j, left, 1.0 - 2.0 / grown)
    else:
        for j in range(0, size, lanes(out)):
            left = size - j
            summed = load(encoder, e0 + j, left) + load(predictor, p0 + j, left)
            store(out, o0 + j, left, tanh(summed))


@part
def output_rows(function, hidden, cells, size, panels, bias, logits, padded):
    """Logits (cells, padded) of hidden vectors (cells, size), [G13] eq. 17."""
    panel = TILE_VECTORS * lanes(bias)
    for i in range(cells):
        for v in range(padded):
            logits[i * padded + v] = bias[v]
    for j in range(0, padded, panel):
        panel_product(function, hidden, size, 1, beyond(panels, j * size), panel,
                      beyond(logits, j), padded, cells, size, panel)  # fmt: skip


@part
def log_sum_exp(x, x0, padded):
    """ln Σ e^x of ``padded`` numbers, a whole number of vectors; float64."""
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
    function: int, encoder: Floats, predictor: Floats, factored: int, panels: Floats, bias: Floats,
    padded: int, targets: Longs, width: int, size: int, u_len: int, blank: int, null: Floats,
    label: Floats, norm: Doubles, hidden: Floats, logits: Floats, first: int, last: int,
) -> None:  # fmt: skip
    """Frames first … last of an utterance, to which the memory belongs.

    ``hidden`` and ``logits`` have room for `FEW` cells.
    """
    mode = simd.flush_denormals()
    for t in range(first, last):
        frame, cell = t * size, t * width
        for u0 in range(0, u_len + 1, FEW):
            count = min(FEW, u_len + 1 - u0)
            for i in range(count):
                join(encoder, frame, predictor, (u0 + i) * size, factored, hidden, i * size, size)
            output_rows(function, hidden, count, size, panels, bias, logits, padded)
            for i in range(count):
                u, at = u0 + i, i * padded
                z = log_sum_exp(logits, at, padded)
                norm[cell + u] = z
                null[cell + u] = logits[at + blank] - z
                if u < u_len:
                    label[cell + u] = logits[at + targets[u]] - z
    simd.restore_denormals(mode)


# ---- backward ------------------------------------------------------------------------------------


@part
def _cell_gradient(logits, at, padded, norm, null, label, blank, target):
    """∂L/∂logits of one cell in place: occupancy · softmax less the posteriors of its arrows."""
    occupancy = null + label
    high, low = halves(norm, logits)
    for j in range(0, padded, lanes(logits)):
        g = occupancy * exp(load(logits, at + j, padded) - high - low)
        store(logits, at + j, padded, where_greater(absolute(g), NEGLIGIBLE, g))
    logits[at + blank] -= null
    logits[at + target] -= label


@part
def _add(source, s0, target, t0, size):
    for j in range(0, size, lanes(target)):
        left = size - j
        store(target, t0 + j, left, load(target, t0 + j, left) + load(source, s0 + j, left))


@part
def _weight_gradient(function, logits, padded, hidden, size, cells, vocab, d_weight):
    """∂L/∂W (V, J) += gᵀ h over a batch of cells."""
    panel = TILE_VECTORS * lanes(hidden)
    for j in range(0, size, panel):
        panel_product(function, logits, 1, padded, beyond(hidden, j), size, beyond(d_weight, j),
                      size, vocab, cells, min(panel, size - j))  # fmt: skip


@part
def _hidden_gradient(function, logits, padded, hidden, size, cells, vocab, panels, out):
    """∂L/∂(f + g), the sum of `join`: (∂L/∂logits W) (1 - h²) for a batch of cells."""
    panel = TILE_VECTORS * lanes(hidden)
    for at in range(cells * size):
        out[at] = 0.0
    for j in range(0, size, panel):
        panel_product(function, logits, padded, 1, beyond(panels, j * vocab), panel,
                      beyond(out, j), size, cells, vocab, min(panel, size - j))  # fmt: skip
    for at in range(0, cells * size, lanes(out)):
        left = cells * size - at
        h = load(hidden, at, left)
        store(out, at, left, load(out, at, left) * (1.0 - h * h))


@kernel
def _joint_gradient(
    function: int, encoder: Floats, predictor: Floats, factored: int, panels: Floats, bias: Floats,
    padded: int, backwards: Floats, targets: Longs, width: int, size: int, vocab: int, u_len: int,
    blank: int, norm: Doubles, null: Floats, label: Floats, threshold: float, first: int,
    last: int, d_encoder: Floats, d_predictor: Floats, d_weight: Floats, d_bias: Floats,
    hidden: Floats, logits: Floats, scratch: Floats, batch: Longs,
) -> None:  # fmt: skip
    """Frames first … last of an utterance, to which the memory belongs.

    ``d_predictor`` … ``d_bias`` are this piece's alone. ``hidden``, ``logits``, ``scratch`` and
    ``batch``, which has the frame and prefix of each cell, have room for `BATCH` cells.
    """
    mode = simd.flush_denormals()
    count, t, u = 0, first, 0
    while t < last:
        cell = t * width + u
        if not abs(null[cell] + label[cell]) <= threshold:  # NaN goes on
            join(encoder, t * size, predictor, u * size, factored, hidden, count * size, size)
            batch[2 * count], batch[2 * count + 1] = t, u
            count += 1
        u += 1
        if u > u_len:
            t, u = t + 1, 0
        if count == BATCH or (t == last and count > 0):
            output_rows(function, hidden, count, size, panels, bias, logits, padded)
            for i in range(count):
                at, prefix = batch[2 * i] * width + batch[2 * i + 1], batch[2 * i + 1]
                target = targets[prefix] if prefix < u_len else blank
                _cell_gradient(logits, i * padded, padded, norm[at], null[at], label[at], blank,
                               target)  # fmt: skip
                _add(logits, i * padded, d_bias, 0, vocab)
            _weight_gradient(function, logits, padded, hidden, size, count, vocab, d_weight)
            _hidden_gradient(function, logits, padded, hidden, size, count, vocab, backwards,
                             scratch)  # fmt: skip
            for i in range(count):
                _add(scratch, i * size, d_encoder, batch[2 * i] * size, size)
                _add(scratch, i * size, d_predictor, batch[2 * i + 1] * size, size)
            count = 0
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
        encoder: Tensor,
        predictor: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        lengths: tuple[Tensor, Tensor],
    ) -> None:
        self.vocab, self.size = weight.shape
        self.width, self.targets = predictor.shape[1], targets.contiguous()
        self.weight = weight.detach().contiguous()
        self.function = panel_products(weight.dtype)
        self.panels = packed_panels(self.weight, transposed=True)
        self.padded = len(self.panels) // self.size
        self.bias = self.weight.new_full((self.padded,), FAR_BELOW)
        self.bias[: self.vocab] = bias.detach()
        self.frames, self.labels = lengths[0].tolist(), lengths[1].tolist()
        self.encoder = torch.empty_like(encoder, memory_format=torch.contiguous_format)
        self.predictor = torch.empty_like(predictor, memory_format=torch.contiguous_format)
        self.factored = [0] * len(encoder)
        sources = encoder.detach().contiguous(), predictor.detach().contiguous()
        run_parallel([lambda n=n: self._prepare(n, *sources) for n in range(len(encoder))])  # type: ignore[misc]

    def _prepare(self, n: int, encoder: Tensor, predictor: Tensor) -> None:
        """Exponentials of T + U vectors instead of T · U where the numbers allow it."""
        dtype = encoder.dtype
        counts = self.frames[n] * self.size, (self.labels[n] + 1) * self.size
        most = max(_most[dtype](encoder[n], counts[0]), _most[dtype](predictor[n], counts[1]))
        self.factored[n] = int(most < FACTORED)
        _exponentials[dtype](encoder[n], counts[0], self.factored[n], self.encoder[n])
        _exponentials[dtype](predictor[n], counts[1], self.factored[n], self.predictor[n])

    def inputs(self, n: int) -> tuple[Any, ...]:
        """What both kernels read first, of utterance n."""
        return (
            self.function, self.encoder[n], self.predictor[n], self.factored[n], self.panels,
            self.bias, self.padded,
        )  # fmt: skip

    def room(self, cells: int) -> tuple[Tensor, Tensor]:
        """Memory for the hidden vectors and logits of so many cells."""
        return self.weight.new_empty(cells, self.size), self.weight.new_empty(cells, self.padded)

    def run(self, job: Any) -> None:
        """``job(piece, n, first, last)`` for all frames, the frames of a piece in order."""

        def work(index: int, piece: list[tuple[int, int, int]]) -> None:
            for one in piece:
                job(index, *one)

        pieces = enumerate(_pieces(self.frames))
        run_parallel([lambda k=k, piece=piece: work(k, piece) for k, piece in pieces])  # type: ignore[misc]


def joint_arrows(joint: Joint) -> Arrows:
    """See `plain.joint_arrows`; float32 or float64."""
    encoder, predictor, weight, bias, targets, logit_lengths, target_lengths, blank = joint
    operands = _Operands(encoder, predictor, weight, bias, targets, (logit_lengths, target_lengths))
    n, frames, width = len(encoder), encoder.shape[1], predictor.shape[1]
    null, label = (encoder.new_empty(n, frames, width) for _ in range(2))
    norm = torch.empty_like(null, dtype=torch.float64)
    compiled = _joint_arrows[encoder.dtype]

    def job(_: int, k: int, first: int, last: int) -> None:
        compiled(*operands.inputs(k), operands.targets[k], width, operands.size,
                 operands.labels[k], blank, null[k], label[k], norm[k], *operands.room(FEW),
                 first, last)  # fmt: skip

    operands.run(job)
    return Arrows(null, label, norm)


def joint_gradient(
    joint: Joint, log_norm: Tensor, lattice: Lattice
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `plain.joint_gradient`; float32 or float64."""
    encoder, predictor, weight, bias, targets, logit_lengths, target_lengths, blank = joint
    operands = _Operands(encoder, predictor, weight, bias, targets, (logit_lengths, target_lengths))
    vocab, size, width = operands.vocab, operands.size, predictor.shape[1]
    backwards = packed_panels(operands.weight, transposed=False)
    cells = [x.contiguous() for x in (log_norm, lattice.null, lattice.label)]
    at_end = lattice.null[torch.arange(len(encoder)), logit_lengths - 1, target_lengths]
    # The last blank has the posterior 1: what stands there is the upstream gradient.
    thresholds = (at_end.abs() * torch.finfo(encoder.dtype).eps / 2 / width).tolist()
    d_encoder, d_predictor = (torch.zeros_like(x.contiguous()) for x in (encoder, predictor))
    d_weight, d_bias = encoder.new_zeros(PIECES, vocab, size), encoder.new_zeros(PIECES, vocab)
    partial: dict[tuple[int, int], Tensor] = {}
    compiled = _joint_gradient[encoder.dtype]

    def job(piece: int, k: int, first: int, last: int) -> None:
        partial[k, piece] = encoder.new_zeros(operands.labels[k] + 1, size)
        outs = d_encoder[k], partial[k, piece], d_weight[piece], d_bias[piece]
        hidden, logits = operands.room(BATCH)
        batch = torch.empty(2 * BATCH, dtype=torch.int64)
        compiled(*operands.inputs(k), backwards, operands.targets[k], width, size, vocab,
                 operands.labels[k], blank, *(x[k] for x in cells), thresholds[k], first, last,
                 *outs, hidden, logits, torch.empty_like(hidden), batch)  # fmt: skip

    operands.run(job)
    for (k, _), part_of in sorted(partial.items()):
        d_predictor[k, : len(part_of)] += part_of
    return d_encoder, d_predictor, d_weight.sum(dim=0), d_bias.sum(dim=0)
