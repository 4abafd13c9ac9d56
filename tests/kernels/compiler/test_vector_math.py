"""exp, log, tanh and the logistic function lane by lane, against NumPy's widest floats."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from pipeline.kernels.compiler import vector_math
from pipeline.kernels.compiler.compiling import Floats, kernel
from pipeline.kernels.compiler.simd import lanes, largest, load, load_or, store, total


def compiled(function: Any) -> Any:
    @kernel
    def apply(x: Floats, y: Floats, size: int) -> None:
        for i in range(0, size, lanes(x)):
            store(y, i, size - i, function(load(x, i, size - i)))

    return apply


APPLY = {name: compiled(getattr(vector_math, name)) for name in ("exp", "log", "tanh", "sigmoid")}
EXACT: dict[str, Callable[[Any], Any]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}
DTYPES = [np.float32, np.float64]
TYPES = {np.float32: torch.float32, np.float64: torch.float64}
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def applied(name: str, x: Any, dtype: Any) -> np.ndarray:
    x = np.atleast_1d(np.asarray(x, dtype))
    y = np.empty_like(x)
    APPLY[name][TYPES[x.dtype.type]](x, y, x.size)
    return y


def arguments(name: str, dtype: Any) -> np.ndarray:
    """Of every size for which the result is a normal number."""
    random = np.random.default_rng(0)
    tiny, most = np.finfo(dtype).tiny, np.finfo(dtype).max
    if name == "log":
        return np.exp(random.uniform(np.log(tiny), np.log(most) - 1, 20001)).astype(dtype)
    edge = {"exp": 87.0, "tanh": 30.0, "sigmoid": 80.0}[name] * (1 if dtype == np.float32 else 8)
    sizes = np.exp(random.uniform(np.log(1e-6), np.log(edge), 20001))
    return (sizes * random.choice([-1, 1], 20001)).astype(dtype)


@pytest.mark.parametrize("name", APPLY)
@each_dtype
def test_a_few_units_in_the_last_place(name: str, dtype: Any) -> None:
    x = arguments(name, dtype)
    wanted = EXACT[name](x.astype(np.longdouble))
    # log is as near as its sum of two parts; near 1 its result is smaller than these.
    scale = np.maximum(np.abs(wanted), 1.0) if name == "log" else np.abs(wanted)
    error = np.abs(applied(name, x, dtype) - wanted) / scale
    assert float(error.max()) < 3 * np.finfo(dtype).eps


@each_dtype
def test_the_ends(dtype: Any) -> None:
    inf = np.inf
    np.testing.assert_array_equal(applied("exp", [0.0, -0.0, -inf, -1e4], dtype), [1, 1, 0, 0])
    assert (applied("exp", [1e4, inf], dtype) > 1e37).all()
    eps = np.finfo(dtype).eps
    ends = applied("tanh", [0.0, inf, -inf, 1e4, -1e4], dtype)
    np.testing.assert_allclose(ends, [0, 1, -1, 1, -1], rtol=eps)
    np.testing.assert_allclose(
        applied("sigmoid", [0.0, inf, -inf, 1e4, -1e4], dtype), [0.5, 1, 0, 1, 0], atol=1e-37
    )
    np.testing.assert_array_equal(applied("log", [1.0], dtype), [0.0])


@each_dtype
def test_denormal_arguments(dtype: Any) -> None:
    least = np.finfo(dtype).smallest_subnormal
    x = np.array([least, -least, np.finfo(dtype).tiny / 2], dtype)
    np.testing.assert_array_equal(applied("exp", x, dtype), np.ones(3))
    np.testing.assert_array_equal(applied("sigmoid", x, dtype), np.full(3, 0.5))
    np.testing.assert_array_equal(applied("tanh", x, dtype), x)


@each_dtype
def test_log_of_almost_one(dtype: Any) -> None:
    """Also there to the last places of its small result, on both sides of 1."""
    x = (1 + np.random.default_rng(0).uniform(-0.7, 0.7, 20001) ** 3).astype(dtype)
    wanted = np.log(x.astype(np.longdouble))
    error = np.abs(applied("log", x, dtype) - wanted)
    assert (error <= 3 * np.finfo(dtype).eps * np.abs(wanted)).all()


@each_dtype
@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid"])
def test_none_falls(name: str, dtype: Any) -> None:
    """Through both ends: no jump back where the range of the series is left.

    A step may be undone by its rounding, of at most two units in the last place.
    """
    values = applied(name, np.linspace(-800, 800, 200001), dtype)
    least, most = {"exp": (0, np.inf), "tanh": (-1, 1), "sigmoid": (0, 1)}[name]
    assert np.isfinite(values).all()
    assert ((least <= values) & (values <= most)).all()
    assert (np.diff(values) >= -2 * np.spacing(np.abs(values[:-1]))).all()


@each_dtype
@pytest.mark.parametrize("name", APPLY)
def test_nan_stays(name: str, dtype: Any) -> None:
    assert np.isnan(applied(name, [np.nan, 1.0], dtype)).tolist() == [True, False]


@each_dtype
@pytest.mark.parametrize("name", APPLY)
@pytest.mark.parametrize("count", [0, 1, 3, 7, 15, 17, 33])
def test_each_lane_is_alike(name: str, dtype: Any, count: int) -> None:
    """The same bytes wherever a number stands, in whole vectors and in what is left."""
    x = np.random.default_rng(count).uniform(0.1, 9, count).astype(dtype)
    one_by_one = [applied(name, value, dtype)[0] for value in x]
    np.testing.assert_array_equal(applied(name, x, dtype) if count else [], one_by_one)


@each_dtype
@pytest.mark.parametrize("count", [0, 1, 3, 7, 15, 17, 33])
def test_nothing_beyond_the_end_is_written(dtype: Any, count: int) -> None:
    x, y = np.ones(64, dtype), np.full(64, -5.0, dtype)
    APPLY["exp"][TYPES[dtype]](x, y, count)
    np.testing.assert_allclose(y[:count], np.e, rtol=1e-6)
    assert (y[count:] == -5.0).all()


@kernel
def _row(x: Floats, out: Floats, size: int) -> None:
    """Sum and greatest of at most a register's numbers."""
    out[0] = total(load_or(x, 0, size, 0.0))
    out[1] = largest(load_or(x, 0, size, -np.inf))


@each_dtype
@pytest.mark.parametrize("count", [0, 1, 3])
def test_sum_and_greatest_of_the_first_lanes(dtype: Any, count: int) -> None:
    x, out = np.array([-3.0, -1.0, -2.0, 50.0], dtype), np.empty(2, dtype)
    _row[TYPES[dtype]](x, out, count)
    assert out[0] == x[:count].sum()
    assert out[1] == max(x[:count], default=-np.inf)


@each_dtype
def test_halves_sum_to_a_number_of_twice_the_digits(dtype: Any) -> None:
    @kernel
    def split(x: float, out: Floats) -> None:
        out[0], out[1] = vector_math.halves(x, out)

    out = np.empty(2, dtype)
    x = 1e4 + np.log(3.0)
    split[TYPES[dtype]](x, out)
    assert out[0] == dtype(x)
    assert float(out[0]) + float(out[1]) == pytest.approx(x, abs=1e-10)
