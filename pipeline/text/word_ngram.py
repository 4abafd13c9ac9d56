"""N-gram models over words for a network whose tokens spell words: characters, pairs, subwords.

An ARPA file of a million n-grams becomes sorted arrays, in which a search looks up P(w|h) when a
word has ended: a trie of the n-grams, word by word, and one of the words, character by character.
The characters of a word are compared, not its tokens, since subwords can spell a word in many ways.
"""

import logging
import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError, UsageError
from pipeline.plain_text import check_spellings
from pipeline.text.arpa import BOS, EOS, EPS, UNKNOWN, Arpa, Order, read_columns
from pipeline.text.tokens import BLANK, SPACE, UNK, Tokens

log = logging.getLogger("pipeline")

_MARKS = {BOS, EOS, EPS, *UNKNOWN}
_WORD_BEGINS = "\u2581"  # in sentencepiece's pieces
_SHOWN = 5

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]


class Trie(NamedTuple):
    """The n-grams: node 0 is the empty one, node 1 + w word w alone, the others are longer.

    The children of node n are ``first[n]`` up to ``first[n + 1]`` in ``words``, their last words in
    order; the child at place e is node 1 + ``vocab`` + e.
    """

    first: Ints  # (M + 1,)
    words: Ints  # (M - 1 - vocab,)
    log_probs: Floats  # (M,) ln P(w|h)
    backoffs: Floats  # (M,) ln bow(hw)
    shorter: Ints  # (M,) the longest n-gram that ends this one and is shorter
    vocab: int
    top: int  # the first node of the longest n-grams, which are no histories


class Lexicon(NamedTuple):
    """How tokens spell, and the words of the model as a trie of characters; node 0 is no word yet.

    Token k spells the characters ``starts[k]`` up to ``starts[k + 1]`` of ``chars``. The children
    of node n are ``first[n]`` up to ``first[n + 1]`` in ``labels``, their last characters in order;
    the child at place e is node 1 + e.
    """

    opens: NDArray[np.bool_]  # (V,) whether a token ends the word before it
    starts: Ints  # (V + 1,)
    chars: Ints  # -1 is no character of a word
    first: Ints  # (L + 1,)
    labels: Ints  # (L - 1,)
    word: Ints  # (L,) the word that ends here; -1: none


class WordNGram(NamedTuple):
    """A language model over words, as the arrays that a search reads."""

    trie: Trie
    lexicon: Lexicon
    start: int  # the history <s>
    end: int  # the number of </s>; -1: the model knows no end
    unk: int  # the number of <unk>; -1: words outside the model are impossible


def read_word_ngram(
    path: str | os.PathLike[str], tokens: Tokens, *, only_known: bool = False
) -> WordNGram:
    """Read an ARPA file over words.

    Args:
        path: the file, which may be gzipped.
        tokens: the tokens that spell the words.
        only_known: whether words outside the model are impossible; otherwise they count as its
            ``<unk>``, without which they are impossible too, with a warning.

    Raises:
        UsageError: the tokens spell no words between blanks.
        DataError: the file cannot be read, is not a complete ARPA file, or is of other units: most
            of its words cannot be spelt.
    """
    path = os.fspath(path)
    if not tokens.has_words:
        raise UsageError(
            f"--word-lm: {tokens.where}: these tokens spell no words between blanks; give a model "
            "over the tokens as --lm (--insertion-bonus is a bonus for each of them)"
        )
    arpa = read_columns(path)
    check_spellings([*arpa.words, *tokens.symbols], f"{path} and {tokens.where}", DataError)
    lexicon = _lexicon(path, arpa.words, tokens)
    numbers = {word: n for n, word in enumerate(arpa.words)}
    unk = next((numbers[word] for word in UNKNOWN if word in numbers), -1)
    if unk < 0 and not only_known:
        log.warning("%s: has no <unk>: hypotheses hold only its words", path)
    trie = make_trie(arpa)
    start = 1 + numbers[BOS] if BOS in numbers and trie.top > 1 else 0
    end = numbers.get(EOS, -1)
    return WordNGram(trie, lexicon, start, end, -1 if only_known else unk)


