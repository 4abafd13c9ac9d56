"""A network as the language model of a search that knows automata: a state for each prefix met."""

import itertools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.kernels.lstm.layer import peephole_lstm_step
from pipeline.kernels.search.hypotheses import Fusion, LstmWeights


class NetworkAutomaton:
    """Reads as an `Automaton` of what each token adds to a score, and grows as it is read.

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
