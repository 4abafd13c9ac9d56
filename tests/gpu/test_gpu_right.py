"""The first part of the GPU script finds every error that is planted into a Triton program.

Programs are computed by Triton's interpreter, which is chosen when Triton is imported, so this file
runs once more in a process of its own.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pipeline.kernels.ctc import cuda as ctc_cuda
from pipeline.kernels.recurrent import cuda as lstm_cuda
from pipeline.kernels.recurrent import gru_cuda
from pipeline.kernels.transducer import cuda as transducer_cuda

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ENGINES = {
    "recurrent": lstm_cuda,
    "gru": gru_cuda,
    "ctc": ctc_cuda,
    "transducer": transducer_cuda,
}

pytestmark = pytest.mark.skipif(not lstm_cuda.available(), reason="Triton is not installed")
interpreted = pytest.mark.skipif(not IS_INTERPRETED, reason="run by test_in_the_interpreter")

PLANTED = [
    (*name.split("."), old[2:], new[2:])
    for name, old, new in (
        block.splitlines()
        for block in (HERE / "planted_errors.txt").read_text().strip().split("\n\n")[1:]
    )
]


def cases() -> list[object]:
    """Of each program or piece of one, one error; the others are slow."""
    seen, params = set(), []
    for number, (family, program, *texts) in enumerate(PLANTED):
        marks = [pytest.mark.slow] if (family, program) in seen else []
        seen.add((family, program))
        name = f"{number}-{family}-{program}"
        params.append(pytest.param(family, program, *texts, marks=marks, id=name))
    return params


@pytest.mark.skipif(IS_INTERPRETED, reason="this is that process")
@pytest.mark.slow
@pytest.mark.parametrize("which", ["not slow", "slow"])
def test_in_the_interpreter(which: str) -> None:
    """Floating-point exceptions, which GPUs do not raise, are warnings of NumPy's there."""
    options = ["-v", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning", "-m", which]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, __file__],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert re.search(r"\d\d passed", done.stdout)


@pytest.fixture(scope="module")
def right() -> ModuleType:
    sys.path.insert(0, str(HERE))
    try:
        import right
    finally:
        sys.path.remove(str(HERE))
    return right


def first_fault(right: ModuleType, family: str) -> str | None:
    """The first fault that is found in the programs of a family."""
    for problem in right.smallest():
        if problem.family == family or (family == "transducer" and problem.family == "joiner"):
            for fault in right.faults(problem, torch.float32, {}):
                return fault
    return None


@interpreted
def test_nothing_is_found_where_all_is_right(right: ModuleType) -> None:
    assert [first_fault(right, family) for family in ENGINES] == [None] * len(ENGINES)


@interpreted
@pytest.mark.parametrize(("family", "program", "right_text", "wrong_text"), cases())
def test_an_error_in_a_program_is_found(
    right: ModuleType,
    family: str,
    program: str,
    right_text: str,
    wrong_text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = Path(ENGINES[family]._programs().__file__).read_text()
    before, definition, rest = text.partition(f"def {program}(")
    assert right_text in rest
    planted = tmp_path / "planted.py"
    planted.write_text(before + definition + rest.replace(right_text, wrong_text, 1))
    spec = importlib.util.spec_from_file_location("planted", planted)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(ENGINES[family], "_programs", lambda: module)
    assert first_fault(right, family) is not None
