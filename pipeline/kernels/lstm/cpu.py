"""The recurrence of a layer on a CPU: one compiled function a direction, over all of its steps.

The hidden-to-hidden weights are packed once into the order in which `products` reads them and then
stay in the cache; the gates of a step are activated while they are still there. Directions, and
groups of sequences of a large batch, run on threads of their own; how they are grouped does not
depend on the number of threads, so neither do the results.

Functions and tensors as in `lstm_plain.py`. Rows of a tensor (R, D, X) are addressed by hand in its
flat memory: the row of place n at frame t is offsets[t] + n.
"""

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import kernel
from pipeline.kernels.compiler.products import flat, packed_panels, packed_product
from pipeline.kernels.compiler.simd import lanes, load, prefetch, splat, store
from pipeline.kernels.compiler.threads import run_parallel
from pipeline.kernels.compiler.vector_math import sigmoid, tanh
from pipeline.kernels.lstm.plain import Recurrence, Sweep
from pipeline.kernels.ragged import Ragged

GROUP = {1: 9, 2: 18}  # sequences that one thread takes, by the number of directions


# ---- steps ---------------------------------------------------------------------------------------


@kernel
def _lstm_cells(gates, g0, peepholes, cells, c0, before0, has_before, out, o0, ahead, size):
    """[G13] eq. 3-7 for one sequence at one frame; the gates are activated in place."""
    for j in range(0, size, lanes(gates)):
        left = size - j
        c = splat(cells, 0.0)
        for k in range(4):
            prefetch(gates, ahead + k * size + j)
        if has_before:
            c = load(cells, before0 + j, left)
        i = sigmoid(load(gates, g0 + j, left) + load(peepholes, j, left) * c)
        f = sigmoid(load(gates, g0 + size + j, left) + load(peepholes, size + j, left) * c)
        g = tanh(load(gates, g0 + 2 * size + j, left))
        c = f * c + i * g
        o = sigmoid(load(gates, g0 + 3 * size + j, left) + load(peepholes, 2 * size + j, left) * c)
        store(gates, g0 + j, left, i)
        store(gates, g0 + size + j, left, f)
        store(gates, g0 + 2 * size + j, left, g)
        store(gates, g0 + 3 * size + j, left, o)
        store(cells, c0 + j, left, c)
        store(out, o0 + j, left, o * tanh(c))


@kernel
def _tanh_cells(gates, g0, out, o0, size):
    for j in range(0, size, lanes(gates)):
        h = tanh(load(gates, g0 + j, size - j))
        store(gates, g0 + j, size - j, h)
        store(out, o0 + j, size - j, h)


@kernel
def _copy(source, s0, has_source, target, t0, size):
    for j in range(0, size, lanes(target)):
        value = splat(target, 0.0)
        if has_source:
            value = load(source, s0 + j, size - j)
        store(target, t0 + j, size - j, value)


@kernel
def _neighbour(t, direction, active, first, last):
    """The frame read before ``t`` and how many of these places have it."""
    other = t - 1 + 2 * direction
    count = 0
    if 0 <= other < active.size:
        count = max(0, min(last, active[other]) - first)
    return other, count


@kernel
def _forward(
    gates, w_hidden, peepholes, projection, h, cells, before, outputs,
    active, offsets, shape, direction, first, last,
):  # fmt: skip
    """One direction of the places first … last. ``shape`` is D, G, H, P."""
    mode = simd.flush_denormals()
    d, g, size, p = shape
    is_lstm, projects = g == 4 * size, outputs.size > 0
    recurrent = packed_panels(w_hidden, g, p, True)
    onto = packed_panels(projection, p, size, True)
    frames = active.size
    for step in range(frames):
        t = step if direction == 0 else frames - 1 - step
        count = min(last, active[t]) - first
        other, had = _neighbour(t, direction, active, first, last)
        row = (offsets[t] + first) * d + direction
        row_before = (offsets[max(0, min(frames, other))] + first) * d + direction
        ahead = ((1 - 2 * direction) * count * d) * g
        packed_product(h, row_before * p, d * p, recurrent, gates, row * g, d * g,
                       min(had, count), p, g)  # fmt: skip
        for n in range(max(0, count)):
            at, at_before = row + n * d, row_before + n * d
            _copy(h, at_before * p, n < had, before, at * p, p)
            if not is_lstm:
                _tanh_cells(gates, at * g, h, at * p, size)
            elif projects:
                _lstm_cells(gates, at * g, peepholes, cells, at * size, at_before * size, n < had,
                            outputs, at * size, at * g + ahead, size)  # fmt: skip
                _copy(h, 0, False, h, at * p, p)
            else:
                _lstm_cells(gates, at * g, peepholes, cells, at * size, at_before * size, n < had,
                            h, at * p, at * g + ahead, size)  # fmt: skip
        if projects:
            packed_product(outputs, row * size, d * size, onto, h, row * p, d * p, count, size, p)
    simd.restore_denormals(mode)


