"""Algorithm 1 of [G12], against the same read line by line, and the greedy path."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.kernels.transducer_loss import transducer_loss
from pipeline.kernels.transducer_search import (
    Hypothesis,
    State,
    transducer_beam_search,
    transducer_greedy,
)

torch.set_num_threads(1)

Prefix = tuple[int, ...]


class TinyModel:
    """A plain recurrent predictor with either joiner, in float64; counts its steps."""

    def __init__(
        self,
        kind: str,
        *,
        vocab: int = 4,
        blank: int = 0,
        scale: float = 1.0,
        bonus: float = 0.0,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return scale * torch.randn(shape, generator=generator, dtype=torch.float64)

        self.kind, self.vocab, self.blank = kind, vocab, blank
        self.cells, self.joint = 3, vocab if kind == "sum" else 5
        self.embedding, self.recurrent = draw(vocab, self.cells), draw(self.cells, self.cells)
        self.projection, self.output = draw(self.cells, self.joint), draw(self.joint, vocab)
        self.bonus = torch.zeros(vocab, dtype=torch.float64)  # how much the blank is preferred
        self.bonus[blank] = bonus
        self.steps = 0

    def frames(self, count: int, seed: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, self.joint, generator=generator, dtype=torch.float64)

    def start(self, count: int) -> tuple[State, Tensor]:
        h = torch.full((count, self.cells), 0.3, dtype=torch.float64)
        return State(h, torch.zeros_like(h)), h @ self.projection

    def step(self, state: State, tokens: Tensor) -> tuple[State, Tensor]:
        self.steps += len(tokens)
        # c counts the tokens, so that a search that forgets it gives other numbers.
        c = state.c + 1.0
        h = torch.tanh(state.h @ self.recurrent + self.embedding[tokens] + 0.1 * c)
        return State(h, c), h @ self.projection

    def logits(self, frames: Tensor, projected: Tensor) -> Tensor:
        both = frames + projected
        return self.bonus + (both if self.kind == "sum" else torch.tanh(both) @ self.output)

    def log_probs(self, frames: Tensor, projected: Tensor) -> Tensor:
        return self.logits(frames, projected).log_softmax(dim=-1)

    def columns(self, prefix: Prefix) -> Tensor:
        """The predictor's projections along a prefix, (U+1, J), from the start."""
        state, projected = self.start(1)
        rows = [projected]
        for token in prefix:
            state, projected = self.step(state, torch.tensor([token]))
            rows.append(projected)
        return torch.cat(rows)

    def log_prob(self, frames: Tensor, prefix: Prefix) -> float:
        """log Pr(y|x), exactly."""
        lattice = self.logits(frames[None, :, None, :], self.columns(prefix)[None, None])
        loss = transducer_loss(
            lattice,
            torch.tensor([prefix], dtype=torch.int64).view(1, -1),
            torch.tensor([len(frames)]),
            torch.tensor([len(prefix)]),
            blank=self.blank,
        )
        return -loss.item()


def algorithm_1(frames: Tensor, model: TinyModel, width: int) -> dict[Prefix, float]:
    """[G12] Algorithm 1 with probabilities; the prefix sum over all pairs, as it is printed."""
    memory: dict[tuple[Prefix, int], np.ndarray] = {}

    def pr(y: Prefix, t: int) -> np.ndarray:
        if (y, t) not in memory:
            row = model.log_probs(frames[t : t + 1], model.columns(y)[-1:])
            memory[y, t] = row[0].exp().numpy()
        return memory[y, t]

    def extension(y: Prefix, start: Prefix, t: int) -> float:
        """Pr(y|ŷ, t)."""
        return float(np.prod([pr(y[:u], t)[y[u]] for u in range(len(start), len(y))]))

    labels = [k for k in range(model.vocab) if k != model.blank]
    b: dict[Prefix, float] = {(): 1.0}
    for t in range(len(frames)):
        before = b
        a = {
            y: before[y]
            + sum(before[p] * extension(y, p, t) for p in before if p == y[: len(p)] and p != y)
            for y in before
        }
        b = {}
        while sum(p > max(a.values()) for p in b.values()) < width:
            best = max(a, key=a.__getitem__)
            p = a.pop(best)
            b[best] = p * pr(best, t)[model.blank]
            for k in labels:
                if (*best, k) not in before:
                    a[*best, k] = p * pr(best, t)[k]
        b = dict(sorted(b.items(), key=lambda item: -item[1])[:width])
    return b


@pytest.mark.parametrize("kind", ["sum", "tanh"])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_algorithm_1(kind: str, width: int, seed: int) -> None:
    model = TinyModel(kind, blank=seed % 3, bonus=1.0, seed=seed)
    frames = model.frames(6, seed=10 + seed)
    expected = algorithm_1(frames, model, width)
    hyps = transducer_beam_search(frames, model, width=width, blank=model.blank)
    assert [h.tokens for h in hyps] == list(expected)
    np.testing.assert_allclose(
        [h.log_prob for h in hyps], np.log(list(expected.values())), rtol=1e-9
    )


