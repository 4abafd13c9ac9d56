"""Vectors of floats as a type of numba, so that kernels are written in Python lane by lane.

Inside a function compiled by `kernel`, `load` reads a few neighbours of an array as one vector,
``+ - * /`` and the functions below work on all lanes at once, and `store` writes them back. The
width is that of the machine's registers (AVX-512: 16 float32, AVX2: 8, others 4; half as many
float64); code that steps by `lanes` and says how many lanes are left is right for every width.
"""

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic
from numba.extending import lower_builtin, models, register_model, type_callable

intrinsic: Any = _intrinsic  # what it makes is called with other arguments than it is written with


def _register_bytes() -> int:
    """Bytes of the widest vector register of this machine."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx2") else 16


REGISTER_BYTES = _register_bytes()


class Vector(types.Type):
    """As many numbers of one type as fit a register."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.lanes = REGISTER_BYTES // (dtype.bitwidth // 8)
        super().__init__(name=f"vector({dtype})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, llvm_vector(vector))


def llvm_vector(vector: Vector) -> Any:
    """LLVM's type of a vector."""
    float_type = ir.FloatType() if vector.dtype == types.float32 else ir.DoubleType()
    return ir.VectorType(float_type, vector.lanes)


# ---- memory --------------------------------------------------------------------------------------


def mask(builder: Any, vector: Vector, count: Any) -> Any:
    """True in the first ``count`` lanes."""
    kind = ir.VectorType(ir.IntType(64), vector.lanes)
    iota = ir.Constant(kind, list(range(vector.lanes)))
    return builder.icmp_signed("<", iota, splat_value(builder, kind, count))


def splat_value(builder: Any, kind: Any, value: Any) -> Any:
    """An LLVM vector with ``value`` in all lanes."""
    undefined = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(undefined, value, ir.IntType(32)(0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, undefined, lanes)


def _suffix(vector: Vector) -> str:
    return f"v{vector.lanes}f{vector.dtype.bitwidth}"


def masked_load(
    builder: Any, vector: Vector, pointer: Any, mask: Any, otherwise: Any = None
) -> Any:
    """LLVM code that loads the lanes of ``mask``; the others are zero, or ``otherwise``'s."""
    kind = llvm_vector(vector)
    align = ir.IntType(32)(vector.dtype.bitwidth // 8)
    pointer = builder.bitcast(pointer, kind.as_pointer())
    signature = ir.FunctionType(kind, [pointer.type, align.type, mask.type, kind])
    name = f"llvm.masked.load.{_suffix(vector)}.p0"
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    if otherwise is None:
        otherwise = ir.Constant(kind, [0.0] * kind.count)
    return builder.call(function, [pointer, align, mask, otherwise])


def masked_store(builder: Any, vector: Vector, value: Any, pointer: Any, mask: Any) -> None:
    """LLVM code that stores the lanes of ``mask``."""
    align = ir.IntType(32)(vector.dtype.bitwidth // 8)
    pointer = builder.bitcast(pointer, value.type.as_pointer())
    types_ = [value.type, pointer.type, align.type, mask.type]
    name = f"llvm.masked.store.{_suffix(vector)}.p0"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), types_), name
    )
    builder.call(function, [value, pointer, align, mask])


@intrinsic
def beyond(typingctx: Any, pointer: Any, count: Any) -> Any:
    """Pointer to the element ``count`` elements further on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.intp), codegen


@intrinsic
def load(typingctx: Any, array: Any, offset: Any, count: Any) -> Any:
    """Elements offset … of the array at a pointer, zero from lane ``count`` on."""
    vector = Vector(array.dtype)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.gep(args[0], [args[1]])
        return masked_load(builder, vector, pointer, mask(builder, vector, args[2]))

    return vector(array, types.intp, types.intp), codegen


@intrinsic
def load_or(typingctx: Any, array: Any, offset: Any, count: Any, other: Any) -> Any:
    """`load` with a number instead of zero from lane ``count`` on."""
    vector = Vector(array.dtype)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.gep(args[0], [args[1]])
        otherwise = _as_vector(context, builder, vector, other, args[3])
        return masked_load(builder, vector, pointer, mask(builder, vector, args[2]), otherwise)

    return vector(array, types.intp, types.intp, other), codegen


@intrinsic
def store(typingctx: Any, array: Any, offset: Any, count: Any, value: Any) -> Any:
    """Write the first ``count`` lanes to elements offset … of the array at a pointer."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.gep(args[0], [args[1]])
        masked_store(builder, value, args[3], pointer, mask(builder, value, args[2]))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, value), codegen


