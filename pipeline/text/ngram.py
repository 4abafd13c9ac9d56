"""N-gram language models from ARPA files, as automata over tokens for shallow fusion.

An ARPA file lists log10 P(w|h) of some n-grams. For all others the rule is P(w|h) = bow(h) ·
P(w|h'), where h' is h without its first word and the back-off weight bow(h) is 1 if the file has
none. The states of the automaton are the histories that the file distinguishes. The rule is applied
in advance, so that a row of the automaton has the probability of every token. An example::

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
import logging
import math
import os
import re
import zlib
from collections.abc import Generator, Iterable
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.plain_text import RETURN, check_end, check_spellings, foreign, without_mark
from pipeline.text.tokens import BLANK, Tokens

log = logging.getLogger("pipeline")

BOS, EOS, EPS = "<s>", "</s>", "<eps>"
UNKNOWN = ("<unk>", "<UNK>")  # the second is the CMU toolkit's
MOST_BYTES = 2 * 10**9  # the largest allowed size of the tables

_SHOWN = 5  # number of words that a message names
_ROUNDING = 1e-5  # rounding may raise log10 of a probability above 0 by this much
_GZIP = b"\x1f\x8b"
_COUNT = re.compile(rb"ngram\s+(\d{1,18})\s*=\s*(\d{1,18})")

Words = tuple[str, ...]
Table = dict[Words, tuple[float, float]]  # n-grams of one order: log10 P(w|h), log10 bow(hw)
Columns = dict[str, NDArray[np.intp]]  # word -> the tokens that it stands for


class NGram(NamedTuple):
    """A language model as a deterministic automaton: S states, V tokens with the blank.

    The blank has log-probability -inf and does not change the state.
    """

    log_probs: NDArray[np.float64]  # (S, V), natural logarithm of P(k|s)
    following: NDArray[np.int32]  # (S, V), the state after token k in state s
    final: NDArray[np.float64]  # (S,), ln P(</s>|s); zeros for a model without </s>
    start: int  # the state after <s>


def read_arpa(path: str | os.PathLike[str], tokens: Tokens) -> NGram:
    """Read an ARPA file, which may be gzipped, as an automaton over tokens.

    Tokens that the file lacks get the probability of its ``<unk>``, or 0 if it has none; a warning
    names them. N-grams with ``<eps>`` or ``<blk>`` are ignored.

    Raises:
        DataError: the file cannot be read, is not a complete ARPA file (names the file and the
            line), has words that are not tokens, or needs more memory than ``MOST_BYTES``.
    """
    path = os.fspath(path)
    with contextlib.closing(_unpacked_lines(path)) as lines:
        tables = _ArpaReader(path, lines).read()
    columns = _columns(path, tables[0], tokens)
    histories = _histories(tables, columns)
    _check_size(path, len(histories), len(tokens))
    return _automaton(tables, columns, histories, len(tokens))


# ---- the file ------------------------------------------------------------------------------------


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


# ---- the automaton -------------------------------------------------------------------------------


def _columns(path: str, unigrams: Table, tokens: Tokens) -> Columns:
    """The tokens that each word stands for, as the numbers of columns in the tables."""
    words = [word for (word,) in unigrams]
    check_spellings([*words, *tokens.symbols], f"{path} and {tokens.where}", DataError)
    unknown_words = [w for w in words if w not in tokens and w not in (BOS, EOS, EPS, *UNKNOWN)]
    if unknown_words:
        raise DataError(
            f"{path}: has words that are not tokens of {tokens.where}: {_listed(unknown_words)}; "
            "make the model from text in these tokens, e.g. with make_ngram_lm.py --vocab"
        )
    own = {symbol: [i] for i, symbol in enumerate(tokens.symbols) if (symbol,) in unigrams}
    columns = {word: ids for word, ids in own.items() if word not in (BLANK, BOS, EOS)}
    missing = [i for i, symbol in enumerate(tokens.symbols) if i and symbol not in columns]
    unknown = next((word for word in UNKNOWN if word in words), None)
    if missing:
        names = _listed([tokens.symbols[i] for i in missing])
        fate = f"count as {unknown}" if unknown else "are impossible"
        log.warning("%s: the model lacks these tokens, which %s: %s", path, fate, names)
        if unknown:
            columns[unknown] = columns.get(unknown, []) + missing
    return {word: np.array(ids) for word, ids in columns.items()}


def _listed(words: list[str]) -> str:
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(f'"{word}"' for word in words[:_SHOWN]) + more


def _histories(tables: list[Table], columns: Columns) -> dict[Words, int]:
    """The states: histories in order of their lengths, each with its number; the empty one is 0.

    A history is a state if an n-gram continues it, if its back-off weight is not 1, or if another
    state begins with it.
    """
    found: set[Words] = {()}
    for table in tables:
        for words, (_, backoff) in table.items():
            for history in (words[:-1], words) if backoff else (words[:-1],):
                if history not in found and _can_come(history, columns):
                    found.update(history[:n] for n in range(1, len(history) + 1))
    return {history: i for i, history in enumerate(sorted(found, key=lambda h: (len(h), h)))}


def _can_come(history: Words, columns: Columns) -> bool:
    return all(w in columns or (w == BOS and i == 0) for i, w in enumerate(history))


def _check_size(path: str, states: int, vocab: int) -> None:
    size = states * vocab * (np.dtype(np.float64).itemsize + np.dtype(np.int32).itemsize)
    if size > MOST_BYTES:
        raise DataError(
            f"{path}: {states} histories of {vocab} tokens would need {size / 1e9:.1f} GB, but at "
            f"most {MOST_BYTES / 1e9:g} GB are allowed; prune the model, or make one of lower order"
        )


def _automaton(
    tables: list[Table],
    columns: Columns,
    histories: dict[Words, int],
    vocab: int,
) -> NGram:
    """Fill the rows from short histories to long ones: first by back-off, then with the n-grams."""
    size = len(histories)
    following = np.zeros((size, vocab), np.int32)
    log_probs = np.full((size, vocab), -np.inf)
    final = np.full(size, -np.inf)
    by_length: list[list[Words]] = [[] for _ in range(len(tables) + 1)]
    for history in histories:
        by_length[len(history)].append(history)
    by_length[0].clear()  # the empty history has nothing to back off to
    for length, table in enumerate(tables):
        for history in by_length[length]:
            state, shorter = histories[history], _back_off(history, histories)
            backoff = tables[length - 1].get(history, (0.0, 0.0))[1] * math.log(10)
            following[state] = following[shorter]
            log_probs[state] = log_probs[shorter] + backoff
            final[state] = final[shorter] + backoff
        for words, (log_prob, _) in table.items():
            state, word = histories.get(words[:-1], -1), words[-1]
            if state >= 0 and word == EOS:
                final[state] = log_prob * math.log(10)
            elif state >= 0 and word in columns:
                log_probs[state, columns[word]] = log_prob * math.log(10)
        for longer in by_length[length + 1]:
            if longer != (BOS,):
                following[histories[longer[:-1]], columns[longer[-1]]] = histories[longer]
    following[:, 0] = np.arange(size)
    if (EOS,) not in tables[0]:
        final[:] = 0.0
    return NGram(log_probs, following, final, histories.get((BOS,), 0))


def _back_off(history: Words, histories: dict[Words, int]) -> int:
    """The state of the longest history that ends ``history`` and is shorter."""
    while (history := history[1:]) not in histories:
        pass
    return histories[history]
