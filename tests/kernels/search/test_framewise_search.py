"""Viterbi of a frame-wise network: its reference, both engines, all paths of tiny problems."""

import itertools

import numpy as np
import pytest

from pipeline.kernels import engines
from pipeline.kernels.search import framewise_reference as reference
from pipeline.kernels.search.framewise import Transitions, framewise_viterbi


@pytest.fixture(params=["cpu", "plain"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(engines, "_has", lambda kind: False)


def problem(frames: int, count: int, seed: int) -> tuple[np.ndarray, Transitions]:
    random = np.random.default_rng(seed)
    tables = [random.normal(size=shape) for shape in [(count,), (count, count), (count,)]]
    return random.normal(size=(frames, count)), Transitions(*tables)


def best_of_all(scores: np.ndarray, tables: Transitions, least: int) -> float:
    """The best score of all labels and all durations, by trying them."""
    frames, count = scores.shape
    best = -np.inf
    for cuts in itertools.product([False, True], repeat=frames - 1):
        bounds = [0, *(t + 1 for t, is_cut in enumerate(cuts) if is_cut), frames]
        if min(np.diff(bounds)) < least:
            continue
        for labels in itertools.product(range(count), repeat=len(bounds) - 1):
            parts = zip(labels, itertools.pairwise(bounds), strict=True)
            score = sum(scores[b:e, k].sum() for k, (b, e) in parts)
            score += tables.begins[labels[0]] + tables.ends[labels[-1]]
            score += sum(tables.follows[pair] for pair in itertools.pairwise(labels))
            best = max(best, score)
    return best


@pytest.mark.parametrize("least", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_best_of_all_paths(seed: int, least: int) -> None:
    scores, tables = problem(5, 3, seed)
    path = framewise_viterbi(scores, tables, least=least)
    expected = best_of_all(scores, tables, least)
    assert path.emitted + path.transitions == pytest.approx(expected)
    score, labels = reference.viterbi(scores, *tables, least)
    assert score == pytest.approx(expected)
    assert labels == path.labels


@pytest.mark.parametrize("least", [1, 2, 4])
def test_it_is_the_reference(least: int) -> None:
    for seed in range(5):
        scores, tables = problem(40, 7, seed)
        path = framewise_viterbi(scores, tables, least=least)
        score, labels = reference.viterbi(scores, *tables, least)
        assert path.emitted + path.transitions == pytest.approx(score)
        assert path.labels == labels
        assert path.spans[0][0] == 0
        assert path.spans[-1][1] == 40
        for (_, end), (begin, _) in itertools.pairwise(path.spans):
            assert end == begin
        assert min(end - begin for begin, end in path.spans) >= least


def test_an_utterance_shorter_than_a_label_is_one_label() -> None:
    scores, tables = problem(2, 3, 0)
    path = framewise_viterbi(scores, tables, least=9)
    assert path.spans == [(0, 2)]
    total = scores.sum(axis=0) + tables.begins + tables.ends
    assert path.labels == [int(total.argmax())]


def test_the_same_label_may_come_twice() -> None:
    scores = np.zeros((4, 2))
    scores[:, 1] = -9.0
    nothing = np.zeros(2)
    follows = np.array([[1.0, 0.0], [0.0, 0.0]])
    path = framewise_viterbi(scores, Transitions(nothing, follows, nothing), least=2)
    assert path.labels == [0, 0]
    assert path.spans == [(0, 2), (2, 4)]


def test_of_equally_good_paths_labels_stay() -> None:
    nothing = np.zeros(2)
    path = framewise_viterbi(np.zeros((5, 2)), Transitions(nothing, np.zeros((2, 2)), nothing))
    assert path.labels == [0]


def test_impossible_labels() -> None:
    scores, tables = problem(4, 2, 0)
    barred = tables._replace(begins=np.array([-np.inf, 0.0]), ends=np.array([0.0, -np.inf]))
    assert framewise_viterbi(scores, barred).labels[:: len(scores)][0] == 1
    never = tables._replace(begins=np.full(2, -np.inf))
    with pytest.raises(ValueError, match="no sequence of labels is possible"):
        framewise_viterbi(scores, never)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"begins": np.zeros(3)}, r"begins are \(3,\), not \(2,\)"),
        ({"follows": np.zeros((2, 3))}, r"follows are \(2, 3\), not \(2, 2\)"),
    ],
)
def test_shapes_that_do_not_fit(change: dict[str, np.ndarray], message: str) -> None:
    scores, tables = problem(4, 2, 0)
    with pytest.raises(ValueError, match=message):
        framewise_viterbi(scores, tables._replace(**change))


def test_a_frame_that_is_nan_is_named() -> None:
    scores, tables = problem(4, 2, 0)
    scores[2, 1] = np.nan
    with pytest.raises(ValueError, match="scores of frame 2 are NaN"):
        framewise_viterbi(scores, tables)
    with pytest.raises(ValueError, match="needs a frame"):
        framewise_viterbi(scores[:0], tables)
