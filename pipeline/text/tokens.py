"""Tokens: the output units of a model, as symbols and as numbers (ids).

A tokens file has lines ``symbol id``. The first is ``<blk> 0``, and the ids ascend without a gap::

    <blk> 0
    aa 1
    ae 2

Id 0 is the blank, the ∅ of the papers. The files determine how words are turned into tokens:

========  ====================================  =============================================
kind      condition                             tokens of the text ``["abc", "c"]``
========  ====================================  =============================================
phones    none of the following                 ``abc c``: each item of the text is a symbol
chars     ``<space>``, and single characters    ``a b c <space> c``
bigrams   ``<space>``, and pairs of characters  ``ab c <space> c``
subwords  ``tokens.model`` is beside it         the pieces of that sentencepiece model
========  ====================================  =============================================

A pair that the file lacks is spelt by its two characters. If the file has ``<unk>``, that token
stands for every symbol that the file lacks. What a character is says `characters.py`.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from pipeline.errors import DataError, PhoneError
from pipeline.plain_text import (
    check_end,
    codes,
    shown,
    spelt_twice,
    two_spellings,
)
from pipeline.tables import open_output
from pipeline.text.characters import check_words, has_blanks, pairs
from pipeline.text.symbols import BLANK, SPACE, UNK, check_symbols, kind_of, parse

__all__ = ["BLANK", "SPACE", "UNK", "Tokens"]

_SHOWN = 40  # number of unknown symbols that a message lists


class Tokens:
    """A list of symbols with the blank first; converts text to ids and ids to text.

    Two objects are equal if they encode text in the same way, i.e. if ``sha256`` is the same.

    Args:
        symbols: all symbols in the order of their ids; the first is ``<blk>``.
        sentencepiece_model: the bytes of a sentencepiece model in which piece i is symbol i for
            every i > 0; then the text consists of words and the tokens are their pieces.
        where: the name for messages, such as the path of the file.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        *,
        sentencepiece_model: bytes | None = None,
        where: str = "tokens",
    ) -> None:
        self.symbols = tuple(symbols)
        self.where = where
        self.sentencepiece_model = sentencepiece_model
        check_symbols(self.symbols, where)
        self._ids = {symbol: index for index, symbol in enumerate(self.symbols)}
        self._known = self._ids.keys() - {BLANK}  # the blank in a text is an error
        self._processor = self._load_processor(sentencepiece_model)
        self.kind = "subwords" if self._processor else kind_of(self.symbols, where)
        if self._processor is not None:
            self._known = set("".join(s for s in self.symbols[1:] if s != UNK))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read a tokens file, and the ``.model`` beside it if there is one.

        Raises:
            DataError: the file cannot be read or is not a tokens file; names the file and the line.
        """
        path = _file(path)
        model = path.with_suffix(".model")
        try:
            check_end(path, DataError)
            symbols = parse(path.read_bytes(), str(path))
            return cls(
                symbols,
                sentencepiece_model=model.read_bytes() if model.exists() else None,
                where=str(path),
            )
        except OSError as error:
            raise DataError(
                f"{error.filename}: cannot read these tokens: {error.strerror}; "
                "train_tokenizer.py makes them"
            ) from error

    @classmethod
    def from_text(
        cls, text: Iterable[Sequence[str]], *, unk: bool = False, where: str = "tokens"
    ) -> Self:
        """The tokens of a text of phones: the sorted set of its symbols, and ``<unk>`` if asked.

        Args:
            text: the phones of each utterance.
            unk: whether ``<unk>`` stands for phones that the text lacks.
            where: the name of the text for messages.

        Raises:
            DataError: the text has no symbols.
            PhoneError: the text holds ``<blk>`` or ``<space>``, which have a special meaning.
        """
        symbols = sorted({symbol for tokens in text for symbol in tokens})
        for reserved in (BLANK, SPACE):
            if reserved in symbols:
                what = f'the text holds "{reserved}", which is not a phone; rename it'
                raise PhoneError(f"{where}: {what}")
        return cls(_with_unk(symbols, unk), where=where)

    @classmethod
    def from_characters(
        cls, text: Iterable[Sequence[str]], *, unk: bool = False, where: str = "tokens"
    ) -> Self:
        """The tokens of a text of words: ``<space>``, the sorted set of its characters, and
        ``<unk>`` if asked.

        Raises:
            PhoneError: the text holds a character that is not allowed, see `characters.py`.
        """
        words = _different_words(text, where)
        return cls(_with_unk([SPACE, *sorted({c for w in words for c in w})], unk), where=where)

    @classmethod
    def from_bigrams(
        cls, text: Iterable[Sequence[str]], *, unk: bool = False, where: str = "tokens"
    ) -> Self:
        """The tokens of a text of words: ``<space>``, the sorted set of its characters and of the
        pairs of them that spell its words, and ``<unk>`` if asked.

        Raises:
            DataError: every word is one character.
            PhoneError: as `from_characters`.
        """
        words = _different_words(text, where)
        if not any(len(word) > 1 for word in words):
            raise DataError(f"{where}: no word has two characters; make chars, not bigrams")
        symbols = {symbol for word in words for symbol in (*word, *pairs(word))}
        return cls(_with_unk([SPACE, *sorted(symbols)], unk), where=where)

    @property
    def has_words(self) -> bool:
        """Whether the tokens spell words between blanks: not phones, nor Chinese, Thai …"""
        return self.kind != "phones" and has_blanks(self.symbols)

    @property
    def unk(self) -> int | None:
        """The id of ``<unk>``; None if there is none, so that an unknown symbol is an error."""
        return self._ids.get(UNK)

    @property
    def sha256(self) -> str:
        """Hexadecimal hash of everything that determines how text is encoded."""
        hashed = hashlib.sha256("\n".join(self.symbols).encode())
        hashed.update(b"\0" + (self.sentencepiece_model or b""))
        return hashed.hexdigest()

    def __len__(self) -> int:
        """V, the number of symbols with the blank."""
        return len(self.symbols)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokens) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __repr__(self) -> str:
        return f"Tokens({len(self)} {self.kind}, {self.where})"

    def encode(self, text: Sequence[str], *, where: str = "") -> list[int]:
        """The ids of a text, each in [1, V). An unknown symbol gets the id of ``<unk>``.

        Args:
            text: phones, or words if the kind is another one.
            where: the beginning of error messages, such as ``data/train/text:17``.

        Raises:
            PhoneError: a phone or a character is not a token, and there is no ``<unk>``; or a
                character is not allowed, see `characters.py`.
        """
        return self.encode_all([(where, text)])[0]

    def encode_all(self, texts: Iterable[tuple[str, Sequence[str]]]) -> list[list[int]]:
        """The ids of several texts, see `encode`.

        Args:
            texts: the place of each text, such as ``data/train/text:17``, and the text.

        Raises:
            PhoneError: as for `encode`; lists all unknown symbols, how often each occurs, and where
                it occurs first.
        """
        found: list[list[int]] = []
        unknown: dict[str, int] = {}
        first: dict[str, str] = {}
        for where, text in texts:
            if self.kind != "phones":
                check_words(text, where)
            symbols = text if self.kind == "phones" else self._spelt(text)
            for symbol in symbols:
                if symbol not in self._known and (self.unk is None or symbol == BLANK):
                    unknown[symbol] = unknown.get(symbol, 0) + 1
                    first.setdefault(symbol, where)
            if unknown:
                continue
            if self._processor is not None:
                found.append([int(i) for i in self._processor.encode(" ".join(text))])
            else:
                ids, unk = self._ids, self.unk
                found.append([i for s in symbols if (i := ids.get(s, unk)) is not None])
        if unknown:
            raise self._unknown_symbols(unknown, first)
        return found

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The text of ids in [1, V): phones, or words if the kind is another one.

        Raises:
            PhoneError: an id is that of the blank or out of range.
        """
        numbers = [int(i) for i in ids]
        for i in numbers:
            if not 0 < i < len(self):
                raise PhoneError(
                    f"{self.where}: id {i} is not a token; ids are 1 to {len(self) - 1}, "
                    "and the blank, 0, is dropped before decoding"
                )
        if self._processor is not None:
            return _words(str(self._processor.decode(numbers)))
        symbols = [self.symbols[i] for i in numbers]
        if self.kind != "phones":
            return _words("".join(" " if s == SPACE else s for s in symbols))
        return symbols

    def words(self, ids: Sequence[int]) -> list[tuple[str, int, int]]:
        """The words of ids: (word, the place of its first token, the place after its last one).

        For phones each token is a word. The words are those of `decode`.
        """
        pieces = [self.symbols[i] for i in ids]
        if self.kind == "phones":
            return [(symbol, n, n + 1) for n, symbol in enumerate(pieces)]
        found: list[tuple[str, int, int]] = []
        word = ""
        begin = end = 0
        for place, piece in enumerate([*pieces, SPACE]):
            inside = piece.replace("\u2581", " ") if self._processor is not None else piece
            for char in " " if piece == SPACE else inside:
                if char != " ":
                    begin = begin if word else place
                    word, end = word + char, place + 1
                elif word:
                    found.append((word, begin, end))
                    word = ""
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tokens file, and for subwords the ``.model`` beside it, each atomically.

        Raises:
            DataError: the tokens are not subwords, but a ``.model`` of subwords already exists.
        """
        path = _file(path)
        model = path.with_suffix(".model")
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.sentencepiece_model is not None:
            with open_output(str(model)) as stream:
                stream.write(self.sentencepiece_model)
        elif model.exists():
            raise DataError(f"{model}: would be taken for the model of {path}; remove it first")
        lines = "".join(f"{symbol} {i}\n" for i, symbol in enumerate(self.symbols))
        with open_output(str(path)) as stream:
            stream.write(lines.encode())

    def _spelt(self, words: Sequence[str]) -> list[str]:
        """The symbols of words, or for subwords their characters without the spaces."""
        spelt: list[str] = []
        for word in words:
            if spelt and self._processor is None:
                spelt.append(SPACE)
            if word == UNK and self.unk is not None:
                spelt.append(word)
            elif self.kind == "bigrams":
                for pair in pairs(word):
                    spelt += [pair] if pair in self._known else pair
            else:
                spelt += word
        return spelt

    def _unknown_symbols(self, unknown: dict[str, int], first: dict[str, str]) -> PhoneError:
        what = "phone" if self.kind == "phones" else "character"
        symbol, place = next(iter(first.items()))
        prefix = f"{place}: " if place else ""
        message = (
            f'{prefix}unknown {what} "{shown(symbol)}": not in {self.where}; map it, correct the '
            "text, or make the tokens again with train_tokenizer.py, with --unk to let one token "
            "stand for all unknown ones"
        )
        if pair := two_spellings([*self.symbols, symbol]):
            message += f" ({spelt_twice(pair)})"
        if len(unknown) > 1 or unknown[symbol] > 1:
            times = [f'"{shown(s)}" {n} ({codes(s)}, {first[s]})' for s, n in unknown.items()]
            more = f", and {len(times) - _SHOWN} more" if len(times) > _SHOWN else ""
            listed = ", ".join(times[:_SHOWN]) + more
            message += f". All unknown {what}s, how often each occurs, and where first: {listed}"
        return PhoneError(message)

    def _load_processor(self, model: bytes | None) -> Any:
        if model is None:
            return None
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
            pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
        except (RuntimeError, UnicodeDecodeError) as error:
            raise DataError(
                f"{_model_of(self.where)}: is not a sentencepiece model; make it and {self.where} "
                "again with train_tokenizer.py"
            ) from error
        if [BLANK, *pieces[1:]] != list(self.symbols):
            raise DataError(
                f"{self.where}: the tokens are not the pieces of {_model_of(self.where)}; make "
                "both again with train_tokenizer.py"
            )
        return processor


def _model_of(where: str) -> str:
    return str(Path(where).with_suffix(".model"))


def _with_unk(symbols: Sequence[str], unk: bool) -> list[str]:
    """The blank, ``<unk>`` if asked, and the symbols."""
    return [BLANK, *([UNK] if unk else []), *(s for s in symbols if not (unk and s == UNK))]


def _different_words(text: Iterable[Sequence[str]], where: str) -> set[str]:
    words = {word for sentence in text for word in sentence}
    check_words(sorted(words), where)
    return words


def _words(line: str) -> list[str]:
    return [word for word in line.split(" ") if word]


def _file(path: str | os.PathLike[str]) -> Path:
    if Path(path).name in ("", ".."):
        raise DataError(f"{path}: a folder; give a tokens file")
    return Path(path)
