"""Text as editors write it: marks, line ends, encodings, characters that cannot be seen."""

import codecs
import gzip
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.data_dir import read_map
from pipeline.errors import PipelineError
from pipeline.nn.config import load_model_config
from pipeline.options import read_options_file
from pipeline.plain_text import (
    RETURN,
    check_spellings,
    decode_text,
    foreign,
    shown,
    two_spellings,
    unseen,
)
from pipeline.plots.segments import read_ctm, read_phn
from pipeline.scoring.transcripts import read_transcripts
from pipeline.tables import MatrixReader, ScpReader, TextReader
from pipeline.text.ngram import read_arpa
from pipeline.text.phones import load_phone_map
from pipeline.text.tokens import Tokens

ARPA = "\\data\\\nngram 1=3\n\n\\1-grams:\n-99\t<s>\n-0.5\t</s>\n-0.5\ta\n\n\\end\\\n"
TOML = "[encoder]\ninput_dim = 6\nlayers = 1\ncells = 16\n"
TOKENS = Tokens(["<blk>", "a"])

# What reads a text: a good text, and a function from its path to something comparable.
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "data directory": ("a 1\nb 2\n", read_map),
    "text table": ("a 1\nb 2\n", lambda path: list(TextReader(f"ark:{path}"))),
    "transcripts": ("a 1\nb 2\n", lambda path: read_transcripts(f"ark:{path}")),
    "matrices": ("a [ 1 2 ]\nb [ 3 4 ]\n", lambda path: str(list(MatrixReader(f"ark:{path}")))),
    "scp": ("a x.ark:1\nb x.ark:2\n", lambda path: list(ScpReader(f"scp:{path}"))),
    "phone map": ("a b c\nq\nd d d\n", lambda path: load_phone_map(path).rows),
    "ARPA": (ARPA, lambda path: str(read_arpa(path, TOKENS))),
    "options": ("--a=1\n# c\n--b=2\n", read_options_file),
    "TOML": (TOML, load_model_config),
    "tokens": ("<blk> 0\na 1\nb 2\n", lambda path: Tokens.from_file(path).symbols),
    "PHN": ("0 10 a\n10 20 b\n", lambda path: read_phn(path, 16000)),
    "ctm": (";; c\nu 1 0.0 0.5 a\nu 1 0.5 0.5 b\n", lambda path: read_ctm(path, "u")),
}
NAMES = sorted(READERS)


def png() -> bytes:
    parts = (b"IHDR" + struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0), b"IEND")
    chunks = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("name", NAMES)
def test_a_mark_and_windows_line_ends_change_nothing(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    text, read = READERS[name]
    path = tmp_path / "text"
    path.write_text(text)
    expected = read(path)
    for mark in (b"", codecs.BOM_UTF8):
        for end in ("\n", "\r\n"):
            path = tmp_path / f"{len(mark)}{len(end)}"
            path.write_bytes(mark + text.replace("\n", end).encode())
            caplog.clear()
            assert read(path) == expected
            warned = f"{path}: begins with a byte order mark" in caplog.text
            assert warned == bool(mark), caplog.text


@pytest.mark.parametrize("name", NAMES)
def test_carriage_returns_alone_are_named(tmp_path: Path, name: str) -> None:
    text, read = READERS[name]
    for number, changed in enumerate((text.replace("\n", "\r"), text.replace("\n", "\r", 1))):
        path = tmp_path / str(number)
        path.write_bytes(changed.encode())
        with pytest.raises(
            PipelineError, match=r"carriage return|newline|after the closing"
        ) as caught:
            read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("encode", "what"),
    [
        (lambda text: text.encode("utf-16"), "UTF-16"),
        (lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"), "UTF-16"),
        (lambda text: text.encode("utf-16-le"), "UTF-16"),
        (lambda text: text.encode("utf-32"), "UTF-32"),
        (lambda text: gzip.compress(text.encode()), "gzip"),
        (lambda text: png(), "PNG"),
        (lambda text: b"RIFF\x24\0\0\0WAVEfmt ", "WAV"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, name: str, encode: Callable, what: str) -> None:
    text, read = READERS[name]
    if (name, what) == ("ARPA", "gzip"):
        return  # is unpacked
    path = tmp_path / "text"
    path.write_bytes(encode(text))
    with pytest.raises(PipelineError, match=what) as caught:
        read(path)
    assert str(path) in str(caught.value)


WORDS = st.text(st.characters(codec="utf-8", categories=["L", "N", "M", "P"]), min_size=1)


@given(st.lists(WORDS, min_size=1), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_decoding_undoes_what_editors_do(words: list[str], end: str, mark: bool) -> None:
    data = codecs.BOM_UTF8 * mark + "".join(word + end for word in words).encode()
    if not foreign(data):
        assert decode_text(data, "x", PipelineError) == "".join(word + "\n" for word in words)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_text_or_an_error_that_names_the_file(data: bytes) -> None:
    try:
        text = decode_text(data, "the file", PipelineError)
    except PipelineError as error:
        assert str(error).startswith("the file:")  # noqa: PT017
        assert "; " in str(error)  # noqa: PT017
    else:
        assert "\r" not in text
        assert text.encode() == data.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")


@given(WORDS)
def test_equal_spellings_are_found(word: str) -> None:
    forms = {unicodedata.normalize(form, word) for form in ("NFC", "NFD")}
    assert (two_spellings(sorted(forms), parts=False) is None) == (len(forms) == 1)
    for form in forms:
        assert two_spellings([form, form]) is None


def test_a_mixture_of_forms_is_found_in_parts_of_words() -> None:
    words = ["caf\u00e9", "te\u0301"]
    assert two_spellings(words, parts=False) is None
    assert two_spellings(words) == ("\u00e9", "e\u0301")
    assert two_spellings(["\ud55c\uad6d", "\u1112\u1161\u11ab"]) is not None  # Korean
    with pytest.raises(PipelineError, match=r"^x: .* U\+00E9 and U\+0065 U\+0301; convert"):
        check_spellings(words, "x", PipelineError)


@pytest.mark.parametrize("char", "\u200b\ufeff\u00a0\u2060\u00ad\u200e\u3000\u2028\x07\u3164\u200d")
def test_names_with_what_cannot_be_seen_are_refused(tmp_path: Path, char: str) -> None:
    assert unseen(f"a{char}b") == char
    assert shown(f"a{char}b") == f"a<U+{ord(char):04X}>b"
    path = tmp_path / "x"
    path.write_bytes(f"u1 x\nu{char}2 y\n".encode())
    for read in (READERS[n][1] for n in ("data directory", "text table", "scp")):
        with pytest.raises(PipelineError, match=f"U\\+{ord(char):04X}") as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_words_may_be_spelt_with_joiners() -> None:
    assert unseen("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", joiners=True) == ""


def test_the_message_about_a_carriage_return_says_what_to_do() -> None:
    assert "tr '\\r' '\\n'" in RETURN
