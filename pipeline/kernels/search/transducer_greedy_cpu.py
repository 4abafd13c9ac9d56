"""The greedy path with a transducer on a CPU, compiled: see `transducer.transducer_greedy`.

It goes label by label: each utterance looks ahead over some frames at once for its next label, then
the predictor reads the labels of all utterances in one product.
"""

import numpy as np
import torch
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import Floats, Longs, kernel, part
from pipeline.kernels.compiler.records import Record, call, floats, ints, longs
from pipeline.kernels.compiler.simd import beyond
from pipeline.kernels.compiler.threads import run_parallel, spans
from pipeline.kernels.search import fields as at
from pipeline.kernels.search.distributions import known_weights, meet, put_joiner
from pipeline.kernels.search.fields import COLUMNS, PARENT, SLOT, TOKEN
from pipeline.kernels.search.model import SearchModel
from pipeline.kernels.search.prefix_tree import compute_states
from pipeline.kernels.transducer.joint_cpu import output_rows

AHEAD = 8  # frames at a time

# What the record of this search has at places that the beam search uses for something else: how
# many frames a row of the batch has; arrays of each utterance's length, the frame it has come to,
# the labels it has found there, and its next label.
FRAMES, DEEPEST = at.FRAMES, at.DEEPEST
LENGTHS, COME_TO, EMITTED, LABELS = at.ORIGINS, at.RANKED, at.SPARE, at.NEW


@part
def _largest(logits, count):
    """The place of the largest number, the first of those that are equal; NaN is above all."""
    best = 0
    for k in range(1, count):
        if logits[best] == logits[best] and not logits[k] <= logits[best]:
            best = k
    return best


@kernel
def _next_labels(search: Longs, frames: Floats, first: int, last: int) -> None:
    """The next label of utterances first … last, the blank where one has come to its end.

    An utterance's prefix is row n of the tree.
    """
    mode = simd.flush_denormals()
    size, padded, vocab = search[at.SIZE], search[at.PADDED], search[at.VOCAB]
    has_output, blank = search[at.HAS_OUTPUT], search[at.BLANK]
    tree, out = ints(search, at.TREE), floats(search, at.PREDICTOR + at.OUT, frames)
    joined, logits = floats(search, at.JOINED, frames), floats(search, at.LOGITS, frames)
    come_to, emitted = longs(search, COME_TO), longs(search, EMITTED)
    for n in range(first, last):
        t, length, ahead, token = come_to[n], longs(search, LENGTHS)[n], 1, blank
        column = beyond(out, tree[n * COLUMNS + SLOT] * size)
        while t < length and token == blank:
            count = min(ahead, length - t)
            rows = beyond(frames, (n * search[FRAMES] + t) * size)
            for i in range(count):
                meet(beyond(rows, i * size), column, has_output != 0, beyond(joined, i * size),
                     beyond(logits, i * padded), size)  # fmt: skip
            if has_output:
                output_rows(search[at.PRODUCT], joined, count, size,
                            floats(search, at.PANELS, frames), floats(search, at.BIAS, frames),
                            logits, padded)  # fmt: skip
            i = 0
            while i < count and token == blank:
                token = _largest(beyond(logits, i * padded), vocab)
                if token == blank:
                    i += 1
            t += i
            ahead = AHEAD
        if t != come_to[n]:
            emitted[n] = 0
        come_to[n], longs(search, LABELS)[n] = t, token
        if token != blank:
            emitted[n] += 1
        if emitted[n] == search[DEEPEST]:
            come_to[n], emitted[n] = t + 1, 0
    simd.restore_denormals(mode)


@part
def _move(vectors, target, source, size):
    for j in range(size):
        vectors[target * size + j] = vectors[source * size + j]


