"""The calls that compile ahead: they reach every kernel that a command compiles."""

import subprocess
import sys

import pytest

pytest.importorskip("numba")

# What no command calls: the loss of logits that are given, beside that of a joiner's inputs.
OTHERS = {"transducer.cpu._arrows", "transducer.cpu._logits_gradient"}

PROGRAM = """
import importlib, pkgutil, sys
import numba, torch
torch.set_num_threads(1)
from pipeline import kernels
from pipeline.kernels.compiler.compiling import Kernel
from pipeline.kernels.first_calls import FIRST_CALLS

for call in FIRST_CALLS.values():
    call()
for info in pkgutil.walk_packages(kernels.__path__, "pipeline.kernels."):
    if not info.name.endswith(("triton", "first_calls")):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if isinstance(value, Kernel):
                home, is_compiled = value.function.__module__, bool(value.found)
            elif type(value).__name__ == "CPUDispatcher" and value.targetoptions.get("nogil"):
                if value.targetoptions.get("no_cpython_wrapper"):
                    continue  # a part
                home, is_compiled = value.py_func.__module__, bool(value.signatures)
            else:
                continue
            if home == info.name:
                print(home.removeprefix("pipeline.kernels.") + "." + name, is_compiled)
"""


def test_every_kernel_that_a_command_needs_is_compiled_ahead() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = dict(line.split() for line in done.stdout.splitlines())
    assert len(found) > 30
    assert {name for name, is_compiled in found.items() if is_compiled != "True"} == OTHERS
