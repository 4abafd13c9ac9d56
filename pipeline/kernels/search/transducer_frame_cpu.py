"""The frames of Algorithm 1 of [G12] on a CPU, compiled: the kernels of `transducer_cpu.py`.

They share one record of all that a search has, see `fields.py`. Where an array becomes too short,
they call a function of Python that makes it longer.
"""

import math

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import Floats, Longs, kernel, part
from pipeline.kernels.compiler.records import call, doubles, floats, ints, longs
from pipeline.kernels.search import fields as at
from pipeline.kernels.search.fields import (
    BATCH,
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
)
from pipeline.kernels.search.heap import add_to_best
from pipeline.kernels.search.prefix_tree import (
    BY_CHANCE,
    BY_DEPTH,
    BY_PREFIX,
    add_child,
    find_child,
)

NEGLIGIBLE = 45.0  # e^-45 of a sum is below the rounding of float64


@part
def _make_room(search, like, room, count):
    """Make room for ``count`` of something; where memory cannot be had, the search has `FAILED`."""
    if count > search[room]:
        call(search[at.GROW], search, like, room, count)


# ---- the first inner loop ------------------------------------------------------------------------


@part
def _log_add(a, b):
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


@part
def _nearest(tree, path, node, shortest):
    """The nearest prefix of ``node`` in the beam or -1, and the length of the path down from it."""
    path[0] = node
    length = 1
    above = tree[node * COLUMNS + PARENT]
    while (
        above >= 0
        and tree[above * COLUMNS + DEPTH] >= shortest
        and tree[above * COLUMNS + PLACE] < 0
    ):
        path[length] = above
        length += 1
        above = tree[above * COLUMNS + PARENT]
    if above >= 0 and tree[above * COLUMNS + PLACE] < 0:
        above = -1
    return above, length


@part
def _evaluate_between(search, frames, node, t):
    """Make an entry for a prefix that lies between two of the beam, with its distribution."""
    _make_room(search, frames, at.ENTRY_ROOM, search[at.ENTRIES] + 1)
    _make_room(search, frames, at.SLOT_ROOM, search[at.SLOTS] + 1)
    if search[at.FAILED] == 0:
        entry = search[at.ENTRIES]
        search[at.ENTRIES] = entry + 1
        longs(search, at.OWNER)[entry], doubles(search, at.ENDED)[entry] = node, -math.inf
        longs(search, at.NEW)[0], longs(search, at.PLACES)[0] = node, entry
        call(search[at.EVALUATE], search, frames, t, 1)


@kernel
def sum_prefixes(search: Longs, frames: Floats, t: int, count: int) -> None:
    """The first inner loop: Pr(y) += Σ_ŷ Pr(ŷ) Pr(y|ŷ, t) over the prefixes ŷ of y in the beam.

    The sum to the nearest such prefix suffices, if that prefix already has its own.
    """
    tree, beam = ints(search, at.TREE), longs(search, at.PREFIXES)
    scores = doubles(search, at.SCORES)
    order, vocab, most = longs(search, at.RANKED), search[at.VOCAB], -math.inf
    for i in range(count):
        order[i] = i
        most = _log_add(most, scores[i])
    call(search[at.SORT], search, frames, BY_DEPTH, count)
    shortest = tree[beam[order[0]] * COLUMNS + DEPTH]
    _make_room(search, frames, at.PATH_ROOM, tree[beam[order[count - 1]] * COLUMNS + DEPTH] + 1)
    if search[at.FAILED]:
        return
    path = longs(search, at.PATH)
    for turn in range(count):
        i = order[turn]
        ancestor, length = _nearest(tree, path, beam[i], shortest)
        if ancestor < 0:
            continue
        above, log_path, step = ancestor, 0.0, length - 1
        while step >= 0:
            if tree[above * COLUMNS + FRAME] != t:
                _evaluate_between(search, frames, above, t)
                if search[at.FAILED]:
                    return
            row = tree[above * COLUMNS + ENTRY] * vocab
            log_path += doubles(search, at.ROWS)[row + tree[path[step] * COLUMNS + TOKEN]]
            above = path[step]
            step -= 1
            if most + log_path < scores[i] - NEGLIGIBLE:
                log_path, step = -math.inf, -1
        score = doubles(search, at.SCORE)
        score[i] = _log_add(scores[i], score[tree[ancestor * COLUMNS + PLACE]] + log_path)
    # A prefix that A began with is no extension: it holds these paths by the prefix sum.
    rows = doubles(search, at.ROWS)
    for i in range(count):
        node = beam[i] * COLUMNS
        parent = tree[node + PARENT]
        if parent >= 0 and tree[parent * COLUMNS + FRAME] == t:
            rows[tree[parent * COLUMNS + ENTRY] * vocab + tree[node + TOKEN]] = -math.inf