@kernel
def _follow(search: Longs, frames: Floats, batch: int, count: int) -> None:
    """The states of ``count`` utterances of ``batch`` after their labels.

    Rows and slots from ``batch`` on are made for them and then moved to their own. `READ` has the
    numbers of the utterances, and loses them.
    """
    mode = simd.flush_denormals()
    tree, read = ints(search, at.TREE), longs(search, at.READ)
    gates_of = ints(search, at.PREDICTOR + at.GATES_OF)
    for i in range(count):
        row = (batch + i) * COLUMNS
        tree[row + PARENT], tree[row + TOKEN] = read[i], longs(search, LABELS)[read[i]]
        tree[row + SLOT] = batch + i
        read[i] = batch + i
    call(search[at.STATES], search, frames, at.PREDICTOR, count)
    cells = search[at.PREDICTOR + at.CELLS]
    for i in range(count):
        old, new = tree[(batch + i) * COLUMNS + PARENT], batch + i
        _move(floats(search, at.PREDICTOR + at.HIDDEN, frames), old, new, cells)
        _move(floats(search, at.PREDICTOR + at.CELL, frames), old, new, cells)
        _move(floats(search, at.PREDICTOR + at.OUT, frames), old, new, search[at.SIZE])
    for slot in range(2 * batch):
        gates_of[slot] = -1
    search[at.PREDICTOR + at.USED] = 0
    simd.restore_denormals(mode)


def _begin(shared: Record, frames: Tensor, lengths: list[int]) -> Record:
    """A record for a part of the batch; the empty prefix is that of each utterance."""
    record, batch = Record(at.END), len(lengths)
    record.numbers[:] = shared.numbers
    record.arrays.update(shared.arrays)
    tree = np.full((2 * batch, COLUMNS), -1, np.int32)
    tree[:batch, TOKEN], tree[:batch, SLOT] = record[at.BLANK], np.arange(batch)
    record[at.TREE], record[FRAMES] = tree, frames.shape[1]
    record[LENGTHS] = np.array(lengths, np.int64)
    for place in COME_TO, EMITTED, LABELS:
        record[place] = np.zeros(batch, np.int64)
    record[at.READ] = np.arange(batch)
    record[at.SCRATCH] = frames.new_empty(batch, record[at.PREDICTOR + at.CELLS])
    record[at.JOINED] = frames.new_empty(AHEAD, record[at.SIZE])
    record[at.LOGITS] = shared.array(at.LOGITS).clone()
    at.put_states(record, at.PREDICTOR, 2 * batch, frames)
    return record


def greedy(
    frames: Tensor, lengths: list[int], model: SearchModel, blank: int, max_tokens_per_frame: int
) -> list[list[int]]:
    """See `transducer_plain.greedy`; float32 or float64."""
    weights, shared = known_weights(model), Record(at.END)
    put_joiner(shared, weights, frames, AHEAD)
    at.put_network(shared, at.PREDICTOR, weights.predictor, frames)
    shared[at.BLANK], shared[DEEPEST] = blank, max_tokens_per_frame
    shared[at.STATES] = compute_states.address(frames.dtype)
    hyps: list[list[int]] = [[] for _ in lengths]
    states = compute_states[frames.dtype]
    next_labels, follow = _next_labels[frames.dtype], _follow[frames.dtype]

    def search(first: int, last: int) -> None:
        rows, batch = frames[first:last].contiguous(), last - first
        record = _begin(shared, rows, lengths[first:last])
        states(record.numbers, rows, at.PREDICTOR, batch)
        while True:
            next_labels(record.numbers, rows, 0, batch)
            labels = record.array(LABELS)
            active = (labels != blank).nonzero()[0]
            if not len(active):
                break
            for n in active.tolist():
                hyps[first + n].append(int(labels[n]))
            record.array(at.READ)[: len(active)] = active
            follow(record.numbers, rows, batch, len(active))

    parts = spans(len(lengths), 1, torch.get_num_threads())
    run_parallel([lambda span=span: search(*span) for span in parts])  # type: ignore[misc]
    return hyps
