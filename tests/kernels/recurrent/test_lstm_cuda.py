"""The Triton engine of the recurrent sweep: on a GPU, or else in Triton's interpreter.

Whether Triton interprets is settled when it is imported, so without a GPU a second pytest runs this
file, `test_lstm_engines.py` and `test_state.py` with the interpreter.
"""

import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.kernels.ragged import Ragged, layout
from pipeline.kernels.recurrent import cuda as lstm_cuda
from pipeline.kernels.recurrent import gru_cuda, gru_plain
from pipeline.kernels.recurrent import launches as launching
from pipeline.kernels.recurrent import plain as lstm_plain
from pipeline.kernels.recurrent.plain import GATES, Recurrence, Sweep

torch.set_num_threads(1)

HERE = Path(__file__)
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if HAS_GPU else "cpu"
HAS_TRITON = lstm_cuda.available()
TRITON = {"recurrent": lstm_cuda, "gru": gru_cuda}
PLAIN = {"recurrent": lstm_plain, "gru": gru_plain}

pytestmark = pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")
runs_programs = pytest.mark.skipif(
    not (IS_INTERPRETED or HAS_GPU), reason="run by test_in_the_interpreter"
)


@pytest.mark.skipif(IS_INTERPRETED or HAS_GPU, reason="the programs are run as they are")
def test_in_the_interpreter() -> None:
    others = ["test_lstm_engines.py", "test_state.py"]
    files = [str(HERE), *(str(HERE.with_name(name)) for name in others)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *files],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=HERE.parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


# ---- against plain torch -------------------------------------------------------------------------


def draw_problem(
    lengths: list[int], kind: str, cells: int, width: int, *, has_peepholes: bool = True
) -> tuple[Tensor, Recurrence, Ragged, Tensor]:
    """Pre-activations, weights, rows and an upstream gradient, of two directions, in float32."""
    generator = torch.Generator().manual_seed(len(lengths))

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape, generator=generator)).to(DEVICE)

    columns = GATES[kind] * cells
    recurrence = Recurrence(
        kind,
        draw(2, columns, width, scale=width**-0.5),
        draw(2, 3, cells) if kind == "lstm" and has_peepholes else None,
        draw(2, width, cells, scale=cells**-0.5) if width != cells else None,
    )
    ragged = layout(torch.tensor(lengths, device=DEVICE), max(lengths))
    rows = ragged.rows
    return draw(rows, 2, columns), recurrence, ragged, draw(rows, 2, width)


def solve(
    engines: dict[str, ModuleType],
    gates: Tensor,
    recurrence: Recurrence,
    ragged: Ragged,
    grad_h: Tensor,
) -> list[Tensor | None]:
    engine = engines[recurrence.family]
    hidden, sweep = engine.forward(gates.clone(), recurrence, ragged)
    return [hidden, *sweep, *engine.backward(grad_h, sweep, recurrence, ragged)]


def assert_close(got: list[Tensor | None], expected: list[Tensor | None]) -> None:
    for mine, theirs in zip(got, expected, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


SHAPES = [("lstm", 20, 20), ("lstm", 18, 34), ("lstm", 35, 17), ("tanh", 20, 20), ("gru", 20, 20)]
SIXTEEN = [3, 0, 2, 1, *[1] * 9, 2, 2, 3]
MANY = [*SIXTEEN, 3, 1]


@runs_programs
@pytest.mark.parametrize(("kind", "cells", "width"), SHAPES)
@pytest.mark.parametrize("lengths", [SIXTEEN, MANY], ids=len)
def test_several_tiles(lengths: list[int], kind: str, cells: int, width: int) -> None:
    given = draw_problem(lengths, kind, cells, width)
    assert_close(solve(TRITON, *given), solve(PLAIN, *given))


@runs_programs
def test_tiles_of_large_batches() -> None:
    given = draw_problem([2] * 40 + [1] * 30, "lstm", 5, 5, has_peepholes=False)
    assert_close(solve(TRITON, *given), solve(PLAIN, *given))


@runs_programs
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_memory_that_is_not_contiguous_or_aligned(kind: str) -> None:
    gates, recurrence, ragged, grad_h = draw_problem([3, 1], kind, 5, 5)

    def shifted(x: Tensor) -> Tensor:
        return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)

    odd = recurrence._replace(
        w_hidden=recurrence.w_hidden.transpose(1, 2).contiguous().transpose(1, 2),
        peepholes=None if recurrence.peepholes is None else shifted(recurrence.peepholes),
    )
    wide = torch.cat([gates, gates], dim=2)[:, :, : gates.shape[2]]
    engine = TRITON[recurrence.family]
    hidden, sweep = engine.forward(wide, odd, ragged)
    kept = Sweep(*(None if x is None else shifted(x) for x in sweep))
    got = [hidden, *sweep, *engine.backward(shifted(grad_h), kept, odd, ragged)]
    assert_close(got, solve(PLAIN, gates, recurrence, ragged, grad_h))


@runs_programs
def test_small_values_keep_their_digits() -> None:
    """tanh and its like must not cancel near zero."""
    gates, recurrence, ragged, grad_h = draw_problem([4, 2], "tanh", 5, 5)
    given = (1e-4 * gates, recurrence, ragged, grad_h)
    got, _ = lstm_cuda.forward(*given[:3])
    expected, _ = lstm_plain.forward(given[0].double(), *given[1:3])
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=0.0)


# ---- graphs --------------------------------------------------------------------------------------


