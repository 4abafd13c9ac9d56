"""How far CTC's compiled beam search has come, and what it has found; see `ctc_plain.py`."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pipeline.kernels.search.ctc_plain import LN2, Entry
from pipeline.kernels.search.ctc_prefixes_cpu import LABEL, TOTAL, Tree, rooted_anew, spelling
from pipeline.kernels.search.fusion import Automaton

ROOM = 1 << 12  # prefixes that a stream may hold before those that are no longer needed are dropped


class Beam(NamedTuple):
    """W prefixes in no order."""

    nodes: np.ndarray
    tokens: np.ndarray  # the last one; -1 of the empty prefix
    lengths: np.ndarray
    states: np.ndarray  # of the language model
    fused: np.ndarray
    mantissas: np.ndarray  # (3, W): TOTAL, BLANK, LABEL
    exponents: np.ndarray
    scores: np.ndarray


@dataclass
class Progress:
    """How far the search through an utterance has come."""

    tree: Tree
    beam: Beam
    count: int = 1  # prefixes in the beam
    spread: float = math.inf
    before: list[int] = field(default_factory=list)  # tokens of the prefix that is the tree's root
    limit: int = ROOM  # prefixes in the tree at which `settle` next looks at it


def begin(beam_size: int, model: Automaton, room: int = ROOM) -> Progress:
    """The beam before the first frame: the empty prefix, which has probability 1."""
    tree = Tree.empty(room)
    ids, states = np.zeros((3, beam_size), np.int32), np.zeros(beam_size, np.int64)
    ids[:, 0], states[0] = (0, -1, 0), model.start
    mantissas, exponents = np.full((3, beam_size), 0.5), np.ones((3, beam_size), np.int64)
    mantissas[LABEL] = 0.0
    zeros = np.zeros((2, beam_size))
    return Progress(
        tree, Beam(ids[0], ids[1], ids[2], states, zeros[0], mantissas, exponents, zeros[1])
    )


def settle(progress: Progress) -> None:
    """Drop prefixes that begin none of the beam's, if there are many, and what all begin with."""
    used = int(progress.tree.used[0])
    if used < progress.limit or not progress.count:
        return
    nodes = progress.beam.nodes[: progress.count]
    progress.tree, nodes[:], settled = rooted_anew(progress.tree, nodes)
    progress.before += settled
    progress.limit = max(ROOM, 4 * len(progress.tree.parents))


def _tails(progress: Progress, chosen: np.ndarray) -> list[tuple[int, ...]]:
    """Some prefixes of the beam, without the tokens ``before``."""
    tree, beam = progress.tree, progress.beam
    lengths = beam.lengths[chosen] - np.int32(len(progress.before))
    tokens = spelling(tree.parents, tree.tokens, beam.nodes[chosen], lengths).tolist()
    ends = lengths.cumsum().tolist()
    starts = [0, *ends[:-1]] if ends else []
    return [tuple(tokens[start:end]) for start, end in zip(starts, ends, strict=True)]


def best(progress: Progress, *, length_normalise: bool) -> tuple[list[int], tuple[int, ...]]:
    """The tokens that all prefixes begin with, and the others of the best prefix so far."""
    scores = progress.beam.scores[: progress.count]
    if length_normalise:
        scores = scores / np.maximum(1, progress.beam.lengths[: progress.count])
    if not len(scores):
        return progress.before, ()
    tails = _tails(progress, np.flatnonzero(scores == scores.max()))
    return progress.before, min(tails, key=lambda tail: (len(tail), tail))


def entries(progress: Progress) -> list[Entry]:
    """The beam after the last frame, in any order."""
    beam, count = progress.beam, progress.count
    before = tuple(progress.before)
    strings = [before + tail for tail in _tails(progress, np.arange(count))]
    numbers = beam.mantissas[TOTAL, :count].tolist(), beam.exponents[TOTAL, :count].tolist()
    logs = [math.log(a) + i * LN2 for a, i in zip(*numbers, strict=True)]
    columns = strings, logs, beam.fused[:count].tolist(), beam.states[:count].tolist()
    return [Entry(*entry) for entry in zip(*columns, strict=True)]
