"""Text as people and their editors write it: one rule for every text file that a program reads.

* A byte order mark at the beginning is taken off, and a warning names the file.
* Lines end in a newline, or in a carriage return and a newline. A carriage return anywhere else is
  an error.
* A file in UTF-16, a compressed file, a picture or a recording is an error that says what it is.
* A name (of an utterance, a speaker …) with a character that cannot be seen is an error, because
  it looks like another name: a zero-width space, a blank that does not break a line, a mark inside.
* Two spellings of one symbol that Unicode counts as equal, such as é as one character or as two
  (e and an accent), are an error wherever symbols or names are compared.
"""

import codecs
import logging
import os
import stat
import unicodedata
from collections.abc import Iterable

from pipeline.errors import PipelineError

log = logging.getLogger("pipeline")

MARK = codecs.BOM_UTF8

_UTF_16 = "UTF-16; convert it with iconv -f utf-16 -t utf-8"
_FOREIGN = {
    codecs.BOM_UTF32_LE: "UTF-32; convert it with iconv -f utf-32 -t utf-8",
    codecs.BOM_UTF32_BE: "UTF-32; convert it with iconv -f utf-32 -t utf-8",
    codecs.BOM_UTF16_LE: _UTF_16,
    codecs.BOM_UTF16_BE: _UTF_16,
    b"\x1f\x8b": "compressed by gzip; unpack it with gunzip",
    b"BZh": "compressed by bzip2; unpack it with bunzip2",
    b"\xfd7zXZ": "compressed by xz; unpack it with unxz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it with unzstd",
    b"PK\3\4": "a zip file; unpack it with unzip",
    b"\x89PNG": "a PNG picture; give a text file",
    b"\xff\xd8\xff": "a JPEG picture; give a text file",
    b"GIF8": "a GIF picture; give a text file",
    b"%PDF": "a PDF file; give a text file",
    b"RIFF": "a WAV recording; give a text file",
    b"fLaC": "a FLAC recording; give a text file",
    b"OggS": "an Ogg recording; give a text file",
    b"NIST_1A": "a SPHERE recording; give a text file",
    b"\x7fELF": "a program; give a text file",
}
RETURN = "holds a carriage return that does not end it; replace it with tr '\\r' '\\n'"
_NUL = "holds a NUL byte; the file is damaged or is not a text"
_BINARY = "not text but binary data; give a text file"
# Characters that look like nothing or like a blank, besides white space and control characters.
_UNSEEN = frozenset(
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2060\u2061\u2062\u2063"
    "\u2064\u2800\u3164\ufeff\uffa0\ufff9\ufffa\ufffb"
).union(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x2070), *range(0xE0000, 0xE0080))))
_JOINERS = "\u200c\u200d"  # part of the spelling of words in some scripts, but not of names
_warned: set[str] = set()


# /dev/zero, full, random and urandom
_ENDLESS = {os.makedev(1, minor) for minor in (5, 7, 8, 9)}


def foreign(data: bytes, *, nul: bool = False) -> str:
    """What a file is that is not a text in UTF-8, and the remedy; empty if it may be one.

    Args:
        data: the bytes of the file, or its beginning.
        nul: whether NUL bytes are allowed, as in archives.
    """
    for start, what in _FOREIGN.items():
        if data.startswith(start):
            return what
    if b"\0" not in data[:4096]:
        return ""
    zeros = data[:4096:2].count(0), data[1:4096:2].count(0)
    if len(data) > 3 and min(zeros) == 0 and max(zeros) >= len(data[:4096]) // 2:
        return _UTF_16
    return "" if nul else _BINARY


def without_mark(data: bytes, name: str) -> bytes:
    """The bytes of a file without a byte order mark; a warning names the file if it has one."""
    if not data.startswith(MARK):
        return data
    warn_of_mark(name)
    return data[len(MARK) :]


def warn_of_mark(name: str) -> None:
    """Log once that a file begins with a byte order mark."""
    if name not in _warned:
        _warned.add(name)
        log.warning("%s: begins with a byte order mark, which was passed over; take it off", name)


def decode_text(data: bytes, name: str, error: type[PipelineError]) -> str:
    """The text of a file, whose lines end in newlines alone.

    Args:
        data: the bytes of the file.
        name: the name of the file for messages.
        error: the class of the errors that are raised.

    Raises:
        PipelineError: of the given class; the file is not a text in UTF-8, or a carriage return
            does not end a line. Names the file, and the line if the file is a text.
    """
    if what := foreign(data):
        raise error(f"{name}: is {what}")
    data = without_mark(data, name).replace(b"\r\n", b"\n")
    for wrong, what in ((b"\0", _NUL), (b"\r", RETURN)):
        if (place := data.find(wrong)) >= 0:
            raise error(f"{name}:{_line(data, place)}: {what}")
    try:
        return data.decode()
    except UnicodeDecodeError as fault:
        line = _line(data, fault.start)
        raise error(f"{name}:{line}: not UTF-8; convert the file with iconv") from None


