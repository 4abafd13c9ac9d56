"""Matrix products of every shape and layout, and the linear layers on them."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("numba")

from pipeline.kernels.compiler.products import (
    BLOCK,
    DEPTH,
    TILE_VECTORS,
    add_product,
    packed_panels,
    product,
)
from pipeline.kernels.compiler.simd import REGISTER_BYTES
from pipeline.kernels.linear import SMALL, linear

torch.set_num_threads(1)

SIZES = (1, 2, 7, 16, 33, 100)
DTYPES = [torch.float32, torch.float64]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def near(found: Tensor, exact: Tensor, depth: int) -> None:
    eps = torch.finfo(found.dtype).eps
    torch.testing.assert_close(found.double(), exact.double(), rtol=0, atol=8 * eps * (depth + 1))


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The same matrix in memory as others have it."""
    wide = torch.full((x.shape[0] + 2, x.shape[1] + 5), torch.nan, dtype=x.dtype)
    wide[1:-1, 2:-3] = x
    return {"rows": x, "columns": x.t().contiguous().t(), "part": wide[1:-1, 2:-3]}


@each_dtype
@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("depth", [1, 5, 64, 301])
def test_products(dtype: torch.dtype, m: int, n: int, depth: int) -> None:
    a, b = normal(m, depth, dtype=dtype), normal(depth, n, dtype=dtype)
    exact = a.double() @ b.double()
    for left in layouts(a).values():
        for right in layouts(b).values():
            near(product(left, right), exact, depth)


@pytest.mark.parametrize("repeated", ["rows", "columns", "all"])
def test_operands_that_repeat_what_they_have_in_memory(repeated: str) -> None:
    """As the gradient of a sum does: strides of 0."""
    source = {"rows": normal(1, 40), "columns": normal(40, 1), "all": normal(1, 1)}[repeated]
    a, other = source.expand(40, 40), normal(40, 40)
    for left, right in ((a, other), (a.t(), other), (other, a), (other, a.t()), (a, a)):
        near(product(left, right), left @ right, 40)
    every_other = normal(80, 80)[::2, ::2]
    near(product(every_other, every_other.t()), every_other @ every_other.t(), 40)


@each_dtype
def test_sums_are_added_to_rows_of_a_larger_matrix(dtype: torch.dtype) -> None:
    whole = normal(20, 50, dtype=dtype)
    before, c = whole.clone(), whole[3:10, 5:38]
    a, b = normal(7, 40, dtype=dtype), normal(40, 33, dtype=dtype)
    assert add_product(c, a, b) is c
    near(c, before[3:10, 5:38].double() + a.double() @ b.double(), 40)
    whole[3:10, 5:38] = before[3:10, 5:38]
    assert torch.equal(whole, before)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_nothing_to_multiply(shape: tuple[int, int, int]) -> None:
    m, depth, n = shape
    assert torch.equal(product(torch.ones(m, depth), torch.ones(depth, n)), torch.zeros(m, n))


@each_dtype
@pytest.mark.parametrize("transposed", [False, True])
def test_same_bytes_on_every_run_and_any_number_of_threads(
    dtype: torch.dtype, transposed: bool
) -> None:
    a, b = normal(130, 517, dtype=dtype), normal(517, 211, dtype=dtype)
    if transposed:
        a = a.t().contiguous().t()
    found = []
    try:
        for threads in (1, 1, 2, 3):
            torch.set_num_threads(threads)
            found.append(product(a, b))
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(x, found[0]) for x in found)


@each_dtype
def test_what_is_no_number_shows(dtype: torch.dtype) -> None:
    a, b = torch.ones(5, 6, dtype=dtype), torch.ones(6, 4, dtype=dtype)
    a[1, 2], b[3, 1] = torch.nan, torch.inf
    found = product(a, b)
    assert torch.isnan(found[1]).all()
    assert torch.isinf(found[[0, 2, 3, 4], 1]).all()
    assert torch.isfinite(found[[0, 2, 3, 4]][:, [0, 2, 3]]).all()


def test_denormal_numbers_are_torchs_again_afterwards() -> None:
    product(torch.full((40, 40), 1e-30), torch.full((40, 40), 1e-30))
    assert (torch.tensor([1e-40]) * 0.5).item() > 0.0


