"""CTC's searches for utterances whose frames come in chunks: the best path and the beam search.

However an utterance is cut, its hypotheses and their scores are those of `ctc.ctc_beam_search` and
of the best path, bit for bit. What a state holds grows with the hypothesis, not with the frames.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.kernels.compiler.threads import run_parallel
from pipeline.kernels.search.ctc import check_blank, checked, ranked, search_engine
from pipeline.kernels.search.fusion import NO_FUSION, Fusion
from pipeline.kernels.search.hypotheses import Hypothesis, Partial
from pipeline.kernels.search.pruning import pruned

FEW = 1 << 12  # numbers that are added only when their sum is asked for


@dataclass
class ExactSum:
    """A sum of float64 numbers, rounded once: that of `math.fsum`, with little memory."""

    parts: list[float] = field(default_factory=list)

    def add(self, numbers: Sequence[float]) -> None:
        """Add finite numbers."""
        self.parts += numbers
        if len(self.parts) > FEW:
            self.parts = _without_overlap(self.parts)

    def total(self) -> float:
        """The sum."""
        return math.fsum(self.parts)


def _without_overlap(numbers: Sequence[float]) -> list[float]:
    """A few numbers with the same exact sum (J. R. Shewchuk, 1997, as in Python's recipe)."""
    parts: list[float] = []
    for x in numbers:
        kept = []
        for y in parts:
            if abs(x) < abs(y):
                x, y = y, x
            high = x + y
            low = y - (high - x)
            if low:
                kept.append(low)
            x = high
        parts = [*kept, x]
    return parts


# ---- the best path -------------------------------------------------------------------------------


@dataclass
class BestPath:
    """How far the best path through an utterance has come."""

    tokens: list[int] = field(default_factory=list)
    last: int = -1  # output of the last frame
    log_prob: ExactSum = field(default_factory=ExactSum)
    is_possible: bool = True


class CtcGreedyStreams:
    """The best path through utterances whose frames come in chunks; see `ctc.ctc_greedy`.

    Args:
        blank: id of ∅.
    """

    def __init__(self, *, blank: int = 0) -> None:
        self.blank = blank

    def start(self) -> BestPath:
        """The state before the first frame."""
        return BestPath()

    def advance(self, states: Sequence[BestPath], rows: Sequence[Tensor]) -> None:
        """Read log Pr(k|t), (n, V), of the next n frames of each utterance, into its state.

        Raises:
            ValueError: NaN or plus infinity, with the frame; a blank or shapes that do not fit.
        """
        for state, log_probs in zip(states, rows, strict=True):
            matrix, tops = checked(log_probs, self.blank)
            path = matrix.argmax(axis=1)
            before = np.append(state.last, path)[:-1]
            state.tokens += path[(path != self.blank) & (path != before)].tolist()
            if len(path):
                state.last = int(path[-1])
            state.is_possible &= bool((tops > -np.inf).all())
            if state.is_possible:
                state.log_prob.add(tops.tolist())

    def result(self, state: BestPath) -> list[Hypothesis]:
        """The best path's string with the path's log-probability."""
        log_prob = state.log_prob.total() if state.is_possible else -math.inf
        return [Hypothesis(tuple(state.tokens), log_prob)]

    def partial(self, state: BestPath) -> Partial:
        """The string so far, which is final."""
        return Partial(tuple(state.tokens), len(state.tokens))


# ---- the beam search -----------------------------------------------------------------------------


@dataclass
class BeamState:
    """How far the beam search through an utterance has come."""

    progress: Any  # the engine's
    shift: ExactSum = field(default_factory=ExactSum)
    is_possible: bool = True  # False after a frame where nothing is


class CtcBeamStreams:
    """The beam search of `ctc.ctc_beam_search` for utterances whose frames come in chunks.

    Args:
        vocab: the number V of outputs.
        beam: number of prefixes kept after each frame.
        blank: id of ∅.
        fusion: an automaton as language model, and a bonus.
        length_normalise: sort by score / |y|.
        token_mass, max_tokens: what of a frame's tokens is kept, see `pruning.py`.

    Raises:
        ValueError: a beam below 1, a blank that is no output, or a network as language model, which
            keeps a state for each prefix that it has met.
    """

    def __init__(
        self,
        vocab: int,
        *,
        beam: int,
        blank: int = 0,
        fusion: Fusion = NO_FUSION,
        length_normalise: bool = False,
        token_mass: float = 1.0,
        max_tokens: int = 0,
    ) -> None:
        if beam < 1:
            raise ValueError(f"beam must be 1 or more, not {beam}")
        check_blank(blank, vocab)
        if fusion.network is not None:
            raise ValueError("a language model that is a network cannot read streams with CTC")
        self.beam, self.blank, self.length_normalise = beam, blank, length_normalise
        self.token_mass, self.max_tokens = token_mass, max_tokens
        self.model = fusion.tables(vocab)
        self.kernels: ModuleType = search_engine(np.zeros((0, vocab)))

    def start(self) -> BeamState:
        """The state before the first frame."""
        return BeamState(self.kernels.begin(self.beam, self.model))

    def advance(self, states: Sequence[BeamState], rows: Sequence[Tensor]) -> None:
        """Read log Pr(k|t), (n, V), of the next n frames of each utterance, into its state.

        Raises:
            ValueError: NaN or plus infinity, with the frame; shapes that do not fit.
        """
        matrices = [checked(log_probs, self.blank) for log_probs in rows]

        def job(state: BeamState, matrix: NDArray[np.float64], tops: NDArray[np.float64]) -> None:
            state.is_possible &= -np.inf not in tops
            if state.is_possible and len(tops):
                mass, most = self.token_mass, self.max_tokens
                matrix = pruned(matrix, blank=self.blank, mass=mass, most=most)
                self.kernels.advance(state.progress, matrix, tops, self.blank, self.model)
                self.kernels.settle(state.progress)
                state.shift.add(tops.tolist())

        run_parallel([
            lambda state=state, one=one: job(state, *one)  # type: ignore[misc]
            for state, one in zip(states, matrices, strict=True)
        ])  # fmt: skip

    def result(self, state: BeamState) -> list[Hypothesis]:
        """The hypotheses, best first; see `ctc.ctc_beam_search`."""
        if not state.is_possible:
            return []
        found, shift = self.kernels.entries(state.progress), state.shift.total()
        return ranked(found, shift, self.model, length_normalise=self.length_normalise)

    def partial(self, state: BeamState) -> Partial:
        """The best hypothesis so far, without what the end of the sequence adds."""
        order = {"length_normalise": self.length_normalise}
        before, tail = self.kernels.best(state.progress, **order)
        return Partial((*before, *tail), len(before))
