"""CTC's searches on a CPU, in compiled functions that run without the interpreter's lock.

`beam_search` is here, `prefix_search` in `ctc_prefix_search_cpu.py`; see `ctc_plain.py`.

The beam search forms few of a frame's W · V extensions. From the frame before it guesses how far
the W-th best prefix lies below the best one, and goes through the tokens, from the most probable
on, only as long as they reach that far. If fewer than W prefixes do, the guess was too narrow: it
is widened, and the frame begun anew. Once there are W prefixes, the least probable of them, where
all stay as they are, is a bound too. So the result is that of forming all extensions.

In loops over prefixes arrays are local variables: taking them out of their tuples there, or passing
the tuples on, would count references, which takes longer than the search.
"""

import math
from typing import NamedTuple

import numpy as np

from pipeline.kernels.compiler.compiling import array_kernel, array_part
from pipeline.kernels.search.ctc_plain import IMPOSSIBLE, LN2, Entry
from pipeline.kernels.search.ctc_prefix_search_cpu import prefix_search
from pipeline.kernels.search.ctc_prefixes_cpu import (
    BLANK,
    LABEL,
    TOTAL,
    descending,
    plus,
    set_places,
    slot_of,
    spelt_before,
    times,
    with_room,
)
from pipeline.kernels.search.ctc_progress_cpu import (
    Beam,
    Progress,
    begin,
    best,
    entries,
    settle,
)
from pipeline.kernels.search.fusion import Automaton
from pipeline.kernels.search.words import BETA, WordAutomaton, Words, no_words
from pipeline.kernels.search.words_cpu import is_barred, word_ends, word_state

__all__ = ["advance", "beam_search", "begin", "best", "entries", "prefix_search", "settle"]

SLACK = 1e-9  # of a score: more than rounding changes it
WIDER = 0.2  # by which share the spread of scores in a frame is guessed to grow in the next


class Row(NamedTuple):
    """Pr(k|t) over the greatest of the frame."""

    logs: np.ndarray
    mantissas: np.ndarray
    exponents: np.ndarray
    known: np.ndarray  # whether mantissa and exponent have been computed


class Pool(NamedTuple):
    """What may get into the next beam: number i · V + k is prefix i and k; with k = ∅ prefix i."""

    scores: np.ndarray
    numbers: np.ndarray
    first: np.ndarray  # of each prefix the first child that is in the beam too
    following: np.ndarray  # and of that the next sibling
    barred: np.ndarray  # of each token the last prefix whose growth by it is its child's
    endings: np.ndarray  # of each prefix what the end of its last word adds; 0 without words


# ---- memory --------------------------------------------------------------------------------------


@array_part
def _new_beam(beam_size):
    """Room for W prefixes."""
    ids, states = np.empty((3, beam_size), np.int32), np.empty(beam_size, np.int64)
    mantissas, exponents = np.empty((3, beam_size)), np.empty((3, beam_size), np.int64)
    fused, scores = np.empty(beam_size), np.empty(beam_size)
    return Beam(ids[0], ids[1], ids[2], states, fused, mantissas, exponents, scores)


@array_part
def _new_row(vocab):
    known = np.zeros(vocab, np.bool_)
    return Row(np.empty(vocab), np.empty(vocab), np.empty(vocab, np.int64), known)


@array_part
def _new_pool(beam_size, vocab):
    room = 4 * beam_size + 64
    first, following = np.empty(beam_size, np.int32), np.empty(beam_size, np.int32)
    barred = np.empty(vocab, np.int32)
    endings = np.zeros(beam_size)
    return Pool(np.empty(room), np.empty(room, np.int64), first, following, barred, endings)


# ---- a frame -------------------------------------------------------------------------------------


@array_part
def _compute(row, tokens, count):
    """Pr(k|t) of some tokens, -1 being none, where it is not known yet."""
    logs, mantissas, exponents, known = row
    for n in range(count):
        k = tokens[n]
        if k < 0 or known[k]:
            continue
        known[k] = True
        mantissas[k], exponents[k] = 0.0, 0
        if logs[k] > IMPOSSIBLE:
            exponent = math.floor(logs[k] / LN2)
            mantissa = math.exp(logs[k] - exponent * LN2)
            while mantissa >= 1.0:
                mantissa, exponent = mantissa * 0.5, exponent + 1
            mantissas[k], exponents[k] = mantissa, exponent


@array_part
def _stay(tree, beam, count, row, blank, stays):
    """The prefixes as they are: by a blank, by their last token again, or grown from a parent."""
    nodes, lasts, _, _, fused, a, i, _ = beam
    b, j, scores = stays.mantissas, stays.exponents, stays.scores
    p, e = row.mantissas, row.exponents
    parents, places = tree.parents, tree.places
    for n in range(count):
        null, null_e = times(a[TOTAL, n], i[TOTAL, n], p[blank], e[blank])
        label, label_e, k = 0.0, 0, lasts[n]
        if k >= 0:
            label, label_e = times(a[LABEL, n], i[LABEL, n], p[k], e[k])
            parent = places[parents[nodes[n]]]
            if parent >= 0:
                # After its own last label a prefix grows only across a blank.
                part = BLANK if lasts[parent] == k else TOTAL
                grown, grown_e = times(a[part, parent], i[part, parent], p[k], e[k])
                label, label_e = plus(label, label_e, grown, grown_e)
        total, total_e = plus(null, null_e, label, label_e)
        b[TOTAL, n], j[TOTAL, n] = total, total_e
        b[BLANK, n], j[BLANK, n] = null, null_e
        b[LABEL, n], j[LABEL, n] = label, label_e
        scores[n] = np.log(total) + total_e * LN2 + fused[n]


