"""Searches with a transducer for utterances whose frames come in chunks: greedy, and Algorithm 1.

However an utterance is cut and whatever stands beside it, its hypotheses and their scores are those
of one call of `transducer.transducer_beam_search`: bit for bit from the compiled searches. What a
state holds grows with the hypotheses, not with the frames.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.kernels.search.fusion import NO_FUSION, Fusion
from pipeline.kernels.search.hypotheses import Hypothesis, Partial
from pipeline.kernels.search.model import SearchModel
from pipeline.kernels.search.transducer import (
    check_frames,
    ranked,
    search_engine,
    search_settings,
    warn_of_bounds,
)


class TransducerGreedyStreams:
    """The greedy path through utterances whose frames come in chunks.

    Args:
        model: predictor and joiner.
        like: a tensor (…, J) of the dtype and on the device of the frames.
        blank: id of ∅.
        max_tokens_per_frame: see `transducer.transducer_greedy`.
    """

    def __init__(
        self, model: SearchModel, like: Tensor, *, blank: int = 0, max_tokens_per_frame: int = 10
    ) -> None:
        if max_tokens_per_frame < 1:
            raise ValueError("max_tokens_per_frame must be 1 or more")
        kernels: Any = search_engine(like, model)
        self.search = kernels.Greedy(model, blank, max_tokens_per_frame, like)

    def start(self) -> Any:
        """The state before the first frame."""
        return self.search.start()

    def advance(self, states: Sequence[Any], rows: Sequence[Tensor]) -> None:
        """Read the joiner's projections (n, J) of the next n frames of each, into its state.

        Raises:
            ValueError: frames that are NaN.
        """
        if not states:
            return
        lengths = [len(one) for one in rows]
        frames = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        check_frames(frames, torch.tensor(lengths))
        self.search.advance(states, frames, lengths)

    def result(self, state: Any) -> list[Hypothesis]:
        """The greedy path's string with the path's log-probability."""
        return [Hypothesis(tuple(state.tokens), state.log_prob)]

    def partial(self, state: Any) -> Partial:
        """The string so far, which is final."""
        return Partial(tuple(state.tokens), len(state.tokens))


class TransducerBeamStreams:
    """Algorithm 1 for utterances whose frames come in chunks.

    Args:
        model: predictor and joiner.
        like: a tensor (…, J) of the dtype and on the device of the frames.
        beam: W, hypotheses kept after each frame.
        blank: id of ∅.
        length_normalise: sort by score / |y|.
        max_tokens_per_frame: labels that one frame may add to a hypothesis.
        fusion: a language model and a bonus.
    """

    def __init__(
        self,
        model: SearchModel,
        like: Tensor,
        *,
        beam: int,
        blank: int = 0,
        length_normalise: bool = False,
        max_tokens_per_frame: int = 10,
        fusion: Fusion = NO_FUSION,
    ) -> None:
        self.settings = search_settings(
            model, like, beam, blank, max_tokens_per_frame, None, fusion
        )
        self.length_normalise = length_normalise
        kernels: Any = search_engine(like, model)
        self.beams = kernels.Beams(model, self.settings, like, few_states=True)

    def start(self) -> Any:
        """The state before the first frame."""
        return self.beams.start()

    def advance(self, states: Sequence[Any], rows: Sequence[Tensor]) -> None:
        """Read the joiner's projections (n, J) of the next n frames of each, into its state.

        Raises:
            ValueError: frames that are NaN.
        """
        for one in rows:
            check_frames(one[None], torch.tensor([len(one)]))
        self.beams.advance(states, [one.contiguous() for one in rows])
        for state in states:
            state.settle()

    def result(self, state: Any) -> list[Hypothesis]:
        """The hypotheses, best first; see `transducer.transducer_beam_search`."""
        found = state.found()
        warn_of_bounds(found.limit_hits, self.settings)
        return ranked(found, self.settings, self.length_normalise)

    def partial(self, state: Any) -> Partial:
        """The best hypothesis so far, without what the end of the sequence adds."""
        before, tail = state.best(length_normalise=self.length_normalise)
        return Partial((*before, *tail), len(before))
