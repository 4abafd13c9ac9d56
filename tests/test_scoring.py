"""Error counts and alignments against Kaldi's own, rapidfuzz's distance and brute force."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from pipeline.errors import DataError, PhoneError, TableError
from pipeline.scoring import (
    EPS,
    ErrorCounts,
    align,
    count_errors,
    edit_distance,
    pair_up,
    phone_folder,
    read_transcripts,
    total_errors,
)

TOKENS = st.lists(st.sampled_from(["a", "é", "ß", "音\u3000", "h#"]), max_size=12)


@pytest.mark.parametrize(
    ("system", "counts"),
    [
        ("hypA", ErrorCounts(6228, 376, 593, 993, 200, 190)),
        ("hypB", ErrorCounts(6228, 315, 346, 709, 200, 191)),
    ],
)
def test_totals_and_kinds_are_those_of_kaldi(
    golden: Path, system: str, counts: ErrorCounts
) -> None:
    refs = read_transcripts(f"ark:{golden / 'scoring' / 'ref.txt'}")
    hyps = read_transcripts(f"ark:{golden / 'scoring' / system}.txt")
    assert total_errors(pair_up(refs, hyps)) == counts


@given(TOKENS, TOKENS)
def test_every_way_of_counting_agrees(ref: list[str], hyp: list[str]) -> None:
    counts, pairs = count_errors(ref, hyp), align(ref, hyp)
    distance = Levenshtein.distance(ref, hyp)
    assert counts.errors == edit_distance(ref, hyp) == distance == brute_force(ref, hyp)
    assert sum(r != h for r, h in pairs) == distance
    assert [r for r, _ in pairs if r != EPS] == ref
    assert [h for _, h in pairs if h != EPS] == hyp
    assert counts.ins - counts.del_ == len(hyp) - len(ref)
    assert counts.wrong_sentences == (ref != hyp)


def brute_force(ref: list[str], hyp: list[str]) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(
            distance(i - 1, j - 1) + (ref[i - 1] != hyp[j - 1]),
            distance(i - 1, j) + 1,
            distance(i, j - 1) + 1,
        )

    return distance(len(ref), len(hyp))


def test_ties_follow_the_two_rules() -> None:
    assert align(["a", "b"], ["b", "c"]) == [("a", "b"), ("b", "c")]
    assert count_errors(["a", "b"], ["b", "c"]) == ErrorCounts(2, 1, 1, 0, 1, 1)
    assert align(["a"], ["a", "a"]) == [(EPS, "a"), ("a", "a")]
    assert align(["a", "a"], ["a"], eps="*") == [("a", "*"), ("a", "a")]


def test_empty_sides() -> None:
    assert align([], []) == []
    assert align([], ["a"]) == [(EPS, "a")]
    assert align(["a"], []) == [("a", EPS)]
    assert count_errors([], []) == ErrorCounts(0, 0, 0, 0, 1, 0)
    assert count_errors([], ["a", "b"]) == ErrorCounts(0, 2, 0, 0, 1, 1)
    assert count_errors(["a", "b"], []) == ErrorCounts(2, 0, 2, 0, 1, 1)
    assert edit_distance([], []) == 0


def test_rates_need_something_to_divide_by() -> None:
    counts = ErrorCounts(8, 1, 1, 1, 4, 1)
    assert (counts.errors, counts.error_rate, counts.sentence_error_rate) == (3, 37.5, 25.0)
    with pytest.raises(DataError, match="references hold no tokens"):
        _ = count_errors([], ["a"]).error_rate
    with pytest.raises(DataError, match="no utterance was scored"):
        _ = ErrorCounts().sentence_error_rate


def test_a_distance_of_numbers() -> None:
    assert edit_distance([1, 2, -1, -2], [1, -2]) == 2


def test_references_without_hypothesis() -> None:
    refs, hyps = {"u1": ["a"], "u2": ["b"]}, {"u2": ["b"], "u3": ["c"]}
    assert list(pair_up(refs, hyps, mode="present")) == [("u2", ["b"], ["b"])]
    assert list(pair_up(refs, hyps, mode="all")) == [("u1", ["a"], []), ("u2", ["b"], ["b"])]
    with pytest.raises(DataError, match=r"^u1: no hypothesis"):
        list(pair_up(refs, hyps))


def test_a_key_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("u1 a\nu1 b\n")
    with pytest.raises(TableError, match="u1"):
        read_transcripts(f"ark:{tmp_path / 'text'}")


def test_tokens_are_split_at_ascii_blanks_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("u1  a\u3000b\t é \nu2\nu3 \n", encoding="utf-8")
    tokens = {"u1": ["a\u3000b", "é"], "u2": [], "u3": []}
    assert read_transcripts(f"ark:{tmp_path / 'text'}") == tokens


def test_phones_are_folded_while_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "map").write_text("aa aa aa\nao ao aa\nq\npau sil sil\n")
    (tmp_path / "text").write_text("u1 ao q pau sil\nu2 q\n")
    fold = phone_folder(str(tmp_path / "map"), to=39)
    text = f"ark:{tmp_path / 'text'}"
    assert read_transcripts(text, fold=fold) == {"u1": ["aa", "sil", "sil"], "u2": []}
    (tmp_path / "text").write_text("u1 aa axr2\n")
    with pytest.raises(PhoneError, match=r'text: u1: unknown phone "axr2"'):
        read_transcripts(text, fold=fold)