# ---- the second inner loop -----------------------------------------------------------------------


@part
def _threshold(search, best):
    """The score of the least probable of the W best of B so far."""
    return best[0] if search[at.FILLED] == search[at.BEAM] else -math.inf


@part
def _end_frame(search, first, last):
    """Entries enter B with Pr(y) Pr(∅|y, t)."""
    score, ended = doubles(search, at.SCORE), doubles(search, at.ENDED)
    best = doubles(search, at.BEST)
    row = simd.beyond(doubles(search, at.ROWS), search[at.BLANK])
    vocab, filled = search[at.VOCAB], search[at.FILLED]
    for e in range(first, last):
        ended[e] = score[e] + row[e * vocab]
        if ended[e] > -math.inf:
            filled = add_to_best(best, search[at.BEAM], filled, ended[e])
    search[at.FILLED] = filled


@part
def _extensions(search, first, last, threshold):
    """List what entries may add to A, as probability and entry · V + label; returns how many."""
    rows, score = doubles(search, at.ROWS), doubles(search, at.SCORE)
    chances, origins = doubles(search, at.CHANCES), longs(search, at.ORIGINS)
    ranked, vocab, blank = longs(search, at.RANKED), search[at.VOCAB], search[at.BLANK]
    count = 0
    for e in range(first, last):
        for k in range(vocab):
            p = score[e] + rows[e * vocab + k]
            if p >= threshold and p > -math.inf and k != blank:
                chances[count], origins[count], ranked[count] = p, e * vocab + k, count
                count += 1
    return count


@part
def _new_node(search, tree, language, parent, k):
    """Plant a prefix and one more token, which was not in the tree; returns its row."""
    fused, vocab = doubles(search, at.FUSED), search[at.VOCAB]
    node, added = search[at.NODES], tree[parent * COLUMNS + HISTORY] * vocab + k
    search[at.NODES] = node + 1
    add_child(tree, node, parent, k, ints(search, at.FOLLOWING)[added])
    gain = fused[parent] + doubles(search, at.ADDED)[added]
    if search[at.LANGUAGE + at.CELLS] > 0:
        gain += language[tree[parent * COLUMNS + SLOT] * vocab + k]
    fused[node] = gain
    return node


