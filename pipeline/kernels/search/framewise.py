"""Search with a frame-wise network: Viterbi over labels of a least duration, with a bigram.

A label lasts ``least`` frames or more. Each of its frames counts with the network's output there,
and its beginning with what the label before makes of it: log P(k|k') of a bigram and a bonus. The
best sequence of labels with its times is found exactly:

    v_t(k, 1) = e_t(k) + max_k' (v_{t-1}(k', D) + a(k', k))
    v_t(k, d) = e_t(k) + v_{t-1}(k, d-1)
    v_t(k, D) = e_t(k) + max (v_{t-1}(k, D), v_{t-1}(k, D-1))

for 1 < d < D, where D is the least duration. An utterance shorter than that is one label.
The reference is `framewise_reference.py`. Engines: compiled for a CPU (`framewise_cpu.py`), and
NumPy (`framewise_plain.py`).
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.kernels.engines import engine

Array = NDArray[np.float64]


class Transitions(NamedTuple):
    """What the beginning and the end of labels add to a score."""

    begins: Array  # (K,) at the beginning of an utterance
    follows: Array  # (K, K) of the column's label after the row's
    ends: Array  # (K,) at the end of an utterance


class Path(NamedTuple):
    """The best labels, from 0, their spans of frames, and the two parts of their score."""

    labels: list[int]
    spans: list[tuple[int, int]]
    emitted: float
    transitions: float


def framewise_viterbi(scores: Array, transitions: Transitions, *, least: int = 1) -> Path:
    """The best path.

    Args:
        scores: e_t(k), (T, K), at least one frame.
        transitions: see there.
        least: D, the least number of frames of a label.

    Returns:
        The path. Of equally good ones that is taken which, read from the end, stays in a label the
        longest, and then the one whose labels are smaller.

    Raises:
        ValueError: shapes that do not fit, NaN, or no path that is possible.
    """
    frames, count = scores.shape
    wanted = {"begins": (count,), "follows": (count, count), "ends": (count,)}
    for name, shape in wanted.items():
        if (found := getattr(transitions, name).shape) != shape:
            raise ValueError(f"{name} are {found}, not {shape}")
    if frames < 1 or least < 1:
        raise ValueError("a search needs a frame, and labels at least one")
    if np.isnan(scores).any():
        raise ValueError(f"scores of frame {int(np.isnan(scores).any(axis=1).argmax())} are NaN")
    matrix = np.ascontiguousarray(scores, dtype=np.float64)
    tables = Transitions(*(np.ascontiguousarray(x, dtype=np.float64) for x in transitions))
    least = min(least, frames)
    kernels = engine("framewise_search", torch.from_numpy(matrix))
    last, came, stayed = kernels.viterbi(matrix, tables, least)
    best = last + tables.ends
    label = int(best.argmax())
    if not best[label] > -np.inf:
        raise ValueError("no sequence of labels is possible; are the model's weights finite?")
    return _traced(matrix, tables, label, came, stayed, least)


def _traced(
    scores: Array,
    tables: Transitions,
    label: int,
    came: NDArray[np.int64],
    stayed: NDArray[np.int64],
    least: int,
) -> Path:
    """The path that ends in a label, by where each label came from and whether it stayed."""
    end, labels, spans = len(scores), [], []
    while end > 0:
        t = end - 1
        while stayed[t, label]:
            t -= 1
        begin = t - least + 1
        labels.append(label)
        spans.append((begin, end))
        end, label = begin, int(came[begin, label])
    labels.reverse()
    spans.reverse()
    emitted = sum(float(scores[b:e, k].sum()) for k, (b, e) in zip(labels, spans, strict=True))
    added = tables.begins[labels[0]] + tables.ends[labels[-1]]
    added += tables.follows[labels[:-1], labels[1:]].sum()
    return Path(labels, spans, emitted, float(added))
