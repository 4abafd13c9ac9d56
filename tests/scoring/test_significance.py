"""Significance tests: by hand, compared with a report of NIST, and by general properties."""

import re
from math import comb
from pathlib import Path
from random import Random

import numpy as np
import pytest

from pipeline.errors import DataError, UsageError
from pipeline.scoring.alignment import NIST, Alignments, align_all
from pipeline.scoring.significance import (
    binomial_tail,
    compare,
    find_segments,
    matched_pairs,
    mcnemar,
    sign_test,
    two_tailed,
    wilcoxon,
)
from pipeline.scoring.transcripts import read_systems


def test_the_report_of_nist(golden: Path) -> None:
    folder = golden / "scoring"
    texts = read_systems(f"ark:{folder}/ref.txt", [f"ark:{folder}/hyp{s}.txt" for s in "AB"])
    found = [align_all(texts.pairs(number), NIST) for number in (0, 1)]
    speakers = [utt_id.partition("-")[0] for utt_id in texts.utt_ids]
    report = (folder / "stats.stats.unified").read_text()
    for test in compare(*found, speakers):
        row = re.search(rf"\|\s+{test.abbreviation}\s+\|\| hypA.*?\|.*?\|(.*?)\|\|", report) or (
            re.search(rf"\|\s+{test.abbreviation}\s+\|\|.*?\|.*?\|(.*?)\|\|", report)
        )
        assert row is not None
        p = "<0.001" if test.p < 0.001 else f"{test.p:.3f}"
        better = f"hyp{'AB'[test.better]}.trn" if test.significant else "~"
        assert row[1].split() == [better, p, *filter(None, [test.stars])]


def aligned(*texts: tuple[str, str]) -> Alignments:
    return align_all((f"u{n}", ref.split(), hyp.split()) for n, (ref, hyp) in enumerate(texts))


@pytest.mark.parametrize(
    ("ref", "first", "second", "segments"),
    [
        ("a b c d", "a b c d", "a b c d", []),
        ("a b c d", "a x c d", "a b c d", [(1, 0)]),
        ("a b c d e f g", "a x c d e f g", "a b c d e y g", [(1, 0), (0, 1)]),
        ("a b c d e f g", "a x c d e f g", "a b c y e f g", [(1, 1)]),  # one right between
        ("a b", "a b", "a b c", [(0, 1)]),
        ("", "x", "", [(1, 0)]),
        ("a b c", "x a b c", "a b c y", [(1, 0), (0, 1)]),
        ("a b c", "", "a b c", [(3, 0)]),
    ],
)
def test_segments(ref: str, first: str, second: str, segments: list[tuple[int, int]]) -> None:
    found = find_segments(aligned((ref, first)), aligned((ref, second)), min_correct=2)
    assert [tuple(row) for row in found.tolist()] == segments


def test_segments_hold_every_error_once() -> None:
    random = Random(5)
    texts: list[list[tuple[str, str]]] = [[], []]
    for _ in range(200):
        ref = random.choices("abcdef", k=random.randrange(20))
        for side in texts:
            hyp = [x if random.random() > 0.2 else random.choice("xyz") for x in ref]
            hyp = [x for x in hyp if random.random() > 0.1]
            side.append((" ".join(ref), " ".join(hyp)))
    one, other = (aligned(*side) for side in texts)
    for min_correct in (1, 2, 3):
        found = find_segments(one, other, min_correct=min_correct)
        assert found.sum(axis=0).tolist() == [one.total().errors, other.total().errors]
        assert (found.sum(axis=1) > 0).all()


def test_matched_pairs_by_hand() -> None:
    test = matched_pairs(np.array([[2, 1], [0, 1], [3, 0], [1, 0]]))
    differences = [1, -1, 3, 1]
    mean, variance = 1.0, sum((d - 1.0) ** 2 for d in differences) / 3
    assert test.details["mean"] == mean
    assert test.details["z"] == pytest.approx(mean / (variance / 4) ** 0.5)
    assert (test.better, test.significant) == (1, False)
    assert matched_pairs(np.zeros((0, 2), dtype=np.int64)).p == 1.0
    assert matched_pairs(np.array([[1, 1], [1, 1]])).p == 1.0


def test_signs_and_ranks_by_hand() -> None:
    rates = np.array([[30.0, 10.0], [20.0, 15.0], [10.0, 12.0], [5.0, 5.0], [9.0, 8.0]])
    signs = sign_test(rates)
    assert signs.details == {"first_better": 1, "second_better": 3, "equal": 1}
    assert signs.p == pytest.approx(2 * (comb(5, 0) + comb(5, 1) + comb(5, 2)) / 32) or signs.p == 1
    ranks = wilcoxon(rates)  # |differences| 20 5 2 0 1: ranks 5 4 3 1 2; the tie counts as plus
    assert ranks.details["w"] == 3.0
    assert ranks.details["z"] == pytest.approx((3 - 7.5) / 13.75**0.5)
    assert (signs.better, ranks.better) == (1, 1)
    swapped = wilcoxon(rates[:, ::-1])
    assert (swapped.details["w"], swapped.better) == (3.0, 0)


def test_whole_utterances_by_hand() -> None:
    errors = np.array([[0, 1]] * 9 + [[1, 0]] + [[0, 0]] * 4 + [[2, 2]])
    test = mcnemar(errors)
    assert test.p == pytest.approx(2 * (1 + 10) / 2**10)
    assert (test.better, test.stars) == (0, "*")
    assert mcnemar(np.array([[0, 1], [1, 0]])).p == 1.0


def test_distributions() -> None:
    assert two_tailed(1.965) == pytest.approx(0.0500, abs=1e-4)  # at 1.96
    assert two_tailed(-1.965) == two_tailed(1.965)
    assert two_tailed(0.0) == 1.0
    assert binomial_tail(400, 1000) == pytest.approx(1.364e-10, rel=1e-3)
    assert binomial_tail(5, 5) == 1.0


def test_a_system_does_not_differ_from_itself() -> None:
    one = aligned(("a b", "a x"), ("c d", "c d"))
    for test in compare(one, one, ["s", "t"]):
        assert (test.p == 1.0 or test.abbreviation == "WI", test.significant) == (True, False)


def test_what_cannot_be_compared() -> None:
    one = aligned(("a b", "a"))
    with pytest.raises(DataError, match="different utterances"):
        compare(one, aligned(("a b", "a"), ("c", "c")), ["s"])
    with pytest.raises(DataError, match="different references"):
        compare(one, aligned(("a b c", "a")), ["s"])
    with pytest.raises(UsageError, match="--min-correct must be 1 or more"):
        compare(one, one, ["s"], min_correct=0)