@intrinsic
def prefetch(typingctx: Any, array: Any, offset: Any) -> Any:
    """Ask for element ``offset``, which need not exist, to be brought near."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.gep(args[0], [args[1]])
        pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        flag = ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [pointer.type, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        builder.call(function, [pointer, flag(0), flag(2), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def rounded(typingctx: Any, value: Any, array: Any) -> Any:
    """A number in the type of an array's elements."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.cast(builder, args[0], value, array.dtype)

    return array.dtype(value, array), codegen


@intrinsic
def lanes(typingctx: Any, array: Any) -> Any:
    """How many elements of this array fit a vector."""
    count = Vector(array.dtype).lanes

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.intp, count)

    return types.intp(array), codegen


@intrinsic
def splat(typingctx: Any, array: Any, value: Any) -> Any:
    """A number in all lanes of a vector of the type of ``array``."""
    vector = Vector(array.dtype)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _as_vector(context, builder, vector, value, args[1])

    return vector(array, value), codegen


# ---- arithmetic ----------------------------------------------------------------------------------


def _as_vector(context: Any, builder: Any, vector: Vector, kind: Any, value: Any) -> Any:
    if isinstance(kind, Vector):
        return value
    return splat_value(
        builder, llvm_vector(vector), context.cast(builder, value, kind, vector.dtype)
    )


def _vector_among(*kinds: Any) -> Vector | None:
    found = [kind for kind in kinds if isinstance(kind, Vector)]
    return found[0] if found else None


def elementwise(emit: Callable[..., Any], arity: int) -> Any:
    """An intrinsic of ``arity`` vectors or numbers, at least one a vector, to a vector.

    ``emit(builder, vector, *values)`` writes its LLVM code.
    """

    def typed(*kinds: Any) -> Any:
        vector = _vector_among(*kinds)
        if vector is None:
            return None

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = [
                _as_vector(context, builder, vector, kind, value)
                for kind, value in zip(kinds, args, strict=True)
            ]
            return emit(builder, vector, *values)

        return vector(*kinds), codegen

    match arity:
        case 1:
            return intrinsic(lambda typingctx, a: typed(a))
        case 2:
            return intrinsic(lambda typingctx, a, b: typed(a, b))
        case _:
            return intrinsic(lambda typingctx, a, b, c: typed(a, b, c))


def _operator(function: Any, instruction: str) -> None:
    """Let an operator work on vectors, and on vectors and numbers."""

    @type_callable(function)
    def typed(context: Any) -> Any:
        return lambda a, b: _vector_among(a, b)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = signature.return_type
        values = [
            _as_vector(context, builder, vector, kind, value)
            for kind, value in zip(signature.args, args, strict=True)
        ]
        return getattr(builder, instruction)(*values, flags=("contract",))

    for kinds in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(function, *kinds)(codegen)


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")


def call_llvm(name: str) -> Callable[..., Any]:
    """``emit`` for `elementwise`: LLVM's intrinsic of that name."""

    def emit(builder: Any, vector: Vector, *values: Any) -> Any:
        kind = llvm_vector(vector)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind] * len(values)), f"{name}.{_suffix(vector)}"
        )
        return builder.call(function, values)

    return emit


def extremum(comparison: str) -> Callable[..., Any]:
    """``emit`` for `elementwise`: the one of two that compares so; the second where one is NaN."""
    return lambda builder, vector, a, b: builder.select(
        builder.fcmp_ordered(comparison, a, b), a, b
    )


# Arithmetic on NaN gives NaN; `minimum` and `maximum` give b where either is NaN.
fma = elementwise(call_llvm("llvm.fma"), 3)  # a · b + c
minimum = elementwise(extremum("<"), 2)
maximum = elementwise(extremum(">"), 2)
absolute = elementwise(call_llvm("llvm.fabs"), 1)