class Recording:
    """Stands in for a CUDA graph: what was captured is launched again at each replay."""

    def __init__(self, launches: list[launching.Launch], table: Tensor) -> None:
        self.launches, self.table = launches, table

    def replay(self) -> None:
        for step in range(launching.CHUNK):
            for launch in self.launches:
                launch(self.table, step)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of captures so far; without a GPU they are recordings. Ends with no graph kept."""
    count = [0]
    capture = launching._capture

    def counted(launches: list[launching.Launch], entries: int, device: torch.device) -> Any:
        count[0] += 1
        if HAS_GPU:
            return capture(launches, entries, device)
        table = launching._empty_table(entries, device)
        return launching._Chunk(Recording(launches, table), table)

    monkeypatch.setattr(launching, "_graphs", launching._Graphs())
    monkeypatch.setattr(launching, "_capture", counted)
    if not HAS_GPU:
        monkeypatch.setattr(launching, "CHUNK", 4)
        monkeypatch.setattr(launching, "_can_replay", lambda device: launching._graphs.is_usable)
        monkeypatch.setattr(launching, "_stream", lambda device: 0)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    yield count
    if HAS_GPU:
        torch.cuda.synchronize()


@runs_programs
@pytest.mark.parametrize(
    ("kind", "cells", "width"), [("lstm", 3, 3), ("lstm", 3, 2), ("tanh", 3, 3), ("gru", 3, 3)]
)
def test_one_graph_serves_all_lengths(
    kind: str, cells: int, width: int, captures: list[int]
) -> None:
    for k, lengths in enumerate([[2, 1], [3, 3, 1], [launching.CHUNK + 3, 2], [2]]):
        given = draw_problem(lengths, kind, cells, width)
        assert_close(solve(TRITON, *given), solve(PLAIN, *given))
        assert captures[0] == (2 if k else 0), "a forward and a backward graph, the second time"


@runs_programs
def test_a_graph_made_in_inference_mode_serves_training(captures: list[int]) -> None:
    given = draw_problem([2, 1], "tanh", 3, 3)
    expected = solve(PLAIN, *given)
    with torch.inference_mode():
        for _ in range(2):
            solve(TRITON, *given)
    assert_close(solve(TRITON, *given), expected)
    assert captures[0] == 2


@runs_programs
def test_the_oldest_graphs_are_dropped(
    captures: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "GRAPHS", 2)
    for size in (2, 3, 2, 2):
        given = draw_problem([1], "tanh", size, size)
        assert_close(solve(TRITON, *given), solve(PLAIN, *given))
        assert len(launching._graphs.chunks) == 2
    assert captures[0] == 2


@runs_programs
def test_without_graphs_the_steps_are_launched(
    captures: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(launching, "_capture", refuse)
    given = draw_problem([3, 1], "tanh", 3, 3)
    expected = solve(PLAIN, *given)
    for _ in range(3):
        assert_close(solve(TRITON, *given), expected)
    (record,) = caplog.records
    assert "no CUDA graph" in record.getMessage()


@pytest.mark.skipif(not HAS_GPU, reason="captures on a GPU")
def test_inside_another_capture() -> None:
    gates, recurrence, ragged, _ = draw_problem([3, 1], "lstm", 5, 5)
    expected, _ = lstm_cuda.forward(gates, recurrence, ragged)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        weights = launching.weights_for(recurrence, gates.dtype)
        hidden, cells = torch.empty_like(expected), gates.new_empty(ragged.rows, 2, 5)
        tensors = {
            "GATES": gates,
            "ACTIVATED": torch.empty_like(gates),
            "CELLS": cells,
            "HIDDEN": hidden,
        }
        launches = lstm_cuda._forward_launches(weights, ragged, gates)
        launching.run(launches, tensors, weights, ragged)
    graph.replay()
    torch.testing.assert_close(hidden, expected)


# ---- the compiler --------------------------------------------------------------------------------


@pytest.mark.skipif(IS_INTERPRETED, reason="interpreted programs are not compiled")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("kind", "width"), [("lstm", 250), ("lstm", 128), ("tanh", 250), ("gru", 250)]
)
def test_programs_compile_for_hopper(
    kind: str, width: int, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU too, down to machine code; nothing may spill out of shared memory."""
    triton = importlib.import_module("triton")
    compiler = importlib.import_module("triton.compiler")
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", 90, 32)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    columns = GATES[kind] * 250
    recurrence = Recurrence(
        kind,
        torch.empty(2, columns, width),
        torch.empty(2, 3, 250) if kind == "lstm" else None,
        torch.empty(2, width, 250) if width != 250 else None,
    )
    ragged = layout(torch.full((64,), 2), 2)
    gates = torch.empty(1, 2, columns, dtype=dtype)
    engine = TRITON[recurrence.family]
    for launch in [
        *engine._forward_launches(recurrence, ragged, gates),
        *engine._backward_launches(recurrence, ragged, gates),
    ]:
        program = getattr(engine._programs(), launch.program)
        names = list(inspect.signature(program.fn).parameters)
        constants = {(names.index(n),): v for n, v in launch.constants if n in names}
        source = compiler.ASTSource(
            program,
            signature={n: {"table": "*i64", "step": "i32"}.get(n, "constexpr") for n in names},
            constexprs=constants,
            attrs={(0,): [["tt.divisibility", 16]]},
        )
        compiled = triton.compile(source, target=target, options={"enable_fp_fusion": True})
        assert compiled.metadata.shared <= 48 * 1024
        assert ("mma.sync" in compiled.asm["ptx"]) == (dtype == torch.bfloat16)
