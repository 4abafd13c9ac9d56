"""Tokens: the output units of a model, as symbols and as numbers (ids).

A tokens file has lines ``symbol id``. The first is ``<blk> 0``, and the ids ascend without a gap::

    <blk> 0
    aa 1
    ae 2

Id 0 is the blank, the ∅ of the papers. The files determine how words are turned into tokens:

========  ================================  =================================================
kind      condition                         tokens of the text ``["ab", "c"]``
========  ================================  =================================================
phones    neither of the following          ``ab c``: each item of the text is a symbol
chars     the file has ``<space>``          ``a b <space> c``
subwords  ``tokens.model`` is beside it     the pieces of that sentencepiece model
========  ================================  =================================================
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from pipeline.errors import DataError, PhoneError
from pipeline.tables import open_output

BLANK = "<blk>"
SPACE = "<space>"


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
        _check_symbols(self.symbols, where)
        self._ids = {symbol: index for index, symbol in enumerate(self.symbols)}
        self._processor = self._load_processor(sentencepiece_model)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read a tokens file, and the ``.model`` beside it if there is one.

        Raises:
            DataError: the file cannot be read or is not a tokens file; names the file and the line.
        """
        path = Path(path)
        model = path.with_suffix(".model")
        try:
            symbols = _parse(path.read_bytes(), str(path))
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
    def from_text(cls, text: Iterable[Sequence[str]]) -> Self:
        """The tokens of a text of phones: the sorted set of its symbols.

        Raises:
            DataError: the text has no symbols.
            PhoneError: the text holds ``<blk>`` or ``<space>``, which have a special meaning.
        """
        symbols = sorted({symbol for tokens in text for symbol in tokens})
        for reserved in (BLANK, SPACE):
            if reserved in symbols:
                raise PhoneError(f'the text holds "{reserved}", which is not a phone; rename it')
        return cls([BLANK, *symbols])

    @classmethod
    def from_characters(cls, text: Iterable[Sequence[str]]) -> Self:
        """The tokens of a text of words: ``<space>`` and the sorted set of its characters."""
        characters = sorted({c for words in text for word in words for c in word})
        return cls([BLANK, SPACE, *characters])

    @property
    def kind(self) -> str:
        """``phones``, ``chars`` or ``subwords``; see the table at the head of this module."""
        if self._processor is not None:
            return "subwords"
        return "chars" if SPACE in self._ids else "phones"

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
        """The ids of a text, each in [1, V).

        Args:
            text: phones, or words if the kind is chars or subwords.
            where: the beginning of error messages, such as ``data/train/text:17``.

        Raises:
            PhoneError: a phone or a character is not a token.
        """
        if self._processor is not None:
            return self._encode_subwords(text, where)
        symbols = _spell(text) if self.kind == "chars" else text
        try:
            return [self._id(symbol) for symbol in symbols]
        except KeyError as error:
            raise self._unknown(error.args[0], where) from None

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The text of ids in [1, V): phones, or words for chars and subwords.

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
        if self.kind == "chars":
            return _words("".join(" " if s == SPACE else s for s in symbols))
        return symbols

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tokens file, and for subwords the ``.model`` beside it, each atomically.

        Raises:
            DataError: the tokens are not subwords, but a ``.model`` of subwords already exists.
        """
        path = Path(path)
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

    def _id(self, symbol: str) -> int:
        if symbol == BLANK:
            raise KeyError(symbol)  # the blank in a text is an error
        return self._ids[symbol]

    def _unknown(self, symbol: str, where: str) -> PhoneError:
        what = "phone" if self.kind == "phones" else "character"
        prefix = f"{where}: " if where else ""
        return PhoneError(
            f'{prefix}unknown {what} "{symbol}": not in {self.where}; map it, correct the text, or '
            "make the tokens again with train_tokenizer.py"
        )

    def _encode_subwords(self, words: Sequence[str], where: str) -> list[int]:
        assert self._processor is not None
        ids = [int(i) for i in self._processor.encode(" ".join(words))]
        if 0 in ids:  # the unknown piece of sentencepiece has the number of the blank
            known = set("".join(self.symbols[1:]))
            missing = [c for word in words for c in word if c not in known]
            raise self._unknown(missing[0] if missing else " ".join(words), where)
        return ids

    def _load_processor(self, model: bytes | None) -> Any:
        if model is None:
            return None
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise DataError(
                f"{self.where}: the .model beside it is not a sentencepiece model; "
                "make both again with train_tokenizer.py"
            ) from error
        pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
        if [BLANK, *pieces[1:]] != list(self.symbols):
            raise DataError(
                f"{self.where}: the tokens are not the pieces of the .model beside it; "
                "make both again with train_tokenizer.py"
            )
        return processor


def train_sentencepiece(
    text: Iterable[Sequence[str]], *, kind: str, vocab_size: int, where: str = "text"
) -> Tokens:
    """Learn subword tokens from a text of words; the same text gives the same bytes.

    Args:
        text: the words of each sentence.
        kind: ``bpe`` or ``unigram``.
        vocab_size: V, the number of tokens with the blank.
        where: the name of the text for messages.

    Raises:
        DataError: the text is empty, or too short for this number of tokens.
    """
    import io

    import sentencepiece

    model = io.BytesIO()
    sentences = [" ".join(words) for words in text if words]
    if not sentences:
        raise DataError(f"{where}: there are no words to learn tokens from; give another text")
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type=kind,
            vocab_size=vocab_size,
            character_coverage=1.0,
            normalization_rule_name="identity",  # decoding reproduces the text exactly
            unk_id=0,  # never emitted, because this is the number of the blank
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            num_threads=1,
            max_sentence_length=1 << 20,  # in bytes; sentencepiece drops longer sentences
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2] or str(error)
        raise DataError(f"{where}: cannot learn {vocab_size} {kind} tokens: {reason}") from error
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.getvalue())
    pieces = [processor.id_to_piece(i) for i in range(1, processor.get_piece_size())]
    return Tokens([BLANK, *pieces], sentencepiece_model=model.getvalue(), where=where)


def _spell(words: Sequence[str]) -> list[str]:
    """``["ab", "c"]`` -> ``["a", "b", "<space>", "c"]``."""
    spelt: list[str] = []
    for word in words:
        spelt += [SPACE, *word] if spelt else list(word)
    return spelt


def _words(line: str) -> list[str]:
    return [word for word in line.split(" ") if word]


def _check_symbols(symbols: Sequence[str], where: str) -> None:
    if not symbols or symbols[0] != BLANK:
        raise DataError(f"{where}: the first token must be {BLANK}, because id 0 is the blank")
    if len(symbols) == 1:
        raise DataError(f"{where}: there are no tokens except the blank; is the text empty?")
    seen: set[str] = set()
    for number, symbol in enumerate(symbols, start=1):
        if symbol in seen:
            raise DataError(f'{where}:{number}: the token "{symbol}" occurs twice; remove one')
        if symbol.encode().split() != [symbol.encode()]:  # ASCII blanks, as in Kaldi's tables
            raise DataError(f"{where}:{number}: the token {symbol!r} is empty or holds a space")
        seen.add(symbol)


def _parse(content: bytes, where: str) -> list[str]:
    """The symbols of a tokens file, after a check of the ids."""
    symbols: list[str] = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
        try:
            shown = line.decode("utf-8")
            fields = [field.decode("utf-8") for field in line.split()]  # at ASCII blanks only
        except UnicodeDecodeError as error:
            raise DataError(f"{where}:{number}: not UTF-8; convert it with iconv") from error
        if len(fields) != 2:
            raise DataError(f"{where}:{number}: expected `symbol id`, not {shown!r}")
        symbol, index = fields
        if number == 1 and symbol != BLANK:
            raise DataError(f"{where}:1: expected `{BLANK} 0` in the first line, not {shown!r}")
        if index != str(number - 1):
            raise DataError(
                f'{where}:{number}: the id of "{symbol}" must be {number - 1}, not {index}; ids '
                "are whole numbers from 0 without a gap"
            )
        symbols.append(symbol)
    return symbols
