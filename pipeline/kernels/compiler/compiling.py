"""How kernels for the CPU are compiled, and where what was compiled is kept.

A `kernel` is a Python function that numba compiles to a C function of numbers and of pointers to
the memory of tensors. It is compiled for a type of floating-point numbers when it is first asked
for, and later processes find the result. A `part` has no code of its own: it is compiled as a
piece of the kernels that use it.

What makes compiling fast is decided here. Arrays and lists are left out: each operation on
them is a function of numba's library that would be compiled as well. So is whatever raises. Each
kernel is optimised once and as a whole; kernels that several others need are called by their
address (`Kernel.address`), not compiled into each of them.
"""

import ctypes
import hashlib
import logging
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core.ccallback import CFunc
from numba.core.registry import cpu_target
from torch import Tensor

from pipeline.kernels.compiler.kept import KeptFile, announce, fault, make_folder

log = logging.getLogger("pipeline")

_config: Any = numba.config


class Pointer:
    """The memory of a contiguous tensor or array, as the type of a kernel's argument."""

    dtype: torch.dtype

    def __getitem__(self, place: int) -> Any:
        """Within a kernel: the number there."""

    def __setitem__(self, place: int, value: Any) -> None:
        """Within a kernel: put a number there."""


class Doubles(Pointer):
    """Of float64 numbers."""

    dtype = torch.float64


class Longs(Pointer):
    """Of int64 numbers."""

    dtype = torch.int64


class Ints(Pointer):
    """Of int32 numbers."""

    dtype = torch.int32


class Bools(Pointer):
    """Of truth values, a byte each."""

    dtype = torch.bool


class Floats(Pointer):
    """Of the floating-point numbers for which a kernel is compiled."""


ELEMENTS = {
    torch.float32: types.float32,
    torch.float64: types.float64,
    torch.int64: types.int64,
    torch.int32: types.int32,
    torch.bool: types.uint8,
}
SCALARS: dict[Any, tuple[Any, Any]] = {
    int: (types.int64, ctypes.c_int64),
    float: (types.float64, ctypes.c_double),
    None: (types.void, None),
}


class Kernel:
    """A function that is compiled to one C function for each type of floating-point numbers.

    Its arguments are annotated: a subclass of `Pointer`, int or float; it returns None, int or
    float.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.found: dict[torch.dtype, tuple[Callable[..., Any], int]] = {}

    def __getitem__(self, dtype: torch.dtype) -> Callable[..., Any]:
        """The C function: takes tensors and numbers, and runs without the interpreter's lock."""
        return self._compiled(dtype)[0]

    def address(self, dtype: torch.dtype) -> int:
        """The C function's address, by which other kernels call it."""
        return self._compiled(dtype)[1]

    def _compiled(self, dtype: torch.dtype) -> tuple[Callable[..., Any], int]:
        if dtype not in self.found:
            *arguments, result = [
                self._types(kind, dtype) for kind in self.function.__annotations__.values()
            ]
            signature = result[0](*(of_numba for of_numba, _ in arguments))
            address = _compiled(self.function, signature)
            prototype = ctypes.CFUNCTYPE(result[1], *(of_ctypes for _, of_ctypes in arguments))
            self.found[dtype] = prototype(address), address
        return self.found[dtype]

    @staticmethod
    def _types(kind: Any, dtype: torch.dtype) -> tuple[Any, Any]:
        """Of an argument or result: numba's type and ctypes'."""
        if kind in SCALARS:
            return SCALARS[kind]
        element = dtype if kind is Floats else kind.dtype
        return types.CPointer(ELEMENTS[element]), _memory_of(element)


kernel = Kernel


def part(function: Callable[..., Any]) -> Any:
    """Compile a function as a piece of each kernel that calls it."""
    return numba.njit(error_model="numpy", inline="always")(function)


