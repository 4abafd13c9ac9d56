"""Every engine of the recurrent sweep: against the printed equations and against autograd."""

import importlib
import os
from dataclasses import replace
from functools import partial
from itertools import product
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.kernels.ragged import Ragged, layout, pack
from pipeline.kernels.recurrent import cpu as lstm_cpu
from pipeline.kernels.recurrent import gru_cpu, gru_cuda, gru_plain, reference
from pipeline.kernels.recurrent import plain as lstm_plain
from pipeline.kernels.recurrent.plain import CLIP, GATES, Recurrence, Sweep, fed_back_gradient

torch.set_num_threads(1)

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # see test_lstm_cuda.py
HALF = torch.float16 if IS_INTERPRETED else torch.bfloat16  # NumPy has no bfloat16


class Engine(NamedTuple):
    module: ModuleType
    device: str
    dtype: torch.dtype

    def of(self, recurrence: Recurrence) -> ModuleType:
        """The engine's module that sweeps these cells."""
        if recurrence.family == "recurrent":
            return self.module
        return {lstm_plain: gru_plain, lstm_cpu: gru_cpu}.get(self.module, gru_cuda)


def engines() -> list[Engine]:
    """Each engine that works here with each dtype it computes in itself."""
    if IS_INTERPRETED:
        module = importlib.import_module("pipeline.kernels.recurrent.cuda")
        return [Engine(module, "cpu", torch.float32)]
    found = [
        Engine(module, "cpu", dtype)
        for module in (lstm_plain, lstm_cpu)
        for dtype in (torch.float64, torch.float32)
    ]
    if torch.cuda.is_available():
        found.append(Engine(lstm_plain, "cuda", torch.float64))
        module = importlib.import_module("pipeline.kernels.recurrent.cuda")
        if module.available():
            found.append(Engine(module, "cuda", torch.float32))
    return found


class Case(NamedTuple):
    lengths: list[int]
    cell: str = "lstm"
    directions: int = 2
    peepholes: bool = True
    projection: int = 0
    beside: bool = False  # whether o tanh(c) also goes where it does not recur
    cells: int = 5


KINDS = [
    {},
    {"directions": 1},
    {"peepholes": False},
    {"projection": 3},
    {"projection": 7, "directions": 1},
    {"projection": 3, "beside": True},
    {"projection": 2, "peepholes": False},
    {"cell": "tanh"},
    {"cell": "tanh", "directions": 1},
    {"cell": "relu"},
    {"cell": "relu", "directions": 1},
    {"cell": "gru"},
    {"cell": "gru", "directions": 1},
    {"cell": "gru_tanh"},
]
EACH_CELL = [
    {},
    {"projection": 3},
    *({"cell": cell} for cell in ("tanh", "relu", "gru", "gru_tanh")),
]
LENGTHS = [[5, 3, 1, 4], [1], [7], [2, 0, 6, 6], [0, 0], [3] * 4]
LENGTHS = [[4, 2, 0, 1], [0, 0]] if IS_INTERPRETED else LENGTHS
CASES = [Case(lengths, **kind) for lengths, kind in product(LENGTHS, KINDS)]
ENGINES = engines()
each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_engine = pytest.mark.parametrize(
    "engine", ENGINES, ids=lambda e: f"{e.module.__name__.rsplit('.')[-1]}-{e.device}-{e.dtype}"
)


class Problem(NamedTuple):
    """One sweep and its upstream gradient, in float64 on the CPU."""

    gates: Tensor
    recurrence: Recurrence
    ragged: Ragged
    grad_h: Tensor
    grad_m: Tensor | None = None


def problem(case: Case, *, seed: int = 0) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    d, h, p = case.directions, case.cells, case.projection or case.cells
    columns = GATES[case.cell] * h
    recurrence = Recurrence(
        case.cell,
        draw(d, columns, p) / 2,
        draw(d, 3, h) if case.peepholes and case.cell == "lstm" else None,
        draw(d, p, h) if case.projection else None,
    )
    ragged = layout(torch.tensor(case.lengths), max(case.lengths) + 1)
    rows = ragged.rows
    given = Problem(draw(rows, d, columns), recurrence, ragged, draw(rows, d, p))
    return given._replace(grad_m=draw(rows, d, h)) if case.beside else given


class Solution(NamedTuple):
    """What `forward` and `backward` return; all float64 on the CPU."""

    hidden: Tensor
    sweep: Sweep
    d_gates: Tensor
    d_hidden: Tensor | None
    d_peepholes: Tensor | None


def moved(values: tuple, device: str, dtype: torch.dtype) -> list:
    return [v.to(device, dtype) if isinstance(v, Tensor) else v for v in values]


