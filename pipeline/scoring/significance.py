"""Significance of the difference between two systems: the four tests of NIST's ``sc_stats``.

MP is the matched-pairs test on sentence segments (L. Gillick and S. J. Cox, ICASSP 1989). The
utterances are cut where both systems were correct for several consecutive tokens. Errors within a
segment depend on each other, but those of different segments do not, so that the mean difference of
the errors per segment can be tested with a normal distribution.

SI is the sign test and WI Wilcoxon's signed-rank test, both on the error rates of the speakers.

MN is McNemar's test on the utterances that exactly one system has recognised without an error.

All tests are two-tailed. The null hypothesis is that the systems do not differ. The conventions are
those of ``sc_stats``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, erfc, floor, sqrt

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError, UsageError
from pipeline.scoring.alignment import CORRECT, FORGIVEN, INS, Alignments

EQUAL_RATES = 0.005  # error rates in percent that differ by no more than this count as equal


@dataclass(frozen=True)
class TestResult:
    """The result of a test on two systems.

    Attributes:
        abbreviation: MP, SI, WI or MN.
        name: the full name of the test.
        p: the probability of a difference at least as large between equal systems.
        better: the better system, 0 or 1; -1 if they are equal.
        details: the numbers behind the test, by name.
    """

    __test__ = False  # tells pytest that this is not a test class

    abbreviation: str
    name: str
    p: float
    better: int
    details: Mapping[str, float]

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at the level of 5 %."""
        return self.p < 0.05

    @property
    def stars(self) -> str:
        """``***`` for significance at 0.1 %, ``**`` at 1 %, ``*`` at 5 %; otherwise empty."""
        return "*" * sum(self.p <= level for level in (0.001, 0.01, 0.05))


def compare(
    first: Alignments, second: Alignments, speakers: Sequence[str], *, min_correct: int = 2
) -> list[TestResult]:
    """Apply the four tests to two systems.

    Args:
        first: the alignments of one system, for N utterances.
        second: the alignments of the other, for the same utterances in the same order.
        speakers: (N,), the speaker of each utterance.
        min_correct: consecutive tokens that both must have recognised between two segments.

    Raises:
        DataError: the utterances or the lengths of the references differ.
        UsageError: ``min_correct`` is below 1.
    """
    if min_correct < 1:
        raise UsageError(f"--min-correct must be 1 or more, not {min_correct}")
    if first.utt_ids != second.utt_ids:
        raise DataError("the systems were scored on different utterances; score the same ones")
    tallies = first.tallies, second.tallies
    if not np.array_equal(tallies[0][:, :3].sum(axis=1), tallies[1][:, :3].sum(axis=1)):
        raise DataError("the systems were scored against different references; score them again")
    errors = np.stack([table[:, 1:].sum(axis=1) for table in tallies], axis=1)
    rates = _speaker_rates(errors, tallies[0][:, :3].sum(axis=1), speakers)
    return [
        matched_pairs(find_segments(first, second, min_correct=min_correct)),
        sign_test(rates),
        wilcoxon(rates),
        mcnemar(errors),
    ]


# ---- matched pairs -------------------------------------------------------------------------------


def find_segments(first: Alignments, second: Alignments, *, min_correct: int) -> NDArray[np.int64]:
    """The errors of both systems in each segment of all utterances, (segments, 2)."""
    steps = [_outcomes(side) for side in (first, second)]
    bounds = [side.starts.tolist() for side in (first, second)]
    found: list[tuple[int, int]] = []
    for number in range(len(first)):
        one, other = (
            side[limits[number] : limits[number + 1]]
            for side, limits in zip(steps, bounds, strict=True)
        )
        if one.strip(b"c") or other.strip(b"c"):
            found += _segments_of(one, other, min_correct)
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _outcomes(side: Alignments) -> bytes:
    """A letter for each step: c for correct, i for an insertion, e for another error."""
    letters = np.full(len(side.op), ord("e"), dtype=np.uint8)
    letters[(side.op == CORRECT) | (side.op == FORGIVEN)] = ord("c")
    letters[side.op == INS] = ord("i")
    return letters.tobytes()


def _segments_of(first: bytes, second: bytes, min_correct: int) -> list[tuple[int, int]]:
    """The errors (of the first system, of the second) in each segment of one utterance.

    A segment begins with the last ``min_correct`` tokens before an error that both systems have
    recognised. It ends with the next ``min_correct`` consecutive ones, or with the utterance.
    """
    found: list[tuple[int, int]] = []
    i = j = last_i = last_j = good = 0
    inside = False  # whether the position lies in a segment

    def close(end_i: int, end_j: int) -> None:
        begin_i, begin_j = (max(0, last - min_correct + 1) for last in (last_i, last_j))
        errors = tuple(
            len(side[begin:end]) - side[begin:end].count(b"c")
            for side, begin, end in ((first, begin_i, end_i), (second, begin_j, end_j))
        )
        if any(errors):
            found.append((errors[0], errors[1]))

    while i < len(first) or j < len(second):
        while first[i : i + 1] == b"i":
            i, good, inside = i + 1, 0, True
        while second[j : j + 1] == b"i":
            j, good, inside = j + 1, 0, True
        both = first[i : i + 1] == second[j : j + 1] == b"c"
        if not both:
            inside, good = True, 0
        elif inside:
            good += 1
            if good == min_correct:
                close(i + 1, j + 1)
                inside, good = False, 0
        if both and not inside:
            last_i, last_j = i, j
        i, j = min(i + 1, len(first)), min(j + 1, len(second))
    if inside:
        close(i, j)
    return found


