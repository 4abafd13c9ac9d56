"""The Viterbi search of a frame-wise network in NumPy; see `framewise.py`."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Longs = NDArray[np.int64]


def viterbi(
    scores: Array, transitions: tuple[Array, Array, Array], least: int
) -> tuple[Array, Longs, Longs]:
    """The last scores and the way to them.

    Args:
        scores: (T, K), least ≤ T.
        transitions: what begins, follows and ends, (K,), (K, K), (K,).
        least: D.

    Returns:
        v_T(k, D), (K,); the label from which each came that begins at a frame, (T, K), -1 at the
        first frame; whether a label in its last state D was there at the frame before, (T, K).
    """
    begins, follows, _ = transitions
    frames, count = scores.shape
    came = np.full((frames, count), -1)
    stayed = np.zeros((frames, count), np.int64)
    values = np.full((least, count), -np.inf)  # of the states 1 … D
    values[0] = scores[0] + begins
    for t in range(1, frames):
        before = values.copy()
        reached = before[-1][:, None] + follows
        came[t] = reached.argmax(axis=0)
        entered = reached.max(axis=0)
        values[1:] = before[:-1]
        values[0] = entered
        stays = before[-1] >= values[-1]
        values[-1] = np.where(stays, before[-1], values[-1])
        stayed[t] = stays & (before[-1] > -np.inf)
        values += scores[t]
    return values[-1], came, stayed
