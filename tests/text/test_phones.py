"""TIMIT's phone sets and the folding between them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PhoneError, UsageError
from pipeline.text.phones import PhoneMap, load_phone_map

MAP = Path(__file__).resolve().parents[2] / "egs" / "timit" / "conf" / "phones.60-48-39.map"
TIMIT = load_phone_map(MAP)

# Lee & Hon's classes: every phone of the 61 that does not keep its name in the 39
FOLDED = {
    **{"ao": "aa", "ax": "ah", "ax-h": "ah", "axr": "er", "ix": "ih", "ux": "uw", "hv": "hh"},
    **{"em": "m", "en": "n", "nx": "n", "eng": "ng", "el": "l", "zh": "sh"},
    **dict.fromkeys(["h#", "pau", "epi", "bcl", "dcl", "gcl", "pcl", "tcl", "kcl"], "sil"),
}


def test_timit_has_61_48_and_39_phones() -> None:
    assert [len(TIMIT.phones(size)) for size in (61, 48, 39)] == [61, 48, 39]


def test_the_39_are_lee_and_hons() -> None:
    for phone in TIMIT.phones(61):
        expected = [] if phone == "q" else [FOLDED.get(phone, phone)]
        assert TIMIT.fold([phone]) == expected


def test_folding_merges_nothing_and_drops_q() -> None:
    phones = ["h#", "q", "ao", "tcl", "t", "ax-h", "h#"]
    assert TIMIT.fold(phones) == ["sil", "aa", "sil", "t", "ah", "sil"]
    assert TIMIT.fold(["bcl", "pau"]) == ["sil", "sil"]
    assert TIMIT.fold(["q"]) == []
    assert TIMIT.fold([]) == []


def test_48_phones() -> None:
    of_48 = ["sil", "vcl", "b", "zh", "cl"]
    assert TIMIT.fold(["h#", "bcl", "b", "zh", "q", "pcl"], to=48) == of_48
    assert TIMIT.fold(of_48, from_set=48) == ["sil", "sil", "b", "sh", "sil"]


def test_to_61_only_checks() -> None:
    assert TIMIT.fold(["q", "h#"], to=61) == ["q", "h#"]
    with pytest.raises(PhoneError, match='"sil"'):
        TIMIT.fold(["sil"], to=61)


@given(st.lists(st.sampled_from(TIMIT.phones(61))))
def test_by_way_of_48_is_the_same(phones: list[str]) -> None:
    folded = TIMIT.fold(phones)
    assert TIMIT.fold(TIMIT.fold(phones, to=48)) == folded
    assert TIMIT.fold(folded) == folded
    assert len(folded) == len(phones) - phones.count("q")


def test_from_set_is_strict() -> None:
    assert TIMIT.fold(["sil", "aa"], from_set=61) == ["sil", "aa"]  # in the target set already
    with pytest.raises(PhoneError, match='unknown phone "vcl"'):
        TIMIT.fold(["vcl"], from_set=61)
    with pytest.raises(PhoneError, match='unknown phone "bcl"'):
        TIMIT.fold(["bcl"], from_set=48)


def test_unknown_phone_names_place_and_map() -> None:
    with pytest.raises(PhoneError) as error:
        TIMIT.fold(["aa", "axr2"], where="data/train/text:17")
    assert str(error.value) == (
        f'data/train/text:17: unknown phone "axr2"; correct it, or map it in {MAP}'
    )


@pytest.mark.parametrize(("to", "from_set"), [(40, None), (39, 60), (61, 39), (48, 39)])
def test_sets_that_do_not_exist_or_unfold(to: int, from_set: int | None) -> None:
    with pytest.raises(UsageError):
        TIMIT.fold(["aa"], to=to, from_set=from_set)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("aa aa\n", r":1: expected"),
        ("aa aa aa\nb b b b\n", r":2: expected"),
        ("aa aa aa\n\n", r":2: expected"),
        ("aa aa aa\naa ah ah\n", r":2: .*'aa' occurs twice"),
        ("ao ao aa\nax ao ah\n", "'ao' folds to 'aa' .* 'ah'"),
    ],
)
def test_bad_maps(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "map"
    path.write_text(text)
    with pytest.raises(PhoneError, match=message):
        load_phone_map(path)


def test_no_such_map(tmp_path: Path) -> None:
    with pytest.raises(PhoneError, match="cannot read"):
        load_phone_map(tmp_path / "none")


def test_other_corpora_may_have_their_own_map(tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_text("AA0 AA AA\nAA1 AA AA\nSPN\n")
    own = load_phone_map(path)
    assert isinstance(own, PhoneMap)
    assert own.fold(["AA0", "SPN", "AA1"]) == ["AA", "AA"]