@each_dtype
@pytest.mark.parametrize("seed", range(14))
def test_random_shapes(dtype: torch.dtype, seed: int) -> None:
    """Also across the borders of `BLOCK` rows and `DEPTH` steps, on one or two threads."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([1, 3, 5, 6, 13, 31, 64, 65, BLOCK, 97, 2 * BLOCK + 1, 211])
    m, n = sizes[torch.randint(len(sizes), (2,), generator=generator)].tolist()
    depth = [1, 2, 37, DEPTH - 1, DEPTH, DEPTH + 1, 1031][seed % 7]
    a, b = normal(m, depth, dtype=dtype), normal(depth, n, dtype=dtype)
    exact = a.double() @ b.double()
    try:
        torch.set_num_threads(1 + seed % 2)
        for left, right in itertools.product(layouts(a).values(), layouts(b).values()):
            found = product(left, right)
            error = (found.double() - exact).abs()
            bound = torch.finfo(dtype).eps * (depth + 1) * (a.double().abs() @ b.double().abs())
            assert (error <= bound).all()
            assert found.dtype == dtype
    finally:
        torch.set_num_threads(1)


@each_dtype
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (17, 3), (40, 130), (130, 64)])
def test_panels(dtype: torch.dtype, transposed: bool, shape: tuple[int, int]) -> None:
    """Panel after panel, row after row, zeros beyond the last column."""
    weight = normal(*shape, dtype=dtype)
    matrix = (weight.t() if transposed else weight).numpy()
    panel = TILE_VECTORS * REGISTER_BYTES // weight.element_size()
    packed = packed_panels(weight, transposed=transposed).numpy()
    panels = packed.reshape(-1, matrix.shape[0], panel)
    found = np.concatenate(list(panels), axis=1)
    columns = matrix.shape[1]
    assert -(-columns // panel) == len(panels)
    np.testing.assert_array_equal(found[:, :columns], matrix)
    np.testing.assert_array_equal(found[:, columns:], 0)


def test_zero_times_infinity_is_no_number() -> None:
    """Zeros are multiplied like any other number."""
    a, b = torch.zeros(2, 3), torch.ones(3, 2)
    b[1, 0] = torch.inf
    assert torch.isnan(product(a, b)).tolist() == [[True, False]] * 2


# ---- linear layers -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 7, 5), (3, 7, 5), (90, 80, 70), (1, 700, 500)])
@pytest.mark.parametrize("with_bias", [True, False])
@each_dtype
def test_linear_is_torchs(shape: tuple[int, int, int], with_bias: bool, dtype: torch.dtype) -> None:
    """Small products, which are left to torch, and large ones."""
    rows, size, outputs = shape
    leaves = [normal(rows, size), normal(outputs, size)]
    leaves += [normal(outputs)] if with_bias else []
    exact = [x.clone().requires_grad_() for x in leaves]
    mine = [x.to(dtype).requires_grad_() for x in leaves]
    kept = [x.detach().clone() for x in mine]
    upstream = normal(rows, outputs, seed=1)
    found, wanted = linear(*mine), torch.nn.functional.linear(*exact)
    near(found, wanted, size)
    gradients = torch.autograd.grad((found * upstream.to(dtype)).sum(), mine)
    for got, should in zip(
        gradients, torch.autograd.grad((wanted * upstream).sum(), exact), strict=True
    ):
        near(got, should, max(shape))
    assert all(torch.equal(a, b) for a, b in zip(mine, kept, strict=True))  # bias too


def test_linear_of_more_dimensions_and_any_strides() -> None:
    x, weight = normal(4, 30, 90).transpose(0, 1), normal(60, 90)
    assert x.numel() * 60 > SMALL
    torch.testing.assert_close(linear(x, weight), x @ weight.t())
    torch.testing.assert_close(linear(x, weight[:, :]), linear(x.contiguous(), weight))


def test_linear_in_half_precision() -> None:
    x, weight = normal(50, 90).bfloat16(), normal(80, 90).bfloat16()
    found = linear(x, weight)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, x @ weight.t())


def test_only_the_gradients_that_are_needed() -> None:
    x, weight, bias = normal(50, 90), normal(80, 90).requires_grad_(), normal(80)
    linear(x, weight, bias).sum().backward()
    torch.testing.assert_close(weight.grad, x.sum(dim=0).expand(80, -1))
    assert x.grad is None