# ---- backward steps ------------------------------------------------------------------------------


@kernel
def _lstm_cells_backward(
    d_h, d0, gates, g0, peepholes, cells, c0, before0, has_before, d_c, k0, d_gates, d_peepholes,
    ahead, size,
):  # fmt: skip
    """The gradients of eq. 3-7; ``d_c`` carries that of the cell state to the step before."""
    for j in range(0, size, lanes(gates)):
        left = size - j
        for k in range(4):
            prefetch(gates, g0 + ahead * 4 * size + k * size + j)
        prefetch(cells, before0 + ahead * size + j)
        c, c_before = load(cells, c0 + j, left), splat(cells, 0.0)
        if has_before:
            c_before = load(cells, before0 + j, left)
        i, f = load(gates, g0 + j, left), load(gates, g0 + size + j, left)
        g, o = load(gates, g0 + 2 * size + j, left), load(gates, g0 + 3 * size + j, left)
        d_m, tanh_c = load(d_h, d0 + j, left), tanh(c)
        d_o = d_m * tanh_c * o * (1.0 - o)
        d_cell = load(d_c, k0 + j, left) + d_m * o * (1.0 - tanh_c * tanh_c)
        d_cell = d_cell + d_o * load(peepholes, 2 * size + j, left)
        d_i = d_cell * g * i * (1.0 - i)
        d_f = d_cell * c_before * f * (1.0 - f)
        carried = d_cell * f + d_i * load(peepholes, j, left)
        carried = carried + d_f * load(peepholes, size + j, left)
        store(d_c, k0 + j, left, carried)
        store(d_gates, g0 + j, left, d_i)
        store(d_gates, g0 + size + j, left, d_f)
        store(d_gates, g0 + 2 * size + j, left, d_cell * i * (1.0 - g * g))
        store(d_gates, g0 + 3 * size + j, left, d_o)
        store(d_peepholes, j, left, load(d_peepholes, j, left) + d_i * c_before)
        store(d_peepholes, size + j, left, load(d_peepholes, size + j, left) + d_f * c_before)
        store(d_peepholes, 2 * size + j, left, load(d_peepholes, 2 * size + j, left) + d_o * c)


@kernel
def _tanh_cells_backward(d_h, d0, gates, d_gates, g0, size):
    for j in range(0, size, lanes(gates)):
        h = load(gates, g0 + j, size - j)
        store(d_gates, g0 + j, size - j, load(d_h, d0 + j, size - j) * (1.0 - h * h))


@kernel
def _backward(
    grad_h, gates, w_hidden, peepholes, projection, cells, d_gates, d_hidden, d_peepholes,
    active, offsets, shape, direction, first, last,
):  # fmt: skip
    """One direction of the places first … last, in the opposite of reading order."""
    mode = simd.flush_denormals()
    d, g, size, p = shape
    is_lstm, projects = g == 4 * size, d_hidden.size > 0
    recurrent = packed_panels(w_hidden, g, p, False)
    onto = packed_panels(projection, p, size, False)
    d_r = np.empty((last - first) * p, gates.dtype)
    d_m = np.empty((last - first) * size, gates.dtype) if projects else d_r
    d_c = np.zeros((last - first) * size, gates.dtype)
    frames = active.size
    for step in range(frames):
        t = frames - 1 - step if direction == 0 else step
        count = min(last, active[t]) - first
        if count <= 0:
            continue
        following, then = _neighbour(t, 1 - direction, active, first, last)
        other, had = _neighbour(t, direction, active, first, last)
        row = (offsets[t] + first) * d + direction
        row_after = (offsets[max(0, min(frames, following))] + first) * d + direction
        row_before = (offsets[max(0, min(frames, other))] + first) * d + direction
        for n in range(count):
            _copy(grad_h, (row + n * d) * p, True, d_r, n * p, p)
        packed_product(d_gates, row_after * g, d * g, recurrent, d_r, 0, p, min(then, count), g, p)
        if projects:
            d_m[: count * size] = 0
            for n in range(count):
                _copy(d_r, n * p, True, d_hidden, (row + n * d) * p, p)
            packed_product(d_r, 0, p, onto, d_m, 0, size, count, p, size)
        for n in range(count):
            at = row + n * d
            if is_lstm:
                _lstm_cells_backward(
                    d_m, n * size, gates, at * g, peepholes, cells, at * size,
                    (row_before + n * d) * size, n < had, d_c, n * size, d_gates, d_peepholes,
                    (2 * direction - 1) * count * d, size,
                )  # fmt: skip
            else:
                _tanh_cells_backward(d_m, n * size, gates, d_gates, at * g, size)
    simd.restore_denormals(mode)


