"""Pruning of a frame's tokens before a search.

In the deployed system of D. Amodei et al., "Deep Speech 2", 2015 (arXiv 1512.02595), only the
fewest characters whose probabilities add up to 0.99 are kept, at most 40.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def pruned(log_probs: Array, *, blank: int, mass: float = 1.0, most: int = 0) -> Array:
    """The log-probabilities, with minus infinity for what is left out.

    The outputs of a frame are taken from the most probable on, of equal ones the smaller id first,
    until their share of the frame's probability is ``mass``. The blank is one of them, and stays if
    it is not.

    Args:
        log_probs: log Pr(k|t), (T, V), normalised or not.
        blank: id of ∅.
        mass: above 0, at most 1; at 1 all may stay.
        most: number of tokens, without the blank, that may stay at most; 0: any number.

    Raises:
        ValueError: a mass or a number out of range.
    """
    if not 0.0 < mass <= 1.0:
        raise ValueError(f"the mass of tokens must lie above 0 and be at most 1, not {mass}")
    if most < 0:
        raise ValueError(f"the number of tokens must be 0 or more, not {most}")
    if mass == 1.0 and most == 0:
        return log_probs
    rows = np.arange(len(log_probs))[:, None]
    order = np.argsort(-log_probs, axis=1, kind="stable")
    ranked = log_probs[rows, order]
    with np.errstate(invalid="ignore"):  # a frame where nothing is possible stays as it is
        shares = np.exp(ranked - ranked[:, :1])
        before = (shares.cumsum(axis=1) - shares) / shares.sum(axis=1, keepdims=True)
    stays = np.ones(ranked.shape, bool) if mass == 1.0 else ~(before >= mass)
    if most:
        stays &= (stays & (order != blank)).cumsum(axis=1) <= most
    kept = np.full_like(log_probs, -np.inf)
    kept[rows, order] = np.where(stays | (order == blank), ranked, -np.inf)
    return kept
