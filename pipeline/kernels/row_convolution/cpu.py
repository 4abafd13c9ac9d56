"""The row convolution on a CPU: a strip of neighbouring features at a time, kept in the cache.

Functions and tensors are those of `plain.py`. As many features as fit a register are a strip; a
sequence's strip is copied to where its frames lie together. All three sums are then alike, one
strip slid along another: the inputs by the filter, the gradient from its end by the filter, and the
inputs by the gradient. Each element is summed in one order, whatever its batch.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import Floats, Longs, kernel, part
from pipeline.kernels.compiler.simd import fma, lanes, load, splat, store
from pipeline.kernels.compiler.threads import run_parallel, spans
from pipeline.kernels.ragged import Ragged

TILE = 8  # sums that are kept in registers at a time


@part
def _frames_of(active, frames, n):
    """The frames of the sequence in place n; as ``active`` falls, those before the first ≤ n."""
    low, high = 0, frames
    while low < high:
        middle = (low + high) // 2
        if active[middle] > n:
            low = middle + 1
        else:
            high = middle
    return low


@part
def _copy_in(strip, rows, offsets, n, column, size, count, is_reversed):
    """A sequence's strip at ``column``, perhaps the last frame first, and zeros for a tile more."""
    step = lanes(rows)
    for t in range(count):
        at = count - 1 - t if is_reversed != 0 else t
        store(strip, t * step, step, load(rows, (offsets[at] + n) * size + column, size - column))
    for t in range(count, count + TILE):
        store(strip, t * step, step, splat(rows, 0.0))


@part
def _slide(long, long_count, short, short_count, sums, count):
    """sums[i] += Σ_k short[k] long[i + k], i < count, of strips; ``sums`` has room for a tile more.

    ``long`` is zero for a tile more than its ``long_count``.
    """
    step = lanes(long)
    for i in range(0, count, TILE):
        at = i * step
        a0, a1 = load(sums, at, step), load(sums, at + step, step)
        a2, a3 = load(sums, at + 2 * step, step), load(sums, at + 3 * step, step)
        a4, a5 = load(sums, at + 4 * step, step), load(sums, at + 5 * step, step)
        a6, a7 = load(sums, at + 6 * step, step), load(sums, at + 7 * step, step)
        for k in range(min(short_count, long_count - i)):
            w, x = load(short, k * step, step), at + k * step
            a0 = fma(w, load(long, x, step), a0)
            a1 = fma(w, load(long, x + step, step), a1)
            a2 = fma(w, load(long, x + 2 * step, step), a2)
            a3 = fma(w, load(long, x + 3 * step, step), a3)
            a4 = fma(w, load(long, x + 4 * step, step), a4)
            a5 = fma(w, load(long, x + 5 * step, step), a5)
            a6 = fma(w, load(long, x + 6 * step, step), a6)
            a7 = fma(w, load(long, x + 7 * step, step), a7)
        store(sums, at, step, a0)
        store(sums, at + step, step, a1)
        store(sums, at + 2 * step, step, a2)
        store(sums, at + 3 * step, step, a3)
        store(sums, at + 4 * step, step, a4)
        store(sums, at + 5 * step, step, a5)
        store(sums, at + 6 * step, step, a6)
        store(sums, at + 7 * step, step, a7)


@part
def _clear(sums, count):
    for i in range(count):
        store(sums, i * lanes(sums), lanes(sums), splat(sums, 0.0))


