"""What every search returns, and what a language model is to it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


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


class Automaton(NamedTuple):
    """A language model over tokens, such as an n-gram, as a deterministic automaton.

    S states (histories that the model tells apart), V tokens with the blank.
    """

    log_probs: NDArray[np.float64]  # (S, V) log P(k|s), natural; the blank's column is not used
    following: NDArray[np.int32]  # (S, V) the state after s and k
    final: NDArray[np.float64]  # (S,) log P(end|s); zeros for a model that knows no end
    start: int


class LstmWeights(NamedTuple):
    """A peephole LSTM over the tokens of a prefix, and what goes out of it. V with the blank."""

    inputs: Tensor  # (V, 4H) W e_k + b, in the gates' order i, f, c, o; the blank's is the start ∅
    recurrent: Tensor  # (4H, H)
    peepholes: Tensor  # (3, H)
    projection: Tensor  # (J, H) of the hidden vector
    projection_bias: Tensor  # (J,)


class Fusion(NamedTuple):
    """Shallow fusion: y counts as log Pr(y|x) + ``weight`` · log P(y) + ``bonus`` · |y|.

    P is an automaton's or a network's that predicts the next token; of the latter J = V, its
    logits, where that of the blank is not used.
    """

    automaton: Automaton | None = None
    weight: float = 0.0
    bonus: float = 0.0
    network: LstmWeights | None = None

    def tables(self, num_tokens: int) -> Automaton:
        """The automaton of what each token adds to a score, (S, V); one state without a model."""
        if self.automaton is None:
            nothing = np.zeros((1, num_tokens))
            following = np.zeros((1, num_tokens), np.int32)
            return Automaton(nothing + self.bonus, following, np.zeros(1), 0)
        log_probs, following, final, start = self.automaton
        if log_probs.shape != following.shape or log_probs.shape[1] != num_tokens:
            raise ValueError(
                f"a language model over {log_probs.shape[1]} tokens, a network over {num_tokens}"
            )
        with np.errstate(invalid="ignore"):  # 0 · -inf: without weight nothing is impossible
            added = np.nan_to_num(self.weight * log_probs, nan=0.0, neginf=-np.inf) + self.bonus
            ends = np.nan_to_num(self.weight * final, nan=0.0, neginf=-np.inf)
        return Automaton(added, np.ascontiguousarray(following, dtype=np.int32), ends, start)


NO_FUSION = Fusion()
