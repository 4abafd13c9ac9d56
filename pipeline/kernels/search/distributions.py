"""What a compiled search asks of the networks: log Pr(k|y, t) of prefixes, and their states.

``store`` is what a search has of an utterance: the tree of prefixes, what a language model has
added to each, the predictor's states, the table of this frame's entries (prefix, score, score
after a blank, distribution), and a language model's states. ``task`` is what does not change: all
frames and where the utterance's begin, both networks, the joiner, the language model's tables, and
what bounds the search.
"""

import numpy as np
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import kernel
from pipeline.kernels.compiler.products import flat, packed_panels
from pipeline.kernels.search.hypotheses import LstmWeights
from pipeline.kernels.search.model import SearchModel, SearchWeights
from pipeline.kernels.search.prefix_tree import (
    COLUMNS,
    ENTRY,
    FRAME,
    HISTORY,
    SLOT,
    compute_states,
    longer,
    more_states,
)
from pipeline.kernels.transducer.joint_cpu import FAR_BELOW, join, log_sum_exp, output_rows

BATCH = 48  # distributions that are made at a time
NODES, SLOTS, ENTRIES, HITS = 0, 1, 2, 3  # of the counts


@kernel
def _language_scores(tree, nodes, states, vocab, blank, weight):
    """Logits of a language model -> what it adds to each token's score, in place."""
    for node in nodes:
        at = tree[node, SLOT] * vocab
        logits = states[2][at : at + vocab]
        logits[blank] = -np.inf
        top = np.max(logits)
        total = 0.0
        for k in range(vocab):
            total += np.exp(np.float64(logits[k] - top))
        z = top + np.log(total)
        for k in range(vocab):
            logits[k] = weight * (logits[k] - z)
        logits[blank] = 0.0


@kernel
def meet(frames, row, out, column, joint, hidden, logits, i, size, vocab):
    """A frame and a prefix: hidden vector number i of [G13] eq. 16, or, in [G12], the logits."""
    if joint[2]:
        join(frames, row, out, column, False, hidden, i * size, size)
    else:
        padded = joint[1].size
        for k in range(vocab):
            logits[i * padded + k] = frames[row + k] + out[column + k]


@kernel
def _distributions(frames, row, nodes, entries, store, joint, size, added):
    """log Pr(k|y, t) + what a language model adds, of these prefixes, to their entries' rows."""
    panels, bias, has_output = joint
    vocab, padded = added.shape[1], bias.size
    tree, out, language, rows = store[0], store[2][2], store[4][2], store[3][3]
    hidden = np.empty(BATCH * size, frames.dtype)
    logits = np.full(BATCH * padded, FAR_BELOW, frames.dtype)
    for first in range(0, nodes.size, BATCH):
        count = min(BATCH, nodes.size - first)
        for i in range(count):
            column = tree[nodes[first + i], SLOT] * size
            meet(frames, row, out, column, joint, hidden, logits, i, size, vocab)
        if has_output:
            output_rows(hidden, count, size, panels, bias, logits, padded)
        for i in range(count):
            z = log_sum_exp(logits, i * padded, padded)
            at, history = entries[first + i] * vocab, tree[nodes[first + i], HISTORY]
            for k in range(vocab):
                rows[at + k] = np.float64(logits[i * padded + k]) - z + added[history, k]
            if language.size:
                column = tree[nodes[first + i], SLOT] * vocab
                for k in range(vocab):
                    rows[at + k] += language[column + k]


@kernel
def evaluate(task, t, nodes, entries, store, counts):
    """States, where they are missing, and distributions of prefixes of which no two are the same.

    ``store`` has room for them.
    """
    frames, row0, networks, joint, (added, _), (_, blank, _, _, _) = task
    tree, _, states, _, language = store
    (net, cells, size), (language_net, language_cells, weight) = networks
    vocab = added.shape[1]
    new = np.empty(nodes.size, np.int64)
    missing = 0
    for node in nodes:
        if tree[node, SLOT] < 0:
            tree[node, SLOT] = counts[SLOTS]
            counts[SLOTS] += 1
            new[missing] = node
            missing += 1
    new = new[:missing]
    scratch = np.empty(missing * max(cells, language_cells), frames.dtype)
    compute_states(tree, new, states, net, cells, size, scratch)
    if language_cells:
        compute_states(tree, new, language, language_net, language_cells, vocab, scratch)
        _language_scores(tree, new, language, vocab, blank, weight)
    _distributions(frames, row0 + t * size, nodes, entries, store, joint, size, added)
    for i in range(nodes.size):
        tree[nodes[i], ENTRY], tree[nodes[i], FRAME] = entries[i], t


@kernel
def make_room(task, store, counts, extra):
    """The same with room for ``extra`` more prefixes, slots and entries."""
    tree, fused, states, table, language = store
    (_, cells, size), (_, language_cells, _) = task[2]
    vocab = task[4][0].shape[1]
    nodes, slots = counts[NODES] + extra, counts[SLOTS] + extra
    entries = counts[ENTRIES] + extra
    if nodes > tree.shape[0]:
        grown = np.empty((2 * nodes, COLUMNS), np.int32)
        grown[: counts[NODES]] = tree[: counts[NODES]]
        tree, fused = grown, longer(fused, 2 * nodes)
    if slots > states[4].size:
        slots += slots // 2
        states = more_states(states, slots, cells, size)
        if language_cells:
            language = more_states(language, slots, language_cells, vocab)
    owner, score, ended, rows = table
    if entries > owner.size:
        owner, score = longer(owner, 2 * entries), longer(score, 2 * entries)
        ended, rows = longer(ended, 2 * entries), longer(rows, 2 * entries * vocab)
    return tree, fused, states, (owner, score, ended, rows), language


# ---- weights ------------------------------------------------------------------------------------


def packed_lstm(weights: LstmWeights, like: Tensor) -> tuple[tuple[np.ndarray, ...], int, int]:
    """The weights of an LSTM in the order in which they are read, H and J."""
    inputs, recurrent, peepholes, projection, bias = (
        flat(w.detach().to(like.dtype).contiguous()) for w in weights
    )
    cells, size = weights.recurrent.shape[1], weights.projection.shape[0]
    recurrent = packed_panels(recurrent, 4 * cells, cells, True)
    projection = packed_panels(projection, size, cells, True)
    return (inputs, recurrent, peepholes, projection, bias), cells, size


def packed_joint(weights: SearchWeights, like: Tensor) -> tuple[np.ndarray, np.ndarray, bool]:
    """Packed output weights, the bias of as many numbers as fill registers, and if there are."""
    vocab = len(weights.predictor.inputs)
    if weights.output is None or weights.output_bias is None:
        lanes = simd.REGISTER_BYTES // like.element_size()
        nothing = flat(like.new_zeros(vocab))
        return nothing[:0], _padded(nothing, -(-vocab // lanes) * lanes), False
    output, bias = (
        flat(w.detach().to(like.dtype).contiguous()) for w in (weights.output, weights.output_bias)
    )
    size = weights.output.shape[1]
    panels = packed_panels(output, vocab, size, True)
    return panels, _padded(bias, len(panels) // size), True


def _padded(bias: np.ndarray, width: int) -> np.ndarray:
    padded = np.full(width, FAR_BELOW, bias.dtype)
    padded[: len(bias)] = bias
    return padded


def known_weights(model: SearchModel) -> SearchWeights:
    """The model's weights. Raises ValueError for one that does not give them."""
    weights = model.search_weights()
    if weights is None:
        raise ValueError("the compiled search needs the network's weights")
    return weights
