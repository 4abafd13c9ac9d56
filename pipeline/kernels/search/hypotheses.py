"""What every search returns."""

from typing import NamedTuple


class Hypothesis(NamedTuple):
    """A token sequence y with log Pr(y|x), natural, summed over the alignments that were found."""

    tokens: tuple[int, ...]
    log_prob: float
    fused: float = 0.0  # weight · log P(y) of a language model + bonus · |y|

    @property
    def score(self) -> float:
        """What the search sorts by: log Pr(y|x), and the language model's share."""
        return self.log_prob + self.fused

    @property
    def normalised(self) -> float:
        """Score over |y|, by which [G12] sorts; the empty sequence counts as one token."""
        return self.score / max(1, len(self.tokens))


class Partial(NamedTuple):
    """The best hypothesis of an utterance that has not ended."""

    tokens: tuple[int, ...]
    settled: int  # how many of them, from the first on, will not change
