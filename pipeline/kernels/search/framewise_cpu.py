"""The Viterbi search of a frame-wise network, compiled for a CPU; see `framewise.py`."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.kernels.compiler.compiling import Doubles, Longs, kernel

Array = NDArray[np.float64]

NEVER = -np.inf


@kernel
def _viterbi(
    scores: Doubles, begins: Doubles, follows: Doubles, values: Doubles, came: Longs,
    stayed: Longs, frames: int, count: int, least: int,
) -> None:  # fmt: skip
    """``values`` (2, D, K) are those of two frames, which take turns; ``came`` starts as -1."""
    size = least * count
    for k in range(size):
        values[k] = NEVER
    for k in range(count):
        values[k] = scores[k] + begins[k]
    for t in range(1, frames):
        before, now, row = ((t - 1) % 2) * size, (t % 2) * size, t * count
        last = before + size - count
        for d in range(1, least):
            for k in range(count):
                values[now + d * count + k] = values[before + (d - 1) * count + k]
        for k in range(count):
            values[now + k] = NEVER
            came[row + k] = 0
        for j in range(count):
            value, at = values[last + j], j * count
            for k in range(count):
                reached = value + follows[at + k]
                if reached > values[now + k]:
                    values[now + k] = reached
                    came[row + k] = j
        for k in range(count):
            at, value = now + size - count + k, values[last + k]
            if value > NEVER and value >= values[at]:
                values[at] = value
                stayed[row + k] = 1
        for d in range(least):
            for k in range(count):
                values[now + d * count + k] += scores[row + k]


def viterbi(
    scores: Array, transitions: tuple[Array, Array, Array], least: int
) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """See `framewise_plain.viterbi`."""
    (frames, count), (begins, follows, _) = scores.shape, transitions
    values: Tensor = torch.empty(2, least, count, dtype=torch.float64)
    came = torch.full((frames, count), -1)
    stayed = torch.zeros(frames, count, dtype=torch.int64)
    given = (torch.from_numpy(x) for x in (scores, begins, follows))
    _viterbi[torch.float64](*given, values, came, stayed, frames, count, least)
    return values[(frames - 1) % 2, -1].numpy(), came.numpy(), stayed.numpy()