@part
def _extend(search, language, begin, end, t):
    """Make entries for ranked extensions; returns how many have no distribution yet."""
    tree, owner, score = ints(search, at.TREE), longs(search, at.OWNER), doubles(search, at.SCORE)
    rows, vocab, entry = doubles(search, at.ROWS), search[at.VOCAB], search[at.ENTRIES]
    chances, origins = doubles(search, at.CHANCES), longs(search, at.ORIGINS)
    ranked, nodes = longs(search, at.RANKED), longs(search, at.NEW)
    places, unknown = longs(search, at.PLACES), 0
    for place in range(begin, end):
        origin = origins[ranked[place]]
        parent, k = owner[origin // vocab], origin % vocab
        node = int(find_child(tree, parent, k))
        if node < 0:
            node = _new_node(search, tree, language, parent, k)
        owner[entry], score[entry] = node, chances[ranked[place]]
        if tree[node * COLUMNS + FRAME] == t:  # it lies between two prefixes of the beam
            known = tree[node * COLUMNS + ENTRY] * vocab
            for column in range(vocab):
                rows[entry * vocab + column] = rows[known + column]
        else:
            nodes[unknown], places[unknown] = node, entry
            unknown += 1
        entry += 1
    search[at.ENTRIES] = entry
    return unknown


@part
def _exclude_children(search, count):
    """Leave out those extensions of new entries that are in A from the start."""
    tree, rows, vocab = ints(search, at.TREE), doubles(search, at.ROWS), search[at.VOCAB]
    nodes, places = longs(search, at.NEW), longs(search, at.PLACES)
    for i in range(count):
        child = tree[nodes[i] * COLUMNS + CHILD]
        while child >= 0:
            if tree[child * COLUMNS + PLACE] >= 0:
                rows[places[i] * vocab + tree[child * COLUMNS + TOKEN]] = -math.inf
            child = tree[child * COLUMNS + SIBLING]


@kernel
def follow_extensions(search: Longs, frames: Floats, t: int, found: int) -> None:
    """Follow extensions that may enter B, the most probable first, in batches."""
    best, most = doubles(search, at.BEST), search[at.MOST]
    chances, ranked = doubles(search, at.CHANCES), longs(search, at.RANKED)
    call(search[at.SORT], search, frames, BY_CHANCE, found)
    done = 0
    while done < found:
        threshold = _threshold(search, best)
        if chances[ranked[done]] < threshold:
            break
        if done >= most:
            search[at.HITS] += 1
            break
        end = min(done + BATCH, found, most)
        while chances[ranked[end - 1]] < threshold:
            end -= 1
        _make_room(search, frames, at.NODE_ROOM, search[at.NODES] + end - done)
        _make_room(search, frames, at.SLOT_ROOM, search[at.SLOTS] + end - done)
        _make_room(search, frames, at.ENTRY_ROOM, search[at.ENTRIES] + end - done)
        if search[at.FAILED]:
            break
        first = search[at.ENTRIES]
        unknown = _extend(search, floats(search, at.LANGUAGE + at.OUT, frames), done, end, t)
        call(search[at.EVALUATE], search, frames, t, unknown)
        _exclude_children(search, unknown)
        _end_frame(search, first, search[at.ENTRIES])
        done = end


@part
def _choose(search, frames):
    """The W most probable of B become the beam; of equals the shorter, then the smaller tokens."""
    ended, owner = doubles(search, at.ENDED), longs(search, at.OWNER)
    ranked = longs(search, at.RANKED)
    threshold, above, level = _threshold(search, doubles(search, at.BEST)), 0, 0
    beam, scores = longs(search, at.PREFIXES), doubles(search, at.SCORES)
    for e in range(search[at.ENTRIES]):
        if ended[e] > threshold:
            beam[above], scores[above] = owner[e], ended[e]
            above += 1
        elif ended[e] == threshold and threshold > -math.inf:
            ranked[level] = e
            level += 1
    free = min(search[at.BEAM] - above, level)
    if free < level:
        call(search[at.SORT], search, frames, BY_PREFIX, level)
    for i in range(free):
        beam[above + i], scores[above + i] = owner[ranked[i]], ended[ranked[i]]
    search[at.COUNT] = above + free


# ---- an utterance --------------------------------------------------------------------------------


@part
def _begin_frame(search, frames, t, count):
    """Make the beam's prefixes the frame's first entries, with their distributions."""
    search[at.ENTRIES], search[at.FILLED] = count, 0
    tree, beam = ints(search, at.TREE), longs(search, at.PREFIXES)
    scores = doubles(search, at.SCORES)
    owner, score = longs(search, at.OWNER), doubles(search, at.SCORE)
    nodes, places = longs(search, at.NEW), longs(search, at.PLACES)
    for i in range(count):
        owner[i], score[i] = beam[i], scores[i]
        tree[beam[i] * COLUMNS + PLACE] = i
    for first in range(0, count, BATCH):
        filled = min(BATCH, count - first)
        for i in range(filled):
            nodes[i], places[i] = beam[first + i], first + i
        call(search[at.EVALUATE], search, frames, t, filled)


@part
def _end_beam(search, count):
    """Forget the places that prefixes had in the beam of this frame."""
    tree, beam = ints(search, at.TREE), longs(search, at.PREFIXES)
    for i in range(count):
        tree[beam[i] * COLUMNS + PLACE] = -1


@kernel
def search_frames(search: Longs, frames: Floats, first: int, last: int) -> None:
    """Search through frames first … last - 1: for each, from A to the W most probable of B."""
    mode = simd.flush_denormals()
    for t in range(first, last):
        count = search[at.COUNT]
        _make_room(search, frames, at.ENTRY_ROOM, count)
        _make_room(search, frames, at.CANDIDATE_ROOM, count)
        if count == 0 or search[at.FAILED]:
            break
        _begin_frame(search, frames, t, count)
        call(search[at.SUM], search, frames, t, count)
        begin, end, emitted = 0, count, 0
        _end_frame(search, 0, count)
        while end > begin and search[at.FAILED] == 0:
            _make_room(search, frames, at.CANDIDATE_ROOM, (end - begin) * search[at.VOCAB])
            if search[at.FAILED]:
                break
            found = _extensions(search, begin, end, _threshold(search, doubles(search, at.BEST)))
            begin = search[at.ENTRIES]
            if found > 0 and emitted == search[at.DEEPEST]:
                search[at.HITS] += 1
            elif found > 0:
                call(search[at.ADVANCE], search, frames, t, found)
            end = search[at.ENTRIES]
            emitted += 1
        _make_room(search, frames, at.CANDIDATE_ROOM, search[at.ENTRIES])
        if search[at.FAILED]:
            break
        _end_beam(search, count)
        _choose(search, frames)
        if search[at.SLOTS] > search[at.SLOT_LIMIT]:
            call(search[at.FORGET], search, frames, 0, 0)
    simd.restore_denormals(mode)
