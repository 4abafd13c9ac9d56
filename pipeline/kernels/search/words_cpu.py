"""What a word n-gram adds to the score of a prefix, compiled; see `words.py`."""

import numpy as np

from pipeline.kernels.compiler.compiling import array_part
from pipeline.kernels.search.words import ALPHA, BETA, TOP, UNK, VOCAB


@array_part
def _place(sorted_numbers, low, high, wanted):
    """Where a number is among sorted ones; -1 where it is not."""
    end = high
    while low < high:
        middle = (low + high) // 2
        if sorted_numbers[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low if low < end and sorted_numbers[low] == wanted else -1


@array_part
def _score(words, node, word):
    """ln P(w|h), and the history after w."""
    first, grams, backoffs, shorter = words.grams_first, words.grams, words.backoffs, words.shorter
    vocab, top, total = words.numbers[VOCAB], words.numbers[TOP], 0.0
    child = np.int64(1 + word)
    while node > 0:
        place = _place(grams, first[node], first[node + 1], word)
        if place >= 0:
            child = 1 + vocab + place
            break
        total += backoffs[node]
        node = np.int64(shorter[node])
    after = child if child < top else np.int64(shorter[child])
    return total + words.log_probs[child], after


@array_part
def word_end(words, state):
    """What the end of the word adds, and the history after it."""
    size = len(words.word) + 1
    history, node = state // size, state % size
    if node == 0:
        return 0.0, history
    word = np.int64(words.word[node]) if node < size - 1 else np.int64(-1)
    if word < 0:
        word = words.numbers[UNK]
    if word < 0:
        return -np.inf, history
    log_prob, history = _score(words, history, word)
    alpha = words.scales[ALPHA]
    return (alpha * log_prob if alpha != 0.0 else 0.0) + words.scales[BETA], history


@array_part
def _spelt_on(words, node, token):
    """The node of the lexicon after a token's characters."""
    first, letters, chars, starts = words.letters_first, words.letters, words.chars, words.starts
    lost = len(words.word)
    for at in range(starts[token], starts[token + 1]):
        if node == lost:
            break
        place = _place(letters, first[node], first[node + 1], chars[at])
        node = np.int64(1 + place) if place >= 0 else np.int64(lost)
    return node


@array_part
def is_barred(words, state, token):
    """Whether a token leads out of the lexicon where words outside it are impossible."""
    if words.numbers[UNK] >= 0:
        return False
    lost = len(words.word)
    node = np.int64(0) if words.opens[token] else state % (lost + 1)
    return _spelt_on(words, node, token) == lost


@array_part
def word_state(words, state, token):
    """The state after a token."""
    size = len(words.word) + 1
    history, node = state // size, state % size
    if words.opens[token]:
        _, history = word_end(words, state)
        node = np.int64(0)
    return history * size + _spelt_on(words, node, token)
