"""The convolution of frames over frequency and time on a CPU, as products without any copying.

A frame's F·C values lie together, a frequency's C values together. So for one frame of the kernel
and one output frequency all that is read from a frame, kernel × C numbers, lies in one piece, and
the outputs of a sequence are a matrix product whose rows are frames: `panel_product` computes it in
place. Each output is summed in one order, whatever the batch, and frames of padding are not
computed. Functions and tensors are those of `plain.py`.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import Floats, kernel, part
from pipeline.kernels.compiler.products import (
    TILE_VECTORS,
    panel_product,
    panel_products,
    products_for,
)
from pipeline.kernels.compiler.simd import beyond, lanes
from pipeline.kernels.compiler.threads import run_parallel
from pipeline.kernels.convolution.plain import Shape


@part
def _span(j, around, step, frames, count):
    """The outputs 0 … count whose frame j of the kernel is a frame of the input: first, last."""
    first = max(0, (around - j + step - 1) // step)
    last = min(count, (frames - 1 + around - j) // step + 1)
    return first, last


@part
def _band(f, around, step, size, frequencies):
    """The part of the kernel that lies within the input at output frequency f: first, last."""
    return max(0, around - f * step), min(size, frequencies + around - f * step)


@kernel
def _forward(
    function: int, panel: int, x: Floats, weight: Floats, y: Floats, count: int, frames: int,
    freq: int, c: int, freq_out: int, c_out: int, k_freq: int, k_time: int, step_freq: int,
    step_time: int, pad_freq: int, pad_time: int,
) -> None:  # fmt: skip
    """One sequence; ``y`` is zero before.

    ``weight`` is packed in panels of output channels, each (k_time, k_freq, C, panel).
    """
    mode = simd.flush_denormals()
    for f in range(freq_out):
        low, high = _band(f, pad_freq, step_freq, k_freq, freq)
        at = f * step_freq - pad_freq + low
        o = 0
        while o < c_out:  # a range by a variable might raise, which is slow to compile
            for j in range(k_time):
                first, last = _span(j, pad_time, step_time, frames, count)
                if last > first:
                    row = first * step_time + j - pad_time
                    panel_product(
                        function, beyond(x, (row * freq + at) * c), step_time * freq * c, 1,
                        beyond(weight, ((o * k_time + j * panel) * k_freq + low * panel) * c),
                        panel, beyond(y, (first * freq_out + f) * c_out + o), freq_out * c_out,
                        last - first, (high - low) * c, min(panel, c_out - o),
                    )  # fmt: skip
            o += panel
    simd.restore_denormals(mode)


@kernel
def _backward_input(
    function: int, grad: Floats, weight: Floats, d_x: Floats, count: int, frames: int, freq: int,
    c: int, freq_out: int, c_out: int, k_freq: int, k_time: int, step_freq: int, step_time: int,
    pad_freq: int, pad_time: int,
) -> None:  # fmt: skip
    """One sequence; ``d_x`` is zero before. ``weight`` is (k_time, C', k_freq, C)."""
    mode = simd.flush_denormals()
    panel = TILE_VECTORS * lanes(grad)
    for f in range(freq_out):
        low, high = _band(f, pad_freq, step_freq, k_freq, freq)
        at, columns = f * step_freq - pad_freq + low, (high - low) * c
        for j in range(k_time):
            first, last = _span(j, pad_time, step_time, frames, count)
            row = first * step_time + j - pad_time
            for column in range(0, columns if last > first else 0, panel):
                panel_product(
                    function, beyond(grad, (first * freq_out + f) * c_out), freq_out * c_out, 1,
                    beyond(weight, (j * c_out * k_freq + low) * c + column), k_freq * c,
                    beyond(d_x, (row * freq + at) * c + column), step_time * freq * c,
                    last - first, c_out, min(panel, columns - column),
                )  # fmt: skip
    simd.restore_denormals(mode)


@kernel
def _backward_weight(
    function: int, grad: Floats, x: Floats, d_weight: Floats, j: int, count: int, frames: int,
    freq: int, c: int, freq_out: int, c_out: int, k_freq: int, step_freq: int, step_time: int,
    pad_freq: int, pad_time: int,
) -> None:  # fmt: skip
    """What one sequence adds to frame j of the weights, ``d_weight`` (C', k_freq, C)."""
    mode = simd.flush_denormals()
    panel = TILE_VECTORS * lanes(x)
    first, last = _span(j, pad_time, step_time, frames, count)
    row = first * step_time + j - pad_time
    for f in range(freq_out if last > first else 0):
        low, high = _band(f, pad_freq, step_freq, k_freq, freq)
        at, columns = f * step_freq - pad_freq + low, (high - low) * c
        for column in range(0, columns, panel):
            panel_product(
                function, beyond(grad, (first * freq_out + f) * c_out), 1, freq_out * c_out,
                beyond(x, (row * freq + at) * c + column), step_time * freq * c,
                beyond(d_weight, low * c + column), k_freq * c,
                c_out, last - first, min(panel, columns - column),
            )  # fmt: skip
    simd.restore_denormals(mode)


def forward(x: Tensor, weight: Tensor, counts: list[int], shape: Shape) -> Tensor:
    """See `plain.forward`."""
    x = x.contiguous()
    n, frames, frequencies, _ = x.shape
    freq_out, time_out = shape.outputs(frequencies, frames)
    function, panel = products_for(x.dtype, len(weight))
    by_frame = weight.to(x.dtype).permute(3, 2, 1, 0)  # (time, freq, C, C')
    whole = torch.nn.functional.pad(by_frame, (0, -by_frame.shape[3] % panel))
    panels = whole.unflatten(3, (-1, panel)).permute(3, 0, 1, 2, 4).contiguous()
    y = x.new_zeros(n, time_out, freq_out, len(weight))
    compiled: Any = _forward[x.dtype]
    sizes = _sizes(frames, frequencies, weight, freq_out, shape)

    def job(k: int) -> None:
        compiled(function, panel, x[k], panels, y[k], counts[k], *sizes)

    run_parallel([lambda k=k: job(k) for k in range(n)])  # type: ignore[misc]
    return y


def backward_input(
    grad: Tensor, weight: Tensor, counts: list[int], shape: Shape, frames: int, frequencies: int
) -> Tensor:
    """See `plain.backward_input`."""
    grad = grad.contiguous()
    n, _, freq_out, _ = grad.shape
    by_frame = weight.to(grad.dtype).permute(3, 0, 2, 1).contiguous()
    d_x = grad.new_zeros(n, frames, frequencies, weight.shape[1])
    compiled: Any = _backward_input[grad.dtype]
    sizes = _sizes(frames, frequencies, weight, freq_out, shape)

    def job(k: int) -> None:
        compiled(panel_products(grad.dtype), grad[k], by_frame, d_x[k], counts[k], *sizes)

    run_parallel([lambda k=k: job(k) for k in range(n)])  # type: ignore[misc]
    return d_x


def backward_weight(grad: Tensor, x: Tensor, counts: list[int], shape: Shape) -> Tensor:
    """See `plain.backward_weight`."""
    grad, x = grad.contiguous(), x.contiguous()
    frames, frequencies, channels = x.shape[1:]
    freq_out, outputs = grad.shape[2:]
    wide, long = shape.kernel
    d_weight = x.new_zeros(long, outputs, wide, channels)
    compiled: Any = _backward_weight[x.dtype]
    sizes = frames, frequencies, channels, freq_out, outputs, wide, *shape.stride, *shape.around
    each = list(zip(grad, x, counts, strict=True))

    def job(j: int) -> None:
        of_frame = d_weight[j]
        for grad_k, x_k, count in each:
            compiled(panel_products(x.dtype), grad_k, x_k, of_frame, j, count, *sizes)

    run_parallel([lambda j=j: job(j) for j in range(long)])  # type: ignore[misc]
    return d_weight.permute(1, 3, 2, 0)


def _sizes(
    frames: int, frequencies: int, weight: Tensor, freq_out: int, shape: Shape
) -> tuple[int, ...]:
    """What the kernels need to know, in their order."""
    outputs, channels = weight.shape[:2]
    ends = *shape.kernel, *shape.stride, *shape.around
    return frames, frequencies, channels, freq_out, outputs, *ends
