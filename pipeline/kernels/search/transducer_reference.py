"""Algorithm 1 of [G12] line by line, and the search over all strings, with dictionaries in float64.

A model is a function: ``log_probs(y, t)`` gives log Pr(k|y, t) of every k, (V,), for a prefix y and
a frame t from 0.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.search.fusion import NO_FUSION, Fusion
from pipeline.kernels.search.hypotheses import Hypothesis

Prefix = tuple[int, ...]
Row = NDArray[np.float64]
LogProbs = Callable[[Prefix, int], Row]


def transducer_beam_search(
    log_probs: LogProbs,
    num_frames: int,
    *,
    beam: int,
    blank: int = 0,
    length_normalise: bool = False,
    max_tokens_per_frame: int = 10,
    fusion: Fusion = NO_FUSION,
) -> list[Hypothesis]:
    """See `pipeline.kernels.search.transducer`; every probability as its logarithm.

    The variables are the paper's. What is not on its page: hypotheses of probability 0 are none;
    at most ``max_tokens_per_frame`` labels follow one another within a frame; ties are broken.
    """
    pr = _Fused(log_probs, fusion, blank)
    labels = [k for k in range(pr.num_tokens) if k != blank]
    b: dict[Prefix, float] = {(): 0.0}  # Initialise: B = {∅}; Pr(∅) = 1
    for t in range(num_frames):
        before, a, b = b, {}, {}  # A = B; B = {}
        for y in sorted(before, key=len):
            # Pr(y) += Σ_{ŷ ∈ pref(y) ∩ A} Pr(ŷ) Pr(y|ŷ, t)
            paths = [before[ŷ] + pr.extension(y, ŷ, t) for ŷ in _prefixes(y) if ŷ in before]
            a[y] = float(np.logaddexp.reduce([before[y], *paths]))
        emitted = dict.fromkeys(a, 0)
        while a and sum(p > max(a.values()) for p in b.values()) < beam:
            y = min(a, key=lambda y: _rank(a[y], y))  # most probable in A
            p = a.pop(y)  # Remove y* from A
            row = pr(y, t)
            if p + row[blank] > -np.inf:
                b[y] = p + row[blank]  # Pr(y*) = Pr(y*) Pr(∅|y*, t); add y* to B
            for k in labels:
                longer = (*y, k)
                # A prefix that A began with holds this path already, by the sum above.
                if longer not in before and emitted[y] < max_tokens_per_frame:
                    emitted[longer] = emitted[y] + 1
                    if p + row[k] > -np.inf:
                        a[longer] = p + row[k]  # Pr(y* + k) = Pr(y*) Pr(k|y*, t); add to A
        # Remove all but the W most probable from B
        b = dict(sorted(b.items(), key=lambda item: _rank(item[1], item[0]))[:beam])
    return pr.hypotheses(b, length_normalise)


def exhaustive_search(
    log_probs: LogProbs,
    num_frames: int,
    *,
    max_tokens: int,
    blank: int = 0,
    length_normalise: bool = False,
    fusion: Fusion = NO_FUSION,
) -> list[Hypothesis]:
    """Every string of at most ``max_tokens`` labels with its exact log Pr(y|x), best first."""
    pr = _Fused(log_probs, fusion, blank)
    found = {}
    for y in _strings([k for k in range(pr.num_tokens) if k != blank], max_tokens):
        p = _forward(pr, y, num_frames, blank)
        if p > -np.inf:
            found[y] = p
    return pr.hypotheses(found, length_normalise)


def _forward(pr: "_Fused", y: Prefix, num_frames: int, blank: int) -> float:
    """log Pr(y|x), [G12] eq. 16 and 17; without frames only the empty string is possible."""
    alpha = np.full(len(y) + 1, -np.inf)
    alpha[0] = 0.0
    if not num_frames:
        return float(alpha[-1])
    for t in range(num_frames):
        for u in range(len(y)):
            alpha[u + 1] = np.logaddexp(alpha[u + 1], alpha[u] + pr(y[:u], t)[y[u]])
        alpha = alpha + [pr(y[:u], t)[blank] for u in range(len(y) + 1)]
    return float(alpha[-1])


class _Fused:
    """log Pr(k|y, t), and for labels what a language model and the bonus add."""

    def __init__(self, log_probs: LogProbs, fusion: Fusion, blank: int) -> None:
        self.log_probs, self.blank = log_probs, blank
        self.num_tokens = len(log_probs((), 0))
        self.tables = fusion.tables(self.num_tokens)
        self.memory: dict[tuple[Prefix, int], Row] = {}

    def __call__(self, y: Prefix, t: int) -> Row:
        if (y, t) not in self.memory:
            row = np.array(self.log_probs(y, t), dtype=np.float64)
            added = self.tables.log_probs[self._states(y)[-1]].copy()
            added[self.blank] = 0.0
            self.memory[y, t] = row + added
        return self.memory[y, t]

    def extension(self, y: Prefix, start: Prefix, t: int) -> float:
        """log Pr(y|ŷ, t) = Σ_u log Pr(y_u|y_1 … y_{u-1}, t)."""
        return float(sum(self(y[:u], t)[y[u]] for u in range(len(start), len(y))))

    def hypotheses(self, b: dict[Prefix, float], length_normalise: bool) -> list[Hypothesis]:
        found = []
        for y, p in b.items():
            states = self._states(y)
            added = sum(self.tables.log_probs[s, k] for s, k in zip(states, y, strict=False))
            fused = float(added + self.tables.final[states[-1]])
            found.append(Hypothesis(y, p - float(added), fused))
        found = [hyp for hyp in found if hyp.score > -np.inf]
        return sorted(
            found, key=lambda h: _rank(h.normalised if length_normalise else h.score, h.tokens)
        )

    def _states(self, y: Prefix) -> list[int]:
        states = [self.tables.start]
        for k in y:
            states.append(int(self.tables.following[states[-1], k]))
        return states


def _rank(score: float, y: Prefix) -> tuple[float, int, Prefix]:
    """The order of hypotheses: by score; ties to the shorter, then to the smaller token ids."""
    return -score, len(y), y


def _prefixes(y: Prefix) -> Iterator[Prefix]:
    return (y[:u] for u in range(len(y)))


def _strings(labels: list[int], longest: int) -> Iterator[Prefix]:
    strings: list[Prefix] = [()]
    for _ in range(longest + 1):
        yield from strings
        strings = [(*y, k) for y in strings for k in labels]
