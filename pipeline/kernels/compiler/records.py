"""A record: one argument by which kernels share many numbers and arrays, some of which may grow.

It is an array of int64. A place of it holds a number, or the address of an array. Kernels that pass
a record on to each other, by `call`, all take the same four arguments: the record, memory of
floating-point numbers that says for which type they are compiled, and two numbers.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import types
from torch import Tensor

from pipeline.kernels.compiler.compiling import call_address
from pipeline.kernels.compiler.simd import intrinsic

Array = np.ndarray | Tensor
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class Record:
    """A record for use from Python, which keeps the arrays alive whose addresses it holds."""

    def __init__(self, places: int) -> None:
        self.numbers = np.zeros(places, np.int64)
        self.arrays: dict[int, Array] = {}
        self.handlers: list[Any] = []
        self.failure: BaseException | None = None

    def __setitem__(self, place: int, value: int | Array) -> None:
        """Put a number, or a contiguous array, at a place."""
        if isinstance(value, np.ndarray):
            assert value.flags.c_contiguous
            self.arrays[place], value = value, value.ctypes.data
        elif isinstance(value, Tensor):
            assert value.is_contiguous()
            self.arrays[place], value = value, value.data_ptr()
        self.numbers[place] = value

    def __getitem__(self, place: int) -> int:
        return int(self.numbers[place])

    def array(self, place: int) -> Any:
        """The array that was put at a place."""
        return self.arrays[place]

    def grow(self, place: int, length: int) -> None:
        """Replace an array of NumPy by a longer one that begins with the same rows."""
        old = self.arrays[place]
        assert isinstance(old, np.ndarray)
        # PyTorch's memory, since NumPy asks for huge pages, which take longer to clear than to use.
        dtype = torch.from_numpy(old).dtype
        new = torch.empty((length, *old.shape[1:]), dtype=dtype).numpy()
        new[: len(old)] = old
        self[place] = new

    def handle(self, place: int, handler: Callable[[int, int], None], failed: int) -> None:
        """Let kernels call a function of Python as they `call` each other.

        What it raises is kept for `close`, and the number at the place ``failed`` is made 1.
        """

        def handled(_record: int, _like: int, a: int, b: int) -> None:
            try:
                handler(a, b)
            except BaseException as failure:
                self.failure = failure
                self[failed] = 1

        function = _Handler(handled)
        self.handlers.append(function)
        address = ctypes.cast(function, ctypes.c_void_p).value
        assert address is not None
        self[place] = address

    def close(self) -> None:
        """Forget the functions of Python, and raise what one of them raised while kernels ran."""
        self.handlers.clear()  # they refer to the record's owner, whose memory would linger
        if self.failure is not None:
            raise self.failure


@intrinsic
def call(typingctx: Any, function: Any, record: Any, like: Any, a: Any, b: Any) -> Any:
    """Call the kernel whose address is ``function``."""
    return types.void(types.intp, record, like, types.intp, types.intp), call_address


def _array_at(builder: Any, args: Any, kind: Any, context: Any) -> Any:
    value = builder.load(builder.gep(args[0], [args[1]]))
    return builder.inttoptr(value, context.get_value_type(kind))


def _arrays_of(element: Any) -> Any:
    @intrinsic
    def array(typingctx: Any, record: Any, place: Any) -> Any:
        kind = types.CPointer(element)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _array_at(builder, args, kind, context)

        return kind(record, types.intp), codegen

    return array


# Within a kernel, the array whose address is at a place of a record.
ints = _arrays_of(types.int32)
longs = _arrays_of(types.int64)
doubles = _arrays_of(types.float64)


@intrinsic
def floats(typingctx: Any, record: Any, place: Any, like: Any) -> Any:
    """The array at a place of a record, of numbers of the same type as those of ``like``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _array_at(builder, args, like, context)

    return like(record, types.intp, like), codegen
