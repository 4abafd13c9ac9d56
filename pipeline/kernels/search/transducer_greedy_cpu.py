"""The greedy path with a transducer on a CPU, compiled: see `transducer_search.transducer_greedy`.

Label by label: each utterance looks ahead over some frames at once for its next label, then the
predictor reads the labels of all utterances in one product.
"""

import numpy as np
import torch
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import kernel
from pipeline.kernels.compiler.products import flat
from pipeline.kernels.compiler.threads import run_parallel, spans
from pipeline.kernels.search.distributions import known_weights, meet, packed_joint, packed_lstm
from pipeline.kernels.search.model import SearchModel
from pipeline.kernels.search.prefix_tree import (
    COLUMNS,
    PARENT,
    SLOT,
    TOKEN,
    compute_states,
    new_states,
    plant,
)
from pipeline.kernels.transducer.joint_cpu import output_rows

AHEAD = 8  # frames at a time


@kernel
def _next_label(frames, row0, t, last, out, column, joint, size, vocab, blank):
    """The first frame from ``t`` on whose most probable token is a label, and that label."""
    panels, bias, has_output = joint
    padded = bias.size
    hidden = np.empty(AHEAD * size, frames.dtype)
    logits = np.empty(AHEAD * padded, frames.dtype)
    ahead = 1
    while t < last:
        count = min(ahead, last - t)
        for i in range(count):
            row = row0 + (t + i) * size
            meet(frames, row, out, column, joint, hidden, logits, i, size, vocab)
        if has_output:
            output_rows(hidden, count, size, panels, bias, logits, padded)
        for i in range(count):
            token = np.argmax(logits[i * padded : i * padded + vocab])
            if token != blank:
                return t + i, token
        t += count
        ahead = AHEAD
    return last, blank


@kernel
def _greedy(frames, num_frames, lengths, net, joint, sizes, vocab, blank, deepest):
    """Labels of all utterances, one after the other in rows, and how many each has."""
    mode = simd.flush_denormals()
    cells, size = sizes
    batch = lengths.size
    tree = np.empty((2 * batch, COLUMNS), np.int32)
    states = new_states(2 * batch, cells, size, frames)
    scratch = np.empty(batch * cells, frames.dtype)
    labels, counts = np.empty((batch, 16), np.int64), np.zeros(batch, np.int64)
    t, emitted = np.zeros(batch, np.int64), np.zeros(batch, np.int64)
    # An utterance's prefix changes between two rows of the table: the one it has and the next.
    now = np.arange(batch)
    for n in range(batch):
        plant(tree[n:], 0)
        tree[n, TOKEN], tree[n, SLOT] = blank, n
    compute_states(tree, now, states, net, cells, size, scratch)
    active = np.empty(batch, np.int64)
    while True:
        count = 0
        for n in range(batch):
            column = tree[now[n], SLOT] * size
            at, token = _next_label(frames, n * num_frames * size, t[n], lengths[n], states[2],
                                    column, joint, size, vocab, blank)  # fmt: skip
            emitted[n] = emitted[n] * (at == t[n]) + (token != blank)
            t[n] = at
            if token == blank:
                continue
            if counts[n] == labels.shape[1]:
                wider = np.empty((batch, 2 * counts[n]), np.int64)
                wider[:, : counts[n]] = labels
                labels = wider
            labels[n, counts[n]] = token
            counts[n] += 1
            if emitted[n] == deepest:
                t[n], emitted[n] = at + 1, 0
            active[count] = n
            count += 1
        if count == 0:
            break
        _follow(tree, states, net, now, active[:count], labels, counts, cells, size, scratch)
    simd.restore_denormals(mode)
    return labels, counts


@kernel
def _follow(tree, states, net, now, active, labels, counts, cells, size, scratch):
    """The states of these utterances after their last labels."""
    batch = now.size
    nodes = np.empty(active.size, np.int64)
    for i in range(active.size):
        n = active[i]
        node = batch + i
        tree[node] = -1
        tree[node, PARENT], tree[node, TOKEN] = now[n], labels[n, counts[n] - 1]
        tree[node, SLOT] = node
        nodes[i] = node
    compute_states(tree, nodes, states, net, cells, size, scratch)
    hidden, cell, out, _, gates_of, used = states
    for i in range(active.size):
        old, new = now[active[i]], nodes[i]
        hidden[old * cells : (old + 1) * cells] = hidden[new * cells : (new + 1) * cells]
        cell[old * cells : (old + 1) * cells] = cell[new * cells : (new + 1) * cells]
        out[old * size : (old + 1) * size] = out[new * size : (new + 1) * size]
        tree[old, TOKEN] = tree[new, TOKEN]
    gates_of[:] = -1
    used[0] = 0


def greedy(
    frames: Tensor, lengths: list[int], model: SearchModel, blank: int, max_tokens_per_frame: int
) -> list[list[int]]:
    """See `transducer_search_plain.greedy`; float32 or float64."""
    weights = known_weights(model)
    net, *sizes = packed_lstm(weights.predictor, frames)
    joint = packed_joint(weights, frames)
    hyps: list[list[int]] = [[] for _ in lengths]

    def search(first: int, last: int) -> None:
        part = frames[first:last].contiguous()
        labels, counts = _greedy(
            flat(part), frames.shape[1], np.array(lengths[first:last]), net, joint, tuple(sizes),
            len(weights.predictor.inputs), blank, max_tokens_per_frame,
        )  # fmt: skip
        for n in range(last - first):
            hyps[first + n] = labels[n, : counts[n]].tolist()

    parts = spans(len(lengths), 1, torch.get_num_threads())
    run_parallel([lambda part=part: search(*part) for part in parts])  # type: ignore[misc]
    return hyps
