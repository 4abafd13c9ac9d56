"""exp, log, tanh and the logistic function on vectors, to the rounding of their type.

Each is a range reduction and a series whose first omitted term is below half a unit in the last
place: r^k / k! for the exponential on |r| ≤ ln(2)/2, odd powers for the logarithm.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import part
from pipeline.kernels.compiler.simd import Vector, elementwise, rounded

# ln 2 in two parts: n times the first is exact for every n that an exponent can be.
LN2 = {32: (0.693359375, -2.1219444005469057e-4), 64: (0.6931471803691238, 1.9082149292705878e-10)}
EXP_TERMS = {32: 7, 64: 13}
LOG_TERMS = {32: 5, 64: 11}
EXP_RANGE = {32: (-87.3, 88.0), 64: (-708.3, 709.0)}
TANH_RANGE = {32: 9.01, 64: 19.1}  # tanh is 1 to rounding beyond

_fma = simd.call_llvm("llvm.fma")
_nearest = simd.call_llvm("llvm.rint")
_minimum = simd.extremum("<")
_maximum = simd.extremum(">")


def _constant(vector: Vector, value: float) -> Any:
    return ir.Constant(simd.llvm_vector(vector), [value] * vector.lanes)


def _polynomial(builder: Any, vector: Vector, x: Any, coefficients: Sequence[float]) -> Any:
    """c_0 + c_1 x + c_2 x² + …"""
    value = _constant(vector, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = _fma(builder, vector, value, x, _constant(vector, coefficient))
    return value


def _reduced_exp(builder: Any, vector: Vector, x: Any) -> tuple[Any, Any]:
    """2^n and e^r - 1 with e^x = 2^n e^r, |r| ≤ ln(2)/2."""
    bits = vector.dtype.bitwidth
    low, high = EXP_RANGE[bits]
    x = _minimum(builder, vector, _constant(vector, high), x)  # this way round, NaN stays NaN
    x = _maximum(builder, vector, _constant(vector, low), x)
    n = _nearest(builder, vector, builder.fmul(x, _constant(vector, 1.0 / math.log(2.0))))
    for share in LN2[bits]:
        x = _fma(builder, vector, n, _constant(vector, -share), x)
    series = [1.0 / math.factorial(k) for k in range(1, EXP_TERMS[bits] + 1)]
    less_one = builder.fmul(x, _polynomial(builder, vector, x, series))
    return simd.emit_power_of_two(builder, vector, n), less_one


def _exp(builder: Any, vector: Vector, x: Any) -> Any:
    scale, less_one = _reduced_exp(builder, vector, x)
    value = _fma(builder, vector, scale, less_one, scale)
    low = _constant(vector, EXP_RANGE[vector.dtype.bitwidth][0])
    return builder.select(builder.fcmp_ordered("<", x, low), _constant(vector, 0.0), value)


def _tanh(builder: Any, vector: Vector, x: Any) -> Any:
    """E / (E + 2) with E = e^2x - 1, which keeps the relative precision of small x."""
    bound = TANH_RANGE[vector.dtype.bitwidth]
    x = _minimum(builder, vector, _constant(vector, bound), x)
    x = _maximum(builder, vector, _constant(vector, -bound), x)
    scale, less_one = _reduced_exp(builder, vector, builder.fadd(x, x))
    offset = builder.fsub(scale, _constant(vector, 1.0))
    grown = _fma(builder, vector, scale, less_one, offset)
    return builder.fdiv(grown, builder.fadd(grown, _constant(vector, 2.0)))


def _sigmoid(builder: Any, vector: Vector, x: Any) -> Any:
    one = _constant(vector, 1.0)
    scale, less_one = _reduced_exp(builder, vector, builder.fneg(x))
    return builder.fdiv(one, builder.fadd(one, _fma(builder, vector, scale, less_one, scale)))


def _log(builder: Any, vector: Vector, x: Any) -> Any:
    """e ln 2 + 2 artanh((m - 1) / (m + 1)) for x = m 2^e, m in [√½, √2)."""
    bits = vector.dtype.bitwidth
    one, half = _constant(vector, 1.0), _constant(vector, 0.5)
    m = simd.emit_mantissa(builder, vector, x)
    e = simd.emit_exponent(builder, vector, x)
    large = builder.fcmp_ordered(">", m, _constant(vector, math.sqrt(2.0)))
    m = builder.select(large, builder.fmul(m, half), m)
    e = builder.select(large, builder.fadd(e, one), e)
    s = builder.fdiv(builder.fsub(m, one), builder.fadd(m, one))
    series = [2.0 / (2 * k + 1) for k in range(LOG_TERMS[bits])]
    tail = _polynomial(builder, vector, builder.fmul(s, s), series)
    high, low = LN2[bits]
    value = _fma(builder, vector, e, _constant(vector, low), builder.fmul(s, tail))
    value = _fma(builder, vector, e, _constant(vector, high), value)
    return builder.select(builder.fcmp_unordered("uno", x, x), x, value)


exp = elementwise(_exp, 1)  # 0 below the range of normal numbers, largest where it would overflow
tanh = elementwise(_tanh, 1)
sigmoid = elementwise(_sigmoid, 1)
log = elementwise(_log, 1)  # of positive normal numbers


@part
def halves(x, like):
    """A float64 number as the sum of two of the type of ``like``.

    A number near ``x`` less the first half is exact.
    """
    high = rounded(x, like)
    return high, rounded(x - np.float64(high), like)
