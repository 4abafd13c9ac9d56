"""Mandarin texts: the characters that are spoken, and pinyin, the syllables with their tones.

A syllable with its tone, ``zhong1``, is one symbol: letters a to z, v for ü, and 1 to 5, where 5 is
the neutral tone. The r that 儿 adds to another syllable is a symbol of its own, ``r5``. Tones are
those of the dictionary: 一 is yi1 and 不 is bu4 (or bu5), whatever follows.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from pipeline.errors import DataError, PhoneError
from pipeline.plain_text import named, shown

_SYLLABLE = re.compile("[a-z]+[1-5]")
_HAN = ("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH", "IDEOGRAPHIC NUMBER ZERO")
_SAID = frozenset("%％‰&＆@＠#＃*＊/／\\＼")  # punctuation in Unicode, but something is said
# Words in which 儿 is a syllable of its own: before and after it.
_ER_BEFORE = frozenset("女婴幼孤胎男健宠")
_ER_AFTER = frozenset("子童女科歌孙媳")


def characters(text: str, where: str) -> str:
    """The spoken characters of a line, in Unicode's normal form C, without punctuation and blanks.

    Args:
        text: a line of Chinese characters and punctuation.
        where: its place, the beginning of messages.

    Raises:
        PhoneError: the line holds Latin letters, a digit or any other character that is not
            Chinese, or nothing that is spoken.
    """
    spoken = [c for c in unicodedata.normalize("NFC", text) if not _is_silent(c)]
    for char in spoken:
        if not _is_han(char):
            raise PhoneError(f'{where}: "{shown(text.strip())}" {_fault(char, spoken)}')
    if not spoken:
        raise PhoneError(f'{where}: "{shown(text.strip())}" has nothing to say; leave it out')
    return "".join(spoken)


def _is_silent(char: str) -> bool:
    return char not in _SAID and (unicodedata.category(char)[0] in "PZ" or char.isspace())


@lru_cache(maxsize=1 << 14)
def _is_han(char: str) -> bool:
    return unicodedata.name(char, "").startswith(_HAN)


def _fault(char: str, line: Sequence[str]) -> str:
    """What is wrong with a character that is not Chinese, and the remedy."""
    if "LATIN" in unicodedata.name(char, ""):
        letters = "".join(c for c in line if "LATIN" in unicodedata.name(c, ""))
        what = f"has Latin letters ({letters}), but the text must be Mandarin in Chinese characters"
        return f"{what}; a Mandarin voice reads them as English. Take the line out or rewrite it"
    if unicodedata.category(char)[0] == "N":
        return f"has the digit {char}; write numbers as they are spoken, such as 三十"
    return f"holds {named(char)}, which is not a Chinese character; take it out"


def syllables(pinyin: str, count: int, where: str) -> list[str]:
    """The syllables of a line of pinyin, one for each of ``count`` characters.

    Raises:
        PhoneError: a syllable is not of the form ``zhong1``, or their number is another one.
    """
    found = [s.replace("u:", "v").replace("ü", "v") for s in pinyin.split()]
    for syllable in found:
        if not _SYLLABLE.fullmatch(syllable):
            raise PhoneError(
                f'{where}: "{shown(syllable)}" is not a syllable of pinyin with its tone, such as '
                "zhong1, or ma5 for the neutral tone; correct it"
            )
    if len(found) != count:
        what = f"{len(found)} syllables of pinyin for {count} characters"
        raise PhoneError(f"{where}: {what}; give one for each character, none for punctuation")
    return found


def to_pinyin(text: str, where: str = "text") -> list[str]:
    """The syllables of a line by the dictionary of pypinyin; words choose among the readings.

    Args:
        text: a line of Chinese characters; words do not go beyond punctuation.
        where: its place, the beginning of messages.

    Raises:
        DataError: pypinyin is not installed.
        PhoneError: as for `characters`, or the dictionary lacks a character.
    """
    try:
        from pypinyin import Style, lazy_pinyin
    except ImportError as error:
        what = f"pypinyin, which turns characters into pinyin, cannot be used ({error})"
        raise DataError(f"{what}; install it: pip install 'pypinyin>=0.55'") from error
    characters(text, where)
    found: list[str] = []
    for run in re.findall("[^ ]+", "".join(" " if _is_silent(c) else c for c in text)):
        run = unicodedata.normalize("NFC", run)
        read = lazy_pinyin(run, style=Style.TONE3, neutral_tone_with_five=True, v_to_u=False)
        found += [_as_in_a_dictionary(run, n, str(s), where) for n, s in enumerate(read)]
    return found


def _as_in_a_dictionary(run: str, place: int, syllable: str, where: str) -> str:
    char = run[place]
    if not _SYLLABLE.fullmatch(syllable):
        raise PhoneError(f"{where}: no pinyin is known for {char}; give the pinyin of the line")
    if char == "一":
        return "yi1"
    if char == "不" and syllable != "bu5":
        return "bu4"
    if char == "儿" and place > 0 and run[place - 1] not in _ER_BEFORE:
        return syllable if run[place + 1 : place + 2] in _ER_AFTER else "r5"
    return syllable


def without_tone(syllable: str) -> str:
    """``zhong1`` -> ``zhong``."""
    return syllable.rstrip("12345")
