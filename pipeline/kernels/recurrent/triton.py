"""The programs of `cuda.py`, in Triton: one time step of a recurrent sweep each.

A program computes a tile: ``SEQUENCES`` sequences by ``COLUMNS`` cells of one direction. It reads
what the launches before it wrote, and no program of a launch reads what another of the same launch
writes, so that nothing has to be waited for but the launch before.

All that differs from batch to batch stands in ``table`` (int64, on the device): the step at which
the launches begin, the number of frames T and how many of them are given, the addresses of the
tensors, the first row of each frame. The tensors are those of `plain.py`, contiguous, with rows of
D·G, D·P or D·H numbers; cell states, peepholes and everything element by element are float32.
"""

import triton
import triton.language as tl

BASE = tl.constexpr(0)
FRAMES = tl.constexpr(1)
GATES = tl.constexpr(2)  # pre-activations for the forward, activated for the backward step
ACTIVATED = tl.constexpr(3)
CELLS = tl.constexpr(4)
HIDDEN = tl.constexpr(5)
OUTPUTS = tl.constexpr(6)
W_HIDDEN = tl.constexpr(7)
PEEPHOLES = tl.constexpr(8)
PROJECTION = tl.constexpr(9)
GRADIENT = tl.constexpr(10)
D_GATES = tl.constexpr(11)
D_HIDDEN = tl.constexpr(12)
D_CELLS = tl.constexpr(13)  # and the next: read and written in turns
D_CELLS_NEXT = tl.constexpr(14)
GIVEN = tl.constexpr(15)  # leading frames that are not computed
GRADIENT_M = tl.constexpr(16)  # of o tanh(c), from elsewhere than the projection
OFFSETS = tl.constexpr(18)


# ---- pieces --------------------------------------------------------------------------------------


@triton.jit
def pointer(table, slot, DTYPE: tl.constexpr):
    """The tensor whose address stands in a slot of the table."""
    address = tl.load(table + slot).to(tl.pointer_type(DTYPE))
    return tl.multiple_of(address, 16)


@triton.jit
def _rows(table, t, frames):
    """The row of the longest sequence's frame t and the sequences there, none outside 0 … T-1."""
    inside = (t >= 0) & (t < frames)
    at = tl.where(inside, t, 0)
    first = tl.load(table + OFFSETS + at)
    count = tl.load(table + OFFSETS + at + 1) - first
    return first, tl.where(inside, count, 0)


