"""Searches whose frames come in chunks are those of whole utterances, and need no more memory."""

import importlib.util
import math

import numpy as np
import pytest
import torch

from pipeline.kernels.search import ctc, ctc_plain, ctc_streams
from pipeline.kernels.search.ctc import ctc_beam_search
from pipeline.kernels.search.ctc_streams import CtcBeamStreams, CtcGreedyStreams, ExactSum

torch.set_num_threads(1)

ENGINES = ["plain", *(["cpu"] if importlib.util.find_spec("numba") else [])]


def log_probs(g: np.random.Generator, frames: int, vocab: int, sharpness: float) -> torch.Tensor:
    return torch.from_numpy(sharpness * g.standard_normal((frames, vocab))).log_softmax(dim=1)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_beam_in_chunks_is_the_whole_beam(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "plain":
        monkeypatch.setattr(ctc_streams, "search_engine", lambda matrix: ctc_plain)
        monkeypatch.setattr(ctc, "search_engine", lambda matrix: ctc_plain)
    g = np.random.default_rng(1)
    for trial in range(20):
        vocab, beam = int(g.integers(2, 9)), int(g.integers(1, 12))
        rows = log_probs(g, int(g.integers(1, 150)), vocab, g.choice([0.5, 3.0, 8.0]))
        rows = rows.round() if trial % 4 == 0 else rows  # ties
        search = CtcBeamStreams(vocab, beam=beam)
        state = search.start()
        if engine == "cpu":
            state.progress.limit = 8  # dead prefixes are dropped again and again
            monkeypatch.setattr("pipeline.kernels.search.ctc_progress_cpu.ROOM", 8)
        for piece in rows.split(7):
            search.advance([state], [piece])
        assert search.result(state) == ctc_beam_search(rows, beam=beam)


@pytest.mark.skipif("cpu" not in ENGINES, reason="needs the compiled search")
def test_a_long_stream_keeps_what_its_hypotheses_need() -> None:
    g, search = np.random.default_rng(2), CtcBeamStreams(20, beam=10)
    state, sizes = search.start(), []
    for _ in range(200):
        search.advance([state], [log_probs(g, 50, 20, 4.0)])
        sizes.append(len(state.progress.tree.parents))
    found = search.partial(state)
    assert len(found.tokens) > 3000
    assert found.settled > 500
    assert max(sizes) < 10 * len(found.tokens)
    assert len(state.shift.parts) < 5000


def test_what_is_settled_stays() -> None:
    g, search, settled = np.random.default_rng(3), CtcBeamStreams(6, beam=4), ()
    state = search.start()
    if "cpu" in ENGINES:
        state.progress.limit = 8
    for _ in range(60):
        search.advance([state], [log_probs(g, 5, 6, 3.0)])
        found = search.partial(state)
        assert found.tokens[: len(settled)] == settled
        settled = found.tokens[: found.settled]
    assert all(hyp.tokens[: len(settled)] == settled for hyp in search.result(state))


def test_the_best_path_in_chunks() -> None:
    search = CtcGreedyStreams()
    rows = torch.tensor([[1, 0], [0, 1], [0, 1], [1, 0], [0, 1]]).double().log_softmax(dim=1)
    state = search.start()
    for piece in rows.split([2, 0, 1, 1, 1]):
        search.advance([state], [piece])
    (found,) = search.result(state)
    assert found.tokens == search.partial(state).tokens == (1, 1)
    assert found.log_prob == math.fsum(rows.max(dim=1).values.tolist())


def test_an_impossible_frame_leaves_no_hypothesis() -> None:
    search = CtcBeamStreams(3, beam=2)
    state = search.start()
    search.advance([state], [torch.zeros(2, 3)])
    search.advance([state], [torch.full((1, 3), -math.inf)])
    search.advance([state], [torch.zeros(2, 3)])
    assert search.result(state) == []


def test_a_sum_is_rounded_once() -> None:
    g, total = np.random.default_rng(4), ExactSum()
    numbers = (g.standard_normal(20_000) * 10.0 ** g.integers(-12, 12, 20_000)).tolist()
    for first in range(0, len(numbers), 997):
        total.add(numbers[first : first + 997])
    assert total.total() == math.fsum(numbers)
    assert len(total.parts) < 5200
