"""The greedy path with a transducer on a CPU, compiled: see `transducer.transducer_greedy`.

It goes label by label: each utterance looks ahead over some frames at once for its next label, then
the predictor reads the labels of all utterances in one product.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import Floats, Longs, kernel, part
from pipeline.kernels.compiler.records import Record, call, doubles, floats, ints, longs
from pipeline.kernels.compiler.simd import beyond
from pipeline.kernels.compiler.threads import run_parallel, spans
from pipeline.kernels.search import fields as at
from pipeline.kernels.search.distributions import known_weights, meet, put_joiner
from pipeline.kernels.search.fields import COLUMNS, PARENT, SLOT, TOKEN
from pipeline.kernels.search.model import SearchModel
from pipeline.kernels.search.prefix_tree import compute_states
from pipeline.kernels.transducer.joint_cpu import log_sum_exp, output_rows

AHEAD = 8  # frames at a time

# What the record of this search has at places that the beam search uses for something else: how
# many frames a row of the batch has; arrays of each utterance's length, the frame it has come to,
# the labels it has found there, its next label, and the log-probability of its path.
FRAMES, DEEPEST = at.FRAMES, at.DEEPEST
LENGTHS, COME_TO, EMITTED, LABELS = at.ORIGINS, at.RANKED, at.SPARE, at.NEW
CHANCES = at.SCORES
VECTORS = at.HIDDEN, at.CELL, at.OUT  # what an utterance keeps of the predictor


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

    An utterance's prefix is row n of the tree. After as many labels as a frame may emit the blank
    is taken.
    """
    mode = simd.flush_denormals()
    size, padded, vocab = search[at.SIZE], search[at.PADDED], search[at.VOCAB]
    has_output, blank = search[at.HAS_OUTPUT], search[at.BLANK]
    tree, out = ints(search, at.TREE), floats(search, at.PREDICTOR + at.OUT, frames)
    joined, logits = floats(search, at.JOINED, frames), floats(search, at.LOGITS, frames)
    come_to, emitted = longs(search, COME_TO), longs(search, EMITTED)
    chances = doubles(search, CHANCES)
    for n in range(first, last):
        t, length, ahead, token = come_to[n], longs(search, LENGTHS)[n], 1, blank
        column = beyond(out, tree[n * COLUMNS + SLOT] * size)
        is_full = emitted[n] == search[DEEPEST]
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
                if not is_full:
                    token = _largest(beyond(logits, i * padded), vocab)
                is_full = False
                z = log_sum_exp(logits, i * padded, padded)
                chances[n] += np.float64(logits[i * padded + token]) - z
                if token == blank:
                    i += 1
            t += i
            ahead = AHEAD
        if t != come_to[n]:
            emitted[n] = 0
        come_to[n], longs(search, LABELS)[n] = t, token
        if token != blank:
            emitted[n] += 1
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


@dataclass
class Path:
    """The greedy path through an utterance as far as it has come, and the predictor's vectors."""

    vectors: list[Any]  # as `VECTORS`
    tokens: list[int] = field(default_factory=list)
    log_prob: float = 0.0


class Greedy:
    """Greedy searches with the same network, whose frames may come in chunks.

    Args:
        model: the network.
        blank: id of ∅.
        max_tokens_per_frame: see `transducer.transducer_greedy`.
        like: a tensor of the dtype of the frames.
    """

    def __init__(
        self, model: SearchModel, blank: int, max_tokens_per_frame: int, like: Tensor
    ) -> None:
        weights, shared = known_weights(model), Record(at.END)
        put_joiner(shared, weights, like, AHEAD)
        at.put_network(shared, at.PREDICTOR, weights.predictor, like)
        shared[at.BLANK], shared[DEEPEST] = blank, max_tokens_per_frame
        shared[at.STATES] = compute_states.address(like.dtype)
        self.shared, self.blank = shared, blank
        rows = like.new_empty(1, 0, shared[at.SIZE])
        record = self._record([], rows, [0])
        compute_states[like.dtype](record.numbers, rows, at.PREDICTOR, 1)
        self.first = [record.array(at.PREDICTOR + place)[0].copy() for place in VECTORS]

    def start(self) -> Path:
        """The path through an utterance before its first frame."""
        return Path(self.first)

    def advance(self, paths: Sequence[Path], frames: Tensor, lengths: list[int]) -> None:
        """Follow the next ``lengths`` frames of utterances, (N, T, J)."""
        parts = spans(len(lengths), 1, torch.get_num_threads())
        jobs = [(paths[a:b], frames[a:b].contiguous(), lengths[a:b]) for a, b in parts]
        run_parallel([lambda job=job: self._advance(*job) for job in jobs])  # type: ignore[misc]

    def _advance(self, paths: Sequence[Path], rows: Tensor, lengths: list[int]) -> None:
        record, batch = self._record(paths, rows, lengths), len(paths)
        next_labels, follow = _next_labels[rows.dtype], _follow[rows.dtype]
        while True:
            next_labels(record.numbers, rows, 0, batch)
            labels = record.array(LABELS)
            active = (labels != self.blank).nonzero()[0]
            if not len(active):
                break
            for n in active.tolist():
                paths[n].tokens.append(int(labels[n]))
            record.array(at.READ)[: len(active)] = active
            follow(record.numbers, rows, batch, len(active))
        for n, path in enumerate(paths):
            path.vectors = [record.array(at.PREDICTOR + place)[n].copy() for place in VECTORS]
            path.log_prob = float(record.array(CHANCES)[n])

    def _record(self, paths: Sequence[Path], frames: Tensor, lengths: list[int]) -> Record:
        """A record for some utterances; the prefix that each has come to is a row of its own."""
        record, batch = Record(at.END), len(lengths)
        record.numbers[:] = self.shared.numbers
        record.arrays.update(self.shared.arrays)
        tree = np.full((2 * batch, COLUMNS), -1, np.int32)
        tree[:batch, TOKEN], tree[:batch, SLOT] = record[at.BLANK], np.arange(batch)
        record[at.TREE], record[FRAMES] = tree, frames.shape[1]
        record[LENGTHS] = np.array(lengths, np.int64)
        for place in COME_TO, EMITTED, LABELS:
            record[place] = np.zeros(batch, np.int64)
        record[at.READ] = np.arange(batch)
        record[CHANCES] = np.array([path.log_prob for path in paths] or [0.0])
        record[at.SCRATCH] = frames.new_empty(batch, record[at.PREDICTOR + at.CELLS])
        record[at.JOINED] = frames.new_empty(AHEAD, record[at.SIZE])
        record[at.LOGITS] = self.shared.array(at.LOGITS).clone()
        at.put_states(record, at.PREDICTOR, 2 * batch, frames)
        for n, path in enumerate(paths):
            for place, vector in zip(VECTORS, path.vectors, strict=True):
                record.array(at.PREDICTOR + place)[n] = vector
        return record


def greedy(
    frames: Tensor, lengths: list[int], model: SearchModel, blank: int, max_tokens_per_frame: int
) -> list[list[int]]:
    """See `transducer_plain.greedy`; float32 or float64."""
    search = Greedy(model, blank, max_tokens_per_frame, frames)
    paths = [search.start() for _ in lengths]
    search.advance(paths, frames, lengths)
    return [path.tokens for path in paths]