@triton.jit
def product(
    x_rows, known, w, col, live,
    K: tl.constexpr, K_STRIDE: tl.constexpr, COLUMN_STRIDE: tl.constexpr, PRECISION: tl.constexpr,
    SEQUENCES: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """Σ_k x[n, k] w[k, col] in float32; rows that are not ``known`` count as zero."""
    total = tl.zeros((SEQUENCES, COLUMNS), tl.float32)
    for k0 in range(0, K, INNER):
        k = k0 + tl.arange(0, INNER)
        inside = k < K
        x = tl.load(x_rows[:, None] + k[None, :], mask=known[:, None] & inside[None, :], other=0.0)
        tile = w + k[:, None] * K_STRIDE + col[None, :] * COLUMN_STRIDE
        y = tl.load(tile, mask=inside[:, None] & live[None, :], other=0.0)
        total = tl.dot(x, y, total, input_precision=PRECISION)
    return total


@triton.jit
def _four_products(
    x_rows, known, w, col, live, H: tl.constexpr, P: tl.constexpr, PRECISION: tl.constexpr,
    SEQUENCES: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """W h of the four gates of a tile's cells, w being (4, H, P)."""
    i = tl.zeros((SEQUENCES, COLUMNS), tl.float32)
    f = tl.zeros((SEQUENCES, COLUMNS), tl.float32)
    g = tl.zeros((SEQUENCES, COLUMNS), tl.float32)
    o = tl.zeros((SEQUENCES, COLUMNS), tl.float32)
    for k0 in range(0, P, INNER):
        k = k0 + tl.arange(0, INNER)
        inside = k < P
        x = tl.load(x_rows[:, None] + k[None, :], mask=known[:, None] & inside[None, :], other=0.0)
        at = w + col[None, :] * P + k[:, None]
        mask = inside[:, None] & live[None, :]
        i = tl.dot(x, tl.load(at, mask=mask, other=0.0), i, input_precision=PRECISION)
        f = tl.dot(x, tl.load(at + H * P, mask=mask, other=0.0), f, input_precision=PRECISION)
        g = tl.dot(x, tl.load(at + 2 * H * P, mask=mask, other=0.0), g, input_precision=PRECISION)
        o = tl.dot(x, tl.load(at + 3 * H * P, mask=mask, other=0.0), o, input_precision=PRECISION)
    return i, f, g, o


@triton.jit
def _load_four(at, stride, mask):
    """The four gates of a tile, in float32."""
    i = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    f = tl.load(at + stride, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(at + 2 * stride, mask=mask, other=0.0).to(tl.float32)
    o = tl.load(at + 3 * stride, mask=mask, other=0.0).to(tl.float32)
    return i, f, g, o


@triton.jit
def _store_four(at, stride, i, f, g, o, mask):
    dtype = at.dtype.element_ty
    tl.store(at, i.to(dtype), mask=mask)
    tl.store(at + stride, f.to(dtype), mask=mask)
    tl.store(at + 2 * stride, g.to(dtype), mask=mask)
    tl.store(at + 3 * stride, o.to(dtype), mask=mask)


@triton.jit
def _peepholes(table, d, H: tl.constexpr, col, live):
    """Those of a tile's cells to i, f and o."""
    at = pointer(table, PEEPHOLES, tl.float32) + d * (3 * H) + col
    w_ci = tl.load(at, mask=live, other=0.0)[None, :]
    w_cf = tl.load(at + H, mask=live, other=0.0)[None, :]
    w_co = tl.load(at + 2 * H, mask=live, other=0.0)[None, :]
    return w_ci, w_cf, w_co


@triton.jit
def sigmoid(x):
    """By e^(-|x|), which does not overflow."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def tanh(x):
    """By e^(-2|x|); by four terms of the series where that would cancel."""
    e = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - e) / (1.0 + e)
    square = x * x
    near = x * (1.0 - square * (1.0 / 3 - square * (2.0 / 15 - square * (17.0 / 315))))
    return tl.where(tl.abs(x) < 0.15, near, tl.where(x < 0, -far, far))


@triton.jit
def activated(x, CLIP: tl.constexpr):
    """tanh(x) where CLIP is 0, else a ReLU that ends there."""
    if CLIP > 0:
        return tl.where(x >= CLIP, CLIP, tl.where(x <= 0.0, 0.0, x))
    return tanh(x)


@triton.jit
def slope(grad, value, CLIP: tl.constexpr):
    """The gradient below `activated`, from that above it and its value."""
    if CLIP > 0:
        return tl.where((value > 0.0) & (value < CLIP), grad, 0.0)
    return grad * (1.0 - value * value)


# ---- forward -------------------------------------------------------------------------------------


@triton.jit
def forward_place(table, step, direction, SEQUENCES: tl.constexpr):
    """This step's rows of the tile and those of the step read before; which of each there are."""
    frames = tl.load(table + FRAMES)
    s = tl.load(table + BASE) + step
    t = tl.where(direction == 0, s, frames - 1 - s)
    first, count = _rows(table, t, frames)
    first_before, count_before = _rows(table, tl.where(direction == 0, t - 1, t + 1), frames)
    count = tl.where(t < tl.load(table + GIVEN), 0, count)
    n = tl.program_id(1) * SEQUENCES + tl.arange(0, SEQUENCES)
    here = n < count
    return first + n, here, first_before + n, here & (n < count_before), count


@triton.jit(do_not_specialize=["step"])
def lstm_step(
    table, step,
    D: tl.constexpr, H: tl.constexpr, P: tl.constexpr, HAS_PEEPHOLES: tl.constexpr,
    IS_PROJECTED: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr,
    SEQUENCES: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """[G13] eq. 3-7 for a tile, from h and c of the step read before to gates, c and o tanh(c)."""
    d = tl.program_id(2)
    row, here, row_before, known, count = forward_place(table, step, d, SEQUENCES)
    if tl.program_id(1) * SEQUENCES >= count:
        return
    col = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    live = col < H
    i, f, g, o = _four_products(
        pointer(table, HIDDEN, DTYPE) + (row_before * D + d) * P, known,
        pointer(table, W_HIDDEN, DTYPE) + d * (4 * H * P), col, live,
        H, P, PRECISION, SEQUENCES, COLUMNS, INNER,
    )  # fmt: skip
    mask = here[:, None] & live[None, :]
    at = ((row * D + d) * (4 * H))[:, None] + col[None, :]
    x_i, x_f, x_g, x_o = _load_four(pointer(table, GATES, DTYPE) + at, H, mask)
    i, f, g, o = i + x_i, f + x_f, g + x_g, o + x_o
    cells = pointer(table, CELLS, tl.float32)
    c_at = cells + ((row_before * D + d) * H)[:, None] + col[None, :]
    c = tl.load(c_at, mask=known[:, None] & live[None, :], other=0.0)
    if HAS_PEEPHOLES:
        w_ci, w_cf, w_co = _peepholes(table, d, H, col, live)
        i, f = i + w_ci * c, f + w_cf * c
    i, f, g = sigmoid(i), sigmoid(f), tanh(g)
    c = f * c + i * g
    if HAS_PEEPHOLES:
        o += w_co * c
    o = sigmoid(o)
    m_at = ((row * D + d) * H)[:, None] + col[None, :]
    tl.store(cells + m_at, c, mask=mask)
    m = (o * tanh(c)).to(DTYPE)
    if IS_PROJECTED:
        tl.store(pointer(table, OUTPUTS, DTYPE) + m_at, m, mask=mask)
    else:
        tl.store(pointer(table, HIDDEN, DTYPE) + m_at, m, mask=mask)
    _store_four(pointer(table, ACTIVATED, DTYPE) + at, H, i, f, g, o, mask)


@triton.jit(do_not_specialize=["step"])
def projection_step(
    table, step,
    D: tl.constexpr, H: tl.constexpr, P: tl.constexpr, DTYPE: tl.constexpr,
    PRECISION: tl.constexpr, SEQUENCES: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """r = W m, [S14], for a tile of r, after `lstm_step` of the same step."""
    d = tl.program_id(2)
    row, here, _, _, count = forward_place(table, step, d, SEQUENCES)
    if tl.program_id(1) * SEQUENCES >= count:
        return
    col = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    live = col < P
    x_rows = pointer(table, OUTPUTS, DTYPE) + (row * D + d) * H
    w = pointer(table, PROJECTION, DTYPE) + d * (P * H)
    r = product(
        x_rows, here, w, col, live, H, 1, H, PRECISION, SEQUENCES, COLUMNS, INNER
    )  # fmt: skip
    r_at = pointer(table, HIDDEN, DTYPE) + ((row * D + d) * P)[:, None] + col[None, :]
    tl.store(r_at, r.to(DTYPE), mask=here[:, None] & live[None, :])


@triton.jit(do_not_specialize=["step"])
def simple_step(
    table, step,
    D: tl.constexpr, H: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr,
    SEQUENCES: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, CLIP: tl.constexpr,
):  # fmt: skip
    """[G13] eq. 1 for a tile."""
    d = tl.program_id(2)
    row, here, row_before, known, count = forward_place(table, step, d, SEQUENCES)
    if tl.program_id(1) * SEQUENCES >= count:
        return
    col = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    live = col < H
    hidden = pointer(table, HIDDEN, DTYPE)
    w = pointer(table, W_HIDDEN, DTYPE) + d * (H * H)
    total = product(
        hidden + (row_before * D + d) * H, known, w, col, live,
        H, 1, H, PRECISION, SEQUENCES, COLUMNS, INNER,
    )  # fmt: skip
    at = ((row * D + d) * H)[:, None] + col[None, :]
    mask = here[:, None] & live[None, :]
    x = tl.load(pointer(table, GATES, DTYPE) + at, mask=mask, other=0.0).to(tl.float32)
    h = activated(total + x, CLIP).to(DTYPE)
    tl.store(hidden + at, h, mask=mask)
    tl.store(pointer(table, ACTIVATED, DTYPE) + at, h, mask=mask)


# ---- backward ------------------------------------------------------------------------------------


@triton.jit
def backward_place(table, step, direction, SEQUENCES: tl.constexpr):
    """As `forward_place`, of the steps from the last one read to the first.

    Beside this step's rows stand those of the step that was read after it, and read before it.
    """
    frames = tl.load(table + FRAMES)
    s = tl.load(table + BASE) + step
    t = tl.where(direction == 0, frames - 1 - s, s)
    first, count = _rows(table, t, frames)
    first_after, count_after = _rows(table, tl.where(direction == 0, t + 1, t - 1), frames)
    first_before, count_before = _rows(table, tl.where(direction == 0, t - 1, t + 1), frames)
    count = tl.where(t < tl.load(table + GIVEN), 0, count)
    n = tl.program_id(1) * SEQUENCES + tl.arange(0, SEQUENCES)
    here = n < count
    after = here & (n < count_after)
    before = here & (n < count_before)
    return n, first + n, here, first_after + n, after, first_before + n, before, count


@triton.jit(do_not_specialize=["step"])
def hidden_step_back(
    table, step,
    D: tl.constexpr, H: tl.constexpr, P: tl.constexpr, DTYPE: tl.constexpr,
    PRECISION: tl.constexpr, SEQUENCES: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """The whole gradient of r for a tile: from above and from the gates of the step read after."""
    d = tl.program_id(2)
    _, row, here, row_after, after, _, _, count = backward_place(table, step, d, SEQUENCES)
    if tl.program_id(1) * SEQUENCES >= count:
        return
    col = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    live = col < P
    x_rows = pointer(table, D_GATES, DTYPE) + (row_after * D + d) * (4 * H)
    w = pointer(table, W_HIDDEN, DTYPE) + d * (4 * H * P)
    total = product(
        x_rows, after, w, col, live, 4 * H, P, 1, PRECISION, SEQUENCES, COLUMNS, INNER
    )  # fmt: skip
    at = ((row * D + d) * P)[:, None] + col[None, :]
    mask = here[:, None] & live[None, :]
    grad = tl.load(pointer(table, GRADIENT, DTYPE) + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(pointer(table, D_HIDDEN, DTYPE) + at, (total + grad).to(DTYPE), mask=mask)


@triton.jit(do_not_specialize=["step"])
def lstm_step_back(
    table, step,
    D: tl.constexpr, H: tl.constexpr, P: tl.constexpr, HAS_PEEPHOLES: tl.constexpr,
    IS_PROJECTED: tl.constexpr, ADDS_M: tl.constexpr, DTYPE: tl.constexpr,
    PRECISION: tl.constexpr, SEQUENCES: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """The gradients of eq. 3-7 for a tile; with a projection after `hidden_step_back`."""
    d = tl.program_id(2)
    n, row, here, row_after, after, row_before, before, count = backward_place(
        table, step, d, SEQUENCES
    )
    if tl.program_id(1) * SEQUENCES >= count:
        return
    col = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    live = col < H
    mask = here[:, None] & live[None, :]
    m_at = ((row * D + d) * H)[:, None] + col[None, :]
    d_gates = pointer(table, D_GATES, DTYPE)
    if IS_PROJECTED:
        d_m = product(
            pointer(table, D_HIDDEN, DTYPE) + (row * D + d) * P, here,
            pointer(table, PROJECTION, DTYPE) + d * (P * H), col, live,
            P, H, 1, PRECISION, SEQUENCES, COLUMNS, INNER,
        )  # fmt: skip
        if ADDS_M:
            to_m = pointer(table, GRADIENT_M, DTYPE)
            d_m += tl.load(to_m + m_at, mask=mask, other=0.0).to(tl.float32)
    else:
        d_m = product(
            d_gates + (row_after * D + d) * (4 * H), after,
            pointer(table, W_HIDDEN, DTYPE) + d * (4 * H * P), col, live,
            4 * H, H, 1, PRECISION, SEQUENCES, COLUMNS, INNER,
        )  # fmt: skip
        grad = pointer(table, GRADIENT, DTYPE)
        d_m += tl.load(grad + m_at, mask=mask, other=0.0).to(tl.float32)
    at = ((row * D + d) * (4 * H))[:, None] + col[None, :]
    i, f, g, o = _load_four(pointer(table, GATES, DTYPE) + at, H, mask)
    cells = pointer(table, CELLS, tl.float32)
    tanh_c = tanh(tl.load(cells + m_at, mask=mask, other=0.0))
    c_at = cells + ((row_before * D + d) * H)[:, None] + col[None, :]
    c_before = tl.load(c_at, mask=before[:, None] & live[None, :], other=0.0)
    turn = step % 2
    carried = ((n * D + d) * H)[:, None] + col[None, :]
    d_c_at = pointer(table, D_CELLS + turn, tl.float32) + carried
    d_c = tl.load(d_c_at, mask=after[:, None] & live[None, :], other=0.0)
    d_o = d_m * tanh_c * o * (1.0 - o)
    d_c += d_m * o * (1.0 - tanh_c * tanh_c)
    if HAS_PEEPHOLES:
        w_ci, w_cf, w_co = _peepholes(table, d, H, col, live)
        d_c += w_co * d_o
    d_i = d_c * g * i * (1.0 - i)
    d_f = d_c * c_before * f * (1.0 - f)
    d_g = d_c * i * (1.0 - g * g)
    d_c = d_c * f
    if HAS_PEEPHOLES:
        d_c += w_ci * d_i + w_cf * d_f
    tl.store(pointer(table, D_CELLS + 1 - turn, tl.float32) + carried, d_c, mask=mask)
    _store_four(d_gates + at, H, d_i, d_f, d_g, d_o, mask)


@triton.jit(do_not_specialize=["step"])
def simple_step_back(
    table, step,
    D: tl.constexpr, H: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr,
    SEQUENCES: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, CLIP: tl.constexpr,
):  # fmt: skip
    """The gradient of `simple_step` for a tile."""
    d = tl.program_id(2)
    _, row, here, row_after, after, _, _, count = backward_place(table, step, d, SEQUENCES)
    if tl.program_id(1) * SEQUENCES >= count:
        return
    col = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    live = col < H
    d_gates = pointer(table, D_GATES, DTYPE)
    w = pointer(table, W_HIDDEN, DTYPE) + d * (H * H)
    total = product(
        d_gates + (row_after * D + d) * H, after, w, col, live,
        H, H, 1, PRECISION, SEQUENCES, COLUMNS, INNER,
    )  # fmt: skip
    at = ((row * D + d) * H)[:, None] + col[None, :]
    mask = here[:, None] & live[None, :]
    total += tl.load(pointer(table, GRADIENT, DTYPE) + at, mask=mask, other=0.0).to(tl.float32)
    h = tl.load(pointer(table, GATES, DTYPE) + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(d_gates + at, slope(total, h, CLIP).to(DTYPE), mask=mask)
