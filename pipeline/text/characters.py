"""Characters: how words are spelt by them, and which of them a text may hold.

A character is a code point of a text in Unicode's normal form C, whatever the script. So é is one
character. A mark for which no joint form exists, such as a vowel sign of Hindi, is one of its own.

Whatever can be seen is taken as it is: letters of all scripts side by side, digits, punctuation,
symbols, emoji. What cannot be seen is an error, because it would be an output that nobody says and
that nobody finds in a list of tokens: control characters, blanks other than the ASCII space, zero
widths, selectors of variants. So is what is no character: U+FFFD, which stands in the place of a
lost one, private and unassigned codes, and halves of surrogate pairs. The joiners U+200C and
U+200D, with which words of some scripts are spelt, are taken.

[DS2] D. Amodei et al., "Deep Speech 2", 2015 (arXiv 1512.02595), has pairs of letters as outputs.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from pipeline.errors import PhoneError
from pipeline.plain_text import codes, named, shown, unseen

_LOST = "\ufffd"
_VARIANTS = frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
_NO_CHARACTERS = {
    "Cs": "half of a surrogate pair; convert the text to UTF-8 anew",
    "Co": "a private code, which has no meaning outside one font; replace it",
    "Cn": "a code without a character; correct it",
}
# The scripts that put no blanks between words, by the beginnings of their characters' names.
_WITHOUT_BLANKS = (
    "CJK UNIFIED", "CJK COMPATIBILITY", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR",
)  # fmt: skip


def pairs(word: str) -> list[str]:
    """Pairs of characters that do not overlap, of an odd word the last character alone [DS2]."""
    return [word[n : n + 2] for n in range(0, len(word), 2)]


def has_blanks(symbols: Iterable[str]) -> bool:
    """Whether blanks separate the words of a text in these characters.

    They do not if one of them is of a script that is written without: Chinese, Japanese, Thai …
    """
    return not any(_is_of_script_without(char) for symbol in symbols for char in symbol)


@lru_cache(maxsize=1 << 14)
def _is_of_script_without(char: str) -> bool:
    return not char.isascii() and unicodedata.name(char, "").startswith(_WITHOUT_BLANKS)


def check_words(words: Sequence[str], where: str) -> None:
    """Check that the words of an utterance consist of characters.

    Args:
        words: the words.
        where: their place, the beginning of the message.

    Raises:
        PhoneError: names the place, the word, and the character with its code.
    """
    for word in words:
        if not (word.isascii() and word.isprintable()) and (fault := _fault(word)):
            prefix = f"{where}: " if where else ""
            raise PhoneError(f'{prefix}"{shown(word)}" {fault}')


@lru_cache(maxsize=1 << 14)
def _fault(word: str) -> str:
    """What is wrong with a word, and the remedy; empty if nothing."""
    for char in word:
        if char == _LOST:
            return f"holds {named(char)}: a character was lost here; correct the text"
        if what := _NO_CHARACTERS.get(unicodedata.category(char)):
            return f"holds {named(char)}, {what}"
        if char in _VARIANTS or unseen(char, joiners=True):
            return f"holds {named(char)}, which cannot be seen; take it out"
    if not unicodedata.is_normalized("NFC", word):
        remedy = "convert all texts, e.g. with uconv -x nfc"
        return f"({codes(word)}) is not in Unicode's normal form C; {remedy}"
    return ""