def _line(data: bytes, place: int) -> int:
    return data.count(b"\n", 0, place) + 1


def check_end(path: str | os.PathLike[str], error: type[PipelineError]) -> None:
    """Raise an error of the given class if a file is a device that can be read for ever."""
    try:
        status = os.stat(path)
    except OSError:
        return
    if stat.S_ISCHR(status.st_mode) and status.st_rdev in _ENDLESS:
        raise error(f"{os.fspath(path)}: a device without an end; give a file")


def read_lines(path: str | os.PathLike[str], error: type[PipelineError]) -> list[str]:
    """The lines of a text file without their ends; for errors see `decode_text`.

    Raises:
        OSError: the file cannot be read.
    """
    check_end(path, error)
    with open(path, "rb") as stream:
        text = decode_text(stream.read(), os.fspath(path), error)
    return text.removesuffix("\n").split("\n") if text else []


# ---- characters ----------------------------------------------------------------------------------


def shown(text: str) -> str:
    """A text for messages, in which characters that cannot be seen are written as <U+200B>."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"<U+{ord(c):04X}>" if c != " " and _is_unseen(c, _JOINERS) else c for c in text)


def named(char: str) -> str:
    """The code and the name of a character: ``U+200B ZERO WIDTH SPACE``."""
    return f"U+{ord(char):04X} {unicodedata.name(char, '')}".strip()


def unseen(text: str, *, joiners: bool = False) -> str:
    """The first character that cannot be seen or that looks like a blank; empty without one.

    Args:
        text: a name or a word, without ASCII blanks.
        joiners: whether the zero-width joiner and non-joiner, with which words of some scripts are
            spelt, are allowed.
    """
    if text.isascii() and text.isprintable():
        return ""
    return next((c for c in text if _is_unseen(c, "" if joiners else _JOINERS)), "")


def _is_unseen(char: str, joiners: str) -> bool:
    return (
        char in _UNSEEN or char in joiners or char.isspace() or unicodedata.category(char) == "Cc"
    )


def fault_of_name(name: str) -> str:
    """What is wrong with the name of an utterance, a speaker …, and the remedy; empty if nothing.

    Args:
        name: the name, without ASCII blanks.
    """
    if char := unseen(name):
        return f'"{shown(name)}" holds {named(char)}, which cannot be seen; take it out'
    return ""


def two_spellings(words: Iterable[str], *, parts: bool = True) -> tuple[str, str] | None:
    """Two different words, or parts of words, that Unicode counts as equal; None without any.

    é may be one character (normal form C) or e and an accent (normal form D). A part of a word is a
    character with the accents after it, so that a text which mixes both forms is found even if no
    word occurs in both.

    Args:
        words: the words.
        parts: whether parts of words are compared, too.
    """
    found: dict[str, str] = {}
    for word in words:
        if word.isascii():
            continue
        for part in (word, *(_with_accents(word) if parts else [])):
            other = found.setdefault(unicodedata.normalize("NFC", part), part)
            if other != part:
                return other, part
    return None


def _with_accents(word: str) -> list[str]:
    """The characters of a word, each with its accents (in Korean, with the rest of a syllable)."""
    parts: list[str] = []
    for char in word:
        if parts and (unicodedata.combining(char) or "\u1160" <= char <= "\u11ff"):
            parts[-1] += char
        else:
            parts.append(char)
    return parts


def codes(text: str) -> str:
    """The codes of the characters of a text: ``U+0065 U+0301``."""
    return " ".join(f"U+{ord(c):04X}" for c in text)


def spelt_twice(pair: tuple[str, str]) -> str:
    """The message, with its remedy, about the result of `two_spellings`."""
    return (
        f'"{pair[0]}" is spelt in two ways that look the same but would count as different, '
        f"{codes(pair[0])} and {codes(pair[1])}; convert all files to one Unicode normal form, "
        "e.g. with uconv -x nfc"
    )


def check_spellings(
    words: Iterable[str], where: str, error: type[PipelineError], *, parts: bool = True
) -> None:
    """Raise ``error`` if one symbol is spelt in two ways that Unicode counts as equal.

    Args:
        words: the words, symbols or names to compare.
        where: the file or files that hold them, the beginning of the message.
        error: the class of the error.
        parts: whether parts of words are compared, too.
    """
    if pair := two_spellings(words, parts=parts):
        raise error(f"{where}: {spelt_twice(pair)}")