def matched_pairs(segments: NDArray[np.int64]) -> TestResult:
    """The test MP on the errors per segment, (segments, 2)."""
    differences = segments[:, 0] - segments[:, 1]
    count = len(differences)
    mean = float(differences.mean()) if count else 0.0
    # Summed one by one, as in sc_stats: the last bit of z can decide which entry is looked up.
    squares = np.add.accumulate((differences - mean) ** 2)
    deviation = sqrt(squares[-1] / (count - 1)) if count > 1 else 0.0
    z = mean / (deviation / sqrt(count)) if deviation else 0.0
    details = {"segments": count, "mean": mean, "std_dev": deviation, "z": z}
    name = "Matched Pair Sentence Segment (Word Error)"
    return TestResult("MP", name, two_tailed(z), _better(mean), details)


# ---- speakers ------------------------------------------------------------------------------------


def _speaker_rates(
    errors: NDArray[np.int64], tokens: NDArray[np.int64], speakers: Sequence[str]
) -> NDArray[np.float64]:
    """The error rates of both systems in percent, (speakers, 2)."""
    names, owners = np.unique(np.array(speakers, dtype=object), return_inverse=True)
    sums = np.zeros((len(names), 3))
    np.add.at(sums, owners, np.column_stack([errors, tokens]))
    # In the order of operations of sc_stats, since equal differences share their ranks.
    return np.asarray(sums[:, :2] / np.maximum(sums[:, 2:], 1.0) * 100.0)


def sign_test(rates: NDArray[np.float64]) -> TestResult:
    """The test SI on the number of speakers for which each system is better; ties are split."""
    differences = rates[:, 0] - rates[:, 1]
    equal = np.abs(differences) <= EQUAL_RATES
    worse = int((differences[~equal] > 0).sum())  # number of speakers with a worse first system
    better = int((~equal).sum()) - worse
    ties = int(equal.sum())
    # sc_stats counts from the system with the larger sum of rates, and gives an odd tie to "minus".
    minus_is_better = differences.sum() > 0
    extra = ties // 2 + ties % 2, ties // 2
    minus, plus = (better, worse) if minus_is_better else (worse, better)
    minus, plus = minus + extra[0], plus + extra[1]
    p = 1.0 if minus == plus else 2.0 * binomial_tail(min(minus, plus), minus + plus)
    details = {"first_better": better, "second_better": worse, "equal": ties}
    name = "Signed Paired Comparison (Speaker Word Error Rate (%))"
    return TestResult("SI", name, min(p, 1.0), _better(worse - better), details)


def wilcoxon(rates: NDArray[np.float64]) -> TestResult:
    """The test WI on the ranks of the speakers' differences, by the normal approximation."""
    differences = rates[:, 0] - rates[:, 1]
    if differences.sum() <= 0:  # sc_stats starts from the system with the larger sum of rates
        differences = -differences
    flipped = bool((rates[:, 0] - rates[:, 1]).sum() <= 0)
    ranks = _mean_ranks(np.abs(differences))
    equal = np.abs(differences) <= EQUAL_RATES
    plus = (differences > 0) & ~equal
    plus[np.flatnonzero(equal)[::2]] = True  # ties alternate
    number_plus, number_minus = int(plus.sum()), int((~plus).sum())
    w = float(ranks[plus].sum() if number_plus < number_minus else ranks[~plus].sum())
    n = len(differences)
    z = (w - n * (n + 1) / 4) / sqrt(n * (n + 1) * (2 * n + 1) / 24) if n else 0.0
    side = number_plus - number_minus  # positive: the first (unless flipped) is worse
    details = {"speakers": n, "w": w, "z": z}
    name = "Wilcoxon Signed Rank (Speaker Word Error Rate (%))"
    return TestResult("WI", name, two_tailed(z), _better(-side if flipped else side), details)


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values get their mean rank."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[which], dtype=np.float64)


def mcnemar(errors: NDArray[np.int64]) -> TestResult:
    """The test MN on the utterances that exactly one system has recognised without an error.

    Args:
        errors: (N, 2), the errors of both systems.
    """
    wrong = errors > 0
    first = int((~wrong[:, 0] & wrong[:, 1]).sum())
    second = int((wrong[:, 0] & ~wrong[:, 1]).sum())
    p = 1.0 if first == second else 2.0 * binomial_tail(min(first, second), first + second)
    details = {"only_first_right": first, "only_second_right": second}
    return TestResult(
        "MN", "McNemar (Sentence Error)", min(p, 1.0), _better(second - first), details
    )


# ---- distributions -------------------------------------------------------------------------------


def two_tailed(z: float) -> float:
    """The probability that a standard normal variable is at least ``|z|`` away from 0.

    As in sc_stats, it is taken from a table with two decimals, at the last entry not above ``|z|``.
    """
    entry = floor(100 * abs(z)) + 1
    while entry / 100 > abs(z):  # 100 z may have been rounded up
        entry -= 1
    return erfc(entry / 100 / sqrt(2))


def binomial_tail(successes: int, trials: int) -> float:
    """The exact probability of at most ``successes`` in ``trials`` fair tosses.

    sc_stats of SCTK 2.4.10 overflows above 12 trials; later versions use a normal distribution
    above 20 trials.
    """
    return float(sum(comb(trials, r) for r in range(successes + 1)) / 2**trials)


def _better(difference: float) -> int:
    """The system with fewer errors, 0 or 1, from the excess of the first; -1 for equal systems."""
    return 1 if difference > 0 else 0 if difference < 0 else -1
