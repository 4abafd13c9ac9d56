"""What stands at which place of the record that the kernels of a transducer's search share.

A search knows prefixes by their rows in a table, the tree. The LSTM's vectors of a prefix lie in a
slot of the memory for states, where the prefix has one. A frame's distributions are entries.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.kernels.compiler.products import packed_panels, panel_products
from pipeline.kernels.compiler.records import Record
from pipeline.kernels.search.fusion import LstmWeights

BATCH = 48  # prefixes whose states and distributions are made at a time

# Columns of the tree: a row is a prefix.
PARENT, TOKEN, DEPTH, CHILD, SIBLING = 0, 1, 2, 3, 4  # -1 is none
SLOT = 5  # place of the LSTM's vectors
PLACE = 6  # in the beam of this frame
ENTRY, FRAME = 7, 8  # place of the distribution, and the frame of which it is
HISTORY = 9  # state of the language model
COLUMNS = 10

# How many prefixes, states, entries, bounds that were hit, hypotheses in the beam and scores of
# the best there are, and whether memory could not be had; then for how many there is memory.
NODES, SLOTS, ENTRIES, HITS, COUNT, FILLED, FAILED = range(7)
NODE_ROOM, SLOT_ROOM, ENTRY_ROOM, CANDIDATE_ROOM, PATH_ROOM = range(7, 12)
# What the search is told: frames a row, the settings, and how many states may be kept.
FRAMES, VOCAB, BLANK, BEAM, DEEPEST, MOST, SLOT_LIMIT = range(12, 19)
# The joiner: J, how many logits a row has with those that fill a register, the weights of its
# output layer, and whether it has one.
SIZE, PADDED, PANELS, BIAS, HAS_OUTPUT = range(19, 24)
# What the language model adds, the states after it, and the weight of a network.
ADDED, FOLLOWING, WEIGHT = range(24, 27)
# Addresses of kernels, and of the functions of Python that they call.
PRODUCT, STATES, EVALUATE, SORT, SUM, ADVANCE, GROW, FORGET = range(27, 35)
# Arrays: of prefixes, of entries, of candidates for an extension.
TREE, FUSED, OWNER, SCORE, ENDED, ROWS, CHANCES, ORIGINS, RANKED, SPARE = range(35, 45)
# Arrays: a path in the tree, the beam and its scores, the best of a frame, and scratch memory.
PATH, PREFIXES, SCORES, BEST, NEW, PLACES, READ, SCRATCH, JOINED, LOGITS = range(45, 55)
# Two networks, each with the fields below: the predictor and a language model.
PREDICTOR, LANGUAGE, END = 55, 68, 81
CELLS, OUTPUTS, INPUTS, RECURRENT, PEEPHOLES, PROJECTION, PROJECTION_BIAS = range(7)
# States: hidden and cell vectors, what goes out, recurrent gates; the place of a slot's gates, and
# how many are in use. The product of a hidden vector with the recurrent weights is made once for
# all prefixes that extend it.
HIDDEN, CELL, OUT, GATES, GATES_OF, USED = range(7, 13)


def put_network(record: Record, net: int, weights: LstmWeights, like: Tensor) -> None:
    """Put the weights of an LSTM, packed, in the dtype of ``like``."""
    inputs, recurrent, peepholes, projection, bias = (
        w.detach().to(like.dtype).contiguous() for w in weights
    )
    record[net + CELLS], record[net + OUTPUTS] = recurrent.shape[1], projection.shape[0]
    record[net + INPUTS], record[net + PEEPHOLES] = inputs, peepholes
    record[net + RECURRENT] = packed_panels(recurrent, transposed=True)
    record[net + PROJECTION] = packed_panels(projection, transposed=True)
    record[net + PROJECTION_BIAS] = bias
    record[PRODUCT] = panel_products(like.dtype)


def put_states(record: Record, net: int, slots: int, like: Tensor) -> None:
    """Put memory for the vectors of ``slots`` prefixes."""
    dtype: Any = torch.empty(0, dtype=like.dtype).numpy().dtype
    cells, outputs = record[net + CELLS], record[net + OUTPUTS]
    for place, width in (HIDDEN, cells), (CELL, cells), (OUT, outputs), (GATES, 4 * cells):
        record[net + place] = np.empty((slots, width), dtype)
    record[net + GATES_OF] = np.full(slots, -1, np.int32)
    record[net + USED] = 0


def grow_states(record: Record, net: int, slots: int) -> None:
    """Make room for the vectors of ``slots`` prefixes."""
    known = len(record.array(net + GATES_OF))
    for place in HIDDEN, CELL, OUT, GATES, GATES_OF:
        record.grow(net + place, slots)
    record.array(net + GATES_OF)[known:] = -1


def keep_states(record: Record, net: int, slots: Any) -> None:
    """Give up all slots but these, which move to the front."""
    for place in HIDDEN, CELL, OUT:
        states = record.array(net + place)
        states[: len(slots)] = states[slots]
    record.array(net + GATES_OF)[:] = -1
    record[net + USED] = 0


def networks(record: Record) -> list[int]:
    """The places at which the networks that the record has begin."""
    return [net for net in (PREDICTOR, LANGUAGE) if record[net + CELLS]]