@array_part
def _find_children(tree, nodes, count, first, following):
    """Chain the prefixes of the beam that have the same parent in it."""
    parents, places = tree.parents, tree.places
    first[:] = -1
    for n in range(count):
        parent = places[parents[nodes[n]]] if nodes[n] else -1
        if parent >= 0:
            following[n], first[parent] = first[parent], n


@array_part
def _bounds(before, after, count, beam_size):
    """No score of W prefixes is below the first; none without what is fused is above the second."""
    least, greatest = np.inf, -np.inf
    for n in range(count):
        least = min(least, after[n])
        greatest = max(greatest, after[n], before[n])
    return least if count == beam_size else -np.inf, greatest


@array_part
def _gather(tree, beam, stays, count, row, order, model, words, reach, blank, bound, pool):
    """Fill the pool with what reaches a bound, or with the W best of that; how many they are."""
    nodes, lasts, _, states, fused, a, i, before = beam
    logs, p, e, _ = row
    scores, numbers, first, following, barred, endings = pool
    added, after, opens = model.log_probs, stays.scores, words.opens
    vocab, found, of_words = len(logs), 0, len(opens) > 0
    for n in range(count):
        if after[n] >= bound and after[n] > -np.inf:
            scores[found], numbers[found] = after[n], n * vocab + blank
            found += 1
    barred[:] = -1
    for n in range(count):
        inside = first[n]
        while inside >= 0:
            barred[lasts[inside]] = n
            inside = following[inside]
        state, room = states[n], before[n] + SLACK * (1.0 + abs(before[n]))
        spelt, ending = state, endings[n]
        if of_words:
            state = 0
        for at in range(len(order)):
            k = order[at]
            if not room + logs[k] + reach[state] >= bound:
                break
            if barred[k] == n:
                continue
            share = added[state, k]
            if of_words and opens[k]:
                share += ending
            if not room + logs[k] + share >= bound or (of_words and is_barred(words, spelt, k)):
                continue
            part = BLANK if k == lasts[n] else TOTAL
            grown, grown_e = times(a[part, n], i[part, n], p[k], e[k])
            score = np.log(grown) + grown_e * LN2 + (fused[n] + share)
            if score >= bound and score > -np.inf:
                scores[found], numbers[found] = score, n * vocab + k
                found += 1
                if found == len(scores):
                    bound = _select(tree, beam, vocab, blank, scores, numbers, found)
                    found = len(nodes)
    return found


@array_part
def _select(tree, beam, vocab, blank, scores, numbers, count):
    """Move the W best to the front; the score of the last of them."""
    ties = tree.parents, tree.tokens, beam.nodes, beam.lengths, vocab, blank
    low, high, target = 0, count - 1, len(beam.nodes) - 1
    while low < high:
        middle = (low + high) // 2
        score, number = scores[middle], numbers[middle]
        i, j = low, high
        while i <= j:
            while scores[i] > score or (
                scores[i] == score and _comes_first(ties, numbers[i], number)
            ):
                i += 1
            while scores[j] < score or (
                scores[j] == score and _comes_first(ties, number, numbers[j])
            ):
                j -= 1
            if i <= j:
                scores[i], scores[j] = scores[j], scores[i]
                numbers[i], numbers[j] = numbers[j], numbers[i]
                i, j = i + 1, j - 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            break
    return scores[target]


