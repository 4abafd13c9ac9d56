"""N-gram language models as automata over tokens, for shallow fusion.

The states of the automaton are the histories that an ARPA file distinguishes. Its back-off rule is
applied in advance, so that a row of the automaton has the probability of every token.
"""

import logging
import math
import os
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.plain_text import check_spellings
from pipeline.text.arpa import BOS, EOS, EPS, UNKNOWN, Table, Words, read_tables
from pipeline.text.tokens import BLANK, Tokens

log = logging.getLogger("pipeline")

MOST_BYTES = 2 * 10**9  # the largest allowed size of the tables

_SHOWN = 5  # number of words that a message names

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
    tables = read_tables(path)
    columns = _columns(path, tables[0], tokens)
    histories = _histories(tables, columns)
    _check_size(path, len(histories), len(tokens))
    return _automaton(tables, columns, histories, len(tokens))


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
