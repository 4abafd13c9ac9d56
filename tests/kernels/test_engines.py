"""Which engine computes, its threads and memory, and where compiled kernels are kept."""

import importlib.util
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.kernels import engines, memory, threads
from pipeline.kernels.threads import run_parallel, spans

HERE = Path(__file__).parent
needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs numba")
FAMILIES = ["lstm", "transducer", "ctc"]


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
        assert engine_name(family, torch.zeros(1, dtype=dtype)).endswith(f"{family}_cpu")
    for dtype in (torch.float16, torch.bfloat16):
        assert engine_name(family, torch.zeros(1, dtype=dtype)).endswith(f"{family}_plain")
        assert not engines.is_compiled(torch.zeros(1, dtype=dtype))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_the_same_functions(family: str) -> None:
    """On every device: what a GPU would be given exists, though none may be here."""
    assert importlib.util.find_spec(f"pipeline.kernels.{family}_cuda") is not None
    assert engine_name(family, torch.zeros(1, device="meta")).endswith(f"{family}_plain")


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_torch_on_demand(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_KERNELS", "plain")
    assert engine_name(family, torch.zeros(1)).endswith(f"{family}_plain")
    assert not engines.is_compiled(torch.zeros(1))


def test_without_numba_a_word_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        for family in FAMILIES:
            assert engine_name(family, torch.zeros(1)).endswith("_plain")
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
    assert engines.engine("lstm", x) == f"pipeline.kernels.lstm_{kind}"


def test_without_triton(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The kernels of the CPU compute all the same."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else 1)
    monkeypatch.setattr(importlib, "import_module", lambda name: name)
    x: Any = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        assert [engines.engine("ctc", x) for _ in range(2)] == ["pipeline.kernels.ctc_plain"] * 2
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


# ---- where compiled kernels are kept -------------------------------------------------------------

LOSS = """
import torch
from pipeline.kernels.ctc_loss import ctc_loss
print(ctc_loss(torch.zeros(3, 1, 2), torch.tensor([[1]]), [3], [1]).item())
from pipeline.kernels.compiling import cache_folder
print(cache_folder())
"""


def run_loss(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LOSS],
        cwd=HERE.parents[1],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@needs_numba
def test_the_cache_is_where_numba_is_told(tmp_path: Path) -> None:
    done = run_loss(NUMBA_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.split()[-1])
    assert folder.parent == tmp_path
    assert any(folder.rglob("*.nbi"))


@needs_numba
def test_without_a_place_to_write_each_process_compiles(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run_loss(NUMBA_CACHE_DIR=str(tmp_path / "file" / "below"))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert float(done.stdout.split()[0]) == pytest.approx(-torch.log(torch.tensor(6.0)).item())


def test_reading_tables_compiles_nothing() -> None:
    """No command that needs no kernel pays for numba."""
    code = "import sys, pipeline.tables, pipeline.scoring, pipeline.features; "
    code += "assert not {'numba', 'triton', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=HERE.parents[1], check=True)


# ---- threads and memory --------------------------------------------------------------------------


@pytest.mark.parametrize("openmp", [True, False], ids=["torch's threads", "own threads"])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("jobs", [0, 1, 2, 30])
def test_every_job_runs_once(
    openmp: bool, count: int, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not openmp:
        monkeypatch.setattr(threads, "_openmp", lambda: None)
        monkeypatch.setattr(threads._openmp, "cache_clear", lambda: None, raising=False)
    torch.set_num_threads(count)
    done: list[int] = []
    run_parallel([lambda k=k: done.append(k) for k in range(jobs)])  # type: ignore[misc]
    assert sorted(done) == list(range(jobs))


def test_jobs_run_beside_each_other() -> None:
    torch.set_num_threads(2)
    meeting = threading.Barrier(2, timeout=20)
    run_parallel([meeting.wait, meeting.wait])


@pytest.mark.parametrize("count", [1, 3])
def test_what_a_job_raises_arrives(count: int) -> None:
    torch.set_num_threads(count)

    def fail() -> None:
        raise ValueError("job 3")

    jobs = [lambda: None, lambda: None, fail, lambda: None]
    with pytest.raises(ValueError, match="job 3"):
        run_parallel(jobs)
    done: list[int] = []
    run_parallel([lambda: done.append(1)] * 4)
    assert done == [1] * 4


@pytest.mark.parametrize("length", [0, 1, 7, 64, 100])
@pytest.mark.parametrize("unit", [1, 8])
@pytest.mark.parametrize("parts", [1, 3, 16])
def test_spans_cover_all_and_do_not_overlap(length: int, unit: int, parts: int) -> None:
    found = spans(length, unit, parts)
    assert [k for a, b in found for k in range(a, b)] == list(range(length))
    assert len(found) <= parts
    assert all(a % unit == 0 for a, _ in found)
    units = [-(-(b - a) // unit) for a, b in found]
    assert not units or max(units) - min(units) <= 1


def test_memory_can_be_asked_for_again_and_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    first = memory.keep_freed_memory()
    assert memory.keep_freed_memory() == first
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.keep_freed_memory() is False
