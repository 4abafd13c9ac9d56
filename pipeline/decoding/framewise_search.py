"""The search of a frame-wise network: its outputs over the labels' priors, and a bigram."""

import numpy as np
from torch import Tensor

from pipeline.decoding.decode_options import FramewiseSearchOptions
from pipeline.errors import ModelError
from pipeline.kernels.search.framewise import Transitions, framewise_viterbi
from pipeline.kernels.search.fusion import Fusion
from pipeline.kernels.search.hypotheses import Hypothesis
from pipeline.nn.framewise import FramewiseModel

Found = tuple[list[Hypothesis], list[tuple[int, int]]]


class FramewiseSearch:
    """Viterbi with labels of a least duration.

    A frame counts with log Pr(k|t) - s log P(k), s being ``prior_scale`` and P(k) the label's share
    of the training frames; a label that was in none counts as if it had been in one.

    Raises:
        ModelError: the language model is a network, or more than a bigram.
    """

    def __init__(
        self, model: FramewiseModel, fusion: Fusion, options: FramewiseSearchOptions
    ) -> None:
        self.least = options.min_frames
        counts = model.label_counts.double().clamp(min=1.0)
        self.priors = options.prior_scale * (counts / counts.sum()).log()
        self.transitions = bigram(fusion, len(counts) + 1)

    def __call__(self, log_probs: Tensor) -> Found:
        """The best hypothesis and the frames of its tokens.

        Args:
            log_probs: log Pr(k|t), (T, K).

        Raises:
            ValueError: no hypothesis is possible.
        """
        scores = (log_probs.double() - self.priors).cpu().numpy()
        path = framewise_viterbi(scores, self.transitions, least=self.least)
        tokens = tuple(k + 1 for k in path.labels)
        return [Hypothesis(tokens, path.emitted, path.transitions)], path.spans


def bigram(fusion: Fusion, num_tokens: int) -> Transitions:
    """What a language model and a bonus add where labels begin and where an utterance ends.

    Raises:
        ModelError: it is a network, or an n-gram that looks further back than one token.
    """
    if fusion.network is not None:
        raise ModelError("--lm: a frame-wise model is searched with a bigram; give an ARPA file")
    added, following, ends, start = fusion.tables(num_tokens)
    if (following[:, 1:] != following[:1, 1:]).any():
        raise ModelError(
            "--lm: a frame-wise model is searched with a bigram, but this model looks further "
            "back; make one with make_ngram_lm.py --order=2"
        )
    after = following[0, 1:]  # the state after each label
    return Transitions(
        np.ascontiguousarray(added[start, 1:]), added[after, 1:].copy(), ends[after].copy()
    )
