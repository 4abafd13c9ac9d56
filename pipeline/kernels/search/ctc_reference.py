"""CTC's searches as they are described, in loops: the reference of `ctc.py`.

The sources are named there. Probabilities are taken over the greatest of their frame, which changes
no order among strings, and makes those of the most probable labels exact.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from pipeline.kernels.ctc.reference import ctc_loss
from pipeline.kernels.search.fusion import NO_FUSION, Fusion
from pipeline.kernels.search.hypotheses import Hypothesis

Prefix = tuple[int, ...]
LN2 = math.log(2.0)


class Probability(NamedTuple):
    """A float64 with an exponent of any size: nothing underflows, all else is as in float64."""

    mantissa: float = 0.0
    exponent: int = 0

    @classmethod
    def of_log(cls, x: float) -> "Probability":
        """e^x."""
        if x == -math.inf:
            return cls()
        exponent = math.floor(x / LN2)
        return cls._normal(math.exp(x - exponent * LN2), exponent)

    @classmethod
    def _normal(cls, mantissa: float, exponent: int) -> "Probability":
        mantissa, shift = math.frexp(mantissa)
        return cls(mantissa, exponent + shift)

    def times(self, other: "Probability") -> "Probability":
        """The product."""
        return self._normal(self.mantissa * other.mantissa, self.exponent + other.exponent)

    def plus(self, other: "Probability") -> "Probability":
        """The sum."""
        if self.mantissa == 0.0 or other.mantissa == 0.0:
            return self if other.mantissa == 0.0 else other
        top = max(self.exponent, other.exponent)
        a, b = (math.ldexp(x.mantissa, max(x.exponent - top, -1000)) for x in (self, other))
        return self._normal(a + b, top)

    def log(self) -> float:
        """Natural logarithm."""
        return math.log(self.mantissa) + self.exponent * LN2 if self.mantissa else -math.inf


IMPOSSIBLE, CERTAIN = Probability(), Probability(0.5, 1)


class Paths(NamedTuple):
    """All paths of a prefix that were found."""

    end_in_blank: Probability = IMPOSSIBLE
    end_in_label: Probability = IMPOSSIBLE

    @property
    def total(self) -> Probability:
        """Both."""
        return self.end_in_blank.plus(self.end_in_label)


# ---- beam search ---------------------------------------------------------------------------------


def beam_search(
    log_probs: np.ndarray,
    beam: int,
    blank: int = 0,
    fusion: Fusion = NO_FUSION,
    length_normalise: bool = False,
) -> list[Hypothesis]:
    """See `ctc.ctc_beam_search`."""
    model = fusion.tables(log_probs.shape[1])
    tops = log_probs.max(axis=1)
    if -np.inf in tops:
        return []

    @cache
    def fused(y: Prefix) -> tuple[float, int]:
        if not y:
            return 0.0, model.start
        share, state = fused(y[:-1])
        return share + float(model.log_probs[state, y[-1]]), int(model.following[state, y[-1]])

    kept: dict[Prefix, Paths] = {(): Paths(end_in_blank=CERTAIN)}
    for row in log_probs - tops[:, None]:
        found = _one_frame(kept, [Probability.of_log(x) for x in row.tolist()], blank)
        scores = {y: paths.total.log() + fused(y)[0] for y, paths in found.items()}
        best = sorted(found, key=lambda y: (-scores[y], len(y), y))[:beam]
        kept = {y: found[y] for y in best if scores[y] > -math.inf}
    hypotheses = []
    for y, paths in kept.items():
        share, state = fused(y)
        log_prob = paths.total.log() + math.fsum(tops)
        hypotheses.append(Hypothesis(y, log_prob, share + float(model.final[state])))
    hypotheses = [h for h in hypotheses if h.score > -math.inf]
    if length_normalise:
        return sorted(hypotheses, key=lambda h: (-h.normalised, len(h.tokens), h.tokens))
    return sorted(hypotheses, key=lambda h: (-h.score, len(h.tokens), h.tokens))


def _one_frame(
    beam: dict[Prefix, Paths], row: list[Probability], blank: int
) -> dict[Prefix, Paths]:
    """What the prefixes become in one frame, by every output."""
    found: defaultdict[Prefix, Paths] = defaultdict(Paths)
    for y, paths in beam.items():
        for k, p in enumerate(row):
            if k == blank:
                null = paths.total.times(p)
                found[y] = found[y]._replace(end_in_blank=null)
                continue
            repeats = y[-1:] == (k,)
            if repeats:
                _add(found, y, paths.end_in_label.times(p))
            # After its own last label a prefix grows only across a blank.
            source = paths.end_in_blank if repeats else paths.total
            _add(found, (*y, k), source.times(p))
    return found


def _add(found: defaultdict[Prefix, Paths], y: Prefix, p: Probability) -> None:
    found[y] = found[y]._replace(end_in_label=found[y].end_in_label.plus(p))


# ---- all strings ---------------------------------------------------------------------------------


def all_strings(log_probs: np.ndarray, most: int, blank: int = 0) -> dict[Prefix, float]:
    """log Pr(y|x) of every string y of at most ``most`` labels that is possible, by CTC's sums."""
    labels = [k for k in range(log_probs.shape[1]) if k != blank]
    found = {}
    for length in range(most + 1):
        for y in itertools.product(labels, repeat=length):
            log_prob = -ctc_loss(log_probs, y, blank)[0]
            if log_prob > -math.inf:
                found[y] = log_prob
    return found


