"""The recurrence of a layer on a CPU: one compiled function a direction, over all of its steps.

The hidden-to-hidden weights are packed once into the order in which `products` reads them and then
stay in the cache; the gates of a step are activated while they are still there. Directions, and
groups of sequences of a large batch, run on threads of their own; how they are grouped does not
depend on the number of threads, so neither do the results.

Functions and tensors are those of `plain.py`. A tensor (R, D, X) is addressed by hand in its flat
memory: the row of place n at frame t is offsets[t] + n.
"""

import itertools
from typing import Any

import torch
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import Floats, Longs, kernel, part
from pipeline.kernels.compiler.products import kept_panels, packed_product, panel_products
from pipeline.kernels.compiler.simd import (
    beyond,
    lanes,
    load,
    maximum,
    minimum,
    prefetch,
    splat,
    store,
    where_greater,
)
from pipeline.kernels.compiler.threads import run_parallel
from pipeline.kernels.compiler.vector_math import sigmoid, tanh
from pipeline.kernels.ragged import Ragged
from pipeline.kernels.recurrent.plain import CLIP, Recurrence, State, Sweep, put_state

CELLS = ("lstm", "tanh", "relu")  # by the numbers that the kernels know them by
GROUP = {1: 9, 2: 18}  # sequences that one thread takes, by the number of directions


# ---- steps ---------------------------------------------------------------------------------------


@part
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


@part
def _tanh_cells(gates, g0, out, o0, size):
    for j in range(0, size, lanes(gates)):
        h = tanh(load(gates, g0 + j, size - j))
        store(gates, g0 + j, size - j, h)
        store(out, o0 + j, size - j, h)


@part
def clipped_relu(x):
    """min(max(x, 0), 20); NaN stays NaN."""
    return minimum(CLIP, maximum(0.0, x))


@part
def where_in_relu(h, gradient):
    """The gradient of what the clipped ReLU read, where its value h is inside (0, 20); else 0."""
    return where_greater(h, 0.0, where_greater(CLIP, h, gradient))


@part
def _relu_cells(gates, g0, out, o0, size):
    for j in range(0, size, lanes(gates)):
        h = clipped_relu(load(gates, g0 + j, size - j))
        store(gates, g0 + j, size - j, h)
        store(out, o0 + j, size - j, h)


@part
def _copy(source, s0, has_source, target, t0, size):
    for j in range(0, size, lanes(target)):
        value = splat(target, 0.0)
        if has_source:
            value = load(source, s0 + j, size - j)
        store(target, t0 + j, size - j, value)


@part
def places(t, direction, active, frames, first, last):
    """The frame read before ``t``, and how many of these places have it."""
    other = t - 1 + 2 * direction
    count = 0
    if other >= 0 and other < frames:
        count = max(0, min(last, active[other]) - first)
    return other, count


@kernel
def _forward(
    function: int, gates: Floats, recurrent: Floats, peepholes: Floats, onto: Floats, h: Floats,
    m: Floats, cells: Floats, before: Floats, active: Longs, offsets: Longs, given: int,
    frames: int, d: int, g: int, size: int, p: int, cell: int, projects: int, direction: int,
    first: int, last: int,
) -> None:  # fmt: skip
    """One direction of the places first … last, without the ``given`` leading frames.

    ``m`` is o tanh(c), (R, D, H): ``h`` itself where no projection follows. ``recurrent`` and
    ``onto`` are the packed weights of h_{t-1} and of the projection.
    """
    mode = simd.flush_denormals()
    for step in range(given, frames):
        t = step if direction == 0 else frames - 1 - step
        count = min(last, active[t]) - first
        other, had = places(t, direction, active, frames, first, last)
        row = (offsets[t] + first) * d + direction
        row_before = (offsets[max(0, min(frames, other))] + first) * d + direction
        ahead = ((1 - 2 * direction) * count * d) * g
        packed_product(function, beyond(h, row_before * p), d * p, recurrent,
                       beyond(gates, row * g), d * g, min(had, count), p, g)  # fmt: skip
        for n in range(max(0, count)):
            at, at_before = row + n * d, row_before + n * d
            _copy(h, at_before * p, n < had, before, at * p, p)
            if cell == 0:
                _lstm_cells(gates, at * g, peepholes, cells, at * size, at_before * size, n < had,
                            m, at * size, at * g + ahead, size)  # fmt: skip
            elif cell == 1:
                _tanh_cells(gates, at * g, h, at * p, size)
            else:
                _relu_cells(gates, at * g, h, at * p, size)
        if projects != 0:
            for n in range(max(0, count)):
                for j in range(p):
                    h[(row + n * d) * p + j] = 0.0
            packed_product(function, beyond(m, row * size), d * size, onto, beyond(h, row * p),
                           d * p, count, size, p)  # fmt: skip
    simd.restore_denormals(mode)


