"""The row convolution: engines against the reference and each other, batches, chunks, gradients."""

from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.kernels.ragged import Ragged, layout, pack, unpack
from pipeline.kernels.row_convolution import cpu, plain, reference
from pipeline.kernels.row_convolution.layer import row_convolution

torch.set_num_threads(1)

each_engine = pytest.mark.parametrize("engine", [plain, cpu], ids=["plain", "cpu"])
LENGTHS = [13, 1, 30, 0, 30, 8]
# look-ahead and features: less and more than a tile, a register and a sequence
SIZES = [(0, 1), (3, 7), (7, 40), (8, 16), (19, 33), (80, 5)]
each_size = pytest.mark.parametrize("sizes", SIZES, ids=str)


def problem(
    sizes: tuple[int, int], lengths: list[int], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Ragged]:
    """Frames (N, T, H) with junk in the padding, a weight, and the layout."""
    lookahead, size = sizes
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(lengths), max(lengths), size, generator=generator, dtype=torch.float64)
    for row, length in zip(x, lengths, strict=True):
        row[length:] = float("nan")
    weight = torch.randn(lookahead + 1, size, generator=generator, dtype=torch.float64)
    return x.to(dtype), weight.to(dtype), layout(torch.tensor(lengths), max(lengths))


@each_engine
@each_size
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_are_those_of_the_reference(
    engine: ModuleType, sizes: tuple[int, int], dtype: torch.dtype
) -> None:
    x, weight, ragged = problem(sizes, LENGTHS, dtype)
    got = unpack(engine.forward(pack(x, ragged), weight, ragged), ragged)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for n, length in enumerate(LENGTHS):
        frames = x[n, :length].double().numpy()
        expected = reference.row_convolution(frames, weight.double().numpy())
        np.testing.assert_allclose(got[n, :length], expected, rtol=tolerance, atol=10 * tolerance)


@each_size
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_engines_have_the_same_gradients(sizes: tuple[int, int], dtype: torch.dtype) -> None:
    x, weight, ragged = problem(sizes, LENGTHS, dtype)
    rows = pack(x, ragged)
    grad = torch.randn(rows.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    tolerance = 1e-11 if dtype == torch.float64 else 1e-4
    close = {"rtol": tolerance, "atol": tolerance}
    inputs = [engine.backward_input(grad, weight, ragged) for engine in (plain, cpu)]
    torch.testing.assert_close(*inputs, **close)
    weights = [engine.backward_weight(grad, rows, len(weight), ragged) for engine in (plain, cpu)]
    torch.testing.assert_close(*weights, **close)


@pytest.mark.parametrize("sizes", [(0, 2), (3, 3), (9, 2)], ids=str)
def test_gradients_are_those_of_finite_differences(sizes: tuple[int, int]) -> None:
    x, weight, ragged = problem(sizes, [5, 0, 11], torch.float64)
    inputs = pack(x, ragged).requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: row_convolution(x, w, ragged), inputs)


@each_size
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_batch_of_one_is_batch_of_many_and_chunks_to_the_bit(
    sizes: tuple[int, int], dtype: torch.dtype
) -> None:
    x, weight, ragged = problem(sizes, LENGTHS, dtype)
    whole = unpack(row_convolution(pack(x, ragged), weight, ragged), ragged)
    for n, length in enumerate(LENGTHS):
        frames = x[n, :length]
        for first in {0, 1, 5, length - 1} & set(range(length)):
            rest = layout(torch.tensor([length - first]), length - first)
            alone = row_convolution(frames[first:].contiguous(), weight, rest)
            assert torch.equal(alone, whole[n, first:length])
        for last in range(len(weight), length, 4):  # what a stream knows before its end
            begun = layout(torch.tensor([last]), last)
            known = last - len(weight) + 1
            early = row_convolution(frames[:last], weight, begun)
            assert torch.equal(early[:known], whole[n, :known])


def test_threads_and_memory_that_is_not_contiguous_change_nothing() -> None:
    x, weight, ragged = problem((19, 70), LENGTHS, torch.float32)
    rows = pack(x, ragged)
    wide = torch.cat([rows, rows], dim=1)[:, :70]
    found = []
    try:
        for threads, given in ((1, rows), (3, wide)):
            torch.set_num_threads(threads)
            found.append(
                [
                    cpu.forward(given, weight, ragged),
                    cpu.backward_input(given, weight, ragged),
                    cpu.backward_weight(given, given, 20, ragged),
                ]
            )
    finally:
        torch.set_num_threads(1)
    for one, many in zip(*found, strict=True):
        assert torch.equal(one, many)


@each_engine
def test_no_frames(engine: ModuleType) -> None:
    ragged = layout(torch.tensor([0, 0]), 0)
    rows, weight = torch.zeros(0, 3), torch.ones(4, 3)
    assert engine.forward(rows, weight, ragged).shape == (0, 3)
    assert engine.backward_input(rows, weight, ragged).shape == (0, 3)
    assert torch.equal(engine.backward_weight(rows, rows, 4, ragged), torch.zeros(4, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_plain_torch(dtype: torch.dtype) -> None:
    x, weight, ragged = problem((3, 7), LENGTHS, torch.float32)
    rows = pack(x, ragged)
    got = row_convolution(rows.to(dtype), weight, ragged)
    assert got.dtype == dtype
    expected = plain.forward(rows, weight, ragged)
    torch.testing.assert_close(got.float(), expected, rtol=5e-2, atol=5e-2)
