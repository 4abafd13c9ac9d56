"""The search of a frame-wise network as `framewise.py` states it, one state at a time."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Paths = dict[tuple[int, int], tuple[float, tuple[int, ...]]]  # to label and state


def viterbi(
    scores: Array, begins: Array, follows: Array, ends: Array, least: int
) -> tuple[float, list[int]]:
    """The score of the best path, and its labels.

    Args:
        scores: e_t(k), (T, K).
        begins: (K,).
        follows: a(k', k), (K, K).
        ends: (K,).
        least: D; D ≤ T.
    """
    frames, count = scores.shape
    paths: Paths = {(k, 1): (scores[0, k] + begins[k], (k,)) for k in range(count)}
    for t in range(1, frames):
        ways: list[tuple[tuple[int, int], float, tuple[int, ...]]] = []  # to label and state
        for (k, d), (score, labels) in paths.items():
            ways.append(((k, min(d + 1, least)), score, labels))
            if d == least:
                for j in range(count):
                    ways.append(((j, 1), score + follows[k, j], (*labels, j)))
        paths = {}
        for (k, d), score, labels in ways:
            value = score + scores[t, k]
            if (k, d) not in paths or value > paths[k, d][0]:
                paths[k, d] = value, labels
    complete = [
        (score + ends[k], labels) for (k, d), (score, labels) in paths.items() if d == least
    ]
    score, labels = max(complete)
    return float(score), list(labels)