def solve(given: Problem, engine: Engine) -> Solution:
    """The problem by an engine, which must leave what the backward sweep reads as it is."""
    ragged = replace(given.ragged, index=given.ragged.index.to(engine.device))
    recurrence = Recurrence(*moved(given.recurrence, engine.device, engine.dtype))
    gates, *upstream = moved((given.gates, *given[3:]), engine.device, engine.dtype)
    upstream = [x for x in upstream if x is not None]
    hidden, sweep = engine.of(recurrence).forward(gates.clone(), recurrence, ragged)
    kept = [v if v is None else v.clone() for v in sweep]
    back = engine.of(recurrence).backward
    got = back(upstream[0], sweep, recurrence, ragged, *upstream[1:])
    again = back(upstream[0], Sweep(*kept), recurrence, ragged, *upstream[1:])
    for one, two in zip([*sweep, *got], [*kept, *again], strict=True):
        assert one is two is None or torch.equal(one, two)
    assert hidden.dtype == got[0].dtype == engine.dtype
    finished = moved((hidden, *sweep, *got), "cpu", torch.float64)
    return Solution(finished[0], Sweep(*finished[1:5]), *finished[5:])


# ---- against autograd through the printed equations ----------------------------------------------


def one_direction(gates: Tensor, recurrence: Recurrence, d: int) -> list[list[Tensor]]:
    """h, what the projection reads, c and the activated gates of one sequence in reading order."""
    _, w_hidden, peepholes, projection, _ = recurrence
    h, c = gates.new_zeros(w_hidden.shape[2]), gates.new_zeros(recurrence.cells)
    steps = []
    for projected in gates:
        total = projected + w_hidden[d] @ h
        if recurrence.family == "gru":
            h, kept, activated = gru_step(projected, w_hidden[d] @ h, h, recurrence.cell)
            steps.append([h, h, kept, activated])
            continue
        if recurrence.cell != "lstm":
            h = total.tanh() if recurrence.cell == "tanh" else total.clamp(0.0, CLIP)
            steps.append([h, h, c, h])
            continue
        x_i, x_f, x_c, x_o = total.chunk(4)
        w_ci, w_cf, w_co = gates.new_zeros(3, len(c)) if peepholes is None else peepholes[d]
        i, f, g = torch.sigmoid(x_i + w_ci * c), torch.sigmoid(x_f + w_cf * c), torch.tanh(x_c)
        c = f * c + i * g
        o = torch.sigmoid(x_o + w_co * c)
        m = o * torch.tanh(c)
        h = m if projection is None else projection[d] @ m
        steps.append([h, m, c, torch.cat([i, f, g, o])])
    return steps


def gru_step(
    projected: Tensor, recurrent: Tensor, h: Tensor, cell: str
) -> tuple[Tensor, Tensor, Tensor]:
    """h_t, the candidate's share of U h_{t-1}, and the activated gates, [DS2]."""
    (x_z, x_r, x_c), (u_z, u_r, u_c) = projected.chunk(3), recurrent.chunk(3)
    z, r = torch.sigmoid(x_z + u_z), torch.sigmoid(x_r + u_r)
    total = x_c + r * u_c
    candidate = total.tanh() if cell == "gru_tanh" else total.clamp(0.0, CLIP)
    return (1 - z) * h + z * candidate, u_c, torch.cat([z, r, candidate])


def rows_of(ragged: Ragged, place: int) -> list[int]:
    """The rows of the sequence in the given place, first frame first."""
    return [
        offset + place
        for offset, active in zip(ragged.offsets.tolist(), ragged.active.tolist(), strict=False)
        if place < active
    ]


