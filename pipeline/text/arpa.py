"""ARPA files, in which n-gram language models are kept.

A file lists log10 P(w|h) of some n-grams. For all others the rule is P(w|h) = bow(h) · P(w|h'),
where h' is h without its first word and the back-off weight bow(h) is 1 if the file has none. An
example::

    \\data\\
    ngram 1=3
    ngram 2=1

    \\1-grams:
    -99 <s> -0.30103
    -0.30103 </s>
    -0.30103 a -0.1

    \\2-grams:
    -0.1 <s> a

    \\end\\

The reader is strict. Of the existing libraries, kaldilm ends the process at a wrong file and keeps
only six digits, and arpa ignores wrong counts.
"""

import contextlib
import gzip
import itertools
import math
import os
import re
import zlib
from collections.abc import Generator, Iterable
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.plain_text import RETURN, check_end, foreign, without_mark

BOS, EOS, EPS = "<s>", "</s>", "<eps>"
UNKNOWN = ("<unk>", "<UNK>")  # the second is the CMU toolkit's

_ROUNDING = 1e-5  # rounding may raise log10 of a probability above 0 by this much
_GZIP = b"\x1f\x8b"
_COUNT = re.compile(rb"ngram\s+(\d{1,18})\s*=\s*(\d{1,18})")
_SECTION = re.compile(rb"(?m)^\\(?:(\d{1,9})-grams:|end\\)[ \t]*$")

Words = tuple[str, ...]
Table = dict[Words, tuple[float, float]]  # n-grams of one order: log10 P(w|h), log10 bow(hw)


class Order(NamedTuple):
    """All n-grams of one length, in the order of the file."""

    ids: NDArray[np.int64]  # (C, n), numbers of words
    log_probs: NDArray[np.float64]  # (C,), log10 P(w|h)
    backoffs: NDArray[np.float64]  # (C,), log10 bow(hw); 0 if the file has none


class Arpa(NamedTuple):
    """An ARPA file as columns. The number of a word is its place among the 1-grams."""

    words: list[str]
    orders: list[Order]


def read_tables(path: str | os.PathLike[str]) -> list[Table]:
    """Read the n-grams of each order, from 1, of an ARPA file, which may be gzipped.

    Raises:
        DataError: the file cannot be read, or is not a complete ARPA file. Names the file and the
            line.
    """
    path = os.fspath(path)
    with contextlib.closing(_unpacked_lines(path)) as lines:
        return _ArpaReader(path, lines).read()


def read_columns(path: str | os.PathLike[str]) -> Arpa:
    """Read an ARPA file as columns: a million n-grams in about two seconds.

    A file without fault is read as a whole, not line by line. Any other is read by `read_tables`.

    Raises:
        DataError: as `read_tables`.
    """
    path = os.fspath(path)
    with contextlib.closing(_unpacked_lines(path)) as lines:
        data = b"".join(lines)
    with contextlib.suppress(_OddError, ValueError, KeyError):
        return _whole(data)
    tables = read_tables(path)
    words = [word for (word,) in tables[0]]
    ids = {word: n for n, word in enumerate(words)}
    return Arpa(words, [_as_columns(table, ids) for table in tables])


def _as_columns(table: Table, ids: dict[str, int]) -> Order:
    rows = [[ids[word] for word in words] for words in table]
    numbers = np.array(list(table.values()), np.float64).reshape(-1, 2)
    log_probs, backoffs = np.ascontiguousarray(numbers.T)
    return Order(np.array(rows, np.int64).reshape(len(rows), -1), log_probs, backoffs)


# ---- the file as a whole -------------------------------------------------------------------------


class _OddError(Exception):
    """A file has something that `_whole` does not read; whether it is wrong says `read_tables`."""


def _whole(data: bytes) -> Arpa:
    marks = list(_SECTION.finditer(data))
    counts = _counts_of(data, marks[0].start() if marks else 0)
    names = [int(mark[1]) if mark[1] else 0 for mark in marks]
    if b"\r" in data or names != [*range(1, len(counts) + 1), 0]:
        raise _OddError
    words: list[str] = []
    ids: dict[bytes, int] = {}
    orders = []
    for order, (mark, end) in enumerate(itertools.pairwise(marks), start=1):
        fields, first, width = _fields(data[mark.end() : end.start()], order, len(counts))
        if len(first) != counts[order - 1]:
            raise _OddError
        if order == 1:
            spelt = fields[first + 1].tolist()
            words = [word.decode() for word in spelt]
            ids = {word: n for n, word in enumerate(spelt)}
            if len(ids) != len(spelt):
                raise _OddError
        columns = [[*map(ids.__getitem__, fields[first + n].tolist())] for n in range(1, order + 1)]
        log_probs = np.array([*map(float, fields[first].tolist())])
        backoffs = np.zeros(len(first))
        has = width > order + 1
        backoffs[has] = [*map(float, fields[first[has] + order + 1].tolist())]
        if not ((log_probs <= _ROUNDING).all() and (backoffs < math.inf).all()):
            raise _OddError
        orders.append(Order(np.array(columns, np.int64).T.reshape(-1, order), log_probs, backoffs))
        _check_distinct(orders[-1].ids, len(words))
    return Arpa(words, orders)


def _counts_of(data: bytes, end: int) -> list[int]:
    """The counts in the head of the file."""
    lines = [line.strip() for line in data[:end].split(b"\n")]
    found = [_COUNT.fullmatch(line) for line in lines[lines.index(b"\\data\\") + 1 :] if line]
    numbers = [(int(match[1]), int(match[2])) for match in found if match]
    if not found or len(numbers) < len(found):
        raise _OddError
    if [n for n, _ in numbers] != [*range(1, len(numbers) + 1)]:
        raise _OddError
    return [count for _, count in numbers]


