"""Algorithm 1 of [G12] on a CPU, compiled: one utterance on one thread, without the interpreter.

It does what `transducer_plain.py` does, step by step. A frame's distributions are entries: first
those of the beam, then of prefixes between two of the beam, then of extensions in the order in
which they are made. All arithmetic is row by row in a fixed order, so what comes out of an
utterance does not depend on how its prefixes were batched, nor on what stands beside it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.kernels.compiler.records import Record
from pipeline.kernels.compiler.threads import run_parallel
from pipeline.kernels.search import fields as at
from pipeline.kernels.search.distributions import evaluate, known_weights, put_joiner
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
from pipeline.kernels.search.model import Found, SearchModel, Settings
from pipeline.kernels.search.needed import needed_nodes
from pipeline.kernels.search.prefix_tree import compute_states, sort
from pipeline.kernels.search.transducer_frame_cpu import (
    follow_extensions,
    search_frames,
    sum_prefixes,
)
from pipeline.kernels.search.transducer_greedy_cpu import Greedy, greedy

__all__ = ["Beams", "Greedy", "beam_search", "greedy"]

STATE_BYTES = 1 << 26  # memory for states beyond which those out of the beam are given up,
SPARE_STATES = 1024  # but this many and twice the beam there may always be
ROOM = 256  # prefixes, states and entries for which there is memory from the start
PREFIXES = 1 << 12  # that a stream may hold before those that are no longer needed are dropped

# The arrays that grow together.
ROOMS: dict[int, tuple[int, ...]] = {
    at.NODE_ROOM: (at.TREE, at.FUSED),
    at.SLOT_ROOM: (),
    at.ENTRY_ROOM: (at.OWNER, at.SCORE, at.ENDED, at.ROWS),
    at.CANDIDATE_ROOM: (at.CHANCES, at.ORIGINS, at.RANKED, at.SPARE),
    at.PATH_ROOM: (at.PATH,),
}


class Search:
    """The search through one utterance, with a record for the kernels."""

    def __init__(self, shared: Record, like: Tensor, start: int) -> None:
        self.before: list[int] = []  # tokens of the prefix that is the tree's root
        self.limit = PREFIXES  # prefixes in the tree at which `settle` next looks at it
        self.record = record = Record(at.END)
        record.numbers[:] = shared.numbers
        record.arrays.update(shared.arrays)
        tree = np.full((ROOM, COLUMNS), -1, np.int32)
        tree[0, DEPTH], tree[0, HISTORY], tree[0, TOKEN] = 0, start, record[at.BLANK]
        record[at.TREE], record[at.ROWS] = tree, np.empty((ROOM, record[at.VOCAB]))
        longs = {at.OWNER: ROOM, at.PREFIXES: record[at.BEAM]}
        longs |= dict.fromkeys((at.ORIGINS, at.RANKED, at.SPARE, at.PATH), 0)
        longs |= dict.fromkeys((at.NEW, at.PLACES, at.READ), BATCH)
        doubles = dict.fromkeys((at.FUSED, at.SCORE, at.ENDED), ROOM)
        doubles |= {at.CHANCES: 0, at.SCORES: record[at.BEAM], at.BEST: record[at.BEAM]}
        for place, length in longs.items():
            record[place] = np.zeros(length, np.int64)
        for place, length in doubles.items():
            record[place] = np.zeros(length)
        record[at.NODE_ROOM], record[at.SLOT_ROOM], record[at.ENTRY_ROOM] = ROOM, ROOM, ROOM
        record[at.NODES], record[at.COUNT] = 1, 1  # the empty prefix, with probability 1
        for net in at.networks(record):
            at.put_states(record, net, ROOM, like)
        cells = max(record[net + at.CELLS] for net in at.networks(record))
        record[at.SCRATCH] = like.new_empty(BATCH, cells)
        record[at.JOINED] = like.new_empty(BATCH, record[at.SIZE])
        record[at.LOGITS] = shared.array(at.LOGITS).clone()

    def advance(self, frames: Tensor) -> None:
        """Search on through some frames, (T, J)."""
        record = self.record
        record.array(at.TREE)[: record[at.NODES], FRAME] = -1
        record.handle(at.GROW, self._grow, at.FAILED)
        record.handle(at.FORGET, self._forget, at.FAILED)
        search_frames[frames.dtype](record.numbers, frames, 0, len(frames))
        record.close()

    def _grow(self, room: int, count: int) -> None:
        """Make all arrays of one kind longer."""
        some = {at.SLOT_ROOM: count + count // 2, at.CANDIDATE_ROOM: count}
        length = some.get(room, 2 * count)
        for place in ROOMS[room]:
            self.record.grow(place, length)
        if room == at.SLOT_ROOM:
            for net in at.networks(self.record):
                at.grow_states(self.record, net, length)
        self.record[room] = length

    def _forget(self, _a: int, _b: int) -> None:
        """Give up the states of all prefixes out of the beam."""
        record = self.record
        tree, beam = record.array(at.TREE), self.prefixes()
        slots = tree[beam, SLOT]
        for net in at.networks(record):
            at.keep_states(record, net, slots)
        tree[: record[at.NODES], SLOT] = -1
        tree[beam, SLOT] = np.arange(len(beam))
        record[at.SLOTS] = len(beam)

    def prefixes(self) -> Any:
        """Rows of the tree: the beam."""
        return self.record.array(at.PREFIXES)[: self.record[at.COUNT]]

    def settle(self) -> None:
        """Drop prefixes that begin none of the beam's, if there are many, and what all begin with.

        States of others than the beam's are given up.
        """
        record, beam = self.record, self.prefixes()
        if record[at.NODES] < self.limit or not len(beam):
            return
        self._forget(0, 0)
        tree, count = record.array(at.TREE), record[at.NODES]
        needed, root = needed_nodes(tree[:count, PARENT].tolist(), beam, count)
        self.before += _strings(tree, np.array([root]), len(self.before))[0]
        kept = np.flatnonzero(needed)
        numbers = np.cumsum(needed) - 1
        small = tree[kept]
        small[1:, PARENT] = numbers[small[1:, PARENT]]
        small[0, PARENT] = -1
        small[:, [CHILD, SIBLING, PLACE, ENTRY, FRAME]] = -1
        for node in range(1, len(kept)):
            above = small[node, PARENT]
            small[node, SIBLING], small[above, CHILD] = small[above, CHILD], node
        tree[: len(kept)] = small
        fused = record.array(at.FUSED)
        fused[: len(kept)] = fused[kept]
        beam[:] = numbers[beam]
        record[at.NODES] = len(kept)
        self.limit = max(PREFIXES, 4 * len(kept))

    def best(self, *, length_normalise: bool) -> tuple[list[int], tuple[int, ...]]:
        """The tokens that all prefixes begin with, and the others of the best prefix so far."""
        tree, beam = self.record.array(at.TREE), self.prefixes()
        scores = self.record.array(at.SCORES)[: len(beam)]
        if not len(beam):
            return self.before, ()
        if length_normalise:
            scores = scores / np.maximum(1, tree[beam, DEPTH])
        tails = _strings(tree, beam[scores == scores.max()], len(self.before))
        return self.before, min(tails, key=lambda tail: (len(tail), tail))

    def found(self) -> Found:
        """The last beam."""
        record, beam = self.record, self.prefixes()
        tree, scores = record.array(at.TREE), record.array(at.SCORES)[: len(beam)]
        columns = scores, record.array(at.FUSED)[beam], tree[beam, HISTORY]
        before = tuple(self.before)
        strings = [before + tail for tail in _strings(tree, beam, len(before))]
        lists = (column.tolist() for column in columns)
        return Found(list(zip(strings, *lists, strict=True)), record[at.HITS])


def _strings(
    tree: NDArray[np.int32], nodes: NDArray[np.int64], before: int
) -> list[tuple[int, ...]]:
    """The tokens of prefixes, without those of the root, which has ``before``."""
    lengths = tree[nodes, DEPTH] - before
    tokens = np.empty((len(nodes), int(lengths.max(initial=0))), np.int64)
    for back in range(tokens.shape[1]):
        inside = (lengths > back).nonzero()[0]
        tokens[inside, lengths[inside] - 1 - back] = tree[nodes[inside], TOKEN]
        nodes = np.where(lengths > back, tree[nodes, PARENT], nodes)
    return [tuple(row[:n]) for row, n in zip(tokens.tolist(), lengths.tolist(), strict=True)]


class Beams:
    """Searches with the same network and settings, whose frames may come in chunks.

    Args:
        model: the network.
        settings: of the search.
        like: a tensor of the dtype of the frames.
        few_states: keep states in little memory, for many searches at a time.
    """

    def __init__(
        self, model: SearchModel, settings: Settings, like: Tensor, *, few_states: bool
    ) -> None:
        weights, shared = known_weights(model), Record(at.END)
        put_joiner(shared, weights, like, BATCH)
        at.put_network(shared, at.PREDICTOR, weights.predictor, like)
        if settings.network is not None:
            at.put_network(shared, at.LANGUAGE, settings.network, like)
        added = np.array(settings.tables.log_probs, np.float64, order="C")
        added[:, settings.blank] = 0.0
        shared[at.ADDED], shared[at.FOLLOWING] = added, settings.tables.following
        shared[at.WEIGHT] = np.array([settings.network_weight])
        shared[at.BLANK], shared[at.BEAM] = settings.blank, settings.beam
        shared[at.DEEPEST], shared[at.MOST] = settings.max_tokens_per_frame, settings.max_expansions
        cells = sum(shared[net + at.CELLS] for net in at.networks(shared))
        per_state = (6 * cells + shared[at.SIZE]) * like.element_size()
        states = 0 if few_states else STATE_BYTES // per_state
        shared[at.SLOT_LIMIT] = max(2 * settings.beam + SPARE_STATES, states)
        kernels = {
            at.STATES: compute_states,
            at.EVALUATE: evaluate,
            at.SORT: sort,
            at.SUM: sum_prefixes,
            at.ADVANCE: follow_extensions,
        }
        for place, kernel_ in kernels.items():
            shared[place] = kernel_.address(like.dtype)
        self.shared, self.like, self.history = shared, like, settings.tables.start

    def start(self) -> Search:
        """The search through an utterance before its first frame."""
        return Search(self.shared, self.like, self.history)

    def advance(self, searches: Sequence[Search], frames: Sequence[Tensor]) -> None:
        """Search on through the next frames of each utterance, (T, J)."""
        jobs = zip(searches, frames, strict=True)
        run_parallel([lambda one=one, rows=rows: one.advance(rows) for one, rows in jobs])  # type: ignore[misc]


def beam_search(
    frames: Tensor, lengths: list[int], model: SearchModel, settings: Settings
) -> list[Found]:
    """See `transducer_plain.beam_search`; float32 or float64."""
    beams, rows = Beams(model, settings, frames, few_states=False), frames.contiguous()
    found: list[Found] = [Found([], 0)] * len(lengths)

    def search(n: int) -> None:
        one = beams.start()
        one.advance(rows[n, : lengths[n]])
        found[n] = one.found()

    run_parallel([lambda n=n: search(n) for n in range(len(lengths))])  # type: ignore[misc]
    return found
