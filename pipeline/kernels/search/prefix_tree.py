"""Prefixes as a tree in one table of numbers, with an LSTM's states, for compiled searches.

A row of the table is a prefix; its columns are below. The LSTM's vectors of a prefix lie in a slot
of the memory for states, where the prefix has one: those that no hypothesis needs lose theirs when
that memory grows too large, and get a new one if they are met again.
"""

import numpy as np

from pipeline.kernels.compiler.compiling import kernel
from pipeline.kernels.compiler.products import packed_product
from pipeline.kernels.compiler.simd import lanes, load, splat, store
from pipeline.kernels.compiler.vector_math import sigmoid, tanh

PARENT, TOKEN, DEPTH, CHILD, SIBLING = 0, 1, 2, 3, 4  # the tree: -1 is none
SLOT = 5  # place of the LSTM's vectors
PLACE = 6  # in the beam of this frame
ENTRY, FRAME = 7, 8  # place of the distribution, and the frame of which it is
HISTORY = 9  # state of the language model
COLUMNS = 10


# ---- the tree ------------------------------------------------------------------------------------


@kernel
def plant(tree, history):
    """The empty prefix as row 0."""
    tree[0] = -1
    tree[0, DEPTH] = 0
    tree[0, HISTORY] = history


@kernel
def find_child(tree, parent, token):
    """The row of a prefix and one more token, -1 if there is none."""
    node = tree[parent, CHILD]
    while node >= 0 and tree[node, TOKEN] != token:
        node = tree[node, SIBLING]
    return node


@kernel
def add_child(tree, node, parent, token, history):
    """Row ``node`` becomes that of a prefix and one more token."""
    tree[node] = -1
    tree[node, PARENT] = parent
    tree[node, TOKEN] = token
    tree[node, DEPTH] = tree[parent, DEPTH] + 1
    tree[node, SIBLING] = tree[parent, CHILD]
    tree[node, HISTORY] = history
    tree[parent, CHILD] = node


@kernel
def comes_before(tree, a, b):
    """The shorter of two prefixes, or the one with the smaller token where they first differ."""
    if tree[a, DEPTH] != tree[b, DEPTH]:
        return tree[a, DEPTH] < tree[b, DEPTH]
    before = False
    while a != b:
        if tree[a, TOKEN] != tree[b, TOKEN]:
            before = tree[a, TOKEN] < tree[b, TOKEN]
        a, b = tree[a, PARENT], tree[b, PARENT]
    return before


@kernel
def sort_by_prefix(tree, owner, entries):
    """The same entries, those of shorter prefixes first, of equally long ones by their tokens.

    By merging runs; ``owner`` has the prefix of each entry.
    """
    count = entries.size
    source, target = entries.copy(), np.empty_like(entries)
    run = 1
    while run < count:
        for low in range(0, count, 2 * run):
            middle, high = min(low + run, count), min(low + 2 * run, count)
            i, j = low, middle
            for k in range(low, high):
                left = j >= high or (
                    i < middle and not comes_before(tree, owner[source[j]], owner[source[i]])
                )
                target[k] = source[i] if left else source[j]
                i, j = (i + 1, j) if left else (i, j + 1)
        source, target = target, source
        run *= 2
    return source


@kernel
def write_tokens(tree, node, tokens, first):
    """The tokens of a prefix at ``first`` … of a list."""
    for at in range(first + tree[node, DEPTH] - 1, first - 1, -1):
        tokens[at] = tree[node, TOKEN]
        node = tree[node, PARENT]


# ---- states --------------------------------------------------------------------------------------


@kernel
def new_states(slots, cells, size, like):
    """Memory for the vectors of ``slots`` prefixes: h, c, what goes out, and recurrent gates.

    The product of h with the recurrent weights is made once for all prefixes that extend another.
    """
    return (
        np.empty(slots * cells, like.dtype),
        np.empty(slots * cells, like.dtype),
        np.empty(slots * size, like.dtype),
        np.empty(slots * 4 * cells, like.dtype),
        np.full(slots, -1, np.int32),  # place of a slot's gates
        np.zeros(1, np.int64),  # places of gates in use
    )


@kernel
def longer(array, size):
    """A copy with room for ``size`` numbers, if there is not room already."""
    if array.size >= size:
        return array
    grown = np.empty(size, array.dtype)
    grown[: array.size] = array
    return grown


@kernel
def more_states(states, slots, cells, size):
    """Room for ``slots`` prefixes."""
    hidden, cell, out, gates, gates_of, used = states
    known = gates_of.size
    if known < slots:
        gates_of = longer(gates_of, slots)
        gates_of[known:] = -1
    return (
        longer(hidden, slots * cells),
        longer(cell, slots * cells),
        longer(out, slots * size),
        longer(gates, slots * 4 * cells),
        gates_of,
        used,
    )


