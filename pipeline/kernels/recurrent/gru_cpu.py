"""The sweep of a GRU on a CPU: one compiled function a direction, over all of its steps.

Functions and tensors are those of `gru_plain`; threads, groups of sequences and the addressing of
rows are those of `cpu`. At each step one product with the packed U gives U h_{t-1} for all gates of
a group, into memory that stays in the cache.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import Floats, Longs, kernel, part
from pipeline.kernels.compiler.products import kept_panels, packed_product, panel_products
from pipeline.kernels.compiler.simd import beyond, lanes, load, splat, store
from pipeline.kernels.compiler.threads import run_parallel
from pipeline.kernels.compiler.vector_math import sigmoid, tanh
from pipeline.kernels.ragged import Ragged
from pipeline.kernels.recurrent.cpu import clipped_relu, groups_of, places, where_in_relu
from pipeline.kernels.recurrent.plain import Recurrence, State, Sweep, put_state


@part
def _step(gates, g0, u, u0, h, h0, before0, has_before, before, kept, size, is_tanh):
    """The gated unit of [DS2] for one sequence at one frame; the gates are activated in place."""
    for j in range(0, size, lanes(gates)):
        left = size - j
        old, u_c = splat(h, 0.0), load(u, u0 + 2 * size + j, left)
        if has_before:
            old = load(h, before0 + j, left)
        z = sigmoid(load(gates, g0 + j, left) + load(u, u0 + j, left))
        r = sigmoid(load(gates, g0 + size + j, left) + load(u, u0 + size + j, left))
        c = load(gates, g0 + 2 * size + j, left) + r * u_c
        c = tanh(c) if is_tanh != 0 else clipped_relu(c)
        store(gates, g0 + j, left, z)
        store(gates, g0 + size + j, left, r)
        store(gates, g0 + 2 * size + j, left, c)
        store(kept, h0 + j, left, u_c)
        store(before, h0 + j, left, old)
        store(h, h0 + j, left, old + z * (c - old))


@part
def _step_back(d_h, n0, grad_h, gates, g0, before, kept, h0, d_gates, d_u, u0, size, is_tanh):
    """Its gradients; ``d_h`` becomes the share of h_{t-1} that passes by U."""
    for j in range(0, size, lanes(gates)):
        left = size - j
        d = load(d_h, n0 + j, left) + load(grad_h, h0 + j, left)
        z, r = load(gates, g0 + j, left), load(gates, g0 + size + j, left)
        c = load(gates, g0 + 2 * size + j, left)
        d_z = d * (c - load(before, h0 + j, left)) * z * (1.0 - z)
        d_c = d * z
        d_c = d_c * (1.0 - c * c) if is_tanh != 0 else where_in_relu(c, d_c)
        d_r = d_c * load(kept, h0 + j, left) * r * (1.0 - r)
        store(d_gates, g0 + j, left, d_z)
        store(d_gates, g0 + size + j, left, d_r)
        store(d_gates, g0 + 2 * size + j, left, d_c)
        store(d_u, u0 + j, left, d_z)
        store(d_u, u0 + size + j, left, d_r)
        store(d_u, u0 + 2 * size + j, left, d_c * r)
        store(d_h, n0 + j, left, d * (1.0 - z))


@kernel
def _forward(
    function: int, gates: Floats, recurrent: Floats, h: Floats, before: Floats, kept: Floats,
    u: Floats, active: Longs, offsets: Longs, given: int, frames: int, d: int, size: int,
    is_tanh: int, direction: int, first: int, last: int,
) -> None:  # fmt: skip
    """One direction of the places first … last; ``u`` (last - first, 3H) is memory for a step."""
    mode = simd.flush_denormals()
    g = 3 * size
    for step in range(given, frames):
        t = step if direction == 0 else frames - 1 - step
        count = max(0, min(last, active[t]) - first)
        other, had = places(t, direction, active, frames, first, last)
        row = (offsets[t] + first) * d + direction
        row_before = (offsets[max(0, min(frames, other))] + first) * d + direction
        for i in range(count * g):
            u[i] = 0.0
        packed_product(function, beyond(h, row_before * size), d * size, recurrent, u, g,
                       min(had, count), size, g)  # fmt: skip
        for n in range(count):
            at = row + n * d
            _step(gates, at * g, u, n * g, h, at * size, (row_before + n * d) * size, n < had,
                  before, kept, size, is_tanh)  # fmt: skip
    simd.restore_denormals(mode)


@kernel
def _backward(
    function: int, grad_h: Floats, gates: Floats, recurrent: Floats, before: Floats, kept: Floats,
    d_gates: Floats, d_h: Floats, d_u: Floats, active: Longs, offsets: Longs, given: int,
    frames: int, d: int, size: int, is_tanh: int, direction: int, first: int, last: int,
) -> None:  # fmt: skip
    """One direction of the places first … last, in the opposite of reading order.

    ``d_h`` (last - first, H), zero before, and ``d_u`` (last - first, 3H) are memory for a step.
    """
    mode = simd.flush_denormals()
    g = 3 * size
    for step in range(frames - given):
        t = frames - 1 - step if direction == 0 else step
        count = max(0, min(last, active[t]) - first)
        row = (offsets[t] + first) * d + direction
        for n in range(count):
            at = row + n * d
            _step_back(d_h, n * size, grad_h, gates, at * g, before, kept, at * size, d_gates, d_u,
                       n * g, size, is_tanh)  # fmt: skip
        packed_product(function, d_u, g, recurrent, d_h, size, count, g, size)
    simd.restore_denormals(mode)


def forward(
    gates: Tensor, recurrence: Recurrence, ragged: Ragged, state: State | None = None
) -> tuple[Tensor, Sweep]:
    """See `plain.forward`; ``gates``, float32 or float64 and contiguous, is overwritten."""
    rows, directions, _ = gates.shape
    size = recurrence.cells
    h, before, kept = (gates.new_empty(rows, directions, size) for _ in range(3))
    packed = [kept_panels(w, transposed=True) for w in recurrence.w_hidden]
    compiled: Any = _forward[gates.dtype]
    where, sizes = _places(recurrence, ragged, directions)
    if state is not None:
        put_state(state, h, None)

    def job(direction: int, first: int, last: int) -> None:
        u = gates.new_empty(last - first, 3 * size)
        compiled(panel_products(gates.dtype), gates, packed[direction], h, before, kept, u, *where,
                 *sizes, direction, first, last)  # fmt: skip

    jobs = groups_of(ragged, directions)
    run_parallel([lambda one=one: job(*one[1:]) for one in jobs])  # type: ignore[misc]
    return h, Sweep(gates, kept, before, None)


def backward(
    grad_h: Tensor, sweep: Sweep, recurrence: Recurrence, ragged: Ragged
) -> tuple[Tensor, None, None]:
    """See `plain.backward`."""
    gates, kept, before, _ = sweep
    directions, size = gates.shape[1], recurrence.cells
    grad_h, d_gates = grad_h.contiguous(), torch.empty_like(gates)
    packed = [kept_panels(w, transposed=False) for w in recurrence.w_hidden]
    compiled: Any = _backward[gates.dtype]
    where, sizes = _places(recurrence, ragged, directions)

    def job(direction: int, first: int, last: int) -> None:
        d_h, d_u = gates.new_zeros(last - first, size), gates.new_empty(last - first, 3 * size)
        compiled(panel_products(gates.dtype), grad_h, gates, packed[direction], before, kept,
                 d_gates, d_h, d_u, *where, *sizes, direction, first, last)  # fmt: skip

    jobs = groups_of(ragged, directions)
    run_parallel([lambda one=one: job(*one[1:]) for one in jobs])  # type: ignore[misc]
    return d_gates, None, None


def _places(
    recurrence: Recurrence, ragged: Ragged, directions: int
) -> tuple[tuple[Tensor, Tensor], tuple[int, ...]]:
    """Where the rows of each frame stand; given frames, all, D, H, whether f is a tanh."""
    where = ragged.active.contiguous(), ragged.offsets.contiguous()
    sizes = (
        ragged.given,
        len(ragged.active),
        directions,
        recurrence.cells,
        int(recurrence.cell == "gru_tanh"),
    )
    return where, sizes
