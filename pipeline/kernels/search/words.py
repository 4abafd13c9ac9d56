"""A language model over words in a search over the tokens that spell them.

Q(y) = log Pr(y|x) + α log P(y) + β wc(y), where P is over words, and wc counts them: D. Amodei et
al., "Deep Speech 2", 2015 (arXiv 1512.02595). A word adds its share α log P(w|h) + β
when it ends: with the token that separates it from the next one, or at the end of the utterance.

A state is a history h of the n-gram and what is spelt of a word since: h · (L + 1) + n, where n is
a node of the lexicon, or L for a word that is not in it.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Words(NamedTuple):
    """The arrays of a word n-gram and of its lexicon; see `pipeline.text.word_ngram`.

    Children are sorted. Node 0 of the n-grams is the empty one, node 1 + w word w; node 0 of the
    lexicon is the beginning of a word.
    """

    opens: NDArray[np.bool_]  # (V,) whether a token ends the word before it
    starts: NDArray[np.int32]  # (V + 1,) where a token's characters begin
    chars: NDArray[np.int32]  # of all tokens; -1: not of a word
    letters_first: NDArray[np.int32]  # (L + 1,) where the children of a node begin
    letters: NDArray[np.int32]  # their last characters; child e is node 1 + e
    word: NDArray[np.int32]  # (L,) the word that ends at a node; -1: none
    grams_first: NDArray[np.int32]  # (M + 1,) where the children of an n-gram begin
    grams: NDArray[np.int32]  # their last words; child e is node 1 + vocab + e
    log_probs: NDArray[np.float64]  # (M,) ln P(w|h)
    backoffs: NDArray[np.float64]  # (M,) ln of the back-off weight
    shorter: NDArray[np.int32]  # (M,) the longest n-gram that ends this one and is shorter
    numbers: NDArray[np.int64]  # START, END, UNK, VOCAB, TOP
    scales: NDArray[np.float64]  # α, β


START, END, UNK, VOCAB, TOP = range(5)  # <s> as a history; </s> and <unk> as words, -1: none
ALPHA, BETA = range(2)


def no_words() -> Words:
    """The arrays of no model; those that count tokens are empty."""
    i, x = np.zeros(0, np.int32), np.zeros(0)
    opens, numbers = np.zeros(0, np.bool_), np.zeros(5, np.int64)
    return Words(opens, i, i, i, i, i, i, i, x, x, i, numbers, np.zeros(2))


class WordAutomaton:
    """A word n-gram that is read as an `Automaton` of what each token adds to a score.

    Args:
        words: the model.
        added: (V,) what each token adds besides.
    """

    def __init__(self, words: Words, added: NDArray[np.float64]) -> None:
        self.words, self.added = words, added
        self.size = len(words.word) + 1
        self.start = int(words.numbers[START]) * self.size
        self.log_probs, self.following = _Rows(self), _Following(self)
        self.final = _Final(self)
        self.row = lru_cache(maxsize=1 << 12)(self._row)
        self.ending = lru_cache(maxsize=1 << 16)(self._ending)

    def after(self, state: int, token: int) -> int:
        """The state after a token."""
        history, node = divmod(state, self.size)
        words = self.words
        if words.opens[token]:
            history, node = self.ending(state)[1], 0
        for char in words.chars[words.starts[token] : words.starts[token + 1]].tolist():
            node = self._letter(node, char)
        return history * self.size + node

    def added_by(self, tokens: Sequence[int]) -> float:
        """α log P(y) + β wc(y) of a whole sequence, and what its tokens add besides."""
        total, state = 0.0, self.start
        for token in tokens:
            ending = self.ending(state)[0] if self.words.opens[token] else 0.0
            total += float(self.added[token]) + ending
            state = self.after(state, token)
        return total + self.closing(state)

    def closing(self, state: int) -> float:
        """What the end of the utterance adds: its last word, and the end itself."""
        share, history = self.ending(state)
        end = int(self.words.numbers[END])
        return share if end < 0 else share + self._weighted(self._score(history, end)[0])

    def _ending(self, state: int) -> tuple[float, int]:
        """What the end of the word adds, and the history after it."""
        history, node = divmod(state, self.size)
        if node == 0:
            return 0.0, history
        word = int(self.words.word[node]) if node < self.size - 1 else -1
        word = int(self.words.numbers[UNK]) if word < 0 else word
        if word < 0:
            return -np.inf, history
        log_prob, history = self._score(history, word)
        return self._weighted(log_prob) + float(self.words.scales[BETA]), history

    def _weighted(self, log_prob: float) -> float:
        alpha = float(self.words.scales[ALPHA])
        return alpha * log_prob if alpha else 0.0  # without weight nothing is impossible

    def _score(self, node: int, word: int) -> tuple[float, int]:
        """ln P(w|h), and the history after w."""
        words, total = self.words, 0.0
        vocab, top = int(words.numbers[VOCAB]), int(words.numbers[TOP])
        while True:
            child = 1 + word
            if node:
                low, high = words.grams_first[node : node + 2].tolist()
                place = low + int(np.searchsorted(words.grams[low:high], word))
                child = 1 + vocab + place
                if place == high or words.grams[place] != word:
                    total += float(words.backoffs[node])
                    node = int(words.shorter[node])
                    continue
            after = child if child < top else int(words.shorter[child])
            return total + float(words.log_probs[child]), after

    def _letter(self, node: int, char: int) -> int:
        if node == self.size - 1:
            return node
        words = self.words
        low, high = words.letters_first[node : node + 2].tolist()
        place = low + int(np.searchsorted(words.letters[low:high], char))
        found = place < high and words.letters[place] == char
        return 1 + place if found else self.size - 1

    def _row(self, state: int) -> NDArray[np.float64]:
        words = self.words
        row: NDArray[np.float64] = self.added + np.where(words.opens, self.ending(state)[0], 0.0)
        if words.numbers[UNK] < 0:
            for token in range(len(row)):
                if self.after(state, token) % self.size == self.size - 1:
                    row[token] = -np.inf
        return row


class _Rows:
    def __init__(self, automaton: WordAutomaton) -> None:
        self.automaton = automaton

    def __getitem__(self, where: Any) -> Any:
        if isinstance(where, tuple):
            return self.automaton.row(int(where[0]))[where[1]]
        return np.stack([self.automaton.row(state) for state in where.tolist()])


class _Following:
    def __init__(self, automaton: WordAutomaton) -> None:
        self.automaton = automaton

    def __getitem__(self, where: tuple[Any, Any]) -> Any:
        if np.ndim(where[0]) == 0:
            return self.automaton.after(int(where[0]), int(where[1]))
        pairs = zip(where[0].tolist(), where[1].tolist(), strict=True)
        return np.array([self.automaton.after(s, k) for s, k in pairs], dtype=np.int64)


class _Final:
    def __init__(self, automaton: WordAutomaton) -> None:
        self.automaton = automaton

    def __getitem__(self, state: int) -> float:
        return self.automaton.closing(int(state))
