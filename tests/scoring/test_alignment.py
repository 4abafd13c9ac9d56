"""Error counts and alignments compared with those of Kaldi, NIST, rapidfuzz and brute force."""

from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from pipeline.errors import DataError, UsageError
from pipeline.scoring.alignment import (
    CORRECT,
    DEL,
    EPS,
    FORGIVEN,
    INS,
    KALDI,
    NIST,
    SUB,
    Numbered,
    align,
    align_all,
    count_errors,
    find_rule,
    total_errors,
)
from pipeline.scoring.counts import ErrorCounts
from pipeline.scoring.distance import edit_distance
from pipeline.scoring.transcripts import read_systems

TOKENS = st.lists(st.sampled_from(["a", "é", "ß", "音\u3000", "h#"]), max_size=12)


@pytest.mark.parametrize(
    ("system", "counts", "nist"),
    [
        ("hypA", ErrorCounts(6228, 376, 593, 993, 200, 190), (4646, 984, 598, 381)),
        ("hypB", ErrorCounts(6228, 315, 346, 709, 200, 191), (5173, 709, 346, 315)),
    ],
)
def test_totals_and_kinds_are_those_of_kaldi_and_nist(
    golden: Path, system: str, counts: ErrorCounts, nist: tuple[int, ...]
) -> None:
    folder = golden / "scoring"
    texts = read_systems(f"ark:{folder / 'ref.txt'}", [f"ark:{folder / system}.txt"])
    assert total_errors(texts.pairs()) == counts
    assert tuple(align_all(texts.pairs(), NIST).tallies.sum(axis=0)) == nist


@given(TOKENS, TOKENS)
def test_every_way_of_counting_agrees(ref: list[str], hyp: list[str]) -> None:
    counts, pairs = count_errors(ref, hyp), align(ref, hyp)
    distance = Levenshtein.distance(ref, hyp)
    assert counts.errors == edit_distance(ref, hyp) == distance == weighted(ref, hyp, 1, 1)
    assert sum(r != h for r, h in pairs) == distance
    assert [r for r, _ in pairs if r != EPS] == ref
    assert [h for _, h in pairs if h != EPS] == hyp
    assert counts.ins - counts.del_ == len(hyp) - len(ref)
    assert counts.wrong_sentences == (ref != hyp)


@given(TOKENS, TOKENS)
def test_the_weights_of_nist(ref: list[str], hyp: list[str]) -> None:
    total = align_all([("u", ref, hyp)], NIST).total()
    assert 4 * total.sub + 3 * (total.ins + total.del_) == weighted(ref, hyp, 4, 3)
    assert total.errors >= Levenshtein.distance(ref, hyp)


def weighted(ref: list[str], hyp: list[str], sub: int, gap: int) -> int:
    @cache
    def cost(i: int, j: int) -> int:
        if not i or not j:
            return gap * (i + j)
        return min(
            cost(i - 1, j - 1) + sub * (ref[i - 1] != hyp[j - 1]),
            cost(i - 1, j) + gap,
            cost(i, j - 1) + gap,
        )

    return cost(len(ref), len(hyp))


@given(TOKENS, TOKENS)
def test_a_forgiven_deletion_costs_nothing(ref: list[str], hyp: list[str]) -> None:
    found = align_all([("u", ref, hyp)], KALDI, optional={"h#"})
    without = [token for token in ref if token != "h#"]
    assert found.total().errors <= Levenshtein.distance(ref, hyp)
    assert found.total().errors <= Levenshtein.distance(without, hyp)
    assert found.total().ref_tokens == len(ref)
    for op, token, _ in found.steps(0):
        assert op != DEL or token != "h#"
        assert op != FORGIVEN or token == "h#"


def test_many_of_all_lengths_are_aligned_as_each_alone() -> None:
    random = Random(3)
    tokens = ["a", "b", "c", "d"]
    pairs = [
        (f"u{n}", *(random.choices(tokens, k=random.choice([0, 1, 5, 9, 400])) for _ in "rh"))
        for n in range(60)
    ]
    for rule in (KALDI, NIST):
        together = align_all(Numbered(pairs), rule)
        assert together.utt_ids == [pair[0] for pair in pairs]
        for n, pair in enumerate(pairs):
            assert together.steps(n) == align_all([pair], rule).steps(0)


def test_ties_follow_the_rules() -> None:
    assert align(["a", "b"], ["b", "c"]) == [("a", "b"), ("b", "c")]
    assert count_errors(["a", "b"], ["b", "c"]) == ErrorCounts(2, 1, 1, 0, 1, 1)
    assert align(["a"], ["a", "a"]) == [(EPS, "a"), ("a", "a")]
    assert align(["a", "a"], ["a"], eps="*") == [("a", "*"), ("a", "a")]
    # 3 substitutions are as dear as 2 deletions with 2 insertions: a substitution is preferred.
    ops = [op for op, _, _ in align_all([("u", list("abx"), list("xde"))], NIST).steps(0)]
    assert ops == [SUB, SUB, SUB]
    # An insertion is preferred to a deletion, so that from the end the deletion comes first.
    ops = [op for op, _, _ in align_all([("u", list("xa"), list("bx"))], NIST).steps(0)]
    assert ops == [INS, CORRECT, DEL]


def test_empty_sides() -> None:
    assert align([], []) == []
    assert align([], ["a"]) == [(EPS, "a")]
    assert align(["a"], []) == [("a", EPS)]
    assert count_errors([], []) == ErrorCounts(0, 0, 0, 0, 1, 0)
    assert count_errors([], ["a", "b"]) == ErrorCounts(0, 2, 0, 0, 1, 1)
    assert count_errors(["a", "b"], []) == ErrorCounts(2, 0, 2, 0, 1, 1)
    assert edit_distance([], []) == 0
    assert len(align_all([])) == 0
    assert align_all([]).total() == ErrorCounts()


def test_a_token_that_looks_like_the_gap() -> None:
    found = align_all([("u", [EPS, "a"], ["a", EPS])])
    assert found.total().errors == 2
    assert np.all(found.ref >= -1)


def test_rates_need_something_to_divide_by() -> None:
    counts = ErrorCounts(8, 1, 1, 1, 4, 1)
    assert (counts.errors, counts.error_rate, counts.sentence_error_rate) == (3, 37.5, 25.0)
    assert (counts.cor, counts.share(2), ErrorCounts().share(1)) == (6, 25.0, 100.0)
    with pytest.raises(DataError, match="references hold no tokens"):
        _ = count_errors([], ["a"]).error_rate
    with pytest.raises(DataError, match="no utterance was scored"):
        _ = ErrorCounts().sentence_error_rate


def test_a_distance_of_numbers() -> None:
    assert edit_distance([1, 2, -1, -2], [1, -2]) == 2


def test_an_unknown_rule() -> None:
    assert find_rule("nist") is NIST
    with pytest.raises(UsageError, match="--alignment must be kaldi or nist, not 'exact'"):
        find_rule("exact")
