"""CTC's prefix search on a CPU, in compiled functions: `ctc_plain.prefix_search`.

All labels by which a prefix can grow are summed at once, several in a vector.
"""

import heapq

import numpy as np

from pipeline.kernels.compiler.compiling import array_kernel, array_part
from pipeline.kernels.search.ctc_plain import TIES, Found
from pipeline.kernels.search.ctc_prefixes_cpu import spelt_before


@array_part
def _columns(parent, rows, blank, length, k, repeats):
    """γ(p_n, t) and γ(p_b, t) of a prefix p that ends in k, from those of the prefix before it."""
    label, null = np.zeros(len(rows)), np.zeros(len(rows))
    if length == 1:
        label[0] = rows[0, k]
    before, before_null = parent
    for t in range(max(1, length - 1), len(rows)):
        new = before_null[t - 1] + (0.0 if repeats else before[t - 1])
        label[t] = rows[t, k] * (new + label[t - 1])
        null[t] = rows[t, blank] * (null[t - 1] + label[t - 1])
    return label, null


@array_part
def _children(parent, rows, rest, blank, length, last, whole, ends):
    """Of every prefix one longer: Pr(it, or it and more), and Pr(it)."""
    frames, vocab = rows.shape
    before, before_null = parent
    label, null = np.zeros(vocab), np.zeros(vocab)
    for k in range(vocab):
        whole[k] = 0.0
        if not length:
            label[k], whole[k] = rows[0, k], rows[0, k] * rest[1]
    for t in range(max(1, length), frames):
        again = before_null[t - 1]
        new, by_blank = again + before[t - 1], rows[t, blank]
        for k in range(vocab):
            grown = again if k == last else new
            whole[k] += rows[t, k] * grown * rest[t + 1]
            null[k] = by_blank * (null[k] + label[k])
            label[k] = rows[t, k] * (grown + label[k])
    for k in range(vocab):
        ends[k] = label[k] + null[k]


@array_part
def _beginning(rows, blank):
    """Columns of the empty prefix; and the sum over all outputs of the frames from each one on."""
    frames, vocab = rows.shape
    null, rest = np.empty(frames), np.empty(frames + 1)
    for t in range(frames):
        null[t] = rows[t, blank]
    for t in range(1, frames):
        null[t] *= null[t - 1]
    rest[frames] = 1.0
    for t in range(frames - 1, -1, -1):
        total = 0.0
        for k in range(vocab):
            total += rows[t, k]
        rest[t] = total * rest[t + 1]
    return (np.zeros(len(rows)), null), rest


@array_kernel
def _best_string(rows, blank, limit):
    """The most probable string of a section, its probability, and whether it is sure."""
    vocab = rows.shape[1]
    whole, ends = np.empty(vocab), np.empty(vocab)
    empty, rest = _beginning(rows, blank)
    # Of each prefix: the one before it, its last token, its length, and where its columns are.
    parents, tokens, lengths, places = [-1], [-1], [0], [0]
    columns = [empty]
    best, greatest, is_complete = 0, empty[1][-1], True
    queue = [(greatest - rest[0], 0)]
    while queue and -queue[0][0] > 0.0 and -queue[0][0] >= greatest * TIES:
        if limit == 0:
            is_complete = False
            break
        limit -= 1
        _, p = heapq.heappop(queue)
        last, length = tokens[p], lengths[p] + 1
        if p:
            before, repeats = columns[places[parents[p]]], tokens[parents[p]] == last
            places[p] = len(columns)
            columns.append(_columns(before, rows, blank, length - 1, last, repeats))
        _children(columns[places[p]], rows, rest, blank, length - 1, last, whole, ends)
        for k in range(vocab):
            if k == blank:
                continue
            is_best = ends[k] > greatest
            if ends[k] == greatest and length <= lengths[best]:
                is_best = length < lengths[best] or spelt_before(
                    parents, tokens, p, k, parents[best], tokens[best]
                )
            greatest = max(greatest, ends[k])
            more = whole[k] - ends[k]
            may_hold = more > 0.0 and more >= greatest * TIES
            if is_best or may_hold:
                parents.append(p)
                tokens.append(k)
                lengths.append(length)
                places.append(-1)
            if is_best:
                best = len(parents) - 1
            if may_hold:
                heapq.heappush(queue, (-more, len(parents) - 1))
    out = np.empty(lengths[best], np.int64)
    for at in range(len(out) - 1, -1, -1):
        out[at] = tokens[best]
        best = parents[best]
    return out, greatest, is_complete


def prefix_search(rows: np.ndarray, sections: np.ndarray, blank: int, limit: int) -> list[Found]:
    """See `ctc_plain.prefix_search`."""
    found = []
    for first, last in sections.tolist():
        tokens, probability, is_complete = _best_string(rows[first:last], blank, limit)
        found.append(Found(tuple(tokens.tolist()), probability, is_complete))
    return found
