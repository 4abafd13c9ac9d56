"""Algorithm 1 of [G12] on a CPU, compiled: one utterance on one thread, without the interpreter.

As `transducer_search_plain.py`, step by step. A frame's distributions are entries: first those of
the beam, then of prefixes between two of the beam, then of extensions in the order in which they
are made. All arithmetic is row by row in a fixed order, so what comes out of an utterance does not
depend on how its prefixes were batched, nor on what stands beside it.
"""

from typing import Any

import numpy as np
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import kernel
from pipeline.kernels.compiler.products import flat
from pipeline.kernels.compiler.threads import run_parallel
from pipeline.kernels.search.distributions import (
    BATCH,
    ENTRIES,
    HITS,
    NODES,
    SLOTS,
    evaluate,
    known_weights,
    make_room,
    packed_joint,
    packed_lstm,
)
from pipeline.kernels.search.heap import add_to_best
from pipeline.kernels.search.model import Found, SearchModel, Settings
from pipeline.kernels.search.prefix_tree import (
    CHILD,
    COLUMNS,
    DEPTH,
    ENTRY,
    FRAME,
    HISTORY,
    PARENT,
    PLACE,
    SIBLING,
    SLOT,
    TOKEN,
    add_child,
    find_child,
    keep_states,
    longer,
    new_states,
    plant,
    renumber_slots,
    sort_by_prefix,
    write_tokens,
)
from pipeline.kernels.search.transducer_greedy_cpu import greedy

__all__ = ["beam_search", "greedy"]

NEGLIGIBLE = 45.0  # e^-45 of a sum is below the rounding of float64
STATE_BYTES = 1 << 26  # memory for states beyond which those out of the beam are given up,
SPARE_STATES = 1024  # but this many and twice the beam there may always be


# ---- the W best of B -----------------------------------------------------------------------------


@kernel
def _end_frame(rows, score, ended, first, last, vocab, blank, best, filled):
    """Entries that may enter B: Pr(y) Pr(∅|y, t)."""
    for e in range(first, last):
        ended[e] = score[e] + rows[e * vocab + blank]
        if ended[e] > -np.inf:
            filled = add_to_best(best, filled, ended[e])
    return filled


# ---- the loops of a frame ------------------------------------------------------------------------


@kernel
def _log_add(a, b):
    high, low = max(a, b), min(a, b)
    return high if low == -np.inf else high + np.log1p(np.exp(low - high))


@kernel
def _sum_paths(tree, rows, before, score, beam, order, vocab, t, most, shortest, start):
    """The first inner loop: Pr(y) += Σ_ŷ Pr(ŷ) Pr(y|ŷ, t) over the prefixes ŷ of y in the beam.

    The sum to the nearest such prefix suffices, if that prefix already has its own. Returns where
    it stopped and the prefix whose distribution it lacks; -1 at the end.
    """
    path = np.empty(8, np.int64)
    for at in range(start, order.size):
        i = order[at]
        node, length = beam[i], 0
        above = node
        while True:
            path = longer(path, 2 * length + 8)
            path[length] = above
            length += 1
            above = tree[above, PARENT]
            if above < 0 or tree[above, DEPTH] < shortest or tree[above, PLACE] >= 0:
                break
        if above < 0 or tree[above, PLACE] < 0:
            continue
        ancestor, log_path = above, 0.0
        for step in range(length - 1, -1, -1):
            if tree[above, FRAME] != t:
                return at, above
            log_path += rows[tree[above, ENTRY] * vocab + tree[path[step], TOKEN]]
            if most + log_path < before[i] - NEGLIGIBLE:
                log_path = -np.inf
                break
            above = path[step]
        score[i] = _log_add(before[i], score[tree[ancestor, PLACE]] + log_path)
    return order.size, -1


@kernel
def _exclude(tree, rows, node, vocab, t):
    """A prefix that A began with is no extension: it holds these paths by the prefix sum."""
    parent = tree[node, PARENT]
    if parent >= 0 and tree[parent, FRAME] == t:
        rows[tree[parent, ENTRY] * vocab + tree[node, TOKEN]] = -np.inf


@kernel
def _exclude_children(tree, rows, node, entry, vocab):
    child = tree[node, CHILD]
    while child >= 0:
        if tree[child, PLACE] >= 0:
            rows[entry * vocab + tree[child, TOKEN]] = -np.inf
        child = tree[child, SIBLING]


@kernel
def _extensions(rows, score, first, last, vocab, blank, threshold, chances, origins):
    """What entries may add to A: probability and entry · V + label; returns how many."""
    count = 0
    for e in range(first, last):
        for k in range(vocab):
            p = score[e] + rows[e * vocab + k]
            if p >= threshold and p > -np.inf and k != blank:
                chances[count], origins[count] = p, e * vocab + k
                count += 1
    return count