@array_part
def _comes_first(ties, x, y):
    """Which of two numbers of the pool comes first if they are equally probable."""
    if x == y:
        return False
    parents, tokens, nodes, lengths, vocab, blank = ties
    a, k, b, m = nodes[x // vocab], x % vocab, nodes[y // vocab], y % vocab
    longer = lengths[x // vocab] + (k != blank) - lengths[y // vocab] - (m != blank)
    if longer:
        return longer < 0
    if k == blank:
        a, k = parents[a], tokens[a]
    if m == blank:
        b, m = parents[b], tokens[b]
    return spelt_before(parents, tokens, a, k, b, m)


@array_part
def _keep(tree, beam, stays, row, model, words, blank, pool, count, after):
    """The first of the pool become the next beam."""
    parents, tokens, _, slots, used = tree
    nodes, lasts, lengths, states, fused, a, i, _ = beam
    new_nodes, new_lasts, new_lengths, new_states, new_fused, b, j, scores = after
    stay, stay_e, p, e = stays.mantissas, stays.exponents, row.mantissas, row.exponents
    numbers, pool_scores, vocab = pool.numbers, pool.scores, len(row.logs)
    added, following, opens = model.log_probs, model.following, words.opens
    for n in range(count):
        source, k = numbers[n] // vocab, numbers[n] % vocab
        scores[n] = pool_scores[n]
        if k == blank:
            new_nodes[n], new_lasts[n] = nodes[source], lasts[source]
            new_lengths[n], new_states[n] = lengths[source], states[source]
            new_fused[n] = fused[source]
            for part in range(3):
                b[part, n], j[part, n] = stay[part, source], stay_e[part, source]
            continue
        slot = slot_of(parents, tokens, slots, nodes[source], k)
        if slots[slot] < 0:
            slots[slot] = used[0]
            parents[used[0]], tokens[used[0]] = nodes[source], k
            used[0] += 1
        new_nodes[n], new_lasts[n], new_lengths[n] = slots[slot], k, lengths[source] + 1
        state = states[source]
        if len(opens) > 0:
            new_states[n] = word_state(words, state, k)
            ending = pool.endings[source] if opens[k] else 0.0
            new_fused[n] = fused[source] + (added[0, k] + ending)
        else:
            new_states[n] = following[state, k]
            new_fused[n] = fused[source] + added[state, k]
        part = BLANK if k == lasts[source] else TOTAL
        b[TOTAL, n], j[TOTAL, n] = times(a[part, source], i[part, source], p[k], e[k])
        b[LABEL, n], j[LABEL, n] = b[TOTAL, n], j[TOTAL, n]
        b[BLANK, n], j[BLANK, n] = 0.0, 0


# ---- all frames ----------------------------------------------------------------------------------


@array_kernel
def _beam_search(
    log_probs, tops, beam_size, blank, model, words, reach, null, tree, beam, count, spread
):
    """The prefixes, the beam after these frames, how many are in it, and how far they spread.

    ``reach`` is the most that a token may add in each state, ``null`` the blank alone. The last
    four arguments are what the frames before have given. The beam is overwritten.
    """
    frames, vocab = log_probs.shape
    highest = reach.max()
    after, stays = _new_beam(beam_size), _new_beam(beam_size)
    row, pool = _new_row(vocab), _new_pool(beam_size, vocab)
    for t in range(frames):
        for k in range(vocab):
            row.logs[k], row.known[k] = log_probs[t, k] - tops[t], False
        _compute(row, null, len(null))
        _compute(row, beam.tokens, count)
        _stay(tree, beam, count, row, blank, stays)
        _find_children(tree, beam.nodes, count, pool.first, pool.following)
        if len(words.opens) > 0:
            word_ends(words, beam.states, count, pool.endings)
        least, greatest = _bounds(beam.scores, stays.scores, count, beam_size)
        while True:
            bound = max(least, greatest - spread)
            margin = highest + SLACK * (1.0 + abs(bound))
            order = descending(row.logs, blank, bound - greatest - margin)
            _compute(row, order, len(order))
            found = _gather(
                tree, beam, stays, count, row, order, model, words, reach, blank, bound, pool
            )
            if found >= beam_size or bound == least:
                break
            spread += 3.0 * abs(spread) + 1.0 if spread < 1e3 else np.inf
        spread = np.inf
        if found >= beam_size:
            last = _select(tree, beam, vocab, blank, pool.scores, pool.numbers, found)
            found, spread = beam_size, greatest - last + WIDER * abs(greatest - last)
        set_places(beam.nodes, tree.places, count, False)
        tree = with_room(tree, found)
        _keep(tree, beam, stays, row, model, words, blank, pool, found, after)
        beam, after, count = after, beam, found
        set_places(beam.nodes, tree.places, count, True)
    return tree, beam, count, spread


def advance(
    progress: Progress, log_probs: np.ndarray, tops: np.ndarray, blank: int, model: Automaton
) -> None:
    """Search on through some frames; see `ctc_plain.beam_search`."""
    model, words, reach = _arrays(model)
    so_far = progress.tree, progress.beam, progress.count, progress.spread
    beam_size = len(progress.beam.nodes)
    progress.tree, progress.beam, progress.count, progress.spread = _beam_search(
        log_probs, tops, beam_size, blank, model, words, reach, np.full(1, blank, np.int32), *so_far
    )


def _arrays(model: Automaton) -> tuple[Automaton, Words, np.ndarray]:
    """What is added token by token, and word by word, and the most of it in each state."""
    if not isinstance(model, WordAutomaton):
        return model, no_words(), model.log_probs.max(axis=1)
    added = model.added[None]
    one = Automaton(added, np.zeros(added.shape, np.int32), np.zeros(1), 0)
    return one, model.words, added.max(axis=1) + max(0.0, float(model.words.scales[BETA]))


def beam_search(
    log_probs: np.ndarray, tops: np.ndarray, beam_size: int, blank: int, model: Automaton
) -> list[Entry]:
    """See `ctc_plain.beam_search`."""
    room = min(len(log_probs) * beam_size + 1, max(1 << 15, 8 * beam_size))
    progress = begin(beam_size, model, room)
    advance(progress, log_probs, tops, blank, model)
    return entries(progress)
