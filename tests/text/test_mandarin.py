"""Mandarin texts: what is spoken of a line, and its pinyin."""

import sys

import pytest

from pipeline.errors import DataError, PhoneError
from pipeline.text.mandarin import characters, syllables, to_pinyin, without_tone


def test_punctuation_and_blanks_are_not_spoken() -> None:
    assert characters("“你好”，　他 说。——（是吗？）", "x") == "你好他说是吗"
    assert characters("\uf907", "x") == "\u9f9c"  # a compatibility form, in normal form C
    assert characters("二〇二六", "x") == "二〇二六"
    assert characters("𠮷", "x") == "𠮷"  # beyond 16 bits


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("卡拉OK", r'^t:7: "卡拉OK" has Latin letters \(OK\), but the text must be Mandarin'),
        ("ＯＫ吧", "has Latin letters"),
        ("5月", "has the digit 5; write numbers as they are spoken, such as 三十"),
        ("５月", "has the digit ５"),
        ("ひ", r"holds U\+3072 HIRAGANA LETTER HI, which is not a Chinese character"),
        ("百分之五%", r"holds U\+0025 PERCENT SIGN"),
        ("你\u200b好", r"U\+200B ZERO WIDTH SPACE"),
        ("…！", "has nothing to say; leave it out"),
    ],
)
def test_what_is_not_mandarin_is_named(line: str, what: str) -> None:
    with pytest.raises(PhoneError, match=what):
        characters(line, "t:7")


def test_syllables_are_checked() -> None:
    assert syllables("lü4 nu:3 ma5", 3, "x") == ["lv4", "nv3", "ma5"]
    for wrong in ("ma", "mā", "Ma1", "ma6", "1", "ma1."):
        with pytest.raises(PhoneError, match="is not a syllable of pinyin with its tone"):
            syllables(wrong, 1, "x")
    with pytest.raises(PhoneError, match=r"^x: 1 syllables of pinyin for 2 characters"):
        syllables("ma1", 2, "x")


@pytest.mark.parametrize(
    ("text", "pinyin"),
    [
        ("我在银行，不能步行。", "wo3 zai4 yin2 hang2 bu4 neng2 bu4 xing2"),
        ("他长大了，去长城。", "ta1 zhang3 da4 le5 qu4 chang2 cheng2"),
        ("不是一个", "bu4 shi4 yi1 ge4"),
        ("女儿在这儿，儿子在哪儿？", "nv3 er2 zai4 zhe4 r5 er2 zi5 zai4 na3 r5"),
    ],
)
def test_readings_follow_from_the_words(text: str, pinyin: str) -> None:
    assert to_pinyin(text) == pinyin.split()


def test_a_character_without_a_reading() -> None:
    with pytest.raises(PhoneError, match=r"^a:1: no pinyin is known for 𱁬; give the pinyin"):
        to_pinyin("我𱁬", "a:1")


def test_without_the_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypinyin", None)
    with pytest.raises(DataError, match="install it: pip install 'pypinyin"):
        to_pinyin("我")


def test_a_syllable_without_its_tone() -> None:
    assert [without_tone(s) for s in ("zhong1", "r5", "a4", "nv")] == ["zhong", "r", "a", "nv"]