@kernel
def _extend(task, store, counts, chances, origins, chosen, t):
    """Entries for chosen extensions; returns those whose distribution is not known yet."""
    tree, fused, _, table, language = store
    owner, score, _, rows = table
    added, following = task[4]
    vocab = added.shape[1]
    nodes, places = np.empty(chosen.size, np.int64), np.empty(chosen.size, np.int64)
    unknown = 0
    for c in chosen:
        parent, k = owner[origins[c] // vocab], origins[c] % vocab
        node = find_child(tree, parent, k)
        if node < 0:
            node = counts[NODES]
            counts[NODES] += 1
            history = tree[parent, HISTORY]
            add_child(tree, node, parent, k, following[history, k])
            fused[node] = fused[parent] + added[history, k]
            if language[2].size:
                fused[node] += language[2][tree[parent, SLOT] * vocab + k]
        entry = counts[ENTRIES]
        counts[ENTRIES] += 1
        owner[entry], score[entry] = node, chances[c]
        if tree[node, FRAME] == t:  # it lies between two prefixes of the beam
            known = tree[node, ENTRY] * vocab
            rows[entry * vocab : (entry + 1) * vocab] = rows[known : known + vocab]
        else:
            nodes[unknown], places[unknown] = node, entry
            unknown += 1
    return nodes[:unknown], places[:unknown]


@kernel
def _best_of(tree, owner, ended, count, width, best, filled):
    """Entries of the W most probable of B; ties to the shorter, then to the smaller tokens."""
    threshold = best[0] if filled == width else -np.inf
    above, level = 0, 0
    for e in range(count):
        above += ended[e] > threshold
        level += ended[e] == threshold and threshold > -np.inf
    chosen, tied = np.empty(above, np.int64), np.empty(level, np.int64)
    above, level = 0, 0
    for e in range(count):
        if ended[e] > threshold:
            chosen[above] = e
            above += 1
        elif ended[e] == threshold and threshold > -np.inf:
            tied[level] = e
            level += 1
    free = min(width - above, level)
    if free < level:
        tied = sort_by_prefix(tree, owner, tied)
    return np.concatenate((chosen, tied[:free]))


@kernel
def _sum_prefixes(task, store, counts, beam, scores, t):
    """`_sum_paths`, and the distributions that it lacks: of prefixes between two of the beam."""
    vocab = task[4][0].shape[1]
    depths = store[0][beam, DEPTH]
    order = np.argsort(depths)
    total = -np.inf
    for p in scores:
        total = _log_add(total, p)
    at = 0
    while True:
        tree, (owner, score, ended, rows) = store[0], store[3]
        at, lacking = _sum_paths(tree, rows, scores, score, beam, order, vocab, t, total,
                                 depths[order[0]], at)  # fmt: skip
        if lacking < 0:
            break
        store = make_room(task, store, counts, 1)
        owner, score, ended, rows = store[3]
        entry = counts[ENTRIES]
        owner[entry], ended[entry] = lacking, -np.inf
        counts[ENTRIES] += 1
        evaluate(task, t, np.array([lacking]), np.array([entry]), store, counts)
    for node in beam:
        _exclude(store[0], store[3][3], node, vocab, t)
    return store


@kernel
def _follow_extensions(task, store, counts, chances, origins, best, filled, t):
    """Extensions of one length that may enter B, the most probable first, in batches."""
    width, blank, _, most, _ = task[5]
    vocab = task[4][0].shape[1]
    ranked = np.argsort(-chances, kind="mergesort")
    done = 0
    while done < ranked.size:
        threshold = best[0] if filled == width else -np.inf
        if chances[ranked[done]] < threshold:
            break
        if done >= most:
            counts[HITS] += 1
            break
        end = min(done + BATCH, ranked.size, most)
        while chances[ranked[end - 1]] < threshold:
            end -= 1
        store = make_room(task, store, counts, end - done)
        first = counts[ENTRIES]
        nodes, places = _extend(task, store, counts, chances, origins, ranked[done:end], t)
        evaluate(task, t, nodes, places, store, counts)
        tree, (_, score, ended, rows) = store[0], store[3]
        for i in range(nodes.size):
            _exclude_children(tree, rows, nodes[i], places[i], vocab)
        filled = _end_frame(rows, score, ended, first, counts[ENTRIES], vocab, blank, best, filled)
        done = end
    return store, filled


@kernel
def _advance(task, store, counts, count, chances, origins, t):
    """The second inner loop: from A to the entries of the W most probable of B."""
    width, blank, deepest, _, _ = task[5]
    vocab = task[4][0].shape[1]
    best = np.empty(width)
    _, score, ended, rows = store[3]
    filled = _end_frame(rows, score, ended, 0, count, vocab, blank, best, 0)
    first, last = 0, count
    for emitted in range(deepest + 1):
        chances = longer(chances, (last - first) * vocab)
        origins = longer(origins, (last - first) * vocab)
        threshold = best[0] if filled == width else -np.inf
        _, score, _, rows = store[3]
        found = _extensions(rows, score, first, last, vocab, blank, threshold, chances, origins)
        if found and emitted == deepest:
            counts[HITS] += 1
        if found == 0 or emitted == deepest:
            break
        first = counts[ENTRIES]
        store, filled = _follow_extensions(task, store, counts, chances[:found], origins[:found],
                                           best, filled, t)  # fmt: skip
        last = counts[ENTRIES]
    owner, _, ended, _ = store[3]
    chosen = _best_of(store[0], owner, ended, counts[ENTRIES], width, best, filled)
    return store, chosen, chances, origins


@kernel
def _forget(task, store, counts, beam):
    """Give up states out of the beam where there are too many."""
    tree, _, states, _, language = store
    (_, cells, size), (_, language_cells, _) = task[2]
    if counts[SLOTS] > task[5][4]:
        keep_states(tree, beam, states, cells, size)
        if language_cells:
            keep_states(tree, beam, language, language_cells, task[4][0].shape[1])
        renumber_slots(tree, counts[NODES], beam)
        counts[SLOTS] = beam.size


@kernel
def _search(task, num_frames, start):
    """One utterance: nodes of the last beam, their scores, the tree, what was fused, and counts.

    ``task``: all frames and where the utterance's begin, both networks, the joiner, the tables of
    the language model, and what bounds the search.
    """
    mode = simd.flush_denormals()
    frames, _, ((_, cells, size), (_, language_cells, _)), _, (added, _), (_, blank, _, _, _) = task
    vocab = added.shape[1]
    tree = np.empty((256, COLUMNS), np.int32)
    plant(tree, start)
    tree[0, TOKEN] = blank
    counts = np.zeros(4, np.int64)
    counts[NODES] = 1
    states = new_states(256, cells, size, frames)
    language = new_states(256, language_cells, vocab if language_cells else 0, frames)
    table = (np.empty(256, np.int64), np.empty(256), np.empty(256), np.empty(256 * vocab))
    store = (tree, np.zeros(256), states, table, language)
    beam, scores = np.zeros(1, np.int64), np.zeros(1)
    chances, origins = np.empty(0), np.empty(0, np.int64)
    for t in range(num_frames):
        count = beam.size
        if count == 0:
            break
        counts[ENTRIES] = 0
        store = make_room(task, store, counts, count)
        counts[ENTRIES] = count
        tree, (owner, score, _, _) = store[0], store[3]
        owner[:count], score[:count] = beam, scores
        for i in range(count):
            tree[beam[i], PLACE] = i
        evaluate(task, t, beam, np.arange(count), store, counts)
        store = _sum_prefixes(task, store, counts, beam, scores, t)
        store, chosen, chances, origins = _advance(task, store, counts, count, chances, origins, t)
        for node in beam:
            store[0][node, PLACE] = -1
        owner, _, ended, _ = store[3]
        beam, scores = owner[chosen], ended[chosen]
        _forget(task, store, counts, beam)
    simd.restore_denormals(mode)
    return beam, scores, store[0], store[1], counts


# ---- tensors -------------------------------------------------------------------------------------


def beam_search(
    frames: Tensor, lengths: list[int], model: SearchModel, settings: Settings
) -> list[Found]:
    """See `transducer_search_plain.beam_search`; float32 or float64."""
    weights = known_weights(model)
    joint = packed_joint(weights, frames)
    predictor = packed_lstm(weights.predictor, frames)
    language: Any = ((flat(frames.new_empty(0)),) * 5, 0, 0.0)
    if settings.network is not None:
        language = (*packed_lstm(settings.network, frames)[:2], settings.network_weight)
    added = np.array(settings.tables.log_probs)
    added[:, settings.blank] = 0.0
    tables, start = (added, settings.tables.following), settings.tables.start
    per_state = (6 * (predictor[1] + language[1]) + predictor[2]) * frames.element_size()
    slots = max(2 * settings.width + SPARE_STATES, STATE_BYTES // per_state)
    bounds = (settings.width, settings.blank, settings.max_tokens_per_frame,
              settings.max_expansions, slots)  # fmt: skip
    rows = flat(frames.contiguous())
    found: list[Found] = [Found([], 0)] * len(lengths)

    def search(n: int) -> None:
        first = n * frames.shape[1] * frames.shape[2]
        task = (rows, first, (predictor, language), joint, tables, bounds)
        found[n] = _found(*_search(task, lengths[n], start))

    run_parallel([lambda n=n: search(n) for n in range(len(lengths))])  # type: ignore[misc]
    return found


def _found(
    beam: np.ndarray, scores: np.ndarray, tree: np.ndarray, fused: np.ndarray, counts: np.ndarray
) -> Found:
    lengths = tree[beam, DEPTH]
    ends = np.cumsum(lengths)
    tokens = np.empty(int(lengths.sum()), np.int64)
    _write_all(tree, beam, ends - lengths, tokens)
    strings = [tuple(part.tolist()) for part in np.split(tokens, ends[:-1])] if len(beam) else []
    columns = scores.tolist(), fused[beam].tolist(), tree[beam, HISTORY].tolist()
    return Found(list(zip(strings, *columns, strict=True)), int(counts[HITS]))


@kernel
def _write_all(tree, beam, starts, tokens):
    for i in range(beam.size):
        write_tokens(tree, beam[i], tokens, starts[i])