@kernel
def _convolve(
    x: Floats, weight: Floats, y: Floats, strips: Floats, active: Longs, offsets: Longs,
    frames: int, taps: int, size: int, is_reversed: int, first: int, last: int,
) -> None:  # fmt: skip
    """The features first … last of r; of the gradient of h, if the frames are read from the end.

    ``strips`` is memory for taps + 2 (frames + TILE) vectors.
    """
    mode = simd.flush_denormals()
    step = lanes(x)
    filters = strips
    inputs = simd.beyond(filters, taps * step)
    sums = simd.beyond(inputs, (frames + TILE) * step)
    for column in range(first, last, step):
        for j in range(taps):
            store(filters, j * step, step, load(weight, j * size + column, size - column))
        for n in range(active[0]):
            count = _frames_of(active, frames, n)
            _copy_in(inputs, x, offsets, n, column, size, count, is_reversed)
            _clear(sums, count + TILE)
            _slide(inputs, count, filters, taps, sums, count)
            for t in range(count):
                at = count - 1 - t if is_reversed != 0 else t
                store(y, (offsets[at] + n) * size + column, size - column,
                      load(sums, t * step, step))  # fmt: skip
    simd.restore_denormals(mode)


@kernel
def _weight_gradient(
    grad: Floats, x: Floats, d_weight: Floats, strips: Floats, active: Longs, offsets: Longs,
    frames: int, taps: int, size: int, first: int, last: int,
) -> None:  # fmt: skip
    """The features first … last of W's gradient.

    ``strips`` is memory for taps + TILE + 2 (frames + TILE) vectors.
    """
    mode = simd.flush_denormals()
    step = lanes(x)
    sums = strips
    inputs = simd.beyond(sums, (taps + TILE) * step)
    gradients = simd.beyond(inputs, (frames + TILE) * step)
    for column in range(first, last, step):
        _clear(sums, taps + TILE)
        for n in range(active[0]):
            count = _frames_of(active, frames, n)
            _copy_in(inputs, x, offsets, n, column, size, count, 0)
            _copy_in(gradients, grad, offsets, n, column, size, count, 0)
            _slide(inputs, count, gradients, count, sums, min(taps, count))
        for j in range(taps):
            store(d_weight, j * size + column, size - column, load(sums, j * step, step))
    simd.restore_denormals(mode)


def forward(rows: Tensor, weight: Tensor, ragged: Ragged) -> Tensor:
    """See `plain.forward`."""
    return _convolved(rows, weight, ragged, is_reversed=False)


def backward_input(grad: Tensor, weight: Tensor, ragged: Ragged) -> Tensor:
    """See `plain.backward_input`: eq. 5 again, of frames that are read from the end."""
    return _convolved(grad, weight, ragged, is_reversed=True)


def backward_weight(grad: Tensor, rows: Tensor, count: int, ragged: Ragged) -> Tensor:
    """See `plain.backward_weight`."""
    d_weight = rows.new_zeros(count, rows.shape[1])
    given = (grad.contiguous(), rows.contiguous(), d_weight)
    _run(_weight_gradient[rows.dtype], given, ragged, (count, rows.shape[1]))
    return d_weight


def _convolved(rows: Tensor, weight: Tensor, ragged: Ragged, *, is_reversed: bool) -> Tensor:
    y = rows.new_empty(rows.shape)
    given = (rows.contiguous(), weight.to(rows.dtype).contiguous(), y)
    _run(_convolve[rows.dtype], given, ragged, (*weight.shape, int(is_reversed)))
    return y


def _run(compiled: Any, given: tuple[Tensor, ...], ragged: Ragged, sizes: tuple[int, ...]) -> None:
    """Call a kernel for shares of the features; ``sizes`` begin with τ + 1 and H."""
    if ragged.rows == 0:
        return
    where = ragged.active.contiguous(), ragged.offsets.contiguous()
    (taps, size), frames = sizes[:2], len(ragged.active)
    step = simd.REGISTER_BYTES // given[0].element_size()

    def job(first: int, last: int) -> None:
        strips = given[0].new_empty((taps + TILE + 2 * (frames + TILE)) * step)
        compiled(*given, strips, *where, frames, *sizes, first, last)

    shares = spans(size, step, torch.get_num_threads())
    run_parallel([lambda share=share: job(*share) for share in shares])  # type: ignore[misc]
