"""Scoring rules: changes of texts before alignment, pairing of utterances, names of variants."""

import gzip
from pathlib import Path

import pytest

from pipeline.errors import DataError, PhoneError, TableError, UsageError
from pipeline.scoring.alignment import align_all
from pipeline.scoring.score_options import ScoringOptions, bracket
from pipeline.scoring.transcripts import read_systems, read_transcripts


@pytest.fixture
def phone_map(tmp_path: Path) -> str:
    (tmp_path / "map").write_text("aa aa aa\nao ao aa\nb b b\nq\npau sil sil\nh# sil sil\n")
    return str(tmp_path / "map")


def fold(text: str, **options: object) -> str:
    folded = ScoringOptions(**options).fold()  # type: ignore[arg-type]
    return " ".join(folded(text.split(), "t: u1") if folded else text.split())


def test_the_default_rule_is_kaldis(phone_map: str) -> None:
    assert fold("h# ao q aa pau pau", map=phone_map) == "sil aa aa sil sil"
    assert ScoringOptions().fold() is None
    assert bracket(ScoringOptions(map=phone_map)) == ""
    assert ScoringOptions(map=phone_map).describe() == (
        "folded to 39 phones by map, q dropped; sil scored; repeats kept; "
        "kaldi alignment, costs 1, 1, 1 of sub, del, ins"
    )


@pytest.mark.parametrize(
    ("variant", "text", "name"),
    [
        ({"keep_q": True}, "sil aa q aa sil sil B b", "keep-q"),
        ({"collapse_sil": True}, "sil aa aa sil B b", "collapse-sil"),
        ({"drop_sil": True}, "aa aa B b", "drop-sil"),
        ({"collapse_repeats": True}, "sil aa sil B b", "collapse-repeats"),
        ({"ignore_case": True}, "sil aa aa sil sil b b", "ignore-case"),
        ({"sil_optional": True}, "sil aa aa sil sil B b", "sil-optional"),
        ({"alignment": "nist"}, "sil aa aa sil sil B b", "alignment=nist"),
    ],
)
def test_variants_have_names(
    tmp_path: Path, phone_map: str, variant: dict[str, object], text: str, name: str
) -> None:
    with open(phone_map, "a") as file:
        file.write("B B B\n")
    assert fold("h# ao q aa pau pau B b", map=phone_map, **variant) == text
    options = ScoringOptions(map=phone_map, **variant)  # type: ignore[arg-type]
    assert bracket(options) == f" [{name}]"
    assert options.describe() != ScoringOptions(map=phone_map).describe()


def test_an_optional_silence_is_no_error() -> None:
    options = ScoringOptions(sil_optional=True)
    pairs = [("u1", ["sil", "a", "sil"], ["a"]), ("u2", ["sil", "a"], ["b", "a"])]
    total = align_all(pairs, options.rule, optional=options.optional).total()
    assert (total.errors, total.sub, total.ref_tokens, total.cor) == (1, 1, 5, 4) or (
        total.errors,
        total.ins,
    ) == (1, 1)