def by_autograd(given: Problem) -> Solution:
    """The solution by torch's own differentiation, each sequence and direction alone."""
    gates = given.gates.clone().requires_grad_()
    recurrence = Recurrence(
        *[v.clone().requires_grad_() if isinstance(v, Tensor) else v for v in given.recurrence]
    )
    rows, directions, _ = gates.shape
    hidden = torch.zeros_like(given.grad_h)
    before = torch.zeros_like(given.grad_h)
    outputs, cells = (gates.new_zeros(rows, directions, recurrence.cells) for _ in range(2))
    activated = torch.zeros_like(given.gates)
    reached: dict[tuple[int, int], Tensor] = {}
    total = gates.new_zeros(())
    for place, d in product(range(given.ragged.padded[0]), range(directions)):
        order = rows_of(given.ragged, place)[:: -1 if d else 1]
        steps = one_direction(gates[order, d], recurrence, d)
        for k, (row, (h, m, c, gate)) in enumerate(zip(order, steps, strict=True)):
            hidden[row, d], outputs[row, d], cells[row, d], activated[row, d] = h, m, c, gate
            if k:
                before[row, d] = steps[k - 1][0].detach()
            h.retain_grad()
            reached[row, d] = h
            total = total + (h * given.grad_h[row, d]).sum()
            if given.grad_m is not None:
                total = total + (m * given.grad_m[row, d]).sum()
    hidden, outputs, cells, activated = (v.detach() for v in (hidden, outputs, cells, activated))
    if rows:
        total.backward()
    has_states = recurrence.cell == "lstm" or recurrence.family == "gru"
    is_projected = recurrence.projection is not None
    d_hidden = torch.zeros_like(given.grad_h)
    for (row, d), h in reached.items():
        d_hidden[row, d] = h.grad
    sweep = Sweep(
        activated, cells if has_states else None, before, outputs if is_projected else None
    )
    d_peepholes = None
    if recurrence.peepholes is not None:
        d_peepholes = torch.zeros_like(recurrence.peepholes)
        if recurrence.peepholes.grad is not None:
            d_peepholes = recurrence.peepholes.grad
    d_gates = torch.zeros_like(gates) if gates.grad is None else gates.grad
    return Solution(hidden, sweep, d_gates, d_hidden if is_projected else None, d_peepholes)


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    exact = dtype == torch.float64
    return {"rtol": 1e-9, "atol": 1e-11} if exact else {"rtol": 2e-4, "atol": 2e-5}


def assert_same(got: Solution, expected: Solution, dtype: torch.dtype) -> None:
    for mine, theirs in zip(
        [got.hidden, *got.sweep, *got[2:]],
        [expected.hidden, *expected.sweep, *expected[2:]],
        strict=True,
    ):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, **tolerance(dtype))


@each_engine
@each_case
def test_values_and_gradients_are_those_of_autograd(case: Case, engine: Engine) -> None:
    given = problem(case)
    assert_same(solve(given, engine), by_autograd(given), engine.dtype)


@each_engine
@pytest.mark.parametrize("seed", range(2 if IS_INTERPRETED else 6))
def test_random_batches(seed: int, engine: Engine) -> None:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(0, 12, size=draw.integers(1, 9)).tolist()
    case = Case(lengths, **KINDS[draw.integers(len(KINDS))], cells=int(draw.integers(1, 20)))
    given = problem(case, seed=seed)
    assert_same(solve(given, engine), by_autograd(given), engine.dtype)


# ---- against the NumPy reference -----------------------------------------------------------------


CELLS = {
    "lstm": reference.peephole_lstm,
    "tanh": reference.tanh_rnn,
    "relu": reference.relu_rnn,
    "gru": reference.gru,
    "gru_tanh": partial(reference.gru, f=np.tanh),
}


def by_reference(
    x: Tensor, lengths: list[int], weights: dict[str, Tensor | None], cell: str
) -> np.ndarray:
    """(N, T, D, P): each sequence alone, the second direction backwards."""
    named = {name: w.numpy() for name, w in weights.items() if w is not None}
    one = reference.projected_lstm if "projection" in named else CELLS[cell]
    directions, _, width = named["w_hidden"].shape
    out = np.zeros((*x.shape[:2], directions, width))
    for n, d in product(range(len(lengths)), range(directions)):
        if lengths[n] == 0:
            continue
        step = -1 if d else 1
        sequence = x[n, : lengths[n]].numpy()[::step]
        out[n, : lengths[n], d] = one(sequence, **{k: w[d] for k, w in named.items()})[::step]
    return out


@each_engine
@pytest.mark.parametrize("kind", EACH_CELL, ids=str)
@pytest.mark.parametrize("lengths", [[5, 3, 1, 4], [2, 0, 6]], ids=str)
def test_values_are_those_of_the_reference(lengths: list[int], kind: dict, engine: Engine) -> None:
    given = problem(Case(lengths, **kind))
    generator = torch.Generator().manual_seed(1)
    directions, columns, _ = given.recurrence.w_hidden.shape
    x, w_input, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in [(len(lengths), 7, 3), (directions, columns, 3), (directions, columns)]
    )
    ragged = layout(torch.tensor(lengths), 7)
    gates = torch.einsum("rf,dgf->rdg", pack(x, ragged), w_input) + bias
    weights = {**given.recurrence._asdict(), "w_input": w_input, "bias": bias}
    del weights["cell"], weights["nonrecurrent"]
    given = Problem(
        gates, given.recurrence, ragged, torch.zeros(ragged.rows, *given.grad_h.shape[1:])
    )
    expected = by_reference(x, lengths, weights, given.recurrence.cell)
    got = pack_back(solve(given, engine).hidden, ragged)
    np.testing.assert_allclose(got.numpy(), expected, **tolerance(engine.dtype))


