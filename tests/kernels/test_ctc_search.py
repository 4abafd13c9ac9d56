"""CTC searches against all paths."""

import itertools
from collections import defaultdict

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.kernels.ctc_search import ctc_beam_search, ctc_greedy
from pipeline.kernels.transducer_search import Hypothesis

torch.set_num_threads(1)

Prefix = tuple[int, ...]


def random_log_probs(frames: int, vocab: int, seed: int, sharpness: float = 1.5) -> np.ndarray:
    logits = sharpness * np.random.default_rng(seed).standard_normal((frames, vocab))
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def collapse(path: Prefix, blank: int) -> Prefix:
    """Merge repeats, then remove blanks."""
    return tuple(k for k, _ in itertools.groupby(path) if k != blank)


def by_brute_force(log_probs: np.ndarray, blank: int) -> dict[Prefix, float]:
    totals: dict[Prefix, float] = defaultdict(float)
    frames, vocab = log_probs.shape
    for path in itertools.product(range(vocab), repeat=frames):
        totals[collapse(path, blank)] += np.exp(log_probs[np.arange(frames), list(path)].sum())
    return dict(totals)


@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_wide_beam_is_the_sum_over_all_paths(frames: int, blank: int) -> None:
    log_probs = random_log_probs(frames, 3, seed=frames)
    expected = by_brute_force(log_probs, blank)
    hyps = ctc_beam_search(log_probs, width=1000, blank=blank)
    assert {h.tokens for h in hyps} == set(expected)
    for hyp in hyps:
        assert np.exp(hyp.log_prob) == pytest.approx(expected[hyp.tokens], rel=1e-10)
    assert [h.log_prob for h in hyps] == sorted((h.log_prob for h in hyps), reverse=True)


@pytest.mark.parametrize("labels", [[1, 2], [1, 1], [3, 3, 3], []], ids=str)
def test_a_wide_beam_agrees_with_the_ctc_loss(labels: list[int]) -> None:
    log_probs = random_log_probs(6, 4, seed=7)
    found = {h.tokens: h.log_prob for h in ctc_beam_search(log_probs, width=5000)}
    loss = torch.nn.functional.ctc_loss(
        torch.tensor(log_probs)[:, None],
        torch.tensor([labels], dtype=torch.int64),
        torch.tensor([6]),
        torch.tensor([len(labels)]),
        reduction="none",
    )
    assert found[tuple(labels)] == pytest.approx(-loss.item(), rel=1e-10)


def plain_beam_search(log_probs: np.ndarray, width: int, blank: int) -> dict[Prefix, float]:
    """The same search with dictionaries and probabilities."""
    beam: dict[Prefix, tuple[float, float]] = {(): (1.0, 0.0)}
    for row in np.exp(log_probs):
        new: dict[Prefix, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for y, (ends_blank, ends_label) in beam.items():
            new[y][0] += (ends_blank + ends_label) * row[blank]
            for k, p in enumerate(row):
                if k == blank:
                    continue
                if y and k == y[-1]:
                    new[y][1] += ends_label * p
                    new[*y, k][1] += ends_blank * p
                else:
                    new[*y, k][1] += (ends_blank + ends_label) * p
        kept = sorted(new.items(), key=lambda item: -sum(item[1]))[:width]
        beam = {y: (blank_, label) for y, (blank_, label) in kept if blank_ + label > 0.0}
    return {y: sum(p) for y, p in beam.items()}


@pytest.mark.parametrize("width", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("seed", range(5))
def test_a_narrow_beam_is_the_plain_search(width: int, seed: int) -> None:
    log_probs = random_log_probs(12, 5, seed=seed)
    expected = plain_beam_search(log_probs, width, blank=seed % 3)
    hyps = ctc_beam_search(log_probs, width=width, blank=seed % 3)
    assert [h.tokens for h in hyps] == list(expected)
    np.testing.assert_allclose(
        [h.log_prob for h in hyps], np.log(list(expected.values())), rtol=1e-10
    )


def test_paths_are_summed_where_the_best_path_would_lose() -> None:
    """Pr(∅) = 0.6, Pr(a) = 0.4 twice: the best path is empty (0.36), the best answer a (0.64)."""
    log_probs = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert ctc_greedy(torch.tensor(log_probs)[None], torch.tensor([2])) == [[]]
    best, second = ctc_beam_search(log_probs, width=5)
    assert best.tokens == (1,)
    assert np.exp(best.log_prob) == pytest.approx(0.64)
    assert second.tokens == ()
    assert np.exp(second.log_prob) == pytest.approx(0.36)


def test_a_repeated_label_needs_a_blank_between() -> None:
    with np.errstate(divide="ignore"):
        certain = np.log(np.eye(3)[[1, 1, 0, 1, 2]])
    assert ctc_beam_search(certain, width=4) == [Hypothesis((1, 1, 2), 0.0)]


def test_no_frames_no_tokens() -> None:
    assert ctc_beam_search(np.zeros((0, 3)), width=4) == [Hypothesis((), 0.0)]
    assert ctc_greedy(torch.zeros(2, 1, 3), torch.tensor([0, 1])) == [[], []]


def one_hot(paths: list[list[int]], vocab: int = 4) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(paths), vocab).float().log()


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
    assert list(collapse(tuple(path[:length]), blank)) == expected


def test_greedy_of_a_ragged_batch_is_that_of_each_alone() -> None:
    lengths = [7, 2, 5]
    rows = torch.stack([torch.tensor(random_log_probs(7, 4, seed=n)) for n in range(3)])
    batch = ctc_greedy(rows, torch.tensor(lengths))
    for n, length in enumerate(lengths):
        alone = ctc_greedy(rows[n : n + 1, :length], torch.tensor([length]))
        path = tuple(rows[n, :length].argmax(dim=1).tolist())
        assert batch[n] == alone[0] == list(collapse(path, 0))