def test_case_and_silence_go_together() -> None:
    assert fold("SIL a SIL", ignore_case=True, drop_sil=True, sil="SIL") == "a"
    options = ScoringOptions(ignore_case=True, sil_optional=True, sil="SIL")
    assert options.optional == {"sil"}
    assert options.describe().startswith("tokens as they stand; SIL scored, its deletion forgiven")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_q": True}, "--map-to and --keep-q apply to a phone map; give --map, too"),
        ({"map_to": 48}, "give --map, too"),
        ({"sil": "a b", "drop_sil": True}, "--sil must be one word, not 'a b'"),
        ({"sil": "", "collapse_sil": True}, "--sil must be one word"),
        ({"drop_sil": True, "sil_optional": True}, "--drop-sil leaves no silence"),
    ],
)
def test_options_that_do_nothing(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ScoringOptions(**options)  # type: ignore[arg-type]


def test_another_set_of_phones_is_a_variant(phone_map: str) -> None:
    assert bracket(ScoringOptions(map=phone_map, map_to=48)) == " [map-to=48]"


def test_folding_is_strict(tmp_path: Path, phone_map: str) -> None:
    (tmp_path / "text").write_text("u1 ao zz\n")
    with pytest.raises(PhoneError, match=r'text: u1: unknown phone "zz"'):
        read_transcripts(f"ark:{tmp_path}/text", fold=ScoringOptions(map=phone_map).fold())
    with pytest.raises(UsageError, match="no set of 40 phones"):
        ScoringOptions(map=phone_map, map_to=40).fold()


# ---- tables --------------------------------------------------------------------------------------


@pytest.fixture
def tables(tmp_path: Path):
    """Read a reference and hypotheses, written as given."""

    def read(ref: str | bytes, *hyps: str | bytes, mode: str = "strict"):
        names = []
        for number, text in enumerate([ref, *hyps]):
            path = tmp_path / f"t{number}"
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            names.append(f"ark:{path}")
        return read_systems(names[0], names[1:], mode=mode)

    return read


def test_modes(tables) -> None:
    ref, hyp = "u1 a\nu2 b\n", "u2 b\n"
    assert list(tables(ref, hyp, mode="present").pairs()) == [("u2", ["b"], ["b"])]
    every = tables(ref, hyp, mode="all")
    assert list(every.pairs()) == [("u1", ["a"], []), ("u2", ["b"], ["b"])]
    assert every.absent == 1
    with pytest.raises(
        DataError, match=r"t1: u1: there is no hypothesis for this utterance; decode it"
    ):
        tables(ref, hyp)
    with pytest.raises(UsageError, match="--mode must be strict, present or all, not 'most'"):
        tables(ref, hyp, mode="most")


def test_two_systems_are_scored_on_the_same_utterances(tables) -> None:
    texts = tables("u1 a\nu2 b\nu3 c\n", "u1 a\nu2 b\n", "u2 b\nu3 c\n", mode="present")
    assert texts.utt_ids == ["u2"]
    assert texts.absent == 2


def test_a_hypothesis_without_a_reference(tables, caplog) -> None:
    ref, hyp = "u1 a\n", "u1 a\nu7 b\nu9 c\n"
    with pytest.raises(DataError, match=r"t1: u7: there is no reference .*\(nor for 1 others\)"):
        tables(ref, hyp)
    assert tables(ref, hyp, mode="present").utt_ids == ["u1"]
    assert "u7: there is no reference" in caplog.text


@pytest.mark.parametrize(
    ("ref", "hyp", "message"),
    [
        ("", "u1 a\n", "t0: has no utterances; give the references"),
        ("u1 a\n", "", "t1: has no utterances; decode them first"),
        ("u1 a\n", "u1 a\nu1 b\n", "t1: u1 occurs twice"),
        ("u1 a\n", b"u1 \xe9\n", 't1: key "u1".*not UTF-8|t1.*UTF-8'),
        ("u1 a\n", b"u1 \xff\xfea\0\n", "t1"),
        ("u1 a\n", "\nu1 a\n", "t1:1: the line is empty"),
        ("u1 a\n", "u1 a\rb\n", 't1: key "u1" byte 7: the line holds a carriage return'),
        ("u1 \u00e9\n", "u1 e\u0301\n", 't1: ".*" is spelt in two ways'),
        ("\u00e9 a\n", "e\u0301 a\n", 't0 and .*t1: ".*" is spelt in two ways'),
        ("u1 a\n", "u\u200b1 a\n", r't1: byte 0: "u<U\+200B>1" holds U\+200B ZERO WIDTH'),
        ("u1 a\n", "u1 a\n".encode("utf-16"), "this is UTF-16; convert it with iconv"),
        ("u1 a\n", gzip.compress(b"u1 a\n"), "compressed by gzip; .*ark:gunzip -c FILE"),
    ],
)
def test_bad_tables_are_named(tables, ref: str, hyp: str | bytes, message: str) -> None:
    with pytest.raises((DataError, TableError), match=message):
        tables(ref, hyp)


def test_nothing_in_common(tables) -> None:
    with pytest.raises(DataError, match=r"no keys in common; does ark:.*t0 hold the references of"):
        tables("u1 a\n", "u2 a\n", mode="present")


def test_tokens_are_split_at_ascii_blanks_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("u1  a\u3000b\t é \nu2\nu3 \n", encoding="utf-8")
    tokens = {"u1": ["a\u3000b", "é"], "u2": [], "u3": []}
    assert read_transcripts(f"ark:{tmp_path / 'text'}") == tokens