def pack_back(rows: Tensor, ragged: Ragged) -> Tensor:
    """(R, D, P) -> (N, T, D, P)."""
    n, t = ragged.padded
    out = rows.new_zeros(n * t, *rows.shape[1:])
    out[ragged.index] = rows
    return out.view(n, t, *rows.shape[1:])


# ---- against finite differences ------------------------------------------------------------------


@pytest.mark.parametrize(
    "engine",
    [e for e in ENGINES if (e.device, e.dtype) == ("cpu", torch.float64)],
    ids=lambda e: e.module.__name__.rsplit(".")[-1],
)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_gradients_are_those_of_finite_differences(kind: dict, engine: Engine) -> None:
    """Those of the weight matrices too, which are products of what an engine hands back."""
    given = problem(Case([3, 0, 2], **kind, cells=2), seed=3)
    mine = solve(given, engine)
    fed_back = fed_back_gradient(mine.d_gates, mine.sweep, given.recurrence)
    gradients = {
        "gates": mine.d_gates,
        "w_hidden": torch.einsum("rdg,rdp->dgp", fed_back, mine.sweep.before),
        "peepholes": mine.d_peepholes,
    }
    if mine.d_hidden is not None and mine.sweep.outputs is not None:
        gradients["projection"] = torch.einsum("rdp,rdh->dph", mine.d_hidden, mine.sweep.outputs)

    def changed(name: str, k: int, by: float) -> float:
        values = {"gates": given.gates.clone(), **given.recurrence._asdict()}
        values[name] = values[name].clone()
        values[name].view(-1)[k] += by
        gates = values.pop("gates")
        engine_ = engine.of(given.recurrence)
        hidden, sweep = engine_.forward(gates, Recurrence(**values), given.ragged)
        of_m = 0.0 if given.grad_m is None else float((sweep.outputs * given.grad_m).sum())
        return float((hidden * given.grad_h).sum()) + of_m

    for name, gradient in gradients.items():
        for k, expected in enumerate([] if gradient is None else gradient.reshape(-1).tolist()):
            slope = (changed(name, k, 1e-5) - changed(name, k, -1e-5)) / 2e-5
            assert slope == pytest.approx(expected, rel=1e-6, abs=1e-8), (name, k)


# ---- what must not matter ------------------------------------------------------------------------


@each_engine
def test_neighbours_change_nothing(engine: Engine) -> None:
    """A sequence's rows are the same with and without the rest of the batch."""
    given = problem(Case([6, 2, 4], projection=3))
    whole = solve(given, engine)
    for place, length in enumerate([6, 4, 2]):
        rows = rows_of(given.ragged, place)
        alone = Problem(
            given.gates[rows],
            given.recurrence,
            layout(torch.tensor([length]), length),
            given.grad_h[rows],
        )
        got = solve(alone, engine)
        for mine, theirs in ((got.hidden, whole.hidden), (got.d_gates, whole.d_gates)):
            torch.testing.assert_close(mine, theirs[rows], rtol=1e-5, atol=1e-6)


@each_engine
@pytest.mark.parametrize("kind", EACH_CELL, ids=str)
def test_saturated_gates_stay_finite(kind: dict, engine: Engine) -> None:
    given = problem(Case([9, 4], **kind))
    got = solve(given._replace(gates=1e4 * given.gates), engine)
    for value in (got.hidden, *got.sweep, *got[2:]):
        assert value is None or torch.isfinite(value).all()


@pytest.mark.parametrize(
    "engine", [e for e in ENGINES if e.module is not lstm_cpu], ids=lambda e: e.device
)
def test_half_precision_keeps_the_cells_in_float32(engine: Engine) -> None:
    given = problem(Case([5, 3, 1, 4], projection=3))
    ragged = replace(given.ragged, index=given.ragged.index.to(engine.device))
    recurrence = Recurrence(*moved(given.recurrence, engine.device, torch.float32))
    gates, grad_h = moved((given.gates, given.grad_h), engine.device, HALF)
    hidden, sweep = engine.module.forward(gates, recurrence, ragged)
    assert (hidden.dtype, sweep.gates.dtype) == (HALF, HALF)
    assert sweep.cells is not None
    assert sweep.cells.dtype == torch.float32
    d_gates, _, d_peepholes = engine.module.backward(grad_h, sweep, recurrence, ragged)
    assert d_peepholes is not None
    assert (d_gates.dtype, d_peepholes.dtype) == (HALF, torch.float32)
    expected = by_autograd(given)
    for mine, theirs in ((hidden, expected.hidden), (d_gates, expected.d_gates)):
        torch.testing.assert_close(mine.double().cpu(), theirs, rtol=0.1, atol=0.1)