def _fields(
    section: bytes, order: int, highest: int
) -> tuple[NDArray[np.object_], NDArray[np.int64], NDArray[np.int64]]:
    """The fields of a section, the place of each line's first one, and how many a line has."""
    chars = np.frombuffer(b"\n" + section, np.uint8)
    is_space = (chars == 32) | ((chars >= 9) & (chars <= 13))
    begins = np.flatnonzero(is_space[:-1] & ~is_space[1:])
    lines = np.searchsorted(np.flatnonzero(chars == 10), begins, side="right")
    _, first, width = np.unique(lines, return_index=True, return_counts=True)
    if len(width) and not order < width.min() <= width.max() <= order + (
        1 if order == highest else 2
    ):
        raise _OddError
    split = section.split()
    fields = np.empty(len(split), object)
    fields[:] = split
    if len(fields) != len(begins):
        raise _OddError
    return fields, first.astype(np.int64), width.astype(np.int64)


def _check_distinct(ids: NDArray[np.int64], vocab: int) -> None:
    """Raise _OddError if an n-gram occurs twice."""
    groups = np.zeros(len(ids), np.int64)
    for column in ids.T:
        _, groups = np.unique(groups * vocab + column, return_inverse=True)
    if len(ids) and groups.max() + 1 < len(ids):
        raise _OddError


# ---- the file line by line -----------------------------------------------------------------------


class _ArpaReader:
    """Reads an ARPA file line by line, without its blank lines."""

    def __init__(self, path: str, lines: Iterable[bytes]) -> None:
        self._path = path
        self._lines = enumerate(lines, start=1)
        self._number, self._line = 0, b""

    def read(self) -> list[Table]:
        """Read the n-grams of each order, from 1."""
        counts = self._read_counts()
        tables: list[Table] = []
        for order in range(1, len(counts) + 1):
            tables.append(self._read_section(order, counts, tables))
        if self._line != b"\\end\\":
            self._fail(rf"expected \end\, not {self._shown()}; is ngram {order + 1}= missing?")
        return tables

    def _read_counts(self) -> list[int]:
        while self._take(r"there is no line \data\; is this an ARPA file?") != b"\\data\\":
            pass
        counts: list[int] = []
        while match := _COUNT.fullmatch(self._take()):
            order, count = map(int, match.groups())
            if order != len(counts) + 1:
                self._fail(f"expected ngram {len(counts) + 1}=, not ngram {order}=")
            counts.append(count)
        if not counts:
            self._fail(f"expected `ngram 1=` and a number, not {self._shown()}")
        return counts

    def _read_section(self, order: int, counts: list[int], lower: list[Table]) -> Table:
        if self._line != rb"\%d-grams:" % order:
            self._fail(rf"expected \{order}-grams:, not {self._shown()}")
        table: Table = {}
        known = lower[0] if lower else None
        while not self._take().startswith(b"\\"):
            self._read_entry(order, order == len(counts), table, known)
        if len(table) != counts[order - 1]:
            what = f"found {len(table)} {order}-grams, but the head states {counts[order - 1]}"
            self._fail(f"{what}; make the file again")
        return table

    def _read_entry(self, order: int, is_highest: bool, table: Table, known: Table | None) -> None:
        fields = self._line.split()
        if not order < len(fields) <= order + (1 if is_highest else 2):
            form = "log10 P, " + f"{order} word" + "s" * (order > 1)
            form += "" if is_highest else " and optionally log10 of a back-off weight"
            self._fail(f"a line of \\{order}-grams: must hold {form}, not {self._shown()}")
        log_prob = self._to_number(fields[0])
        if log_prob > _ROUNDING:
            self._fail(f"log10 P = {log_prob:g} is a probability above 1; make the file again")
        backoff = self._to_number(fields[order + 1]) if len(fields) > order + 1 else 0.0
        try:
            words = tuple(field.decode("utf-8") for field in fields[1 : order + 1])
        except UnicodeDecodeError:
            self._fail("not UTF-8; convert the file with iconv")
        if words in table:
            self._fail(f'"{" ".join(words)}" occurs twice; keep one of the lines')
        if known is not None and (new := [word for word in words if (word,) not in known]):
            self._fail(f'"{new[0]}" is not among the 1-grams; make the file again')
        table[words] = log_prob, backoff

    def _to_number(self, field: bytes) -> float:
        try:
            value = float(field)
        except ValueError:
            value = math.nan
        if not value < math.inf:
            self._fail(
                f"{field.decode(errors='replace')!r} is not a logarithm; make the file again"
            )
        return value

    def _take(self, at_end: str = r"truncated: there is no line \end\; make it again") -> bytes:
        for number, line in self._lines:
            if text := line.strip():
                self._number, self._line = number, text
                if b"\r" in text:
                    self._fail(f"the line {RETURN}")
                return text
        raise DataError(f"{self._path}: {at_end}")

    def _shown(self) -> str:
        return repr(self._line.decode(errors="replace")[:60])

    def _fail(self, what: str) -> NoReturn:
        raise DataError(f"{self._path}:{self._number}: {what}")


def _unpacked_lines(path: str) -> Generator[bytes, None, None]:
    try:
        check_end(path, DataError)
        with open(path, "rb") as stream:
            zipped = stream.peek(2).startswith(_GZIP)
            lines = iter(gzip.GzipFile(fileobj=stream) if zipped else stream)
            first = next(lines, b"")
            if what := foreign(first, nul=True):
                raise DataError(f"{path}: is {what}")
            yield without_mark(first, path)
            yield from lines
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot read this language model: {reason}") from error
