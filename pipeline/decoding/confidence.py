"""How sure a hypothesis is of each of its tokens, from the n-best list."""

from collections.abc import Sequence

import numpy as np

from pipeline.kernels.search.hypotheses import Hypothesis
from pipeline.scoring.distance import agreements


def token_confidences(hyps: Sequence[Hypothesis]) -> list[float]:
    """The probability of each token of the best hypothesis, in 0 … 1.

    The share that the hypotheses which agree with it have of the probability of all: each is
    aligned with the first by edit distance, and agrees where the same token stands.
    """
    if not hyps:
        return []
    scores = np.array([hyp.score for hyp in hyps])
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    agreed = np.zeros(len(hyps[0].tokens))
    places = agreements(hyps[0].tokens, [hyp.tokens for hyp in hyps])
    for share, found in zip(shares, places, strict=True):
        agreed[found] += share
    return [float(x) for x in agreed.clip(0.0, 1.0)]
