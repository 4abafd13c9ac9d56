"""The most probable alignment against all alignments."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.kernels.search.model import State
from pipeline.kernels.transducer.align import best_alignment, transducer_align


def by_brute_force(null: np.ndarray, label: np.ndarray) -> tuple[float, list[int]]:
    """Every way to emit U labels at frames that do not go back."""
    frames, width = null.shape
    best, found = -np.inf, []
    for times in itertools.combinations_with_replacement(range(frames), width - 1):
        counts = [sum(t < frame + 1 for t in times) for frame in range(frames)]
        total = sum(null[t, counts[t]] for t in range(frames))
        total += sum(label[t, u] for u, t in enumerate(times))
        if total > best:
            best, found = total, list(times)
    return best, found


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("labels", [0, 1, 2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_best_of_all_alignments(frames: int, labels: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    null = np.log(random.random((frames, labels + 1)))
    label = np.log(random.random((frames, labels)))
    assert best_alignment(null, label) == by_brute_force(null, label)[1]


def test_of_two_alike_labels_come_later() -> None:
    assert best_alignment(np.zeros((4, 3)), np.zeros((4, 2))) == [3, 3]


def test_an_impossible_string_is_refused() -> None:
    with pytest.raises(ValueError, match="no alignment"):
        best_alignment(np.zeros((3, 2)), np.full((3, 1), -np.inf))


class Counting:
    """A predictor that counts tokens; label 1 is likely where the frame says so."""

    def start(self, count: int) -> tuple[State, Tensor]:
        zeros = torch.zeros(count, 1)
        return State(zeros, zeros), zeros

    def step(self, state: State, tokens: Tensor) -> tuple[State, Tensor]:
        return State(state.h + 1, state.c), state.h + 1

    def log_probs(self, frames: Tensor, projected: Tensor) -> Tensor:
        wanted = (frames == projected).float()  # the u-th label belongs to the frame marked u
        return torch.cat([1 - wanted, 2 * wanted], dim=1).log_softmax(dim=-1)


def test_frames_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = [-1.0, 0.0, -1.0, -1.0, 1.0, 2.0, -1.0]
    frames = torch.tensor(marks)[:, None]
    assert transducer_align(frames, Counting(), [1, 1, 1]) == [1, 4, 5]
    monkeypatch.setattr("pipeline.kernels.transducer.align.CELLS", 5)
    assert transducer_align(frames, Counting(), [1, 1, 1]) == [1, 4, 5]
    assert transducer_align(frames, Counting(), []) == []
