"""Prefixes as a tree in one table of numbers, with an LSTM's states, for compiled searches.

A row of the table is a prefix; `fields.py` has its columns. Prefixes whose states no hypothesis
needs lose their slots when that memory grows too large, and get new ones if they are met again.
"""

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import Floats, Longs, kernel, part
from pipeline.kernels.compiler.products import packed_product
from pipeline.kernels.compiler.records import doubles, floats, ints, longs
from pipeline.kernels.compiler.simd import beyond, lanes, load, splat, store
from pipeline.kernels.compiler.vector_math import sigmoid, tanh
from pipeline.kernels.search import fields as at
from pipeline.kernels.search.fields import (
    CHILD,
    COLUMNS,
    DEPTH,
    HISTORY,
    PARENT,
    SIBLING,
    SLOT,
    TOKEN,
)

BY_DEPTH, BY_CHANCE, BY_PREFIX = 0, 1, 2


# ---- the tree ------------------------------------------------------------------------------------


@part
def find_child(tree, parent, token):
    """The row of a prefix and one more token; -1 where it has none."""
    node = tree[parent * COLUMNS + CHILD]
    while node >= 0 and tree[node * COLUMNS + TOKEN] != token:
        node = tree[node * COLUMNS + SIBLING]
    return node


@part
def add_child(tree, node, parent, token, history):
    """Row ``node`` becomes that of a prefix and one more token."""
    row, above = node * COLUMNS, parent * COLUMNS
    for column in range(COLUMNS):
        tree[row + column] = -1
    tree[row + PARENT] = parent
    tree[row + TOKEN] = token
    tree[row + DEPTH] = tree[above + DEPTH] + 1
    tree[row + SIBLING] = tree[above + CHILD]
    tree[row + HISTORY] = history
    tree[above + CHILD] = node


@part
def _comes_before(tree, a, b):
    """Whether a is shorter than b, or as long with the smaller token where they first differ."""
    before = tree[a * COLUMNS + DEPTH] < tree[b * COLUMNS + DEPTH]
    if tree[a * COLUMNS + DEPTH] == tree[b * COLUMNS + DEPTH]:
        while a != b:
            if tree[a * COLUMNS + TOKEN] != tree[b * COLUMNS + TOKEN]:
                before = tree[a * COLUMNS + TOKEN] < tree[b * COLUMNS + TOKEN]
            a, b = tree[a * COLUMNS + PARENT], tree[b * COLUMNS + PARENT]
    return before


@kernel
def sort(search: Longs, like: Floats, key: int, count: int) -> None:
    """Sort the first numbers of `RANKED` by merging runs; those that are alike keep their order.

    ``key``: `BY_DEPTH` sorts places in the beam, shorter prefixes first; `BY_CHANCE` candidates,
    the most probable first; `BY_PREFIX` entries, shorter prefixes first, equally long ones by
    their tokens.
    """
    tree, owner, beam = ints(search, at.TREE), longs(search, at.OWNER), longs(search, at.PREFIXES)
    chances = doubles(search, at.CHANCES)
    source, target = longs(search, at.RANKED), longs(search, at.SPARE)
    run, turns = 1, 0
    while run < count:
        for low in range(0, count, 2 * run):
            middle, high = min(low + run, count), min(low + 2 * run, count)
            i, j = low, middle
            for k in range(low, high):
                left = i < middle
                if left and j < high:
                    a, b = source[j], source[i]
                    if key == BY_CHANCE:
                        left = not chances[a] > chances[b]
                    elif key == BY_DEPTH:
                        one, other = beam[a] * COLUMNS, beam[b] * COLUMNS
                        left = not tree[one + DEPTH] < tree[other + DEPTH]
                    else:
                        left = not _comes_before(tree, owner[a], owner[b])
                if left:
                    target[k] = source[i]
                    i += 1
                else:
                    target[k] = source[j]
                    j += 1
        source, target = target, source
        run *= 2
        turns += 1
    if turns % 2:
        for k in range(count):
            target[k] = source[k]


