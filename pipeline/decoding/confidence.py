"""Confidence of each token of a hypothesis, from the n-best list."""

from collections.abc import Sequence

import numpy as np

from pipeline.kernels.search.hypotheses import Hypothesis
from pipeline.scoring.distance import agreements


def token_confidences(hyps: Sequence[Hypothesis]) -> list[float]:
    """The confidence of each token of the best hypothesis, in 0 … 1.

    Every hypothesis is aligned with the best one by edit distance. The confidence of a token is the
    share that the hypotheses with the same token there have of the probability of all hypotheses.

    Args:
        hyps: the n-best list, best first.
    """
    if not hyps:
        return []
    scores = np.array([hyp.score for hyp in hyps])
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    agreed = np.zeros(len(hyps[0].tokens))
    agreeing = agreements(hyps[0].tokens, [hyp.tokens for hyp in hyps])
    for share, positions in zip(shares, agreeing, strict=True):
        agreed[positions] += share
    return [float(x) for x in agreed.clip(0.0, 1.0)]