def call_address(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Code for an intrinsic: it calls the kernel whose address is the first argument."""
    kinds = [context.get_value_type(kind) for kind in signature.args[1:]]
    pointer = ir.FunctionType(ir.VoidType(), kinds).as_pointer()
    builder.call(builder.inttoptr(args[0], pointer), args[1:])
    return context.get_dummy_value()


@cache
def _memory_of(dtype: torch.dtype) -> Any:
    """A type for ctypes: it takes tensors and arrays of ``dtype`` and passes their address on."""
    of_numpy = torch.empty(0, dtype=dtype).numpy().dtype

    class Memory:
        @staticmethod
        def from_param(x: Tensor | np.ndarray) -> ctypes.c_void_p:
            if isinstance(x, Tensor):
                assert x.dtype == dtype
                assert x.is_contiguous()
                return ctypes.c_void_p(x.data_ptr())
            assert x.dtype == of_numpy
            assert x.flags.c_contiguous
            return ctypes.c_void_p(x.ctypes.data)

    return Memory


def _compiled(function: Callable[..., Any], signature: Any) -> int:
    """The address of a function's code, from `cache_folder` where it is there.

    Where that cannot be written, each process compiles for itself.
    """
    before = _config.CACHE_DIR
    try:
        _config.CACHE_DIR = str(cache_folder())
        if (kept := _kept(function, signature)) is not None:
            return kept
        announce()
        cfunc = _cfunc(function, signature)
        if _can_keep():
            _keep(cfunc)
        cfunc.compile()
    finally:
        _config.CACHE_DIR = before
    return int(cfunc.address)


def _cfunc(function: Callable[..., Any], signature: Any) -> Any:
    as_called = (signature.args, signature.return_type)
    return CFunc(function, as_called, {}, {"error_model": "numpy"})


def _keep(compiled: Any) -> bool:
    """Let numba keep what it compiles, as `KeptFile` does; False if it finds no folder for it."""
    try:
        compiled.enable_caching()
    except RuntimeError:
        return False
    cache = compiled._cache
    plain = cache._cache_file
    cache._cache_file = KeptFile(plain._cache_path, cache._impl.filename_base, plain._source_stamp)
    return True


def _kept(function: Callable[..., Any], signature: Any) -> int | None:
    """The address of code that an earlier process has left in `cache_folder`, if it has.

    As numba finds it, but without all that numba needs to compile, which takes longer to import
    than this code takes to load.
    """
    if not cache_folder().is_dir() or _wrong(cache_folder()):
        return None
    cfunc = _cfunc(function, signature)
    if not _keep(cfunc):
        return None
    result = cfunc._cache._load_overload(cfunc._sig, cpu_target.target_context)
    if result is None:
        return None
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name))


def _can_keep() -> bool:
    """Whether `cache_folder` can be written.

    Where it cannot, numba would keep its results in another folder, and there take them for current
    though another source has changed.
    """
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        return False
    try:
        make_folder(folder)
    except OSError:
        return False
    return not _wrong(folder)


def array_kernel(function: Callable[..., Any]) -> Any:
    """Compile a function of NumPy arrays at its first call; later processes find the result.

    Slower to compile than a `kernel`, but its memory may grow within it. Where `cache_folder`
    cannot be written, each process compiles for itself.
    """
    before = _config.CACHE_DIR
    try:
        _config.CACHE_DIR = str(cache_folder())
        compiled = _array_function()(function)
        if _can_keep():
            _keep(compiled)
        return compiled
    finally:
        _config.CACHE_DIR = before


def array_part(function: Callable[..., Any]) -> Any:
    """Compile a function that only an `array_kernel` calls: Python cannot, which saves time."""
    return _array_function(no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


def _array_function(**options: Any) -> Any:
    return numba.njit(nogil=True, error_model="numpy", **options)


@cache
def cache_folder() -> Path:
    """Where compiled kernels are kept: one folder for each state of the sources in ``kernels/``.

    It is made below ``NUMBA_CACHE_DIR``; else beside the sources, where one may write there; else
    in the user's cache. A folder that other users may write is not used, since code is loaded from
    it; if the user's cache is such a folder, too, nothing is kept. numba itself keeps what was made
    for different processors apart.
    """
    beside = Path(__file__).parent
    users = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pipeline-asr"
    digest = hashlib.sha256(numba.__version__.encode())
    kernels = beside.parent
    for path in sorted(kernels.rglob("*.py")):
        digest.update(f"{path.relative_to(kernels)}\0".encode() + path.read_bytes())
    name = f"kernels-{digest.hexdigest()[:12]}"
    if _config.CACHE_DIR:
        first = Path(_config.CACHE_DIR)
    else:
        first = beside / "__pycache__" if os.access(beside, os.W_OK) else users
    if not (wrong := _wrong(first / name)):
        return first / name
    rest = "kernels are kept nowhere" if first == users else f"using {users} instead"
    log.warning("no compiled kernels are loaded from %s: %s; %s", first / name, wrong, rest)
    return users / name


def _wrong(folder: Path) -> str:
    """Why code in a folder cannot be trusted; empty if it can."""
    beside = Path(__file__).parent / "__pycache__"
    return fault(folder, beside_sources=folder.parent == beside)
