"""What the C library is asked to keep, and what is done where it cannot be asked."""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.kernels.compiler import memory

ROOT = Path(__file__).resolve().parents[3]
IS_GLIBC = platform.libc_ver()[0] == "glibc"


class Library:
    """A C library whose ``mallopt`` writes down what it is asked, and refuses one setting."""

    def __init__(self, refused: int | None = None) -> None:
        self.asked: dict[int, int] = {}
        self.refused = refused

    def mallopt(self, name: int, value: int) -> int:
        self.asked[name] = value
        return int(name != self.refused)


def test_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert memory.keep_freed_memory() is True
    # malloc.h of glibc: M_TRIM_THRESHOLD -1, M_TOP_PAD -2, M_MMAP_MAX -4
    assert library.asked == {-1: -1, -2: 2**26, -4: 0}


@pytest.mark.parametrize("refused", [-1, -2, -4])
def test_a_setting_that_is_refused(refused: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library(refused))
    assert memory.keep_freed_memory() is False


@pytest.mark.parametrize("failure", [OSError, AttributeError])
def test_another_c_library(failure: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: Any) -> None:
        raise failure

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert memory.keep_freed_memory() is False


USE = """
import resource
import numpy as np
from pipeline.kernels.compiler.memory import keep_freed_memory

assert [keep_freed_memory(), keep_freed_memory()] == [True, True]
faults = []
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = np.ones(2**23)  # 64 MiB
    assert block.sum() == 2**23
    del block
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(max(faults[1:]))
"""


@pytest.mark.skipif(not IS_GLIBC, reason="needs glibc")
def test_a_freed_block_is_used_again_without_new_pages() -> None:
    """Twice asked for; 64 MiB are 16384 pages of 4 KiB."""
    done = subprocess.run([sys.executable, "-c", USE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 500


def test_the_module_needs_nothing() -> None:
    code = "import sys, pipeline.kernels.compiler.memory; "
    code += "assert not {'torch', 'numba'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
