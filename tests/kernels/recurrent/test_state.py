"""Layers that go on from a state: sequences in chunks are the whole sequences, bit for bit."""

import os
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.kernels import engines
from pipeline.kernels.ragged import after_a_state, layout, order, pack, unpack
from pipeline.kernels.recurrent.layer import (
    advance_rows,
    advance_sweep,
    recurrent_rows,
    sweep_rows,
)
from pipeline.kernels.recurrent.plain import GATES, Recurrence, State

torch.set_num_threads(1)

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # see test_lstm_cuda.py
ENGINES = ["triton"] if IS_INTERPRETED else ["compiled", "plain"]
KINDS = [("lstm", 0), ("lstm", 3), ("lstmp", 3)]  # lstmp: r and p
KINDS += [(cell, 0) for cell in ("tanh", "relu", "gru", "gru_tanh")]
DTYPES = [torch.float32] if IS_INTERPRETED else [torch.float32, torch.float64]
CUTS = [[[2, 1, 0], [3, 0, 2], [1, 4, 1]], [[0, 0, 0], [1, 1, 1]]]
each_kind = pytest.mark.parametrize(("cell", "projection"), KINDS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.fixture(params=ENGINES, autouse=True)
def same(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Whether two tensors are the same: to the bit, but for torch's products, to rounding.

    Those depend on the number of rows.
    """
    if request.param == "triton":
        monkeypatch.setenv("PIPELINE_KERNELS", "triton")
    elif request.param == "plain":
        monkeypatch.setattr(engines, "_has", lambda kind: False)
    if request.param == "compiled":
        return torch.equal
    return lambda a, b: torch.allclose(a, b, rtol=1e-4, atol=1e-5)


Weights = tuple[Tensor, Tensor, Recurrence]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights(cell: str, projection: int, dtype: torch.dtype, *, directions: int = 1) -> Weights:
    cells, features, d, beside = 5, 4, directions, cell == "lstmp"
    cell = cell.removesuffix("p")
    g, p = GATES[cell] * cells, projection or cells
    recurrence = Recurrence(
        cell,
        draw(d, g, p, seed=1) / 2,
        draw(d, 3, cells, seed=2) if cell == "lstm" else None,
        draw(d, p, cells, seed=3) if projection else None,
        draw(d, 2, cells, seed=9) if beside else None,
    )
    return draw(d, g, features).to(dtype), draw(d, g, seed=4).to(dtype), recurrence.to(dtype)


def in_chunks(
    x: Tensor, cuts: list[list[int]], advance: Callable, state: State
) -> tuple[list[Tensor], State]:
    """The vectors of each sequence of ``x`` (N, T, F), read in chunks of so many frames."""
    done, found = [0] * len(x), [[] for _ in x]
    for sizes in cuts:
        chunk = x.new_full((len(x), max(sizes), x.shape[2]), float("nan"))
        for n, size in enumerate(sizes):
            chunk[n, :size] = x[n, done[n] : done[n] + size]
            done[n] += size
        ragged = layout(torch.tensor(sizes), max(sizes))
        rows, state = advance(pack(chunk, ragged), ragged, state)
        for n, (size, vectors) in enumerate(zip(sizes, unpack(rows, ragged), strict=True)):
            found[n].append(vectors[:size])
    return [torch.cat(pieces) for pieces in found], state


@each_dtype
@each_kind
@pytest.mark.parametrize("cuts", CUTS, ids=len)
def test_chunks_are_the_whole_bit_for_bit(
    cuts: list[list[int]], cell: str, projection: int, dtype: torch.dtype, same: Callable
) -> None:
    w_input, bias, recurrence = weights(cell, projection, dtype)
    lengths = np.sum(cuts, axis=0).tolist()
    x = draw(len(lengths), max(lengths), 4, seed=5).to(dtype)

    def advance(rows: Tensor, ragged: object, state: State) -> tuple[Tensor, State]:
        return advance_rows(rows, ragged, w_input, bias, recurrence, state)

    ragged = layout(torch.tensor(lengths), max(lengths))
    whole = unpack(recurrent_rows(pack(x, ragged), ragged, w_input, bias, recurrence), ragged)
    found, last = in_chunks(x, cuts, advance, recurrence.start(len(x)))
    _, expected_last = in_chunks(x, [lengths], advance, recurrence.start(len(x)))
    for got, expected in zip(last, expected_last, strict=True):
        assert same(got, expected)
    for n, length in enumerate(lengths):
        assert same(found[n], whole[n, :length]), n
        assert same(last.h[n], whole[n, length - 1, : last.h.shape[1]])
        sizes = [[sizes[n]] for sizes in cuts]
        alone, state = in_chunks(x[n : n + 1], sizes, advance, recurrence.start(1))
        assert same(alone[0], found[n])
        assert same(state.c[0], last.c[n])


@each_kind
def test_many_sequences_in_random_chunks(cell: str, projection: int, same: Callable) -> None:
    """More of them than one thread takes; the gates may come from elsewhere, as after a norm."""
    _, _, recurrence = weights(cell, projection, torch.float32)
    random = np.random.default_rng(0)
    count, parts = (3, 2) if IS_INTERPRETED else (21, 5)
    cuts = random.integers(0, 4, size=(parts, count)).tolist()
    lengths = np.sum(cuts, axis=0).tolist()
    gates = draw(count, max(lengths), GATES[recurrence.cell] * 5, seed=6).float()

    def advance(rows: Tensor, ragged: object, state: State) -> tuple[Tensor, State]:
        return advance_sweep(rows[:, None], ragged, recurrence, state)

    ragged = layout(torch.tensor(lengths), max(lengths))
    whole = unpack(sweep_rows(pack(gates, ragged)[:, None], ragged, recurrence), ragged)
    found, _ = in_chunks(gates, cuts, advance, recurrence.start(count))
    for n, length in enumerate(lengths):
        assert same(found[n], whole[n, :length]), n


@each_kind
def test_a_sequence_without_new_frames_keeps_its_state(cell: str, projection: int) -> None:
    w_input, bias, recurrence = weights(cell, projection, DTYPES[-1])
    before = State(*(draw(*x.shape, seed=7).to(x.dtype) for x in recurrence.start(3)))
    ragged = layout(torch.tensor([0, 1, 0]), 2)
    rows, after = advance_rows(
        draw(1, 4).to(w_input.dtype), ragged, w_input, bias, recurrence, before
    )
    assert rows.shape[0] == 1
    assert torch.equal(after.h[[0, 2]], before.h[[0, 2]])
    assert torch.equal(after.c[[0, 2]], before.c[[0, 2]])
    assert not torch.equal(after.h[1], before.h[1])
    projected = draw(1, 4).to(w_input.dtype) @ w_input[0].t() + bias[0]
    h, c = recurrence.direction(0).step(projected, before.h[1:2], before.c[1:2])
    torch.testing.assert_close(rows, h, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.h[1:2], h[:, : after.h.shape[1]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.c[1:2], c, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(IS_INTERPRETED, reason="needs float64")
@each_kind
def test_gradients_flow_within_the_chunk(cell: str, projection: int) -> None:
    """Those of finite differences, of everything but the state."""
    w_input, bias, recurrence = weights(cell, projection, torch.float64)
    ragged = layout(torch.tensor([2, 0, 3]), 3)
    state = State(*(draw(*x.shape, seed=7) for x in recurrence.start(3)))
    given = [draw(5, 4, seed=8), w_input, bias, *(x for x in recurrence[1:] if x is not None)]

    def run(rows: Tensor, w_input: Tensor, bias: Tensor, *others: Tensor) -> Tensor:
        left = iter(others)
        kept = [None if x is None else next(left) for x in recurrence[1:]]
        weights = Recurrence(recurrence.cell, *kept)
        return advance_rows(rows, ragged, w_input, bias, weights, state)[0]

    assert torch.autograd.gradcheck(run, [x.clone().requires_grad_() for x in given])


def test_no_gradient_flows_through_a_state() -> None:
    w_input, bias, recurrence = weights("lstm", 3, torch.float32)
    state = State(*(x.requires_grad_() for x in recurrence.start(2)))
    ragged = layout(torch.tensor([2, 1]), 2)
    rows, after = advance_rows(
        draw(3, 4).float().requires_grad_(), ragged, w_input, bias, recurrence, state
    )
    rows.sum().backward()
    assert state.h.grad is None
    assert not after.h.requires_grad
    assert not after.c.requires_grad


def test_gradients_in_one_chunk_are_those_of_the_whole() -> None:
    w_input, bias, recurrence = weights("lstmp", 3, torch.float32)
    ragged = layout(torch.tensor([3, 5, 1]), 5)
    inputs = [draw(9, 4).float(), w_input, bias, *recurrence[1:]]
    results = []
    for in_chunks in (False, True):
        x, w, b, *others = (v.clone().requires_grad_() for v in inputs)
        kept = Recurrence("lstm", *others)
        if in_chunks:
            rows, _ = advance_rows(x, ragged, w, b, kept, kept.start(3))
        else:
            rows = recurrent_rows(x, ragged, w, b, kept)
        rows.square().sum().backward()
        results.append([rows, *(v.grad for v in (x, w, b, *others))])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


# ---- layout --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [[3, 1, 2], [0, 2, 0, 2], [0, 0], [1], []], ids=str)
@pytest.mark.parametrize("longer", [0, 1])
def test_the_layout_after_a_state_has_a_frame_more(lengths: list[int], longer: int) -> None:
    frames = max(lengths, default=0) + longer
    ragged = layout(torch.tensor(lengths, dtype=torch.int64), frames)
    got = after_a_state(ragged)
    expected = layout(torch.tensor(lengths, dtype=torch.int64) + 1, frames + 1)
    for name in ("active", "offsets", "index"):
        assert torch.equal(getattr(got, name), getattr(expected, name)), name
    assert (got.padded, got.given) == (expected.padded, 1)
    places = sorted(range(len(lengths)), key=lambda n: -lengths[n])
    assert order(ragged).tolist() == places


# ---- errors --------------------------------------------------------------------------------------


def test_two_directions_are_refused() -> None:
    w_input, bias, recurrence = weights("lstm", 0, torch.float32, directions=2)
    ragged = layout(torch.tensor([1]), 1)
    with pytest.raises(ValueError, match="two directions reads whole sequences, not chunks"):
        advance_rows(draw(1, 4).float(), ragged, w_input, bias, recurrence, recurrence.start(1))


@pytest.mark.parametrize(("name", "count", "cells"), [("h", 2, 5), ("c", 1, 4)])
def test_a_state_that_does_not_fit_is_refused(name: str, count: int, cells: int) -> None:
    w_input, bias, recurrence = weights("lstm", 0, torch.float32)
    ragged = layout(torch.tensor([1]), 1)
    state = State(torch.zeros(count, 5), torch.zeros(1, cells))
    with pytest.raises(ValueError, match=rf"state\.{name} has the shape"):
        advance_rows(draw(1, 4).float(), ragged, w_input, bias, recurrence, state)
