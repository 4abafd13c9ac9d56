"""Linear layers: which product computes, gradients by differences, what stays untouched."""

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

pytest.importorskip("numba")

from pipeline.kernels import engines
from pipeline.kernels import linear as module
from pipeline.kernels.compiler import products
from pipeline.kernels.linear import SMALL, linear

torch.set_num_threads(1)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own product whatever the size."""
    monkeypatch.setattr(module, "SMALL", 0)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each call of our own product."""
    calls: list[int] = []

    def affine(*args: Tensor) -> Tensor:
        calls.append(1)
        return engines.affine(*args)

    monkeypatch.setattr(module, "affine", affine)
    return calls


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    engines._has.cache_clear()
    monkeypatch.setenv("PIPELINE_KERNELS", "plain")
    yield
    engines._has.cache_clear()


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("shape", [(1, 3), (4, 3), (2, 3, 3), (2, 1, 2, 3), (3,)], ids=str)
@pytest.mark.parametrize("with_bias", [True, False])
def test_gradients_by_differences(shape: tuple[int, ...], with_bias: bool) -> None:
    leaves = [normal(*shape), normal(5, 3), *([normal(5)] if with_bias else [])]
    for leaf in leaves:
        leaf.requires_grad_()
    assert torch.autograd.gradcheck(linear, leaves)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (0,), (4, 0)], ids=str)
def test_without_rows_or_features(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of nothing are small; our own, without rows, is right all the same."""
    if shape[-1]:
        monkeypatch.setattr(module, "SMALL", 0)
    x, weight, bias = normal(*shape), normal(5, shape[-1]), normal(5)
    torch.testing.assert_close(linear(x, weight, bias), functional.linear(x, weight, bias))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 40])
def test_parameters_stay_as_they_are(rows: int, dtype: torch.dtype) -> None:
    """The bias of one row is as large as the result, but not where it is written."""
    leaves = [normal(*shape, dtype=dtype) for shape in ((rows, 30), (20, 30), (20,))]
    before = [leaf.clone() for leaf in leaves]
    for leaf in leaves:
        leaf.requires_grad_()
    first, second = linear(*leaves), linear(*leaves)
    assert torch.equal(first, second)
    assert first.data_ptr() not in [leaf.data_ptr() for leaf in leaves]
    (first + second).square().sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(leaves, before, strict=True))


def test_small_products_are_left_to_torch(counted: list[int]) -> None:
    """Both sides of the border, with the same result."""
    k, outputs = 64, 64
    rows = SMALL // (k * outputs)
    weight, bias = normal(outputs, k), normal(outputs)
    for count, calls in ((rows - 1, 0), (rows, 1)):
        x = normal(count, k)
        torch.testing.assert_close(linear(x, weight, bias), functional.linear(x, weight, bias))
        assert len(counted) == calls


@pytest.mark.usefixtures("always", "plain")
def test_plain_torch_on_demand(counted: list[int]) -> None:
    x, weight, bias = normal(50, 90), normal(80, 90), normal(80)
    assert torch.equal(linear(x, weight, bias), functional.linear(x, weight, bias))
    assert not counted


@pytest.mark.usefixtures("always")
def test_half_precision_is_torchs(counted: list[int]) -> None:
    x, weight, bias = (normal(*s).bfloat16() for s in ((50, 90), (80, 90), (80,)))
    leaves = [x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    found = linear(*leaves)
    assert torch.equal(found, functional.linear(*leaves))
    assert found.dtype == torch.bfloat16
    gradients = torch.autograd.grad(found.sum(), leaves)
    assert [g.dtype for g in gradients] == [torch.bfloat16] * 3
    assert not counted


@pytest.mark.usefixtures("always")
def test_types_that_do_not_match_are_refused_as_by_torch() -> None:
    with pytest.raises(RuntimeError, match="dtype"):
        linear(normal(4, 3, dtype=torch.float32), normal(5, 3))


@pytest.mark.usefixtures("always")
def test_operands_and_gradients_of_any_strides() -> None:
    """Transposed, parts of larger tensors, every other row; a gradient that repeats one number."""
    wide, tall = normal(7, 90, 12), normal(200, 33)
    inputs = [wide.transpose(1, 2), wide.transpose(1, 2)[1:, ::2], wide.permute(2, 0, 1)]
    for x in inputs:
        for weight in (normal(90, 31).t(), tall[:90].t(), normal(62, 180)[::2, ::2]):
            a, w = x.clone().requires_grad_(), weight.clone().requires_grad_()
            b, v = x.detach().requires_grad_(), weight.detach().requires_grad_()
            wanted, found = functional.linear(a, w), linear(b, v)
            torch.testing.assert_close(found, wanted)
            wanted.sum().backward()
            found.sum().backward()
            torch.testing.assert_close((b.grad, v.grad), (a.grad, w.grad))


@pytest.mark.usefixtures("always")
def test_rows_do_not_depend_on_their_neighbours() -> None:
    """The same bytes for a row alone and among others; NaN stays in its row."""
    x, weight, bias = normal(50, 90), normal(80, 90), normal(80)
    whole = linear(x, weight, bias)
    assert torch.equal(linear(x[17:18], weight, bias)[0], whole[17])
    x[3] = torch.nan
    spoilt = linear(x, weight, bias)
    assert torch.isnan(spoilt[3]).all()
    keep = torch.arange(50) != 3
    assert torch.equal(spoilt[keep], whole[keep])


@pytest.mark.usefixtures("always")
def test_second_derivatives_are_refused() -> None:
    x, weight = normal(4, 3).requires_grad_(), normal(5, 3).requires_grad_()
    (grad,) = torch.autograd.grad(linear(x, weight).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


# ---- rows that do not depend on other rows -------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("features", "outputs"), [(3, 5), (600, 70), (130, 1)])
def test_without_gradients_a_row_is_the_same_among_any_others(dtype, features, outputs) -> None:
    shapes = (200, features), (outputs, features), (outputs,)
    x, weight, bias = (normal(*shape, dtype=dtype) for shape in shapes)
    with torch.no_grad():
        whole = linear(x, weight, bias)
    with torch.inference_mode():
        for count in (1, 2, 7, 96, 97, 200):
            assert torch.equal(linear(x[:count], weight, bias), whole[:count])
    torch.testing.assert_close(whole, functional.linear(x, weight, bias), rtol=1e-5, atol=1e-4)


def test_kept_panels_follow_weights_that_change() -> None:
    weight = torch.nn.Parameter(normal(2, 40, 30, dtype=torch.float32))
    x, bias = normal(5, 30, dtype=torch.float32), torch.zeros(40)
    with torch.inference_mode():
        before = [linear(x, weight[d], bias) for d in (0, 1)]
        assert not torch.equal(*before)
    with torch.no_grad():
        weight.mul_(2.0)
    with torch.inference_mode():
        after = [linear(x, weight[d], bias) for d in (0, 1)]
    assert all(torch.equal(2.0 * one, two) for one, two in zip(before, after, strict=True))


def test_panels_are_kept_as_long_as_the_weights() -> None:
    weight = torch.nn.Parameter(normal(40, 30, dtype=torch.float32))
    gc.collect()
    count = len(products._kept)
    with torch.inference_mode():
        linear(normal(5, 30, dtype=torch.float32), weight, torch.zeros(40))
    assert len(products._kept) == count + 1
    del weight
    gc.collect()
    assert len(products._kept) == count
