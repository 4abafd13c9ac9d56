"""Searches with a transducer, compiled and plain, against Algorithm 1 of [G12] line by line."""

import itertools
import logging

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.kernels import engines
from pipeline.kernels.recurrent.layer import peephole_lstm_step
from pipeline.kernels.search.fusion import Automaton, Fusion, LstmWeights
from pipeline.kernels.search.hypotheses import Hypothesis
from pipeline.kernels.search.model import SearchWeights, State
from pipeline.kernels.search.transducer import transducer_beam_search, transducer_greedy
from pipeline.kernels.search.transducer_reference import (
    exhaustive_search,
)
from pipeline.kernels.search.transducer_reference import (
    transducer_beam_search as algorithm_1,
)
from pipeline.kernels.transducer.loss import transducer_loss

torch.set_num_threads(1)

Prefix = tuple[int, ...]
ENGINES = ["cpu", "plain"]


def draw_lstm(vocab: int, cells: int, out: int, scale: float, seed: int) -> LstmWeights:
    random = np.random.default_rng(seed)
    shapes = [(vocab, 4 * cells), (4 * cells, cells), (3, cells), (out, cells), (out,)]
    return LstmWeights(*(torch.tensor(scale * random.standard_normal(s)) for s in shapes))


def lstm_step(weights: LstmWeights, state: State, tokens: Tensor) -> tuple[State, Tensor]:
    inputs = weights.inputs[tokens]
    state = State(*peephole_lstm_step(inputs, *state, weights.recurrent, weights.peepholes))
    return state, state.h @ weights.projection.t() + weights.projection_bias


class LstmModel:
    """A peephole LSTM predictor with either joiner; counts the prefixes that it reads."""

    def __init__(
        self,
        kind: str,
        *,
        engine: str = "cpu",
        vocab: int = 4,
        blank: int = 0,
        scale: float = 1.0,
        bonus: float = 0.0,
        seed: int = 0,
        cells: int = 5,
    ) -> None:
        self.kind, self.engine, self.vocab, self.blank = kind, engine, vocab, blank
        self.scale = scale
        self.joint = vocab if kind == "sum" else 7
        predictor = draw_lstm(vocab, cells, self.joint, scale, seed)
        random = np.random.default_rng(1000 + seed)
        output = None
        if kind == "tanh":
            output = torch.tensor(scale * random.standard_normal((vocab, self.joint)))
        bias = torch.zeros(vocab, dtype=torch.float64)
        bias[blank] = bonus  # how much the blank is preferred
        if kind == "sum":
            predictor.projection_bias[:] += bias
        self.weights = SearchWeights(predictor, output, None if output is None else bias)
        self.steps = 0

    def frames(self, count: int, seed: int = 1) -> Tensor:
        random = np.random.default_rng(seed)
        return torch.tensor(random.standard_normal((count, self.joint)))

    def start(self, count: int) -> tuple[State, Tensor]:
        zeros = self.weights.predictor.recurrent.new_zeros(
            count, self.weights.predictor.recurrent.shape[1]
        )
        blanks = torch.full((count,), self.blank)
        return lstm_step(self.weights.predictor, State(zeros, zeros), blanks)

    def step(self, state: State, tokens: Tensor) -> tuple[State, Tensor]:
        self.steps += len(tokens)
        return lstm_step(self.weights.predictor, state, tokens)

    def logits(self, frames: Tensor, projected: Tensor) -> Tensor:
        if self.weights.output is None:
            return frames + projected
        hidden = torch.tanh(frames + projected)
        return hidden @ self.weights.output.t() + self.weights.output_bias

    def log_probs(self, frames: Tensor, projected: Tensor) -> Tensor:
        return self.logits(frames, projected).log_softmax(dim=-1)

    def search_weights(self) -> SearchWeights | None:
        return self.weights if self.engine == "cpu" else None

    def to(self, dtype: torch.dtype) -> "LstmModel":
        self.weights = SearchWeights(
            LstmWeights(*(w.to(dtype) for w in self.weights.predictor)),
            *(None if w is None else w.to(dtype) for w in self.weights[1:]),
        )
        return self

    def columns(self, prefix: Prefix) -> Tensor:
        """The predictor's projections along a prefix, (U+1, J), from the start."""
        state, projected = self.start(1)
        rows = [projected]
        for token in prefix:
            state, projected = lstm_step(self.weights.predictor, state, torch.tensor([token]))
            rows.append(projected)
        return torch.cat(rows)

    def log_prob(self, frames: Tensor, prefix: Prefix) -> float:
        """log Pr(y|x), exactly, by the loss kernel."""
        lattice = self.logits(frames[None, :, None, :], self.columns(prefix)[None, None])
        loss = transducer_loss(
            lattice,
            torch.tensor([prefix], dtype=torch.int64).view(1, -1),
            torch.tensor([len(frames)]),
            torch.tensor([len(prefix)]),
            blank=self.blank,
        )
        return -loss.item()


