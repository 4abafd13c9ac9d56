"""Shallow fusion: what a language model is to a search.

A language model is an automaton over tokens, or a network that predicts the next token. To a search
the network is an automaton that has a state for each prefix that was met.
"""

import itertools
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.kernels.recurrent.layer import peephole_lstm_step
from pipeline.kernels.search.words import WordAutomaton, Words


class Automaton(NamedTuple):
    """A language model over tokens, such as an n-gram, as a deterministic automaton.

    It has S states, the histories that the model tells apart, and V tokens with the blank.
    """

    log_probs: NDArray[np.float64]  # (S, V) log P(k|s), natural; the blank's column is not used
    following: NDArray[np.int32]  # (S, V) the state after s and k
    final: NDArray[np.float64]  # (S,) log P(end|s); zeros for a model that knows no end
    start: int


class LstmWeights(NamedTuple):
    """A peephole LSTM that reads the tokens of a prefix, and the layer that projects its output.

    V counts the tokens with the blank.
    """

    inputs: Tensor  # (V, 4H) W e_k + b, in the gates' order i, f, c, o; the blank's is the start ∅
    recurrent: Tensor  # (4H, H)
    peepholes: Tensor  # (3, H)
    projection: Tensor  # (J, H) of the hidden vector
    projection_bias: Tensor  # (J,)


class Fusion(NamedTuple):
    """Shallow fusion: y counts as log Pr(y|x) + ``weight`` · log P(y) + ``bonus`` · |y|.

    P is given by an automaton, or by a network that predicts the next token. What goes out of the
    network are V logits, of which that of the blank is not used.

    With ``words``, P is over the words that the tokens spell, see `words.py`; they have their own
    weight and their bonus a word.
    """

    automaton: Automaton | None = None
    weight: float = 0.0
    bonus: float = 0.0
    network: LstmWeights | None = None
    words: Words | None = None

    def tables(self, num_tokens: int) -> Automaton:
        """The automaton of what each token adds to a score, (S, V).

        Without an automaton it has one state.

        Raises:
            ValueError: the automaton is one of another number of tokens.
        """
        if self.words is not None:
            if len(self.words.opens) != num_tokens:
                raise ValueError(
                    f"words spelt by {len(self.words.opens)} tokens, a network over {num_tokens}"
                )
            added = np.full(num_tokens, self.bonus, np.float64)
            return cast(Automaton, WordAutomaton(self.words, added))
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


class NetworkAutomaton:
    """A network that is read as an `Automaton` of what each token adds to a score.

    It gets more states as it is read.

    Args:
        fusion: the network, its weight, and the bonus a token.
        blank: id of ∅, whose column is not used.
    """

    start = 0

    def __init__(self, fusion: Fusion, blank: int) -> None:
        assert fusion.network is not None
        self.network = LstmWeights(*(w.detach().double().cpu() for w in fusion.network))
        self.weight, self.bonus, self.blank = fusion.weight, fusion.bonus, blank
        zeros = torch.zeros(1, self.network.recurrent.shape[1], dtype=torch.float64)
        self.parents, self.tokens = [0], [blank]
        self.h, self.c, self.rows = self._step([blank], zeros, zeros)
        self.children: dict[tuple[int, int], int] = {}
        self.log_probs, self.following, self.final = _Rows(self), _Following(self), _Final()

    def child(self, state: int, token: int) -> int:
        """The state after one more token."""
        key = (state, token)
        if key not in self.children:
            self.children[key] = len(self.parents)
            self.parents.append(state)
            self.tokens.append(token)
        return self.children[key]

    def read(self) -> None:
        """Let the network read the prefixes that it has not read, all at once."""
        while (known := len(self.rows)) < len(self.parents):
            new = range(known, len(self.parents))
            ready = [*itertools.takewhile(lambda s: self.parents[s] < known, new)]
            parents = [self.parents[s] for s in ready]
            tokens = [self.tokens[s] for s in ready]
            more = self._step(tokens, self.h[parents], self.c[parents])
            self.h, self.c, self.rows = (
                torch.cat(pair) for pair in zip((self.h, self.c, self.rows), more, strict=True)
            )

    def _step(self, tokens: list[int], h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        network = self.network
        inputs = network.inputs[tokens]
        h, c = peephole_lstm_step(inputs, h, c, network.recurrent, network.peepholes)
        logits = h @ network.projection.t() + network.projection_bias
        logits[:, self.blank] = -torch.inf
        added = self.weight * logits.log_softmax(dim=-1) + self.bonus
        added[:, self.blank] = 0.0
        return h, c, added


class _Rows:
    def __init__(self, automaton: NetworkAutomaton) -> None:
        self.automaton = automaton

    def __getitem__(self, states: NDArray[np.int64]) -> NDArray[np.float64]:
        self.automaton.read()
        rows: NDArray[np.float64] = self.automaton.rows.numpy()[states]
        return rows


class _Following:
    def __init__(self, automaton: NetworkAutomaton) -> None:
        self.automaton = automaton

    def __getitem__(self, where: tuple[Any, Any]) -> NDArray[np.int64]:
        pairs = zip(where[0].tolist(), where[1].tolist(), strict=True)
        return np.array([self.automaton.child(s, k) for s, k in pairs], dtype=np.int64)


class _Final:
    """The network does not predict the end."""

    def __getitem__(self, state: int) -> float:
        return 0.0
