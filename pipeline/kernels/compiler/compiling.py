"""How the kernels for the CPU are compiled, and where what was compiled is kept."""

import hashlib
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba

_config: Any = numba.config


def kernel(function: Callable[..., Any]) -> Any:
    """Compile at the first call, without the interpreter's lock; later processes find the result.

    It is kept in `cache_folder`; where that cannot be written, each process compiles for itself.
    """
    compile_: Any = partial(numba.njit, nogil=True, error_model="numpy")
    before = _config.CACHE_DIR
    try:
        _config.CACHE_DIR = str(cache_folder())
        compiled = compile_(cache=True)(function)
    except RuntimeError:  # numba found no folder to write to
        return compile_()(function)
    finally:
        _config.CACHE_DIR = before
    # Elsewhere numba would take what is kept for current though another source has changed.
    kept = Path(compiled.stats.cache_path).is_relative_to(cache_folder())
    return compiled if kept else compile_()(function)


@cache
def cache_folder() -> Path:
    """Where compiled kernels are kept: one folder for each state of the sources in ``kernels/``.

    It is made below ``NUMBA_CACHE_DIR``; else beside the sources, where one may write there; else
    in the user's cache. numba itself keeps what was made for different processors apart.
    """
    beside = Path(__file__).parent
    if _config.CACHE_DIR:
        base = Path(_config.CACHE_DIR)
    elif os.access(beside, os.W_OK):
        base = beside / "__pycache__"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pipeline-asr"
    digest = hashlib.sha256(numba.__version__.encode())
    kernels = beside.parent
    for path in sorted(kernels.rglob("*.py")):
        digest.update(f"{path.relative_to(kernels)}\0".encode() + path.read_bytes())
    return base / f"kernels-{digest.hexdigest()[:12]}"