# ---- tensors -------------------------------------------------------------------------------------


class _Operands:
    """What both sweeps need, flat, and the jobs into which they are cut."""

    def __init__(self, gates: Tensor, recurrence: Recurrence, ragged: Ragged) -> None:
        self.d, self.g = gates.shape[1:]
        self.p = recurrence.w_hidden.shape[2]
        self.size = self.g // 4 if recurrence.cell == "lstm" else self.g
        self.nothing = gates.new_empty(0)
        self.frames = (ragged.active.numpy(), ragged.offsets.numpy())
        self.w_hidden = recurrence.w_hidden.contiguous()
        self.peepholes = recurrence.peepholes
        if self.peepholes is None:
            self.peepholes = gates.new_zeros(self.d, 3, self.size)
        self.projection = recurrence.projection
        count = int(ragged.active[0]) if len(ragged.active) else 0
        groups = -(-count // GROUP[self.d])
        edges = [count * k // max(groups, 1) for k in range(groups + 1)]
        self.jobs = [
            (k, direction, first, last)
            for k, (first, last) in enumerate(itertools.pairwise(edges))
            for direction in range(self.d)
        ]
        self.groups = groups

    def weights(self, direction: int) -> tuple[Any, Any, Any]:
        """Flat w_hidden, peepholes, projection of a direction."""
        assert self.peepholes is not None
        onto = self.nothing if self.projection is None else self.projection[direction]
        return (
            flat(self.w_hidden[direction]),
            flat(self.peepholes[direction].contiguous()),
            flat(onto.contiguous()),
        )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """D, G, H, P."""
        return self.d, self.g, self.size, self.p


def forward(gates: Tensor, recurrence: Recurrence, ragged: Ragged) -> tuple[Tensor, Sweep]:
    """See `lstm_plain.forward`; ``gates``, float32 or float64 and contiguous, is overwritten."""
    operands = _Operands(gates, recurrence, ragged)
    rows, d, size, p = ragged.rows, operands.d, operands.size, operands.p
    h, before = gates.new_empty(rows, d, p), gates.new_empty(rows, d, p)
    cells = gates.new_empty(rows, d, size) if recurrence.cell == "lstm" else None
    outputs = gates.new_empty(rows, d, size) if recurrence.projection is not None else None
    arrays = [flat(operands.nothing if x is None else x) for x in (h, cells, before, outputs)]
    gates_ = flat(gates)

    def job(_: int, direction: int, first: int, last: int) -> None:
        w_hidden, peepholes, projection = operands.weights(direction)
        _forward(gates_, w_hidden, peepholes, projection, *arrays, *operands.frames,
                 operands.shape, direction, first, last)  # fmt: skip

    run_parallel([lambda one=one: job(*one) for one in operands.jobs])  # type: ignore[misc]
    return h, Sweep(gates, cells, before, outputs)


def backward(
    grad_h: Tensor, sweep: Sweep, recurrence: Recurrence, ragged: Ragged
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """See `lstm_plain.backward`."""
    gates = sweep.gates
    operands = _Operands(gates, recurrence, ragged)
    d_gates = torch.empty_like(gates)
    d_hidden = torch.empty_like(sweep.before) if recurrence.projection is not None else None
    sums = gates.new_zeros(operands.groups, operands.d, 3, operands.size)
    grads, gates_, d_gates_ = flat(grad_h.contiguous()), flat(gates), flat(d_gates)
    cells, d_hidden_ = (flat(operands.nothing if x is None else x) for x in (sweep.cells, d_hidden))

    def job(group: int, direction: int, first: int, last: int) -> None:
        _backward(grads, gates_, *operands.weights(direction), cells, d_gates_, d_hidden_,
                  flat(sums[group, direction]), *operands.frames, operands.shape,
                  direction, first, last)  # fmt: skip

    run_parallel([lambda one=one: job(*one) for one in operands.jobs])  # type: ignore[misc]
    return d_gates, d_hidden, None if recurrence.peepholes is None else sums.sum(dim=0)