# ---- backward steps ------------------------------------------------------------------------------


@part
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


@part
def _tanh_cells_backward(d_h, d0, gates, d_gates, g0, size):
    for j in range(0, size, lanes(gates)):
        h = load(gates, g0 + j, size - j)
        store(d_gates, g0 + j, size - j, load(d_h, d0 + j, size - j) * (1.0 - h * h))


@part
def _relu_cells_backward(d_h, d0, gates, d_gates, g0, size):
    for j in range(0, size, lanes(gates)):
        value = where_in_relu(load(gates, g0 + j, size - j), load(d_h, d0 + j, size - j))
        store(d_gates, g0 + j, size - j, value)


@kernel
def _backward(
    function: int, grad_h: Floats, grad_m: Floats, adds_m: int, gates: Floats, recurrent: Floats,
    peepholes: Floats, onto: Floats, cells: Floats, d_gates: Floats, d_hidden: Floats,
    d_peepholes: Floats, d_r: Floats, d_m: Floats, d_c: Floats, active: Longs, offsets: Longs,
    given: int, frames: int, d: int, g: int, size: int, p: int, cell: int, projects: int,
    direction: int, first: int, last: int,
) -> None:  # fmt: skip
    """One direction of the places first … last, in the opposite of reading order.

    ``grad_m`` is the gradient of o tanh(c) from elsewhere than the projection, if ``adds_m``.
    ``d_r`` (last - first, P), ``d_m`` and ``d_c`` (last - first, H) are memory for the gradients of
    a step, ``d_c`` zero before; without a projection ``d_m`` is ``d_r``.
    """
    mode = simd.flush_denormals()
    for step in range(frames - given):
        t = frames - 1 - step if direction == 0 else step
        count = max(0, min(last, active[t]) - first)
        following, then = places(t, 1 - direction, active, frames, first, last)
        other, had = places(t, direction, active, frames, first, last)
        row = (offsets[t] + first) * d + direction
        row_after = (offsets[max(0, min(frames, following))] + first) * d + direction
        row_before = (offsets[max(0, min(frames, other))] + first) * d + direction
        for n in range(count):
            _copy(grad_h, (row + n * d) * p, True, d_r, n * p, p)
        packed_product(function, beyond(d_gates, row_after * g), d * g, recurrent, d_r, p,
                       min(then, count), g, p)  # fmt: skip
        if projects != 0:
            for n in range(count):
                _copy(grad_m, (row + n * d) * size, adds_m != 0, d_m, n * size, size)
                _copy(d_r, n * p, True, d_hidden, (row + n * d) * p, p)
            packed_product(function, d_r, p, onto, d_m, size, count, p, size)
        for n in range(count):
            at = row + n * d
            if cell == 0:
                _lstm_cells_backward(
                    d_m, n * size, gates, at * g, peepholes, cells, at * size,
                    (row_before + n * d) * size, n < had, d_c, n * size, d_gates, d_peepholes,
                    (2 * direction - 1) * count * d, size,
                )  # fmt: skip
            elif cell == 1:
                _tanh_cells_backward(d_m, n * size, gates, d_gates, at * g, size)
            else:
                _relu_cells_backward(d_m, n * size, gates, d_gates, at * g, size)
    simd.restore_denormals(mode)


# ---- tensors -------------------------------------------------------------------------------------


