"""Search with a CTC network: the most probable path, and a beam search over prefixes."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.kernels.transducer_search import Hypothesis

Array = NDArray[np.float64]


def ctc_greedy(log_probs: Tensor, lengths: Tensor, *, blank: int = 0) -> list[list[int]]:
    """The most probable token of each frame, repeats merged, blanks removed.

    Args:
        log_probs: (N, T, V).
        lengths: (N,) frames.
        blank: id of ∅.

    Returns:
        Token ids of each utterance.
    """
    hyps = []
    for path, length in zip(log_probs.argmax(dim=-1).tolist(), lengths.tolist(), strict=True):
        before = [blank, *path][:length]
        hyps.append(
            [k for k, last in zip(path[:length], before, strict=True) if k not in (blank, last)]
        )
    return hyps


def ctc_beam_search(log_probs: Array, *, width: int, blank: int = 0) -> list[Hypothesis]:
    """Beam search over label prefixes; paths that spell the same prefix are summed.

    Args:
        log_probs: log Pr(k|t), (T, V).
        width: prefixes kept after each frame.
        blank: id of ∅.

    Returns:
        At most ``width`` hypotheses, best first, with the summed log-probability of their paths.
    """
    tree = _Prefixes()
    nodes = [0]
    ends_blank, ends_label = np.array([0.0]), np.array([-np.inf])
    for row in np.asarray(log_probs, dtype=np.float64):
        nodes, ends_blank, ends_label = _advance(
            tree, nodes, ends_blank, ends_label, row, width, blank
        )
    totals = np.logaddexp(ends_blank, ends_label)
    order = np.argsort(-totals, kind="stable")
    return [Hypothesis(tree.tokens(nodes[i]), float(totals[i])) for i in order]


class _Prefixes:
    """Label prefixes as a tree of numbers; 0 is the empty one."""

    def __init__(self) -> None:
        self.parents, self.labels = [-1], [-1]
        self.children: dict[tuple[int, int], int] = {}

    def child(self, node: int, label: int) -> int:
        key = (node, label)
        if key not in self.children:
            self.children[key] = len(self.parents)
            self.parents.append(node)
            self.labels.append(label)
        return self.children[key]

    def tokens(self, node: int) -> tuple[int, ...]:
        out = []
        while node:
            out.append(self.labels[node])
            node = self.parents[node]
        return tuple(reversed(out))


def _advance(
    tree: _Prefixes,
    nodes: list[int],
    ends_blank: Array,
    ends_label: Array,
    row: Array,
    width: int,
    blank: int,
) -> tuple[list[int], Array, Array]:
    """One frame: every prefix stays (by a blank, or by its last label again) or grows by one."""
    totals = np.logaddexp(ends_blank, ends_label)
    last = np.array([tree.labels[node] for node in nodes])
    grown = totals[:, None] + row[None, :]  # (B, V)
    repeats = np.flatnonzero(last >= 0)
    # After its own last label a prefix grows only across a blank.
    grown[repeats, last[repeats]] = ends_blank[repeats] + row[last[repeats]]
    grown[:, blank] = -np.inf
    stay_blank = totals + row[blank]
    stay_label = np.full_like(totals, -np.inf)
    stay_label[repeats] = ends_label[repeats] + row[last[repeats]]
    position = {node: i for i, node in enumerate(nodes)}
    for i, node in enumerate(nodes):  # growth into a prefix that is in the beam is merged with it
        parent = position.get(tree.parents[node], -1) if node else -1
        if parent >= 0:
            stay_label[i] = np.logaddexp(stay_label[i], grown[parent, last[i]])
            grown[parent, last[i]] = -np.inf
    scores = np.concatenate([np.logaddexp(stay_blank, stay_label), grown.ravel()])
    kept = np.argsort(-scores, kind="stable")[:width]
    kept = kept[scores[kept] > -np.inf]
    new_nodes, new_blank, new_label = [], [], []
    for index in kept.tolist():
        if index < len(nodes):
            new_nodes.append(nodes[index])
            new_blank.append(stay_blank[index])
            new_label.append(stay_label[index])
        else:
            source, label = divmod(index - len(nodes), len(row))
            new_nodes.append(tree.child(nodes[source], label))
            new_blank.append(-np.inf)
            new_label.append(scores[index])
    return new_nodes, np.array(new_blank), np.array(new_label)
