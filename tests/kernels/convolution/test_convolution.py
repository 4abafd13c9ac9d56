"""Convolutions over frequency and time: engines against the reference and each other."""

import itertools
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.kernels.convolution import cpu, plain, reference
from pipeline.kernels.convolution.layer import convolution, shape_of
from pipeline.kernels.convolution.plain import Shape

torch.set_num_threads(1)

ENGINES = pytest.mark.parametrize("engine", [plain, cpu], ids=["plain", "cpu"])
# channels in and out, frequencies, kernel and stride over frequency and time
SHAPES = [
    (1, 3, 9, (5, 3), (2, 2)),
    (3, 70, 8, (3, 5), (1, 1)),
    (2, 5, 1, (1, 11), (1, 3)),
    (65, 2, 1, (1, 1), (1, 1)),
    (2, 2, 3, (7, 9), (3, 2)),
]
each_shape = pytest.mark.parametrize("sizes", SHAPES, ids=str)


def problem(sizes: tuple, lengths: list[int], dtype: torch.dtype) -> tuple[Tensor, Tensor, Shape]:
    """Frames (N, T, F, C), zero in the padding, a weight, and the shape."""
    channels, outputs, frequencies, kernel, stride = sizes
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(lengths), max(lengths), frequencies, channels, generator=generator)
    for row, length in zip(x, lengths, strict=True):
        row[length:] = 0.0
    weight = torch.randn(outputs, channels, *kernel, generator=generator).to(dtype)
    return x.to(dtype), weight, shape_of(weight, stride, pads_time=True)


def counts_of(lengths: list[int], shape: Shape) -> list[int]:
    return [-(-length // shape.stride[1]) for length in lengths]


@ENGINES
@each_shape
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_are_those_of_the_reference(
    engine: ModuleType, sizes: tuple, dtype: torch.dtype
) -> None:
    lengths = [13, 1, 6, 0, 2]
    x, weight, shape = problem(sizes, lengths, dtype)
    got = engine.forward(x, weight, counts_of(lengths, shape), shape)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    for n, (length, count) in enumerate(zip(lengths, counts_of(lengths, shape), strict=True)):
        if length:
            frames = x[n, :length].double().numpy()
            expected = reference.convolution(frames, weight.double().numpy(), shape.stride)
            assert expected.shape == (count, *got.shape[2:])
            np.testing.assert_allclose(got[n, :count], expected, rtol=tolerance, atol=tolerance)


@each_shape
def test_the_engines_have_the_same_gradients(sizes: tuple) -> None:
    lengths = [13, 1, 6, 0]
    x, weight, shape = problem(sizes, lengths, torch.float64)
    counts = counts_of(lengths, shape)
    grad = torch.randn(plain.forward(x, weight, counts, shape).shape, dtype=torch.float64)
    for row, count in zip(grad, counts, strict=True):
        row[count:] = 0.0
    found = [
        (
            engine.backward_input(grad, weight, counts, shape, x.shape[1], x.shape[2]),
            engine.backward_weight(grad, x, counts, shape),
        )
        for engine in (plain, cpu)
    ]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@each_shape
@pytest.mark.parametrize("pads", [True, False])
def test_gradients_are_those_of_finite_differences(sizes: tuple, pads: bool) -> None:
    channels, outputs, frequencies, kernel, stride = sizes
    x = torch.randn(2, 12, frequencies, min(channels, 3), dtype=torch.float64)
    weight = torch.randn(min(outputs, 3), x.shape[3], *kernel, dtype=torch.float64)
    shape = shape_of(weight, stride, pads_time=pads)
    counts = torch.tensor([shape.outputs(frequencies, 12)[1]] * 2)
    inputs = x.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, w: convolution(x, w, counts, shape), inputs, fast_mode=True
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@each_shape
def test_an_output_does_not_depend_on_where_it_stands(sizes: tuple, dtype: torch.dtype) -> None:
    """Alone, in a batch, or in a chunk of any size: the same bits."""
    lengths = [30, 7, 21]
    x, weight, shape = problem(sizes, lengths, dtype)
    counts = counts_of(lengths, shape)
    whole = cpu.forward(x, weight, counts, shape)
    alone = cpu.forward(x[1:2, :7], weight, counts[1:2], shape)
    assert torch.equal(alone[0, : counts[1]], whole[1, : counts[1]])
    around, size, step = shape.around[1], shape.kernel[1], shape.stride[1]
    padded = torch.nn.functional.pad(x[0], (0, 0, 0, 0, around, around))
    inner = shape_of(weight, shape.stride, pads_time=False)
    for first, count in itertools.product(range(0, 6), (1, 2, 5)):
        read = padded[first * step : (first + count - 1) * step + size]
        chunk = cpu.forward(read[None], weight, [count], inner)
        k = min(count, counts[0] - first)
        assert torch.equal(chunk[0, :k], whole[0, first : first + k])


def test_threads_change_nothing() -> None:
    lengths = [30, 7, 21]
    x, weight, shape = problem(SHAPES[1], lengths, torch.float32)
    counts = counts_of(lengths, shape)
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            y = cpu.forward(x, weight, counts, shape)
            d_x = cpu.backward_input(y, weight, counts, shape, x.shape[1], x.shape[2])
            found.append([y, d_x, cpu.backward_weight(y, x, counts, shape)])
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