# ---- the n-grams ---------------------------------------------------------------------------------


class _Keys:
    """Places of (node, word) among sorted keys."""

    def __init__(self, vocab: int) -> None:
        self.vocab = vocab
        self.keys: NDArray[np.int64] = np.empty(0, np.int64)

    def find(self, nodes: NDArray[np.int64], words: NDArray[np.int64]) -> NDArray[np.int64]:
        """The children of nodes by words; -1 where there is none."""
        wanted = nodes * self.vocab + words
        place = np.searchsorted(self.keys, wanted)
        known = place < len(self.keys)
        known[known] = self.keys[place[known]] == wanted[known]
        found = np.where(known, place + 1 + self.vocab, -1)
        return np.where(nodes == 0, words + 1, found)


def make_trie(arpa: Arpa) -> Trie:
    """The n-grams as a trie.

    An n-gram whose first words are not listed as one makes them one, with the probability that they
    have by back-off.
    """
    vocab, keys, ln10 = len(arpa.words), _Keys(len(arpa.words)), math.log(10.0)
    unigrams = np.argsort(arpa.orders[0].ids[:, 0], kind="stable")
    log_probs = [np.zeros(1), arpa.orders[0].log_probs[unigrams] * ln10]
    backoffs = [np.zeros(1), arpa.orders[0].backoffs[unigrams] * ln10]
    shorter = [np.zeros(1 + vocab, np.int64)]
    top = 1
    for order in _complete(arpa.orders, vocab):
        ids, top = order.ids, 1 + vocab + len(keys.keys)
        parents = ids[:, 0] + 1
        for column in ids.T[1:-1]:
            parents = keys.find(parents, column)
        own = parents * vocab + ids[:, -1]
        rank = np.argsort(own, kind="stable")
        below, words = np.concatenate(shorter)[parents[rank]], ids[rank, -1]
        keys.keys = np.concatenate([keys.keys, own[rank]])
        so_far = np.concatenate(shorter)
        ends = np.full(len(rank), -1, np.int64)
        while (left := np.flatnonzero(ends < 0)).size:
            ends[left] = keys.find(below[left], words[left])
            below = so_far[below]
        shorter.append(ends)
        log_probs.append(order.log_probs[rank] * ln10)
        backoffs.append(order.backoffs[rank] * ln10)
    nodes = np.arange(2 + vocab + len(keys.keys), dtype=np.int64)
    trie = Trie(
        np.searchsorted(keys.keys, nodes * vocab).astype(np.int32),
        (keys.keys % vocab).astype(np.int32),
        np.concatenate(log_probs),
        np.concatenate(backoffs),
        np.concatenate(shorter).astype(np.int32),
        vocab,
        top,
    )
    _fill(trie, keys)
    return trie


def _complete(orders: Sequence[Order], vocab: int) -> list[Order]:
    """The orders from 2 on; n-grams that only begin longer ones have the log-probability NaN."""
    found: list[Order] = []
    longer = None
    for order in reversed(orders[1:]):
        if longer is not None:
            rows = np.concatenate([order.ids, longer.ids[:, :-1]])
            groups = np.zeros(len(rows), np.int64)
            for column in rows.T:
                _, groups = np.unique(groups * vocab + column, return_inverse=True)
            _, places = np.unique(groups, return_index=True)
            new = places[places >= len(order.ids)]
            log_probs = np.concatenate([order.log_probs, np.full(len(new), math.nan)])
            backoffs = np.concatenate([order.backoffs, np.zeros(len(new))])
            order = Order(np.concatenate([order.ids, rows[new]]), log_probs, backoffs)
        longer = order
        found.insert(0, order)
    return found