@kernel
def _cell(gates, g0, inputs, i0, peepholes, cell, before0, has_before, c0, hidden, size):
    """[G13] eq. 3-7 for one prefix; the gates are the sum of a recurrent part and the token's."""
    for j in range(0, size, lanes(hidden)):
        left = size - j
        c = splat(hidden, 0.0)
        i, f = load(inputs, i0 + j, left), load(inputs, i0 + size + j, left)
        g, o = load(inputs, i0 + 2 * size + j, left), load(inputs, i0 + 3 * size + j, left)
        if has_before:
            c = load(cell, before0 + j, left)
            i, f = i + load(gates, g0 + j, left), f + load(gates, g0 + size + j, left)
            g = g + load(gates, g0 + 2 * size + j, left)
            o = o + load(gates, g0 + 3 * size + j, left)
        i = sigmoid(i + load(peepholes, j, left) * c)
        f = sigmoid(f + load(peepholes, size + j, left) * c)
        c = f * c + i * tanh(g)
        o = sigmoid(o + load(peepholes, 2 * size + j, left) * c)
        store(cell, c0 + j, left, c)
        store(hidden, c0 + j, left, o * tanh(c))


@kernel
def _recurrent_gates(tree, nodes, states, net, cells, scratch):
    """The recurrent part of the gates after the parents of these prefixes, where it is missing."""
    hidden, _, _, gates, gates_of, used = states
    first, count = used[0], 0
    for node in nodes:
        if tree[node, PARENT] < 0:
            continue
        slot = tree[tree[node, PARENT], SLOT]
        if gates_of[slot] < 0:
            gates_of[slot] = first + count
            scratch[count * cells : (count + 1) * cells] = hidden[slot * cells : (slot + 1) * cells]
            count += 1
    gates[first * 4 * cells : (first + count) * 4 * cells] = 0
    packed_product(scratch, 0, cells, net[1], gates, first * 4 * cells, 4 * cells, count, cells,
                   4 * cells)  # fmt: skip
    used[0] += count


@kernel
def compute_states(tree, nodes, states, net, cells, size, scratch):
    """States of prefixes that have just got slots, one after the other; their parents have states.

    ``net``: inputs (V, 4H), packed recurrent weights, peepholes (3, H), packed projection onto
    ``size`` numbers, its bias. ``scratch`` holds H numbers a prefix.
    """
    if not nodes.size:
        return
    _recurrent_gates(tree, nodes, states, net, cells, scratch)
    inputs, _, peepholes, projection, bias = net
    hidden, cell, out, gates, gates_of, _ = states
    for node in nodes:
        slot, parent = tree[node, SLOT], tree[node, PARENT]
        has_parent = parent >= 0
        before = tree[parent, SLOT] if has_parent else slot
        g0 = gates_of[before] * 4 * cells if has_parent else 0
        _cell(gates, g0, inputs, tree[node, TOKEN] * 4 * cells, peepholes, cell, before * cells,
              has_parent, slot * cells, hidden, cells)  # fmt: skip
        out[slot * size : (slot + 1) * size] = bias
    first = tree[nodes[0], SLOT]
    packed_product(hidden, first * cells, cells, projection, out, first * size, size,
                   nodes.size, cells, size)  # fmt: skip


@kernel
def keep_states(tree, kept, states, cells, size):
    """Give up all slots but those of the prefixes ``kept``, which move to the front."""
    hidden, cell, out, _, gates_of, count = states
    fresh_hidden = np.empty(kept.size * cells, hidden.dtype)
    fresh_cell, fresh_out = np.empty_like(fresh_hidden), np.empty(kept.size * size, out.dtype)
    for i in range(kept.size):
        slot = tree[kept[i], SLOT]
        fresh_hidden[i * cells : (i + 1) * cells] = hidden[slot * cells : (slot + 1) * cells]
        fresh_cell[i * cells : (i + 1) * cells] = cell[slot * cells : (slot + 1) * cells]
        fresh_out[i * size : (i + 1) * size] = out[slot * size : (slot + 1) * size]
    hidden[: fresh_hidden.size], cell[: fresh_cell.size] = fresh_hidden, fresh_cell
    out[: fresh_out.size] = fresh_out
    gates_of[:] = -1
    count[0] = 0


@kernel
def renumber_slots(tree, used, kept):
    """After `keep_states`: the prefixes ``kept`` have the first slots, all others none."""
    tree[:used, SLOT] = -1
    for i in range(kept.size):
        tree[kept[i], SLOT] = i