def groups_of(ragged: Ragged, directions: int) -> list[tuple[int, int, int, int]]:
    """The jobs of a sweep: number of the group, direction, first and last place."""
    count = int(ragged.active[0]) if len(ragged.active) else 0
    groups = -(-count // GROUP[directions])
    edges = [count * k // max(groups, 1) for k in range(groups + 1)]
    return [
        (k, direction, first, last)
        for k, (first, last) in enumerate(itertools.pairwise(edges))
        for direction in range(directions)
    ]


class _Operands:
    """What both sweeps need, and the jobs into which they are cut."""

    def __init__(self, gates: Tensor, recurrence: Recurrence, ragged: Ragged) -> None:
        self.d, self.g = gates.shape[1:]
        self.size, self.p = recurrence.cells, recurrence.w_hidden.shape[2]
        self.recurrence, self.nothing = recurrence, gates.new_empty(0)
        self.active, self.offsets = ragged.active.contiguous(), ragged.offsets.contiguous()
        self.given = ragged.given
        self.function = panel_products(gates.dtype)
        self.jobs = groups_of(ragged, self.d)
        self.groups = len(self.jobs) // self.d

    def weights(self, *, transposed: bool) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Packed recurrent weights, peepholes and packed projection of each direction."""
        found = []
        for d in range(self.d):
            _, w_hidden, peepholes, projection, _ = self.recurrence.direction(d)
            onto = self.nothing
            if projection is not None:
                onto = kept_panels(projection, transposed=transposed)
            of_cells = self.nothing.new_zeros(3, self.size) if peepholes is None else peepholes
            packed = kept_panels(w_hidden, transposed=transposed)
            found.append((packed, of_cells.contiguous(), onto))
        return found

    @property
    def sizes(self) -> tuple[int, ...]:
        """Given frames, all, D, G, H, P, number of the cell, whether there is a projection."""
        kinds = CELLS.index(self.recurrence.cell), int(self.recurrence.projection is not None)
        return self.given, len(self.active), self.d, self.g, self.size, self.p, *kinds


def forward(
    gates: Tensor, recurrence: Recurrence, ragged: Ragged, state: State | None = None
) -> tuple[Tensor, Sweep]:
    """See `plain.forward`; ``gates``, float32 or float64 and contiguous, is overwritten."""
    operands = _Operands(gates, recurrence, ragged)
    rows, d, size, p = ragged.rows, operands.d, operands.size, operands.p
    h, before = gates.new_empty(rows, d, p), gates.new_empty(rows, d, p)
    cells = gates.new_empty(rows, d, size) if recurrence.cell == "lstm" else None
    outputs = gates.new_empty(rows, d, size) if recurrence.projection is not None else None
    m, states = h if outputs is None else outputs, operands.nothing if cells is None else cells
    weights, compiled = operands.weights(transposed=True), _forward[gates.dtype]
    if state is not None:
        put_state(state, h, cells)

    def job(_: int, direction: int, first: int, last: int) -> None:
        compiled(operands.function, gates, *weights[direction], h, m, states, before,
                 operands.active, operands.offsets, *operands.sizes, direction, first,
                 last)  # fmt: skip

    run_parallel([lambda one=one: job(*one) for one in operands.jobs])  # type: ignore[misc]
    return h, Sweep(gates, cells, before, outputs)


def backward(
    grad_h: Tensor,
    sweep: Sweep,
    recurrence: Recurrence,
    ragged: Ragged,
    grad_m: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """See `plain.backward`."""
    gates = sweep.gates
    operands = _Operands(gates, recurrence, ragged)
    size, p, nothing = operands.size, operands.p, operands.nothing
    d_gates = torch.empty_like(gates)
    d_hidden = torch.empty_like(sweep.before) if recurrence.projection is not None else None
    sums = gates.new_zeros(operands.groups, operands.d, 3, size)
    cells, into = (nothing if x is None else x for x in (sweep.cells, d_hidden))
    grad_h, weights = grad_h.contiguous(), operands.weights(transposed=False)
    to_m = nothing if grad_m is None else grad_m.contiguous()
    compiled: Any = _backward[gates.dtype]

    def job(group: int, direction: int, first: int, last: int) -> None:
        d_r, d_c = gates.new_empty(last - first, p), gates.new_zeros(last - first, size)
        d_m = d_r if d_hidden is None else gates.new_empty(last - first, size)
        compiled(operands.function, grad_h, to_m, grad_m is not None, gates, *weights[direction],
                 cells, d_gates, into, sums[group, direction], d_r, d_m, d_c, operands.active,
                 operands.offsets, *operands.sizes, direction, first, last)  # fmt: skip

    run_parallel([lambda one=one: job(*one) for one in operands.jobs])  # type: ignore[misc]
    return d_gates, d_hidden, None if recurrence.peepholes is None else sums.sum(dim=0)
