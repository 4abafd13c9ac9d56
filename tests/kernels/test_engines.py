"""Which engine computes, its threads and memory, and where compiled kernels are kept."""

import importlib.util
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.kernels import engines
from pipeline.kernels.compiler import threads

HERE = Path(__file__).parent
needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs numba")
FAMILIES = list(engines.ENGINES)
ON_GPU = [name for name, kinds in engines.ENGINES.items() if "cuda" in kinds]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is found out once a process, is found out again."""
    monkeypatch.delenv("PIPELINE_KERNELS", raising=False)
    engines._has.cache_clear()
    yield
    monkeypatch.undo()
    engines._has.cache_clear()
    threads._openmp.cache_clear()
    torch.set_num_threads(1)


def engine_name(family: str, x: torch.Tensor) -> str:
    return engines.engine(family, x).__name__


@needs_numba
@pytest.mark.parametrize("family", FAMILIES)
def test_by_dtype(family: str) -> None:
    for dtype in (torch.float32, torch.float64):
        assert engine_name(family, torch.zeros(1, dtype=dtype)).endswith("cpu")
    for dtype in (torch.float16, torch.bfloat16):
        assert engine_name(family, torch.zeros(1, dtype=dtype)).endswith("plain")
        assert not engines.is_compiled(torch.zeros(1, dtype=dtype))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_engines_of_a_family_have_the_same_functions(family: str) -> None:
    """On every device: what a GPU would be given exists, though none may be here."""
    for name in engines.ENGINES[family].values():
        assert importlib.util.find_spec(name) is not None
    assert ON_GPU == ["recurrent", "gru", "ctc", "transducer"]
    assert engine_name(family, torch.zeros(1, device="meta")).endswith("plain")


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_torch_on_demand(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_KERNELS", "plain")
    assert engine_name(family, torch.zeros(1)).endswith("plain")
    assert not engines.is_compiled(torch.zeros(1))


def test_without_numba_a_word_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        for family in FAMILIES:
            assert engine_name(family, torch.zeros(1)).endswith("plain")
    assert [record.message for record in caplog.records] == [
        "numba is missing: kernels on cpu run in plain torch, slower"
    ]


@pytest.mark.parametrize(
    ("device", "dtype", "kind"),
    [
        ("cuda", torch.float32, "cuda"),
        ("cuda", torch.bfloat16, "cuda"),
        ("cuda", torch.float16, "cuda"),
        ("cuda", torch.float64, "plain"),
        ("cpu", torch.float64, "cpu"),
        ("cpu", torch.int64, "plain"),
        ("mps", torch.float32, "plain"),
    ],
)
def test_by_device(
    device: str, dtype: torch.dtype, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that is needed installed, whatever devices are here."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(importlib, "import_module", lambda name: name)
    x: Any = SimpleNamespace(device=torch.device(device), dtype=dtype)
    assert engines.engine("recurrent", x) == f"pipeline.kernels.recurrent.{kind}"


def test_triton_on_a_cpu_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Triton's interpreter; for what its programs cannot compute with, plain torch."""
    monkeypatch.setenv("PIPELINE_KERNELS", "triton")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert engine_name("recurrent", torch.zeros(1)) == "pipeline.kernels.recurrent.cuda"
    assert engine_name("ctc", torch.zeros(1, dtype=torch.float64)).endswith("plain")
    assert engine_name("ctc_search", torch.zeros(1)).endswith("plain")
    assert not engines.is_compiled(torch.zeros(1))


def test_without_triton(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The kernels of the CPU compute all the same."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else 1)
    monkeypatch.setattr(importlib, "import_module", lambda name: name)
    x: Any = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        assert [engines.engine("ctc", x) for _ in range(2)] == ["pipeline.kernels.ctc.plain"] * 2
        assert engines._has("cpu")
    assert [record.message for record in caplog.records] == [
        "triton is missing: kernels on cuda run in plain torch, slower"
    ]


@pytest.mark.parametrize("name", ["", "plain"])
def test_products_of_both_engines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_KERNELS", name)
    a, weight, bias = torch.randn(5, 7), torch.randn(4, 7), torch.randn(4)
    torch.testing.assert_close(engines.product(a, weight.t()), a @ weight.t())
    torch.testing.assert_close(engines.affine(a, weight, bias), a @ weight.t() + bias)


def test_reading_tables_compiles_nothing() -> None:
    """No command that needs no kernel pays for numba."""
    code = "import sys, pipeline.tables, pipeline.scoring.score_directory, "
    code += "pipeline.frontend.spectra; assert not {'numba', 'triton', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=HERE.parents[1], check=True)
