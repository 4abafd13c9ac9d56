"""CTC searches against their reference, against all strings, and against all paths."""

import importlib.util
import itertools
import logging
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from pipeline.kernels import engines
from pipeline.kernels.ctc.loss import ctc_loss
from pipeline.kernels.recurrent.layer import peephole_lstm_step
from pipeline.kernels.search import ctc as ctc_search
from pipeline.kernels.search import ctc_plain as ctc_search_plain
from pipeline.kernels.search import ctc_reference as reference
from pipeline.kernels.search.ctc import ctc_align, ctc_beam_search, ctc_greedy, ctc_prefix_search
from pipeline.kernels.search.fusion import NO_FUSION, Automaton, Fusion, LstmWeights
from pipeline.kernels.search.hypotheses import Hypothesis

torch.set_num_threads(1)

Prefix = tuple[int, ...]
Generator = np.random.Generator


def modules() -> list[ModuleType]:
    if importlib.util.find_spec("numba") is None:
        return [ctc_search_plain]
    return [ctc_search_plain, importlib.import_module("pipeline.kernels.search.ctc_cpu")]


each_engine = pytest.mark.parametrize(
    "engine", modules(), ids=lambda m: m.__name__.rpartition("_")[2], indirect=True
)


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Searches in this test use the engine."""
    monkeypatch.setattr(ctc_search, "search_engine", lambda matrix: request.param)
    return request.param


# ---- inputs --------------------------------------------------------------------------------------


def normalised(logits: np.ndarray) -> np.ndarray:
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def random_log_probs(frames: int, vocab: int, seed: int, sharpness: float = 1.5) -> np.ndarray:
    return normalised(sharpness * np.random.default_rng(seed).standard_normal((frames, vocab)))


def one_hot(paths: list[list[int]], vocab: int = 4) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(paths), vocab).float().log()


def sharp(g: Generator, shape: tuple[int, int]) -> np.ndarray:
    return normalised(g.choice([0.1, 1.0, 3.0, 30.0]) * g.standard_normal(shape))


def very_sharp(g: Generator, shape: tuple[int, int]) -> np.ndarray:
    """e to these is mostly 0 in float64."""
    return normalised(g.choice([1e3, 1e6]) * g.standard_normal(shape))


def some_impossible(g: Generator, shape: tuple[int, int]) -> np.ndarray:
    logits = np.where(g.random(shape) < 0.4, -np.inf, g.integers(0, 3, shape).astype(float))
    logits[:, g.integers(shape[1])] = 0.0
    return logits


def impossible_frame(g: Generator, shape: tuple[int, int]) -> np.ndarray:
    logits = sharp(g, shape)
    logits[g.integers(shape[0])] = -np.inf
    return logits


def integers(g: Generator, shape: tuple[int, int]) -> np.ndarray:
    return -g.integers(0, 4, shape).astype(float)


def powers_of_two(g: Generator, shape: tuple[int, int]) -> np.ndarray:
    return integers(g, shape) * np.log(2.0)


def constant(g: Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.full(shape, -np.log(shape[1]))


def certain(g: Generator, shape: tuple[int, int]) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.eye(shape[1])[g.integers(0, shape[1], shape[0])])


def equal_rows(g: Generator, shape: tuple[int, int]) -> np.ndarray:
    """Strings and their reversals are equally probable, but for rounding."""
    return np.repeat(sharp(g, (1, shape[1])), shape[0], axis=0)


KINDS = [
    sharp, very_sharp, some_impossible, impossible_frame, integers, powers_of_two, constant,
    certain, equal_rows,
]  # fmt: skip
BEAMS = [1, 2, 3, 5, 10, 50, 400]


def random_fusion(g: Generator, vocab: int) -> Fusion:
    states = int(g.integers(1, 5))
    shape = (states, vocab)
    log_probs, final = g.standard_normal(shape), g.standard_normal(states)
    log_probs[g.random(shape) < 0.2], final[g.random(states) < 0.2] = -np.inf, -np.inf
    following = g.integers(0, states, shape).astype(np.int32)
    automaton = Automaton(log_probs, following, final, int(g.integers(states)))
    weight, bonus = float(g.choice([0.0, 0.5, 1.0])), float(g.choice([0.0, 2.0, -0.3]))
    return Fusion(None if g.random() < 0.2 else automaton, weight, bonus)


def assert_alike(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [h.tokens for h in found] == [h.tokens for h in expected]
    for name in ("log_prob", "fused"):
        np.testing.assert_allclose(
            [getattr(h, name) for h in found], [getattr(h, name) for h in expected],
            rtol=1e-9, atol=1e-11,
        )  # fmt: skip


# ---- beam search ---------------------------------------------------------------------------------


def compare_beams(g: Generator, kind) -> None:
    """One random case of all that a beam search can be asked."""
    vocab, beam = int(g.integers(1, 7)), int(g.choice(BEAMS))
    frames = int(g.integers(1, 1 + min(12, max(1, 3000 // (vocab * beam)))))
    log_probs, blank = kind(g, (frames, vocab)), int(g.integers(vocab))
    fusion = random_fusion(g, vocab) if g.random() < 0.5 else NO_FUSION
    normalise = bool(g.random() < 0.3)
    found = ctc_beam_search(
        log_probs, beam=beam, blank=blank, fusion=fusion, length_normalise=normalise
    )
    assert_alike(found, reference.beam_search(log_probs, beam, blank, fusion, normalise))


# NumPy's logarithm may tell apart probabilities of equal rows, which only rounding makes differ.
@pytest.mark.parametrize(
    ("engine", "kind"),
    [(m, k) for m in modules() for k in KINDS if (m, k) != (ctc_search_plain, equal_rows)],
    indirect=["engine"],
    ids=lambda value: value.__name__,
)
def test_a_beam_search_is_the_reference(engine: ModuleType, kind) -> None:
    for seed in range(40):
        compare_beams(np.random.default_rng(seed), kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_many_beam_searches_are_the_reference(kind) -> None:
    for seed in range(1000, 1230):
        compare_beams(np.random.default_rng(seed), kind)


@each_engine
@pytest.mark.parametrize(
    ("frames", "vocab", "beam"), [(40, 20, 100), (6, 7, 4000), (60, 62, 10), (30, 62, 1)]
)
def test_a_larger_beam_search_is_the_reference(
    engine: ModuleType, frames: int, vocab: int, beam: int
) -> None:
    log_probs = random_log_probs(frames, vocab, seed=beam)
    found = ctc_beam_search(log_probs, beam=beam, blank=vocab - 1)
    assert_alike(found, reference.beam_search(log_probs, beam, vocab - 1))


@each_engine
def test_ties_over_many_more_candidates_than_are_kept(engine: ModuleType) -> None:
    log_probs = np.zeros((4, 62))
    assert_alike(ctc_beam_search(log_probs, beam=30), reference.beam_search(log_probs, 30))


def test_more_prefixes_than_there_was_room_for() -> None:
    log_probs = random_log_probs(150, 6, seed=1, sharpness=0.3)
    found = ctc_beam_search(log_probs, beam=300)
    matrix, tops = ctc_search.checked(log_probs, 0)
    entries = ctc_search_plain.beam_search(matrix, tops, 300, 0, NO_FUSION.tables(6))
    assert {h.tokens for h in found} == {entry.tokens for entry in entries}


@each_engine
def test_frames_of_very_different_spread(engine: ModuleType) -> None:
    """What is guessed from the frame before is wrong in every frame."""
    log_probs = random_log_probs(30, 12, seed=3, sharpness=0.1)
    log_probs[::2] *= 100.0
    assert_alike(ctc_beam_search(log_probs, beam=20), reference.beam_search(log_probs, 20))


def spelling(h: Hypothesis) -> tuple[float, int, Prefix]:
    return -h.score, len(h.tokens), h.tokens


TIED = [(1,), (2,), (), (1, 2), (2, 1)]  # of two frames: 3 paths each, then 1 each


@each_engine
@pytest.mark.parametrize("beam", range(1, 7))
def test_of_equally_probable_hypotheses_the_shorter_and_smaller_come_first(
    engine: ModuleType, beam: int
) -> None:
    found = ctc_beam_search(np.full((2, 3), -np.log(3.0)), beam=beam)
    # After the first frame, too, () and (1,) come before (2,), from which TIED[1] has its paths.
    expected = {1: [()], 2: [(1,), ()]}.get(beam, TIED[:beam])
    assert [h.tokens for h in found] == expected


@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("frames", [1, 2, 5])
@each_engine
def test_a_wide_beam_is_the_sum_over_all_paths(engine: ModuleType, frames: int, blank: int) -> None:
    log_probs = random_log_probs(frames, 3, seed=frames)
    expected: dict[Prefix, float] = {}
    for path in itertools.product(range(3), repeat=frames):
        p = np.exp(log_probs[np.arange(frames), list(path)].sum())
        y = reference.spelt(path, blank)
        expected[y] = expected.get(y, 0.0) + p
    hyps = ctc_beam_search(log_probs, beam=1000, blank=blank)
    assert {h.tokens for h in hyps} == set(expected)
    for hyp in hyps:
        assert np.exp(hyp.log_prob) == pytest.approx(expected[hyp.tokens], rel=1e-10)
    assert hyps == sorted(hyps, key=spelling)


@each_engine
def test_a_wide_beam_has_every_string(engine: ModuleType) -> None:
    for seed, kind in enumerate(KINDS):
        g = np.random.default_rng(seed)
        log_probs = kind(g, (5, 4))
        expected = reference.all_strings(log_probs, 5, blank=seed % 4)
        found = ctc_beam_search(log_probs, beam=4000, blank=seed % 4)
        assert {h.tokens for h in found} == set(expected)
        for h in found:
            assert h.log_prob == pytest.approx(expected[h.tokens], rel=1e-9, abs=1e-11)


def exact(log_probs: np.ndarray, tokens: Prefix) -> float:
    counts = [len(log_probs)], [len(tokens)]
    targets = torch.tensor(tokens, dtype=torch.int64)
    return -ctc_loss(torch.tensor(log_probs), targets, *counts, reduction="sum").item()


@each_engine
@pytest.mark.parametrize("beam", [1, 4, 100])
def test_no_hypothesis_has_more_than_its_probability(engine: ModuleType, beam: int) -> None:
    for seed in range(3):
        log_probs = random_log_probs(30, 8, seed=seed)
        for h in ctc_beam_search(log_probs, beam=beam):
            assert h.log_prob <= exact(log_probs, h.tokens) + 1e-9


finite = arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(2, 4)),
    elements=st.floats(-20.0, 20.0, width=16),
)


@given(finite, st.integers(1, 30))
@hypothesis_settings(max_examples=60, deadline=None)
def test_hypotheses_are_in_order_and_distinct(logits: np.ndarray, beam: int) -> None:
    hyps = ctc_beam_search(logits, beam=beam, blank=1)
    assert hyps == sorted(hyps, key=spelling)
    assert len({h.tokens for h in hyps}) == len(hyps) <= beam
    assert not any(1 in h.tokens for h in hyps)


@given(finite)
@hypothesis_settings(max_examples=60, deadline=None)
def test_backwards_all_strings_are_the_same_backwards(logits: np.ndarray) -> None:
    forwards, backwards = (
        {h.tokens: h.log_prob for h in ctc_beam_search(x, beam=4000)}
        for x in (logits, logits[::-1])
    )
    assert {y[::-1] for y in forwards} == set(backwards)
    for y, log_prob in forwards.items():
        assert log_prob == pytest.approx(backwards[y[::-1]], rel=1e-9, abs=1e-9)


@given(finite, st.floats(-1e3, 1e3))
@hypothesis_settings(max_examples=60, deadline=None)
def test_the_scale_of_a_frame_does_not_matter(logits: np.ndarray, shift: float) -> None:
    shifted = logits.copy()
    shifted[-1] += shift
    before, after = (
        {h.tokens: h.log_prob for h in ctc_beam_search(x, beam=4000)} for x in (logits, shifted)
    )
    assert set(before) == set(after)
    for y, log_prob in before.items():
        assert after[y] == pytest.approx(log_prob + shift, rel=1e-9, abs=1e-9)


@each_engine
def test_scores_far_above_0(engine: ModuleType) -> None:
    log_probs = random_log_probs(5, 3, seed=8)
    for search in (
        lambda x: ctc_beam_search(x, beam=100),
        lambda x: ctc_prefix_search(x, threshold=1.0),
    ):
        (h, *_), (high, *_) = search(log_probs), search(log_probs + 1e4)
        assert high.tokens == h.tokens
        assert high.log_prob == pytest.approx(h.log_prob + 5e4, rel=1e-12)
    assert ctc_prefix_search(log_probs + 1e4)[0].tokens == ()  # a cut at every frame


def test_paths_are_summed_where_the_best_path_would_lose() -> None:
    """Pr(∅) = 0.6, Pr(a) = 0.4 twice: the best path is empty (0.36), the best answer a (0.64)."""
    log_probs = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert ctc_greedy(torch.tensor(log_probs)[None], torch.tensor([2])) == [[]]
    best, second = ctc_beam_search(log_probs, beam=5)
    assert best.tokens == (1,)
    assert np.exp(best.log_prob) == pytest.approx(0.64)
    assert second.tokens == ()
    assert np.exp(second.log_prob) == pytest.approx(0.36)
    assert_alike(ctc_prefix_search(log_probs), [best])


def test_a_repeated_label_needs_a_blank_between() -> None:
    with np.errstate(divide="ignore"):
        certain = np.log(np.eye(3)[[1, 1, 0, 1, 2]])
    assert ctc_beam_search(certain, beam=4) == [Hypothesis((1, 1, 2), 0.0)]


@each_engine
def test_no_frames_no_tokens(engine: ModuleType) -> None:
    assert ctc_beam_search(np.zeros((0, 3)), beam=4) == [Hypothesis((), 0.0)]
    assert ctc_prefix_search(np.zeros((0, 3))) == [Hypothesis((), 0.0)]
    assert ctc_greedy(torch.zeros(2, 1, 3), torch.tensor([0, 1])) == [[], []]
    assert ctc_align(np.zeros((0, 3)), []) == []


@each_engine
def test_where_every_string_is_impossible_there_is_no_hypothesis(engine: ModuleType) -> None:
    log_probs = random_log_probs(4, 3, seed=1)
    log_probs[2] = -np.inf
    assert ctc_beam_search(log_probs, beam=4) == []
    assert ctc_prefix_search(log_probs) == []


@each_engine
def test_scores_that_stand_for_minus_infinity(engine: ModuleType) -> None:
    """Networks mask with numbers such as -1e30; sums of those are as impossible."""
    log_probs = np.where(np.eye(4)[[1, 0, 2]] > 0, 0.0, -1e30)
    assert ctc_beam_search(log_probs, beam=10) == [Hypothesis((1, 2), 0.0)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_of_any_dtype(dtype: torch.dtype) -> None:
    log_probs = torch.tensor(random_log_probs(6, 4, seed=2)).to(dtype).requires_grad_()
    in_double = log_probs.detach().double().numpy()
    assert ctc_beam_search(log_probs, beam=5) == ctc_beam_search(in_double, beam=5)
    assert ctc_prefix_search(log_probs) == ctc_prefix_search(in_double.tolist())
    assert ctc_align(log_probs, [1]) == ctc_align(in_double, [1])


@each_engine
def test_of_any_strides(engine: ModuleType) -> None:
    for log_probs in (random_log_probs(6, 4, seed=2)[::-1, ::-1], np.zeros((1, 1))[::-1]):
        assert ctc_beam_search(log_probs, beam=5) == ctc_beam_search(log_probs.copy(), beam=5)
        assert ctc_prefix_search(log_probs) == ctc_prefix_search(log_probs.copy())
        assert ctc_align(log_probs, []) == []


@each_engine
def test_searches_on_several_threads(engine: ModuleType) -> None:
    inputs = [random_log_probs(20, 8, seed=seed) for seed in range(12)]

    def search(x: np.ndarray) -> list[Hypothesis]:
        return ctc_beam_search(x, beam=8) + ctc_prefix_search(x, max_expansions=50)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(search, inputs)) == [search(x) for x in inputs]


def test_plain_numpy_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_KERNELS", "plain")
    engines._has.cache_clear()
    try:
        assert ctc_search.search_engine(np.zeros((1, 1))) is ctc_search_plain
    finally:
        monkeypatch.undo()
        engines._has.cache_clear()


# ---- fusion --------------------------------------------------------------------------------------


BIGRAM = Automaton(
    np.log([[1.0, 0.9, 0.1], [1.0, 0.2, 0.8], [1.0, 0.5, 0.5]]),  # from the start, after 1, after 2
    np.array([[0, 1, 2]] * 3, np.int32),
    np.log([0.3, 0.5, 0.7]),
    0,
)


@each_engine
def test_what_is_fused_is_what_the_automaton_says(engine: ModuleType) -> None:
    log_probs = random_log_probs(6, 3, seed=4)
    acoustic = {h.tokens: h.log_prob for h in ctc_beam_search(log_probs, beam=1000)}
    hyps = ctc_beam_search(log_probs, beam=1000, fusion=Fusion(BIGRAM, 0.8, 0.25))
    assert {h.tokens for h in hyps} == set(acoustic)
    for h in hyps:
        states = [0, *h.tokens]
        own = sum(BIGRAM.log_probs[s, k] for s, k in zip(states, h.tokens, strict=False))
        expected = 0.8 * (own + BIGRAM.final[states[-1]]) + 0.25 * len(h.tokens)
        assert h.fused == pytest.approx(expected, rel=1e-12)
        assert h.log_prob == pytest.approx(acoustic[h.tokens], rel=1e-12)
    assert hyps == sorted(hyps, key=spelling)


@each_engine
def test_a_model_keeps_what_the_network_alone_would_drop(engine: ModuleType) -> None:
    log_probs = np.log([[0.1, 0.4, 0.5], [0.98, 0.01, 0.01]])
    model = BIGRAM._replace(final=np.zeros(3))
    assert ctc_beam_search(log_probs, beam=1)[0].tokens == (2,)
    assert ctc_beam_search(log_probs, beam=1, fusion=Fusion(model, 1.0))[0].tokens == (1,)


@each_engine
def test_what_the_model_forbids_is_no_hypothesis(engine: ModuleType) -> None:
    with np.errstate(divide="ignore"):
        model = BIGRAM._replace(
            log_probs=np.log([[1.0, 1.0, 0.0], [1.0, 0.5, 0.5], [1.0, 0.5, 0.5]]),
            final=np.log([1.0, 0.0, 1.0]),
        )
    hyps = ctc_beam_search(random_log_probs(4, 3, seed=5), beam=100, fusion=Fusion(model, 1.0))
    assert {h.tokens for h in hyps} == {(), (1, 2), (1, 1, 2), (1, 2, 2), (1, 2, 1, 2)}
    never = model._replace(final=np.full(3, -np.inf))
    assert ctc_beam_search(np.zeros((3, 3)), beam=5, fusion=Fusion(never, 1.0)) == []


@each_engine
def test_a_bonus_lengthens_and_a_weight_of_nothing_changes_nothing(engine: ModuleType) -> None:
    log_probs = random_log_probs(12, 5, seed=6)
    plain = ctc_beam_search(log_probs, beam=20)
    assert_alike(ctc_beam_search(log_probs, beam=20, fusion=Fusion(None, 3.0)), plain)
    (longer, *_), (shorter, *_) = (
        ctc_beam_search(log_probs, beam=20, fusion=Fusion(None, bonus=b)) for b in (5.0, -5.0)
    )
    assert len(longer.tokens) > len(plain[0].tokens) > len(shorter.tokens)


def test_by_length_the_same_hypotheses_are_in_another_order() -> None:
    log_probs = random_log_probs(8, 4, seed=7)
    hyps = ctc_beam_search(log_probs, beam=10)
    by_length = ctc_beam_search(log_probs, beam=10, length_normalise=True)
    assert by_length == sorted(hyps, key=lambda h: (-h.normalised, len(h.tokens), h.tokens))
    assert by_length != hyps


# ---- prefix search -------------------------------------------------------------------------------


def compare_prefix_searches(g: Generator, kind) -> None:
    vocab, frames = int(g.integers(2, 5)), int(g.integers(1, 6))
    log_probs, blank = kind(g, (frames, vocab)), int(g.integers(vocab))
    threshold = float(g.choice([1.0, 0.995, 0.4, 0.2]))
    found = ctc_prefix_search(log_probs, blank=blank, threshold=threshold, max_expansions=10**9)
    if np.isneginf(log_probs.max(axis=1)).any():
        assert found == []
        return
    assert_alike(found, [reference.prefix_search(log_probs, blank, threshold)])
    if threshold == 1.0 and kind is not equal_rows:
        strings = reference.all_strings(log_probs, frames, blank)
        greatest = max(strings.values())
        assert found[0].log_prob == pytest.approx(greatest, rel=1e-9, abs=1e-11)
        close = [y for y, log_prob in strings.items() if log_prob > greatest - 1e-9]
        assert found[0].tokens == min(close, key=lambda y: (len(y), y))


@each_engine
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_prefix_search_is_the_reference_and_finds_the_best_string(engine: ModuleType, kind) -> None:
    for seed in range(15):
        compare_prefix_searches(np.random.default_rng(seed), kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_many_prefix_searches_are_the_reference(kind) -> None:
    for seed in range(1000, 1230):
        compare_prefix_searches(np.random.default_rng(seed), kind)


def spikes(frames: int, vocab: int, seed: int) -> np.ndarray:
    """Labels of some frames each, between frames that are almost certainly blank."""
    g = np.random.default_rng(seed)
    logits = g.standard_normal((frames, vocab))
    logits[:, 0] += 12.0
    for start in range(2, frames - 3, 5):
        logits[start : start + 3, g.integers(1, vocab, 2)] += g.uniform(10.0, 14.0, (3, 2))
    return normalised(logits)


@each_engine
def test_the_sections_of_an_utterance_are_searched_alone(engine: ModuleType) -> None:
    log_probs = spikes(60, 10, seed=1)
    (found,) = ctc_prefix_search(log_probs)
    assert_alike([found], [reference.prefix_search(log_probs)])
    cuts = np.exp(log_probs[:, 0]) > 0.995
    assert 10 < cuts.sum() < 50
    tokens: Prefix = ()
    log_prob = log_probs[cuts, 0].sum()
    for is_cut, group in itertools.groupby(range(60), key=lambda t: cuts[t]):
        if not is_cut:
            (part,) = ctc_prefix_search(log_probs[list(group)], threshold=1.0)
            tokens, log_prob = tokens + part.tokens, log_prob + part.log_prob
    assert found.tokens == tokens
    assert found.log_prob == pytest.approx(log_prob, rel=1e-12)
    assert found.log_prob <= exact(log_probs, tokens)
    (whole,) = ctc_prefix_search(log_probs, threshold=1.0)
    assert whole.log_prob >= found.log_prob


@each_engine
def test_a_label_on_both_sides_of_a_cut_is_two_tokens(engine: ModuleType) -> None:
    log_probs = np.log([[0.1, 0.9], [0.6, 0.4], [0.1, 0.9]])
    assert ctc_prefix_search(log_probs, threshold=0.5)[0].tokens == (1, 1)
    expected = np.log(0.9 * 0.6 * 0.9)
    assert ctc_prefix_search(log_probs, threshold=0.5)[0].log_prob == pytest.approx(expected)
    assert ctc_prefix_search(log_probs, threshold=0.6)[0].tokens == (1,)  # not above 0.6
    assert ctc_prefix_search(log_probs, threshold=0.0)[0].tokens == ()


@each_engine
@pytest.mark.parametrize(("frames", "vocab"), [(40, 30), (300, 62), (900, 62)])
def test_a_search_that_would_not_end_is_cut_short(
    engine: ModuleType, frames: int, vocab: int, caplog: pytest.LogCaptureFixture
) -> None:
    log_probs = random_log_probs(frames, vocab, seed=1, sharpness=0.2)
    limit = 3 if engine is ctc_search_plain else 200
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        (found,) = ctc_prefix_search(log_probs, max_expansions=limit)
    assert [m for m in caplog.messages if m.startswith("prefix search")] == [
        f"prefix search: a section of {frames} frames needs more than {limit} expansions"
    ]
    (path,) = ctc_greedy(torch.tensor(log_probs)[None], torch.tensor([frames]))
    assert found.log_prob == pytest.approx(exact(log_probs, found.tokens), rel=1e-9)
    assert found.log_prob >= exact(log_probs, tuple(path)) - 1e-9


@each_engine
def test_only_the_section_that_is_cut_short_is_logged(
    engine: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    easy, blank = np.log([[0.1, 0.9, 1e-9]]), np.log([[0.998, 0.001, 0.001]])
    log_probs = np.concatenate([easy, blank, np.full((5, 3), -np.log(3.0)), blank, easy])
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        (found,) = ctc_prefix_search(log_probs, max_expansions=1)
    assert len(caplog.records) == 1
    assert "a section of 5 frames" in caplog.records[0].message
    assert found.tokens[0] == found.tokens[-1] == 1
    caplog.clear()
    (found,) = ctc_prefix_search(log_probs, max_expansions=100)
    assert not caplog.records
    assert_alike([found], [reference.prefix_search(log_probs)])


# ---- alignment -----------------------------------------------------------------------------------


def spells(spans: list[tuple[int, int]], tokens: list[int], frames: int, blank: int) -> list[int]:
    """The path of an alignment."""
    path = [blank] * frames
    for (start, end), k in zip(spans, tokens, strict=True):
        path[start:end] = [k] * (end - start)
    return path


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize(
    "kind", [sharp, integers, constant, some_impossible], ids=lambda kind: kind.__name__
)
def test_an_alignment_is_a_most_probable_path(kind, blank: int) -> None:
    labels = [k for k in range(3) if k != blank]
    for seed, length in itertools.product(range(3), range(4)):
        log_probs = kind(np.random.default_rng(seed), (5, 3))
        for tokens in itertools.product(labels, repeat=length):
            best = reference.best_path(log_probs, tokens, blank)
            if best == -np.inf:
                with pytest.raises(ValueError, match="no path of 5 frames"):
                    ctc_align(log_probs, tokens, blank=blank)
                continue
            spans = ctc_align(log_probs, tokens, blank=blank)
            path = spells(spans, list(tokens), 5, blank)
            assert reference.spelt(path, blank) == tokens
            own = sum(log_probs[t, k] for t, k in enumerate(path))
            assert own == pytest.approx(best, rel=1e-12, abs=1e-12)


def test_an_alignment_by_hand() -> None:
    log_probs = one_hot([[0, 1, 1, 0, 1, 2, 2, 0]])[0]
    assert ctc_align(log_probs, [1, 1, 2]) == [(1, 3), (4, 5), (5, 7)]
    assert ctc_align(np.zeros((4, 3)), [1]) == [(0, 1)]  # of equal paths the last state longest
    assert ctc_align(np.zeros((4, 3)), []) == []


@pytest.mark.parametrize(
    ("log_probs", "tokens", "message"),
    [
        (np.zeros((2, 3)), [1, 1], "no path of 2 frames spells these 2 tokens"),
        (np.zeros((0, 3)), [1], "no path of 0 frames"),
        (one_hot([[1, 1, 1]])[0], [2], "no path of 3 frames"),
        (np.full((2, 3), -np.inf), [], "no path"),
        (np.zeros((2, 3)), [3], "3 is no token of 3 outputs with blank 0"),
        (np.zeros((2, 3)), [1, 0], "0 is no token"),
        (np.zeros((2, 3)), [-1], "-1 is no token"),
        (np.full((2, 3), np.nan), [1], "frame 0"),
    ],
)
def test_what_cannot_be_aligned(log_probs, tokens: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ctc_align(log_probs, tokens)


# ---- the best path -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "length", "blank", "expected"),
    [
        ([1, 1, 0, 1, 2, 2], 6, 0, [1, 1, 2]),
        ([0, 0, 0, 0, 0, 0], 6, 0, []),
        ([3, 3, 3, 3, 3, 3], 6, 0, [3]),
        ([1, 2, 3, 1, 2, 3], 4, 0, [1, 2, 3, 1]),
        ([0, 3, 3, 0, 0, 1], 5, 3, [0, 0]),
        ([2, 1, 1, 1, 1, 1], 1, 0, [2]),
    ],
)
def test_greedy_merges_repeats_and_drops_blanks(
    path: list[int], length: int, blank: int, expected: list[int]
) -> None:
    assert ctc_greedy(one_hot([path]), torch.tensor([length]), blank=blank) == [expected]
    assert list(reference.spelt(path[:length], blank)) == expected


def test_greedy_of_a_ragged_batch_is_that_of_each_alone() -> None:
    lengths = [7, 2, 5, 0]
    rows = torch.stack([torch.tensor(random_log_probs(7, 4, seed=n)) for n in range(4)])
    rows[1, 2:] = torch.nan  # padding
    batch = ctc_greedy(rows, torch.tensor(lengths))
    for n, length in enumerate(lengths):
        alone = ctc_greedy(rows[n : n + 1, :length], torch.tensor([length])) if length else [[]]
        path = rows[n, :length].argmax(dim=1).tolist()
        assert batch[n] == alone[0] == list(reference.spelt(path, 0))


def test_greedy_takes_the_first_of_equal_outputs() -> None:
    assert ctc_greedy(torch.zeros(1, 2, 4), torch.tensor([2]), blank=3) == [[0]]
    assert ctc_greedy(torch.zeros(0, 2, 4), torch.tensor([], dtype=torch.int64)) == []


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("beam", [0, -3])
def test_a_width_is_one_or_more(beam: int) -> None:
    with pytest.raises(ValueError, match=f"beam must be 1 or more, not {beam}"):
        ctc_beam_search(np.zeros((2, 3)), beam=beam)


def with_one(value: float) -> np.ndarray:
    log_probs = random_log_probs(5, 3, seed=1)
    log_probs[3, 2] = value
    return log_probs


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_no_log_probabilities(value: float) -> None:
    message = "log_probs of frame 3 are NaN or plus infinity"
    with pytest.raises(ValueError, match=message):
        ctc_beam_search(with_one(value), beam=3)
    with pytest.raises(ValueError, match=message):
        ctc_prefix_search(torch.tensor(with_one(value)))
    with pytest.raises(ValueError, match=message):
        ctc_align(with_one(value), [1])


def test_greedy_names_utterance_and_frame_of_what_is_not_a_number() -> None:
    rows = torch.zeros(2, 5, 3)
    rows[1, 3, 2] = torch.nan
    assert ctc_greedy(rows, torch.tensor([5, 3])) == [[], []]
    with pytest.raises(ValueError, match="log_probs of utterance 1, frame 3 are NaN"):
        ctc_greedy(rows, torch.tensor([5, 4]))


@pytest.mark.parametrize("blank", [-1, 3])
def test_a_blank_is_an_output(blank: int) -> None:
    message = f"blank {blank} is no id of 3 outputs"
    with pytest.raises(ValueError, match=message):
        ctc_beam_search(np.zeros((2, 3)), beam=2, blank=blank)
    with pytest.raises(ValueError, match=message):
        ctc_prefix_search(np.zeros((2, 3)), blank=blank)
    with pytest.raises(ValueError, match=message):
        ctc_greedy(torch.zeros(1, 2, 3), torch.tensor([2]), blank=blank)
    with pytest.raises(ValueError, match=message):
        ctc_align(np.zeros((2, 3)), [1], blank=blank)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "threshold must lie in 0 … 1, not 1.5"),
        ({"threshold": -0.1}, "threshold must lie in 0 … 1"),
        ({"threshold": float("nan")}, "threshold must lie in 0 … 1"),
        ({"max_expansions": 0}, "max_expansions must be 1 or more, not 0"),
    ],
)
def test_options_of_prefix_search(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ctc_prefix_search(np.zeros((2, 3)), **options)


@pytest.mark.parametrize(
    ("shape", "lengths", "message"),
    [
        ((2, 3), [2, 2], "log_probs are"),
        ((2, 3, 4), [2], "lengths"),
        ((2, 3, 4), [4, 1], "lengths must lie in 0 … 3"),
        ((2, 3, 4), [-1, 1], "lengths must lie in 0 … 3"),
    ],
)
def test_shapes_of_greedy(shape: tuple[int, ...], lengths: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ctc_greedy(torch.zeros(shape), torch.tensor(lengths))


def test_shapes_of_searches() -> None:
    with pytest.raises(ValueError, match=r"log_probs are \(T, V\), not \(1, 2, 3\)"):
        ctc_beam_search(np.zeros((1, 2, 3)), beam=2)
    with pytest.raises(ValueError, match="a language model over 3 tokens, a network over 4"):
        ctc_beam_search(np.zeros((2, 4)), beam=2, fusion=Fusion(BIGRAM, 1.0))


# ---- a network as language model -----------------------------------------------------------------


@pytest.mark.parametrize("blank", [0, 2])
def test_a_network_is_the_automaton_of_its_prefixes(blank: int) -> None:
    random = np.random.default_rng(blank)
    vocab, cells = 3, 4
    shapes = [(vocab, 4 * cells), (4 * cells, cells), (3, cells), (vocab, cells), (vocab,)]
    network = LstmWeights(*(torch.tensor(random.standard_normal(shape)) for shape in shapes))
    labels = [k for k in range(vocab) if k != blank]
    histories = [h for n in range(6) for h in itertools.product(labels, repeat=n)]
    rows, following = np.zeros((2, len(histories), vocab))
    for i, history in enumerate(histories):
        h = c = torch.zeros(1, cells, dtype=torch.float64)
        for k in (blank, *history):
            inputs = network.inputs[[k]]
            h, c = peephole_lstm_step(inputs, h, c, network.recurrent, network.peepholes)
        logits = h @ network.projection.t() + network.projection_bias
        rows[i, labels] = logits[0, labels].log_softmax(dim=0)
        for k in labels:
            if (*history, k) in histories:
                following[i, k] = histories.index((*history, k))
    automaton = Automaton(rows, following.astype(np.int32), np.zeros(len(histories)), 0)
    log_probs = np.log(random.dirichlet(np.ones(vocab), 5))
    for beam in (2, 7, 60):
        options = {"beam": beam, "blank": blank}
        expected = ctc_beam_search(log_probs, fusion=Fusion(automaton, 0.6, -0.1), **options)
        found = ctc_beam_search(log_probs, fusion=Fusion(None, 0.6, -0.1, network), **options)
        assert [h.tokens for h in found] == [h.tokens for h in expected]
        for ours, theirs in zip(found, expected, strict=True):
            assert ours[1:] == pytest.approx(theirs[1:], rel=1e-9)