# ---- states --------------------------------------------------------------------------------------


@part
def _cell(gates, inputs, peepholes, before, has_before, cell, hidden, size):
    """[G13] eq. 3-7 for one prefix; the gates are the sum of a recurrent part and the token's."""
    for j in range(0, size, lanes(hidden)):
        left = size - j
        c = splat(hidden, 0.0)
        i, f = load(inputs, j, left), load(inputs, size + j, left)
        g, o = load(inputs, 2 * size + j, left), load(inputs, 3 * size + j, left)
        if has_before:
            c = load(before, j, left)
            i, f = i + load(gates, j, left), f + load(gates, size + j, left)
            g = g + load(gates, 2 * size + j, left)
            o = o + load(gates, 3 * size + j, left)
        i = sigmoid(i + load(peepholes, j, left) * c)
        f = sigmoid(f + load(peepholes, size + j, left) * c)
        c = f * c + i * tanh(g)
        o = sigmoid(o + load(peepholes, 2 * size + j, left) * c)
        store(cell, j, left, c)
        store(hidden, j, left, o * tanh(c))


@kernel
def compute_states(search: Longs, like: Floats, net: int, count: int) -> None:
    """Compute the states of the prefixes in `READ`, which have just got slots in this order.

    Their parents have states. The recurrent part of the gates is computed where it is missing.
    """
    mode = simd.flush_denormals()
    cells, size, function = search[net + at.CELLS], search[net + at.OUTPUTS], search[at.PRODUCT]
    tree, nodes = ints(search, at.TREE), longs(search, at.READ)
    gates_of = ints(search, net + at.GATES_OF)
    hidden, cell = floats(search, net + at.HIDDEN, like), floats(search, net + at.CELL, like)
    out, gates = floats(search, net + at.OUT, like), floats(search, net + at.GATES, like)
    inputs = floats(search, net + at.INPUTS, like)
    peepholes = floats(search, net + at.PEEPHOLES, like)
    bias, scratch = floats(search, net + at.PROJECTION_BIAS, like), floats(search, at.SCRATCH, like)
    used, missing = search[net + at.USED], 0
    for index in range(count):
        parent = tree[nodes[index] * COLUMNS + PARENT]
        if parent >= 0:
            slot = tree[parent * COLUMNS + SLOT]
            if gates_of[slot] < 0:
                gates_of[slot] = used + missing
                for j in range(cells):
                    scratch[missing * cells + j] = hidden[slot * cells + j]
                missing += 1
    fresh = beyond(gates, used * 4 * cells)
    for j in range(missing * 4 * cells):
        fresh[j] = 0
    packed_product(function, scratch, cells, floats(search, net + at.RECURRENT, like), fresh,
                   4 * cells, missing, cells, 4 * cells)  # fmt: skip
    search[net + at.USED] = used + missing
    for index in range(count):
        row = nodes[index] * COLUMNS
        slot, parent = tree[row + SLOT], tree[row + PARENT]
        before, place = slot, 0
        if parent >= 0:
            before = tree[parent * COLUMNS + SLOT]
            place = gates_of[before]
        _cell(beyond(gates, place * 4 * cells), beyond(inputs, tree[row + TOKEN] * 4 * cells),
              peepholes, beyond(cell, before * cells), parent >= 0, beyond(cell, slot * cells),
              beyond(hidden, slot * cells), cells)  # fmt: skip
        for j in range(size):
            out[slot * size + j] = bias[j]
    if count > 0:
        first = tree[nodes[0] * COLUMNS + SLOT]
        packed_product(function, beyond(hidden, first * cells), cells,
                       floats(search, net + at.PROJECTION, like), beyond(out, first * size), size,
                       count, cells, size)  # fmt: skip
    simd.restore_denormals(mode)
