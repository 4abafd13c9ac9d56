"""CTC's prefix search on a CPU, in compiled functions: `ctc_search_plain.prefix_search`.

All labels by which a prefix can grow are summed at once, several in a vector.
"""

import heapq
import itertools

import numpy as np

from pipeline.kernels.compiler.compiling import array_kernel
from pipeline.kernels.search.ctc_plain import TIES, Found
from pipeline.kernels.search.ctc_prefixes_cpu import spelt_before


@array_kernel
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


@array_kernel
def _children(parent, rows, rest, blank, length, last, whole, ends):
    """Of every prefix one longer: Pr(it, or it and more), and Pr(it)."""
    frames, vocab = rows.shape
    before, before_null = parent
    label, null = np.zeros(vocab), np.zeros(vocab)
    whole[:] = 0.0
    if not length:
        label[:] = rows[0]
        whole[:] = rows[0] * rest[1]
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


@array_kernel
def _beginning(rows, blank):
    """Columns of the empty prefix; and the sum over all outputs of the frames from each one on."""
    null, rest = rows[:, blank].copy(), np.ones(len(rows) + 1)
    for t in range(1, len(rows)):
        null[t] *= null[t - 1]
    for t in range(len(rows) - 1, -1, -1):
        rest[t] = rows[t].sum() * rest[t + 1]
    return (np.zeros(len(rows)), null), rest


@array_kernel
def _best_string(rows, blank, limit, out):
    """Append the most probable string to ``out``; its probability, and whether it is sure."""
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
    start = len(out)
    while best:
        out.append(tokens[best])
        best = parents[best]
    out[start:] = out[start:][::-1]
    return greatest, is_complete


@array_kernel
def _prefix_search(rows, sections, blank, limit):
    """The strings after each other behind a 0, where each ends, and what is known of it."""
    count = len(sections)
    ends, probabilities = np.empty(count, np.int64), np.empty(count)
    complete = np.empty(count, np.bool_)
    out = [0]
    for n in range(count):
        section = rows[sections[n, 0] : sections[n, 1]]
        probabilities[n], complete[n] = _best_string(section, blank, limit, out)
        ends[n] = len(out)
    return np.array(out), ends, probabilities, complete


def prefix_search(rows: np.ndarray, sections: np.ndarray, blank: int, limit: int) -> list[Found]:
    """See `ctc_search_plain.prefix_search`."""
    columns = [column.tolist() for column in _prefix_search(rows, sections, blank, limit)]
    tokens, ends, probabilities, complete = columns
    spans = itertools.pairwise([1, *ends])
    strings = [tuple(tokens[start:end]) for start, end in spans]
    return [Found(*found) for found in zip(strings, probabilities, complete, strict=True)]
