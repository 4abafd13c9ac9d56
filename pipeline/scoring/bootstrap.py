"""Confidence intervals of error rates by the bootstrap (M. Bisani and H. Ney, ICASSP 2004)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError, UsageError

AT_A_TIME = 2**24  # drawn utterances to keep in memory

MOST = 1_000_000  # replications; their effect ends long before


@dataclass(frozen=True)
class Interval:
    """An error rate in percent, with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap(
    tokens: NDArray[np.int64],
    errors: NDArray[np.int64],
    *,
    replications: int = 10000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Draw test sets from the utterances with replacement, and score all systems on each of them.

    If many utterances have the same length and errors, as in large sets of short utterances, the
    counts of the distinct ones are drawn instead, which has the same distribution.

    Args:
        tokens: (N,), the length of each reference.
        errors: (systems, N), the errors of each system in each utterance.
        replications: the number of test sets.
        seed: the seed of the random draws.

    Returns:
        (systems, replications), error rates between 0 and 1.

    Raises:
        DataError: the references hold no tokens.
        UsageError: see `check_draws`.
    """
    check_draws(replications, seed)
    if not tokens.sum():
        raise DataError("the references hold no tokens, so there is no error rate; give others")
    random = np.random.default_rng(seed)
    table = np.stack([tokens, *errors]).astype(np.float64)
    count = table.shape[1]
    kinds, often = np.unique(table, axis=1, return_counts=True)
    if 4 * len(often) < count:
        drawn = random.multinomial(count, often / count, size=replications)
        sums = kinds @ drawn.T
    else:
        step = max(1, AT_A_TIME // count)
        parts = []
        for start in range(0, replications, step):
            shape = min(step, replications - start), count
            places = random.integers(count, size=shape)
            parts.append(np.stack([row[places].sum(axis=1) for row in table]))
        sums = np.concatenate(parts, axis=1)
    rates: NDArray[np.float64] = sums[1:] / np.maximum(sums[0], 1.0)
    return rates


def check_draws(replications: int, seed: int) -> None:
    """Raise UsageError for too few or too many replications, or a negative seed."""
    if not 2 <= replications <= MOST:
        raise UsageError(f"--replications must be from 2 to {MOST}, not {replications}")
    if seed < 0:
        raise UsageError(f"--seed must be 0 or more, not {seed}")


def interval(rates: NDArray[np.float64]) -> Interval:
    """The 95 % interval of a system: 1.96 standard deviations of its rates on each side."""
    mean, margin = 100.0 * float(rates.mean()), 196.0 * float(rates.std())
    return Interval(mean, mean - margin, mean + margin)


def probability_better(rates: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The percentage of test sets on which ``other`` has the lower error rate."""
    return 100.0 * float((rates > other).mean())
