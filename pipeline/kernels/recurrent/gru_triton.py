"""The programs of `gru_cuda.py`, in Triton: one time step of a GRU's sweep each.

Tiles, table and pieces are those of `triton.py`. Gates stand in the order z, r, candidate; where
that table has an LSTM's cell states stands the candidate's share of U h_{t-1} (in the gates'
dtype), where it has the gradient of the cells that of h_{t-1} past U (float32), and in D_HIDDEN
the gradient of that share.
"""

import triton
import triton.language as tl

from pipeline.kernels.recurrent.triton import (
    ACTIVATED,
    CELLS,
    D_CELLS,
    D_GATES,
    D_HIDDEN,
    GATES,
    GRADIENT,
    HIDDEN,
    W_HIDDEN,
    activated,
    backward_place,
    forward_place,
    pointer,
    product,
    sigmoid,
    slope,
)


@triton.jit
def _three_products(
    x_rows, known, w, col, live, H: tl.constexpr, PRECISION: tl.constexpr,
    SEQUENCES: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """U h of the three gates of a tile's cells, w being (3, H, H)."""
    z = tl.zeros((SEQUENCES, COLUMNS), tl.float32)
    r = tl.zeros((SEQUENCES, COLUMNS), tl.float32)
    c = tl.zeros((SEQUENCES, COLUMNS), tl.float32)
    for k0 in range(0, H, INNER):
        k = k0 + tl.arange(0, INNER)
        inside = k < H
        x = tl.load(x_rows[:, None] + k[None, :], mask=known[:, None] & inside[None, :], other=0.0)
        at = w + col[None, :] * H + k[:, None]
        mask = inside[:, None] & live[None, :]
        z = tl.dot(x, tl.load(at, mask=mask, other=0.0), z, input_precision=PRECISION)
        r = tl.dot(x, tl.load(at + H * H, mask=mask, other=0.0), r, input_precision=PRECISION)
        c = tl.dot(x, tl.load(at + 2 * H * H, mask=mask, other=0.0), c, input_precision=PRECISION)
    return z, r, c


@triton.jit
def _load_three(at, stride, mask):
    """The three gates of a tile, in float32."""
    z = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    r = tl.load(at + stride, mask=mask, other=0.0).to(tl.float32)
    c = tl.load(at + 2 * stride, mask=mask, other=0.0).to(tl.float32)
    return z, r, c


@triton.jit
def _store_three(at, stride, z, r, c, mask):
    dtype = at.dtype.element_ty
    tl.store(at, z.to(dtype), mask=mask)
    tl.store(at + stride, r.to(dtype), mask=mask)
    tl.store(at + 2 * stride, c.to(dtype), mask=mask)


@triton.jit(do_not_specialize=["step"])
def gru_step(
    table, step,
    D: tl.constexpr, H: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr,
    SEQUENCES: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, CLIP: tl.constexpr,
):  # fmt: skip
    """A step of [DS2]'s GRU for a tile, from h of the step read before to the gates, U h and h."""
    d = tl.program_id(2)
    row, here, row_before, known, count = forward_place(table, step, d, SEQUENCES)
    if tl.program_id(1) * SEQUENCES >= count:
        return
    col = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    live = col < H
    hidden = pointer(table, HIDDEN, DTYPE)
    h_before = hidden + (row_before * D + d) * H
    z, r, u = _three_products(
        h_before, known, pointer(table, W_HIDDEN, DTYPE) + d * (3 * H * H), col, live,
        H, PRECISION, SEQUENCES, COLUMNS, INNER,
    )  # fmt: skip
    mask = here[:, None] & live[None, :]
    at = ((row * D + d) * (3 * H))[:, None] + col[None, :]
    x_z, x_r, x_c = _load_three(pointer(table, GATES, DTYPE) + at, H, mask)
    z, r = sigmoid(z + x_z), sigmoid(r + x_r)
    c = activated(x_c + r * u, CLIP)
    old = tl.load(
        h_before[:, None] + col[None, :], mask=known[:, None] & live[None, :], other=0.0
    ).to(tl.float32)
    h_at = ((row * D + d) * H)[:, None] + col[None, :]
    tl.store(hidden + h_at, (old + z * (c - old)).to(DTYPE), mask=mask)
    tl.store(pointer(table, CELLS, DTYPE) + h_at, u.to(DTYPE), mask=mask)
    _store_three(pointer(table, ACTIVATED, DTYPE) + at, H, z, r, c, mask)


@triton.jit(do_not_specialize=["step"])
def gru_step_back(
    table, step,
    D: tl.constexpr, H: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr,
    SEQUENCES: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, CLIP: tl.constexpr,
):  # fmt: skip
    """The gradients of `gru_step` for a tile; HIDDEN is h_{t-1} in the rows of h_t."""
    d = tl.program_id(2)
    n, row, here, row_after, after, _, _, count = backward_place(table, step, d, SEQUENCES)
    if tl.program_id(1) * SEQUENCES >= count:
        return
    col = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    live = col < H
    mask = here[:, None] & live[None, :]
    d_gates = pointer(table, D_GATES, DTYPE)
    d_fed_back = pointer(table, D_HIDDEN, DTYPE)
    w = pointer(table, W_HIDDEN, DTYPE) + d * (3 * H * H)
    d_h = product(
        d_gates + (row_after * D + d) * (3 * H), after, w, col, live,
        2 * H, H, 1, PRECISION, SEQUENCES, COLUMNS, INNER,
    )  # fmt: skip
    d_h += product(
        d_fed_back + (row_after * D + d) * H, after, w + 2 * H * H, col, live,
        H, H, 1, PRECISION, SEQUENCES, COLUMNS, INNER,
    )  # fmt: skip
    h_at = ((row * D + d) * H)[:, None] + col[None, :]
    d_h += tl.load(pointer(table, GRADIENT, DTYPE) + h_at, mask=mask, other=0.0).to(tl.float32)
    turn = step % 2
    carried = ((n * D + d) * H)[:, None] + col[None, :]
    past_at = pointer(table, D_CELLS + turn, tl.float32) + carried
    d_h += tl.load(past_at, mask=after[:, None] & live[None, :], other=0.0)
    at = ((row * D + d) * (3 * H))[:, None] + col[None, :]
    z, r, c = _load_three(pointer(table, GATES, DTYPE) + at, H, mask)
    before = tl.load(pointer(table, HIDDEN, DTYPE) + h_at, mask=mask, other=0.0).to(tl.float32)
    u = tl.load(pointer(table, CELLS, DTYPE) + h_at, mask=mask, other=0.0).to(tl.float32)
    d_z = d_h * (c - before) * z * (1.0 - z)
    d_c = slope(d_h * z, c, CLIP)
    d_r = d_c * u * r * (1.0 - r)
    tl.store(pointer(table, D_CELLS + 1 - turn, tl.float32) + carried, d_h * (1.0 - z), mask=mask)
    tl.store(d_fed_back + h_at, (d_c * r).to(DTYPE), mask=mask)
    _store_three(d_gates + at, H, d_z, d_r, d_c, mask)