def _fill(trie: Trie, keys: _Keys) -> None:
    """Give n-grams that only begin longer ones their probability, short ones first."""
    for node in np.flatnonzero(np.isnan(trie.log_probs)).tolist():
        key = int(keys.keys[node - 1 - trie.vocab])
        history, word = divmod(key, trie.vocab)
        total, child = float(trie.backoffs[history]), np.array([-1])
        while child[0] < 0:
            history = int(trie.shorter[history])
            child = keys.find(np.array([history]), np.array([word]))
            total += float(trie.backoffs[history]) if child[0] < 0 else 0.0
        trie.log_probs[node] = total + trie.log_probs[child[0]]


# ---- the words -----------------------------------------------------------------------------------


def _spelt(tokens: Tokens) -> tuple[list[bool], list[str | None]]:
    """Of each token whether it ends the word before it, and its characters; None: none of a word"""
    opens, spelt = [], []
    for symbol in tokens.symbols:
        is_subword = tokens.kind == "subwords"
        begins = symbol.startswith(_WORD_BEGINS) if is_subword else symbol == SPACE
        opens.append(begins)
        text = symbol.removeprefix(_WORD_BEGINS) if is_subword else symbol
        if symbol in (BLANK, SPACE):
            text = ""
        spelt.append(None if symbol == UNK or (_WORD_BEGINS in text and is_subword) else text)
    return opens, spelt


def _lexicon(path: str, words: list[str], tokens: Tokens) -> Lexicon:
    opens, spelt = _spelt(tokens)
    alphabet = {c: n for n, c in enumerate(sorted({c for text in spelt for c in text or ""}))}
    of_tokens = [[-1] if text is None else [alphabet[c] for c in text] for text in spelt]
    rows: list[list[int]] = []
    owners: list[int] = []
    foreign: list[str] = []
    for number, word in enumerate(words):
        if word in _MARKS:
            continue
        try:
            rows.append([alphabet[c] for c in word])
            owners.append(number)
        except KeyError:
            foreign.append(word)
    if len(foreign) >= len(rows):
        shown = ", ".join(f'"{word}"' for word in foreign[:_SHOWN])
        raise DataError(
            f"{path}: {len(foreign)} of its {len(foreign) + len(rows)} words cannot be spelt by "
            f"{tokens.where}, such as {shown}; is it a model of other units, or of words in other "
            "letters (small for capital ones)?"
        )
    if foreign:
        log.info("%s: left out: %d words that %s cannot spell", path, len(foreign), tokens.where)
    first, labels, word_of = _word_trie(rows, owners, len(alphabet))
    starts = np.cumsum([0, *map(len, of_tokens)], dtype=np.int32)
    chars = np.array([c for row in of_tokens for c in row], np.int32)
    return Lexicon(np.array(opens), starts, chars, first, labels, word_of)


def _word_trie(rows: list[list[int]], owners: list[int], size: int) -> tuple[Ints, Ints, Ints]:
    """``first``, ``labels`` and ``word`` of a `Lexicon`, made level by level."""
    lengths = np.array([len(row) for row in rows])
    flat = np.array([c for row in rows for c in row], np.int64)
    begins = np.cumsum(lengths) - lengths
    nodes = np.zeros(len(rows), np.int64)
    keys = np.empty(0, np.int64)
    for level in range(int(lengths.max(initial=0))):
        left = np.flatnonzero(lengths > level)
        own = nodes[left] * size + flat[begins[left] + level]
        new, places = np.unique(own, return_inverse=True)
        nodes[left] = 1 + len(keys) + places
        keys = np.concatenate([keys, new])
    word_of = np.full(1 + len(keys), -1, np.int32)
    word_of[nodes] = owners
    first = np.searchsorted(keys, np.arange(2 + len(keys)) * size).astype(np.int32)
    return first, (keys % size).astype(np.int32), word_of