# ---- prefix search -------------------------------------------------------------------------------


def prefix_search(log_probs: np.ndarray, blank: int = 0, threshold: float = 0.995) -> Hypothesis:
    """See `ctc.ctc_prefix_search`; without a limit, for possible strings."""
    tokens: Prefix = ()
    log_prob = 0.0
    section: list[np.ndarray] = []
    for row in [*log_probs, None]:
        is_cut = row is None or (threshold < 1.0 and row[blank] > math.log(threshold))
        if row is not None and not is_cut:
            section.append(row)
            continue
        if section:
            found = best_string(np.array(section), blank)
            tokens, log_prob = tokens + found.tokens, log_prob + found.log_prob
            section = []
        if row is not None:
            log_prob += float(row[blank])
    return Hypothesis(tokens, log_prob)


def best_string(log_probs: np.ndarray, blank: int) -> Hypothesis:
    """Prefix search in a section as it is described, with two changes for the sake of ties.

    A prefix is also followed if the strings that begin with it are together only as probable as
    l*, and l* also gives way to a string that is equally probable and comes first.
    """
    tops = log_probs.max(axis=1)
    y = np.exp(log_probs - tops[:, None])
    after = [float(y[t + 1 :].sum(axis=1).prod()) for t in range(len(y))]  # 1 if y is normalised
    frames, labels = len(y), [k for k in range(y.shape[1]) if k != blank]
    # γ(p_n, t) and γ(p_b, t): the prefix at frame t, its last output a label or a blank.
    gamma_n: dict[Prefix, list[float]] = {(): [0.0] * frames}
    gamma_b: dict[Prefix, list[float]] = {(): np.cumprod(y[:, blank]).tolist()}
    best: Prefix = ()  # l*
    ends: dict[Prefix, float] = {(): gamma_b[()][-1]}  # p(p|x)
    goes_on: dict[Prefix, float] = {(): float(np.prod(y.sum(axis=1))) - ends[()]}  # p(p…|x)
    while goes_on:
        p_star = max(goes_on, key=lambda p: goes_on[p])
        if not _may_hold(goes_on.pop(p_star), ends[best]):
            break
        for k in labels:
            p = (*p_star, k)
            gamma_n[p] = [float(y[0, k]) if not p_star else 0.0]
            gamma_b[p] = [0.0]
            prefix_prob = gamma_n[p][0] * after[0]
            for t in range(1, frames):
                new = gamma_b[p_star][t - 1]
                new += 0.0 if p_star[-1:] == (k,) else gamma_n[p_star][t - 1]
                gamma_n[p].append(float(y[t, k]) * (new + gamma_n[p][t - 1]))
                gamma_b[p].append(float(y[t, blank]) * (gamma_b[p][t - 1] + gamma_n[p][t - 1]))
                prefix_prob += float(y[t, k]) * new * after[t]
            ends[p] = gamma_n[p][-1] + gamma_b[p][-1]
            if (-ends[p], len(p), p) < (-ends[best], len(best), best):
                best = p
            if _may_hold(prefix_prob - ends[p], ends[best]):
                goes_on[p] = prefix_prob - ends[p]
    return Hypothesis(best, math.log(ends[best]) + math.fsum(tops))


def _may_hold(remaining: float, greatest: float) -> bool:
    """Whether strings of this probability together may hold one as probable as the best so far."""
    return remaining > 0.0 and remaining >= greatest * (1.0 - 1e-9)


# ---- alignment -----------------------------------------------------------------------------------


def best_path(log_probs: np.ndarray, tokens: Sequence[int], blank: int = 0) -> float:
    """The log-probability of the most probable path that spells the tokens, by trying all."""
    frames, vocab = log_probs.shape
    paths = itertools.product(range(vocab), repeat=frames)
    scores = [
        sum(log_probs[t, k] for t, k in enumerate(path))
        for path in paths
        if spelt(path, blank) == tuple(tokens)
    ]
    return float(max(scores, default=-math.inf))


def spelt(path: Sequence[int], blank: int) -> Prefix:
    """The string of a path: repeats merged, then blanks removed."""
    return tuple(k for k, _ in itertools.groupby(path) if k != blank)