class Rows:
    """log Pr(k|y, t) as the reference asks for it."""

    def __init__(self, model: LstmModel, frames: Tensor) -> None:
        self.model, self.frames = model, frames
        self.columns: dict[Prefix, Tensor] = {}

    def __call__(self, y: Prefix, t: int) -> np.ndarray:
        if y not in self.columns:
            self.columns[y] = self.model.columns(y)[-1:]
        return self.model.log_probs(self.frames[t : t + 1], self.columns[y])[0].numpy()


def search(frames: Tensor, model: LstmModel, **options: object) -> list[Hypothesis]:
    lengths = torch.tensor([len(frames)])
    (hyps,) = transducer_beam_search(frames[None], lengths, model, blank=model.blank, **options)
    return hyps


def same(found: list[Hypothesis], expected: list[Hypothesis], tolerance: float = 1e-9) -> None:
    assert [h.tokens for h in found] == [h.tokens for h in expected]
    for name in ("log_prob", "fused", "score"):
        ours, theirs = ([getattr(h, name) for h in hyps] for hyps in (found, expected))
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def same_up_to_ties(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    """As `same`, where sums in another order may turn what is tied; what the cut took, too."""
    ours, theirs = (np.array([h.score for h in hyps]) for hyps in (found, expected))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
    score_of = {h.tokens: h.score for h in expected}
    for hyp in found:
        other = score_of.get(hyp.tokens, theirs.min())
        assert hyp.score == pytest.approx(other, rel=1e-9, abs=1e-9)


def random_fusion(
    vocab: int, seed: int, *, weight: float = 0.5, bonus: float = -0.2, states: int = 3
) -> Fusion:
    random = np.random.default_rng(seed)
    log_probs = -random.exponential(2.0, (states, vocab))
    log_probs[random.random((states, vocab)) < 0.1] = -np.inf
    following = random.integers(0, states, (states, vocab)).astype(np.int32)
    automaton = Automaton(log_probs, following, -random.exponential(1.0, states), states - 1)
    return Fusion(automaton, weight, bonus)


# ---- equal to the reference ----------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["sum", "tanh"])
@pytest.mark.parametrize("beam", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_algorithm_1(engine: str, kind: str, beam: int, seed: int) -> None:
    model = LstmModel(kind, engine=engine, blank=seed % 3, bonus=1.0, seed=seed)
    frames = model.frames(6, seed=10 + seed)
    options = {"beam": beam, "max_tokens_per_frame": 3}
    expected = algorithm_1(Rows(model, frames), 6, blank=model.blank, **options)
    same(search(frames, model, **options), expected)


def compare_a_random_case(seed: int, engine: str) -> None:
    random = np.random.default_rng(seed)
    beam = int(random.choice([1, 2, 4, 10, 30, 100, 1000, 4000]))
    vocab, frames = int(random.integers(2, 7)), int(random.integers(1, 7))
    if beam >= 100:  # the reference looks through all of A and B each time
        vocab, frames = min(vocab, 3), min(frames, 4)
    kind = str(random.choice(["sum", "tanh"]))
    model = LstmModel(
        kind,
        engine=engine,
        vocab=vocab,
        blank=int(random.integers(vocab)),
        scale=float(random.choice([0.0, 0.3, 1.0, 2.0])),
        bonus=float(random.choice([0.0, 1.0, 3.0])),
        seed=seed,
    )
    x = float(random.choice([0.0, 1.0, 3.0])) * model.frames(frames, seed=seed)
    options = {
        "beam": beam,
        "length_normalise": bool(random.integers(2)),
        "max_tokens_per_frame": int(random.integers(1, 4 if vocab == 2 else 3)),
    }
    if random.integers(3) == 0:
        options["fusion"] = random_fusion(vocab, seed)
    expected = algorithm_1(Rows(model, x), frames, blank=model.blank, **options)
    found = search(x, model, max_expansions=10**6, **options)
    if model.scale:
        same(found, expected, 1e-6)
    else:
        same_up_to_ties(found, expected)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(40))
def test_random_models_widths_and_orders(engine: str, seed: int) -> None:
    compare_a_random_case(seed, engine)


@pytest.mark.slow
def test_two_thousand_random_models() -> None:
    for seed in range(2000):
        compare_a_random_case(10_000 + seed, "cpu")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("beam", [1, 2, 3, 7, 12, 30])
def test_ties_go_to_the_shorter_then_to_the_smaller_tokens(engine: str, beam: int) -> None:
    """A network without weights: all labels are alike, so most of what is found is tied."""
    model = LstmModel("tanh", engine=engine, vocab=4, scale=0.0, bonus=1.5, blank=1)
    frames = model.frames(3)
    options = {"beam": beam, "max_tokens_per_frame": 3}
    expected = algorithm_1(Rows(model, frames), 3, blank=1, **options)
    found = search(frames, model, **options)
    same(found, expected)
    for better, worse in itertools.pairwise(found):
        if better.log_prob == worse.log_prob:
            assert (len(better.tokens), better.tokens) < (len(worse.tokens), worse.tokens)
    if beam == 3:
        assert [h.tokens for h in found] == [(), (0,), (2,)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(3))
def test_a_network_as_language_model_is_its_automaton(engine: str, seed: int) -> None:
    """All histories up to four labels as states of an automaton with the network's numbers."""
    vocab, blank = 3, seed
    model = LstmModel("tanh", engine=engine, vocab=vocab, blank=blank, bonus=0.5, seed=seed)
    frames = model.frames(2, seed=seed)
    network = draw_lstm(vocab, 4, vocab, 1.5, seed=50 + seed)
    labels = [k for k in range(vocab) if k != blank]
    histories = [h for n in range(5) for h in itertools.product(labels, repeat=n)]
    number = {history: i for i, history in enumerate(histories)}
    log_probs, following = np.zeros((len(histories), vocab)), np.zeros((len(histories), vocab))
    for history, i in number.items():
        zeros = torch.zeros(1, 4, dtype=torch.float64)
        state, logits = lstm_step(network, State(zeros, zeros), torch.tensor([blank]))
        for k in history:
            state, logits = lstm_step(network, state, torch.tensor([k]))
        log_probs[i, labels] = logits[0, labels].log_softmax(dim=0).numpy()
        for k in labels:
            following[i, k] = number.get((*history, k), 0)
    automaton = Automaton(log_probs, following.astype(np.int32), np.zeros(len(histories)), 0)
    options = {"beam": 20, "max_tokens_per_frame": 2}
    expected = search(frames, model, fusion=Fusion(automaton, 0.7, -0.1), **options)
    found = search(frames, model, fusion=Fusion(None, 0.7, -0.1, network), **options)
    same(found, expected)
    assert found != search(frames, model, **options)


def test_a_bonus_makes_hypotheses_longer() -> None:
    model = LstmModel("sum", bonus=2.0, seed=4)
    frames = model.frames(6)
    short, long = (
        search(frames, model, beam=20, fusion=Fusion(bonus=bonus))[0] for bonus in (-1.0, 2.5)
    )
    assert len(short.tokens) < len(long.tokens)
    assert long.fused == pytest.approx(2.5 * len(long.tokens))
    assert long.log_prob <= model.log_prob(frames, long.tokens) + 1e-9


# ---- equal to the exact probabilities ------------------------------------------------------------


def at_most_two_labels(vocab: int) -> Fusion:
    """A language model after whose second label nothing is possible."""
    log_probs = np.zeros((3, vocab))
    log_probs[2] = -np.inf
    following = np.repeat(np.array([[1], [2], [2]], np.int32), vocab, axis=1)
    return Fusion(Automaton(log_probs, following, np.zeros(3), 0), 1.0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["sum", "tanh"])
@pytest.mark.parametrize("length_normalise", [False, True])
def test_a_wide_beam_is_the_search_over_all_strings(
    engine: str, kind: str, length_normalise: bool
) -> None:
    model = LstmModel(kind, engine=engine, vocab=4, blank=2)
    frames, fusion = model.frames(5), at_most_two_labels(4)
    options = {"blank": 2, "length_normalise": length_normalise, "fusion": fusion}
    expected = exhaustive_search(Rows(model, frames), 5, max_tokens=3, **options)
    assert len(expected) == 1 + 3 + 9
    del options["blank"]
    found = search(frames, model, beam=13, **options)
    same(found, expected)
    for hyp in found:
        assert hyp.log_prob == pytest.approx(model.log_prob(frames, hyp.tokens), rel=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("beam", [1, 3, 10, 100])
@pytest.mark.parametrize("kind", ["sum", "tanh"])
def test_no_probability_is_above_the_exact_one(engine: str, kind: str, beam: int) -> None:
    for seed in range(3):
        model = LstmModel(kind, engine=engine, vocab=5, bonus=1.0, seed=seed)
        frames = model.frames(7, seed=seed)
        hyps = search(frames, model, beam=beam, max_tokens_per_frame=3)
        assert len(hyps) == beam
        for hyp in hyps[:30]:
            assert hyp.log_prob <= model.log_prob(frames, hyp.tokens) + 1e-9
    assert len({h.tokens for h in hyps}) == len(hyps)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_prefix_sum_counts_paths_that_only_meet_later(engine: str) -> None:
    """One label; y may come from the empty sequence at either frame: both paths are summed."""
    model = LstmModel("sum", engine=engine, vocab=2)
    frames = model.frames(2)
    hyps = {h.tokens: h.log_prob for h in search(frames, model, beam=8)}
    for tokens in [(), (1,), (1, 1)]:
        assert hyps[tokens] == pytest.approx(model.log_prob(frames, tokens), rel=1e-9)


# ---- what comes out ------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_hypotheses_come_best_first_by_probability_or_by_length(engine: str) -> None:
    model = LstmModel("tanh", engine=engine, seed=3)
    frames = model.frames(6)
    plain = search(frames, model, beam=6)
    by_length = search(frames, model, beam=6, length_normalise=True)
    assert [h.log_prob for h in plain] == sorted((h.log_prob for h in plain), reverse=True)
    scores = [h.log_prob / max(1, len(h.tokens)) for h in by_length]
    assert [h.normalised for h in by_length] == scores == sorted(scores, reverse=True)
    assert set(plain) == set(by_length)
    assert plain != by_length


def test_the_empty_hypothesis_has_a_score() -> None:
    assert Hypothesis((), -3.0).normalised == -3.0
    assert Hypothesis((1, 1), -3.0).normalised == -1.5
    assert Hypothesis((1, 1), -3.0, -2.0).normalised == -2.5


@pytest.mark.parametrize("engine", ENGINES)
def test_no_frames_no_tokens(engine: str) -> None:
    model = LstmModel("sum", engine=engine)
    assert search(model.frames(0), model, beam=3) == [Hypothesis((), 0.0)]
    nobody = torch.zeros(0, 4, 4, dtype=torch.float64)
    assert transducer_beam_search(nobody, torch.tensor([], dtype=int), model, beam=3) == []
    assert transducer_greedy(nobody, torch.tensor([], dtype=int), model) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_impossible_is_no_hypothesis(engine: str) -> None:
    model = LstmModel("sum", engine=engine, vocab=3)
    frames = model.frames(3)
    frames[:, 2] = -np.inf
    hyps = search(frames, model, beam=50)
    assert hyps
    assert not any(2 in h.tokens for h in hyps)
    frames[1, 0] = -np.inf  # no blank: nothing gets past this frame
    assert search(frames, model, beam=50) == []


def test_a_prefix_is_read_by_the_predictor_once() -> None:
    """States are kept for the whole utterance, [G12] 2.6."""
    model = LstmModel("sum", engine="plain", seed=2)
    frames = model.frames(8)
    seen: list[tuple[float, ...]] = []
    step = model.step

    def counting(state: State, tokens: Tensor) -> tuple[State, Tensor]:
        seen.extend((*h, int(k)) for h, k in zip(state.h.tolist(), tokens, strict=True))
        return step(state, tokens)

    model.step = counting  # type: ignore[method-assign]
    search(frames, model, beam=5)
    assert len(seen) == len(set(seen)) > 5


@pytest.mark.parametrize("engine", ENGINES)
def test_an_utterance_does_not_depend_on_its_neighbours(engine: str) -> None:
    model = LstmModel("tanh", engine=engine, vocab=9, bonus=1.0, seed=5)
    lengths = [9, 1, 0, 5]
    frames = torch.stack([model.frames(9, seed=n) for n in range(4)])
    batch = transducer_beam_search(frames, torch.tensor(lengths), model, beam=12)
    for n, length in enumerate(lengths):
        alone = search(frames[n, :length], model, beam=12)
        if engine == "cpu":
            assert batch[n] == alone  # to the last bit
        same(batch[n], alone)


def test_threads_change_nothing() -> None:
    model = LstmModel("tanh", vocab=9, bonus=1.0, seed=5)
    frames = torch.stack([model.frames(9, seed=n) for n in range(5)])
    lengths = torch.full((5,), 9)
    one = transducer_beam_search(frames, lengths, model, beam=12)
    torch.set_num_threads(3)
    try:
        assert transducer_beam_search(frames, lengths, model, beam=12) == one
        assert transducer_greedy(frames, lengths, model) == [
            transducer_greedy(x[None], torch.tensor([9]), model)[0] for x in frames
        ]
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("kind", ["sum", "tanh"])
def test_single_precision_finds_the_same(kind: str) -> None:
    model = LstmModel(kind, vocab=20, bonus=2.0, seed=1, cells=17)
    frames = model.frames(20)
    exact = search(frames, model, beam=10)
    single = search(frames.float(), model.to(torch.float32), beam=10)
    assert single[0].tokens == exact[0].tokens
    assert single[0].log_prob == pytest.approx(exact[0].log_prob, rel=1e-5)


def test_states_that_were_given_up_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With memory for few states the search must find the same, to the last bit."""
    from pipeline.kernels.search import transducer_cpu as module
    from pipeline.kernels.search.fields import NODES, SLOTS

    model = LstmModel("tanh", vocab=12, bonus=1.0, seed=8)
    frames = model.frames(100) * 1.5
    expected = search(frames, model, beam=3)
    found, used = module.Search.found, []

    def watched(search: module.Search) -> object:
        used.append((search.record[NODES], search.record[SLOTS]))
        return found(search)

    monkeypatch.setattr(module.Search, "found", watched)
    monkeypatch.setattr(module, "STATE_BYTES", 0)
    monkeypatch.setattr(module, "SPARE_STATES", 0)
    assert search(frames, model, beam=3) == expected
    ((nodes, slots),) = used
    assert slots <= 3 + 6
    assert nodes > 100


# ---- bounds and errors ---------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_it_ends_where_a_label_stays_certain(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    """Pr(1|y, t) = 1 for every y: Algorithm 1 as printed adds labels for ever."""
    model = LstmModel("sum", engine=engine, vocab=3, scale=0.0)
    frames = torch.zeros(4, 3, dtype=torch.float64)
    frames[:, 1] = 60.0
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        hyps = search(frames, model, beam=4, max_tokens_per_frame=6)
    assert max(len(h.tokens) for h in hyps) <= 4 * 6
    assert "at most 6 labels a frame" in caplog.text
    expected = algorithm_1(Rows(model, frames), 4, beam=4, max_tokens_per_frame=6)
    same(hyps, expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_extensions_are_bounded(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    model = LstmModel("sum", engine=engine, vocab=40, scale=0.01)
    frames = model.frames(3) * 0.01
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        hyps = search(frames, model, beam=60, max_expansions=50)
    assert len(hyps) == 60
    assert "50 extensions a step" in caplog.text


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["sum", "tanh"])
def test_it_ends_soon_on_an_untrained_model(engine: str, kind: str) -> None:
    model = LstmModel(kind, engine=engine, vocab=10, scale=0.1)
    hyps = search(0.1 * model.frames(20), model, beam=4)
    assert len(hyps) == 4
    if engine == "plain":
        assert model.steps < 20 * 300


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beam": 0}, "beam"),
        ({"max_tokens_per_frame": 0}, "max_tokens_per_frame"),
        ({"max_expansions": 0}, "max_expansions"),
        ({"lengths": [9]}, "lengths must be 0 … 3"),
        ({"lengths": [3, 3]}, "N lengths expected"),
        ({"nan": True}, "frame 1 of utterance 0 is NaN"),
        ({"fusion": random_fusion(7, 0)}, "language model over 7 tokens, a network over 4"),
    ],
    ids=str,
)
def test_what_it_refuses(engine: str, change: dict, message: str) -> None:
    model = LstmModel("sum", engine=engine)
    frames = model.frames(3)[None]
    options = {"beam": 2, **change}
    if options.pop("nan", False):
        frames[0, 1, 2] = np.nan
    lengths = torch.tensor(options.pop("lengths", [3]))
    with pytest.raises(ValueError, match=message):
        transducer_beam_search(frames, lengths, model, **options)


def test_nan_in_the_padding_does_not_matter() -> None:
    model = LstmModel("sum")
    frames = model.frames(5)[None]
    frames[0, 3:] = np.nan
    assert transducer_beam_search(frames, torch.tensor([3]), model, beam=2)
    assert transducer_greedy(frames, torch.tensor([3]), model)


def test_the_compiled_engine_is_used_where_it_can_be() -> None:
    assert engines.is_compiled(torch.zeros(1)), "these tests compare it with the plain one"


# ---- the greedy path -----------------------------------------------------------------------------


def greedy_by_hand(frames: Tensor, model: LstmModel, limit: int) -> list[int]:
    tokens: list[int] = []
    for frame in frames:
        for _ in range(limit):
            row = model.log_probs(frame[None], model.columns(tuple(tokens))[-1:])[0]
            best = int(row.argmax())
            if best == model.blank:
                break
            tokens.append(best)
    return tokens


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["sum", "tanh"])
@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("limit", [1, 3])
def test_greedy_takes_the_best_output_each_time(
    engine: str, kind: str, blank: int, limit: int
) -> None:
    for seed in range(4):
        model = LstmModel(kind, engine=engine, blank=blank, seed=seed)
        frames = model.frames(25, seed=seed)
        (got,) = transducer_greedy(
            frames[None], torch.tensor([25]), model, blank=blank, max_tokens_per_frame=limit
        )
        assert got == greedy_by_hand(frames, model, limit)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["sum", "tanh"])
@pytest.mark.parametrize("seed", range(4))
def test_greedy_of_a_batch_is_that_of_each_alone(engine: str, kind: str, seed: int) -> None:
    model = LstmModel(kind, engine=engine, scale=1.5, bonus=0.5, seed=seed)
    lengths = [18, 1, 14, 3, 0]
    frames = torch.stack([2.0 * model.frames(18, seed=n) for n in range(len(lengths))])
    batch = transducer_greedy(frames, torch.tensor(lengths), model)
    for n, length in enumerate(lengths):
        alone = transducer_greedy(frames[n : n + 1, :length], torch.tensor([length]), model)
        assert batch[n] == alone[0]
    assert len(set(map(tuple, batch))) > 1


@pytest.mark.parametrize("engine", ENGINES)
def test_greedy_ends_on_a_model_that_never_says_blank(engine: str) -> None:
    model = LstmModel("sum", engine=engine, bonus=-1e3)
    (tokens,) = transducer_greedy(
        model.frames(3)[None], torch.tensor([3]), model, max_tokens_per_frame=4
    )
    assert len(tokens) == 12
    assert model.blank not in tokens