def _where_greater(builder: Any, vector: Vector, a: Any, b: Any, value: Any) -> Any:
    zero = ir.Constant(llvm_vector(vector), [0.0] * vector.lanes)
    return builder.select(builder.fcmp_ordered(">", a, b), value, zero)


where_greater = elementwise(_where_greater, 3)  # c where a > b, else 0


def _layout(vector: Vector) -> tuple[Any, int, int]:
    """Integer vector of the same shape, bits of the mantissa, bias of the exponent."""
    bits = vector.dtype.bitwidth
    integers = ir.VectorType(ir.IntType(bits), vector.lanes)
    return (integers, 23, 127) if bits == 32 else (integers, 52, 1023)


def _integers(kind: Any, value: int) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def emit_power_of_two(builder: Any, vector: Vector, n: Any) -> Any:
    """2^n of whole numbers n within the exponent's range."""
    kind, mantissa, bias = _layout(vector)
    biased = builder.add(builder.fptosi(n, kind), _integers(kind, bias))
    return builder.bitcast(builder.shl(biased, _integers(kind, mantissa)), n.type)


def emit_exponent(builder: Any, vector: Vector, x: Any) -> Any:
    """The exponent of positive normal numbers x = mantissa · 2^exponent."""
    kind, mantissa, bias = _layout(vector)
    shifted = builder.lshr(builder.bitcast(x, kind), _integers(kind, mantissa))
    return builder.sitofp(builder.sub(shifted, _integers(kind, bias)), x.type)


def emit_mantissa(builder: Any, vector: Vector, x: Any) -> Any:
    """The mantissa, in [1, 2), of positive normal numbers."""
    kind, mantissa, bias = _layout(vector)
    low = builder.and_(builder.bitcast(x, kind), _integers(kind, (1 << mantissa) - 1))
    return builder.bitcast(builder.or_(low, _integers(kind, bias << mantissa)), x.type)


def _reduction(name: str, start: float | None) -> Any:
    @intrinsic
    def reduce(typingctx: Any, value: Any) -> Any:
        if not isinstance(value, Vector):
            return None

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = llvm_vector(value)
            values = list(args) if start is None else [ir.Constant(kind.element, start), *args]
            signature_ = ir.FunctionType(kind.element, [v.type for v in values])
            function = cgutils.get_or_insert_function(
                builder.module, signature_, f"{name}.{_suffix(value)}"
            )
            return builder.call(function, values, fastmath=("reassoc",))

        return value.dtype(value), codegen

    return reduce


total = _reduction("llvm.vector.reduce.fadd", -0.0)  # sum of the lanes
largest = _reduction("llvm.vector.reduce.fmax", None)  # greatest of the lanes


# ---- denormal numbers ----------------------------------------------------------------------------

IS_X86 = llvm.get_process_triple().startswith("x86_64")
FLUSH = 0x8040  # bits of the x86 control register: denormal results and operands become zero


def _control_register(builder: Any, name: str, slot: Any) -> None:
    signature = ir.FunctionType(ir.VoidType(), [slot.type])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.x86.sse.{name}")
    builder.call(function, [slot])


@intrinsic
def flush_denormals(typingctx: Any) -> Any:
    """Treat denormal numbers as zero in this thread; returns what `restore_denormals` needs."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        slot = cgutils.alloca_once_value(builder, ir.IntType(32)(0))
        if not IS_X86:
            return builder.load(slot)
        _control_register(builder, "stmxcsr", slot)
        before = builder.load(slot)
        builder.store(builder.or_(before, ir.IntType(32)(FLUSH)), slot)
        _control_register(builder, "ldmxcsr", slot)
        return before

    return types.int32(), codegen


@intrinsic
def restore_denormals(typingctx: Any, before: Any) -> Any:
    """Undo `flush_denormals`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if IS_X86:
            _control_register(builder, "ldmxcsr", cgutils.alloca_once_value(builder, args[0]))
        return context.get_dummy_value()

    return types.void(types.int32), codegen
