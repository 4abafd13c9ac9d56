"""What a search with a transducer knows of the network, and what it is told to do."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from pipeline.kernels.recurrent.plain import State
from pipeline.kernels.search.fusion import Automaton, LstmWeights

__all__ = ["Found", "SearchModel", "SearchWeights", "Settings", "State"]


class SearchWeights(NamedTuple):
    """A peephole LSTM as predictor and either joiner, for the compiled search."""

    predictor: LstmWeights  # onto the joiner's input, (J,)
    output: Tensor | None  # (V, J) after tanh, [G13] eq. 17; None: the sum is the logits, [G12]
    output_bias: Tensor | None  # (V,)


class SearchModel(Protocol):
    """What a search needs of a transducer. J is the size of the joiner's input."""

    def start(self, count: int) -> tuple[State, Tensor]:
        """State and projection (N, J) of the predictor after ∅."""

    def step(self, state: State, tokens: Tensor) -> tuple[State, Tensor]:
        """State and projection (N, J) after one more token each, (N,)."""

    def log_probs(self, frames: Tensor, projected: Tensor) -> Tensor:
        """log Pr(k|t,u): (N, J) or (1, J) and (N, J) -> (N, V)."""

    def search_weights(self) -> SearchWeights | None:
        """The same network for the compiled search; None: it is called by the functions above."""


@dataclass(frozen=True)
class Settings:
    """What bounds a search; see `transducer.transducer_beam_search`."""

    beam: int
    blank: int
    max_tokens_per_frame: int
    max_expansions: int
    tables: Automaton  # what an automaton and the bonus add
    network: LstmWeights | None  # a network as language model
    network_weight: float


class Found(NamedTuple):
    """The last beam of an utterance, in any order, and how often a bound was hit."""

    beam: list[tuple[tuple[int, ...], float, float, int]]  # tokens, score, fused, history
    limit_hits: int
