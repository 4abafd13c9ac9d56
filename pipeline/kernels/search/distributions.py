"""What a compiled search asks of the networks: log Pr(k|y, t) of prefixes, and their states."""

import math

import numpy as np
import torch
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import Floats, Longs, kernel, part
from pipeline.kernels.compiler.products import packed_panels
from pipeline.kernels.compiler.records import Record, call, doubles, floats, ints, longs
from pipeline.kernels.compiler.simd import (
    beyond,
)
from pipeline.kernels.search import fields as at
from pipeline.kernels.search.fields import COLUMNS, ENTRY, FRAME, HISTORY, SLOT
from pipeline.kernels.search.model import SearchModel, SearchWeights
from pipeline.kernels.transducer.joint_cpu import FAR_BELOW, join, log_sum_exp, output_rows

# ---- one prefix and one frame --------------------------------------------------------------------


@part
def meet(frame, column, has_output, joined, logits, size):
    """A frame and a prefix: the hidden vector of [G13] eq. 16, or, in [G12], the logits."""
    if has_output:
        join(frame, 0, column, 0, 0, joined, 0, size)
    else:
        for k in range(size):
            logits[k] = frame[k] + column[k]


@part
def _language_scores(logits, vocab, blank, weight):
    """Turn a language model's logits into what it adds to each token's score, in place."""
    logits[blank] = -math.inf
    top = logits[0]
    for k in range(1, vocab):
        if logits[k] > top:
            top = logits[k]
    sum_ = 0.0
    for k in range(vocab):
        sum_ += math.exp(np.float64(logits[k] - top))
    z = top + math.log(sum_)
    for k in range(vocab):
        logits[k] = weight * (logits[k] - z)
    logits[blank] = 0.0


# ---- prefixes of a frame -------------------------------------------------------------------------


@kernel
def evaluate(search: Longs, frames: Floats, t: int, count: int) -> None:
    """Compute missing states, and distributions, of the prefixes in `NEW`, at most `BATCH`.

    No two of them are the same, and there is room for all of them. `PLACES` has the places of their
    entries, whose rows become log Pr(k|y, t) plus what a language model adds.
    """
    tree, nodes, read = ints(search, at.TREE), longs(search, at.NEW), longs(search, at.READ)
    places, vocab, size = longs(search, at.PLACES), search[at.VOCAB], search[at.SIZE]
    missing, slots = 0, search[at.SLOTS]
    for i in range(count):
        if tree[nodes[i] * COLUMNS + SLOT] < 0:
            tree[nodes[i] * COLUMNS + SLOT] = slots + missing
            read[missing] = nodes[i]
            missing += 1
    search[at.SLOTS] = slots + missing
    has_language = search[at.LANGUAGE + at.CELLS] > 0
    language = floats(search, at.LANGUAGE + at.OUT, frames)
    if missing > 0:
        call(search[at.STATES], search, frames, at.PREDICTOR, missing)
    if missing > 0 and has_language:
        call(search[at.STATES], search, frames, at.LANGUAGE, missing)
        for i in range(missing):
            _language_scores(beyond(language, (slots + i) * vocab), vocab, search[at.BLANK],
                             doubles(search, at.WEIGHT)[0])  # fmt: skip
    out, joined = floats(search, at.PREDICTOR + at.OUT, frames), floats(search, at.JOINED, frames)
    logits, padded = floats(search, at.LOGITS, frames), search[at.PADDED]
    has_output = search[at.HAS_OUTPUT]
    for i in range(count):
        column = beyond(out, tree[nodes[i] * COLUMNS + SLOT] * size)
        meet(beyond(frames, t * size), column, has_output != 0, beyond(joined, i * size),
             beyond(logits, i * padded), size)  # fmt: skip
    if has_output:
        output_rows(search[at.PRODUCT], joined, count, size, floats(search, at.PANELS, frames),
                    floats(search, at.BIAS, frames), logits, padded)  # fmt: skip
    added, rows = doubles(search, at.ADDED), doubles(search, at.ROWS)
    for i in range(count):
        node = nodes[i] * COLUMNS
        z = log_sum_exp(logits, i * padded, padded)
        row, more = beyond(rows, places[i] * vocab), beyond(added, tree[node + HISTORY] * vocab)
        for k in range(vocab):
            row[k] = np.float64(logits[i * padded + k]) - z + more[k]
        if has_language:
            scores = beyond(language, tree[node + SLOT] * vocab)
            for k in range(vocab):
                row[k] += scores[k]
        tree[node + ENTRY], tree[node + FRAME] = places[i], t


# ---- weights ------------------------------------------------------------------------------------


def put_joiner(record: Record, weights: SearchWeights, like: Tensor, rows: int) -> None:
    """Put packed output weights, a bias that fills whole registers, and scratch memory.

    ``rows`` prefixes are joined at a time.
    """
    vocab, size = len(weights.predictor.inputs), weights.predictor.projection.shape[0]
    if weights.output is None or weights.output_bias is None:
        width = simd.REGISTER_BYTES // like.element_size()
        panels, bias = like.new_empty(0), like.new_zeros(vocab)
        padded = -(-vocab // width) * width
    else:
        panels = packed_panels(weights.output.detach().to(like.dtype).contiguous(), transposed=True)
        bias, padded = weights.output_bias.detach().to(like.dtype), len(panels) // size
    record[at.VOCAB], record[at.SIZE], record[at.PADDED] = vocab, size, padded
    record[at.HAS_OUTPUT] = int(weights.output is not None)
    record[at.PANELS] = panels
    record[at.BIAS] = torch.nn.functional.pad(bias, (0, padded - vocab), value=FAR_BELOW)
    record[at.JOINED] = like.new_empty(rows, size)
    record[at.LOGITS] = like.new_full((rows, padded), FAR_BELOW)


def known_weights(model: SearchModel) -> SearchWeights:
    """The model's weights.

    Raises:
        ValueError: the model does not give them.
    """
    weights = model.search_weights()
    if weights is None:
        raise ValueError("the compiled search needs the network's weights")
    return weights