@pytest.mark.parametrize("kind", ["sum", "tanh"])
def test_a_wide_beam_finds_the_exact_probabilities(kind: str) -> None:
    """All paths of a hypothesis are summed; what is missing is the mass of what was pruned."""
    model = TinyModel(kind, vocab=3, scale=0.7, bonus=3.0)
    frames = model.frames(3)
    hyps = transducer_beam_search(frames, model, width=400)
    found = np.array([np.exp(h.log_prob) for h in hyps])
    exact = np.array([np.exp(model.log_prob(frames, h.tokens)) for h in hyps])
    missing = 1.0 - found.sum()
    assert len(hyps) == 400
    assert 0.0 < missing < 1e-3
    assert (found <= exact * (1 + 1e-9)).all()
    assert (exact - found <= missing).all()
    np.testing.assert_allclose(found[:20], exact[:20], rtol=1e-3)
    assert len({h.tokens for h in hyps}) == 400


def test_the_prefix_sum_counts_paths_that_only_meet_later() -> None:
    """One label; y may come from the empty sequence at either frame: both paths are summed."""
    model = TinyModel("sum", vocab=2)
    frames = model.frames(2)
    hyps = {h.tokens: h.log_prob for h in transducer_beam_search(frames, model, width=8)}
    for tokens in [(), (1,), (1, 1)]:
        assert hyps[tokens] == pytest.approx(model.log_prob(frames, tokens), rel=1e-9)


def test_hypotheses_come_best_first_by_probability_or_by_length() -> None:
    model = TinyModel("tanh", seed=3)
    frames = model.frames(6)
    plain = transducer_beam_search(frames, model, width=6)
    by_length = transducer_beam_search(frames, model, width=6, length_normalise=True)
    assert [h.log_prob for h in plain] == sorted((h.log_prob for h in plain), reverse=True)
    scores = [h.log_prob / max(1, len(h.tokens)) for h in by_length]
    assert [h.normalised for h in by_length] == scores == sorted(scores, reverse=True)
    assert set(plain) == set(by_length)
    assert plain != by_length


def test_the_empty_hypothesis_has_a_score() -> None:
    assert Hypothesis((), -3.0).normalised == -3.0
    assert Hypothesis((1, 1), -3.0).normalised == -1.5


def test_no_frames_no_tokens() -> None:
    model = TinyModel("sum")
    assert transducer_beam_search(model.frames(0), model, width=3) == [Hypothesis((), 0.0)]


@pytest.mark.parametrize("kind", ["sum", "tanh"])
def test_it_ends_soon_on_an_untrained_model(kind: str) -> None:
    model = TinyModel(kind, vocab=10, scale=0.1)
    frames = 0.1 * model.frames(20)
    hyps = transducer_beam_search(frames, model, width=4)
    assert len(hyps) == 4
    assert model.steps < 20 * 4 * 10


def test_a_prefix_is_read_by_the_predictor_once() -> None:
    """States are kept for the whole utterance, [G12] 2.6."""
    model = TinyModel("sum", seed=2)
    frames = model.frames(8)
    seen: list[tuple[float, ...]] = []
    step = model.step

    def counting(state: State, tokens: Tensor) -> tuple[State, Tensor]:
        seen.append((*state.h[0].tolist(), int(tokens[0])))
        return step(state, tokens)

    model.step = counting  # type: ignore[method-assign]
    transducer_beam_search(frames, model, width=5)
    assert len(seen) == len(set(seen)) > 5


def greedy_by_hand(frames: Tensor, model: TinyModel, limit: int) -> list[int]:
    tokens: list[int] = []
    for frame in frames:
        for _ in range(limit):
            row = model.log_probs(frame[None], model.columns(tuple(tokens))[-1:])[0]
            best = int(row.argmax())
            if best == model.blank:
                break
            tokens.append(best)
    return tokens


@pytest.mark.parametrize("kind", ["sum", "tanh"])
@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("limit", [1, 3])
def test_greedy_takes_the_best_output_each_time(kind: str, blank: int, limit: int) -> None:
    for seed in range(4):
        model = TinyModel(kind, blank=blank, seed=seed)
        frames = model.frames(7, seed=seed)
        (got,) = transducer_greedy(
            frames[None], torch.tensor([7]), model, blank=blank, max_tokens_per_frame=limit
        )
        assert got == greedy_by_hand(frames, model, limit)


@pytest.mark.parametrize("kind", ["sum", "tanh"])
@pytest.mark.parametrize("seed", range(4))
def test_greedy_of_a_batch_is_that_of_each_alone(kind: str, seed: int) -> None:
    model = TinyModel(kind, scale=1.5, bonus=0.5, seed=seed)
    lengths = [8, 1, 4, 3, 8]
    frames = torch.stack([2.0 * model.frames(8, seed=n) for n in range(len(lengths))])
    batch = transducer_greedy(frames, torch.tensor(lengths), model)
    for n, length in enumerate(lengths):
        alone = transducer_greedy(frames[n : n + 1, :length], torch.tensor([length]), model)
        assert batch[n] == alone[0]
    assert len(set(map(tuple, batch))) > 1


def test_greedy_ends_on_a_model_that_never_says_blank() -> None:
    model = TinyModel("sum", bonus=-1e3)
    (tokens,) = transducer_greedy(
        model.frames(3)[None], torch.tensor([3]), model, max_tokens_per_frame=4
    )
    assert len(tokens) == 12
    assert model.blank not in tokens
