"""What CTC's compiled searches are made of: probabilities that do not underflow, and prefixes.

A probability is a mantissa in [½, 1), or 0, times 2^exponent, as in `ctc_plain.py`.
"""

from typing import NamedTuple

import numpy as np

from pipeline.kernels.compiler.compiling import array_kernel, array_part
from pipeline.kernels.search.needed import needed_nodes

TOTAL, BLANK, LABEL = 0, 1, 2  # all paths of a prefix; those that end in a blank; in its last token
HALVES = 2.0 ** -np.arange(61.0)


@array_part
def times(a, i, b, j):
    """a 2^i times b 2^j."""
    a, i = a * b, i + j
    if a < 0.5:
        a, i = a * 2.0, i - 1
    return a, i


@array_part
def plus(a, i, b, j):
    """a 2^i plus b 2^j."""
    if a == 0.0:
        return b, j
    if b == 0.0:
        return a, i
    if i < j:
        a, i, b, j = b, j, a, i
    if i - j > 60:  # less than rounding
        return a, i
    a += b * HALVES[i - j]
    if a >= 1.0:
        a, i = a * 0.5, i + 1
    return a, i


class Tree(NamedTuple):
    """Prefixes as nodes; node 0 is the empty one."""

    parents: np.ndarray
    tokens: np.ndarray  # the last one; -1 of the empty prefix
    places: np.ndarray  # in the beam; -1 outside
    slots: np.ndarray  # a hash table from parents and tokens to nodes; -1 is a free slot
    used: np.ndarray  # (1,) nodes there are

    @classmethod
    def empty(cls, capacity: int) -> "Tree":
        """A tree of the empty prefix, which is in the beam, with room for others."""
        return rooted(np.full(1, -1, np.int32), np.full(1, -1, np.int32), 0, capacity)


def rooted(parents: np.ndarray, tokens: np.ndarray, root_place: int, capacity: int) -> Tree:
    """A tree of these nodes, the root first; in the hash table there is only room for them."""
    count = len(parents)
    ids = np.full((3, capacity), -1, np.int32)
    ids[0, :count], ids[1, :count], ids[2, 0] = parents, tokens, root_place
    slots = np.full(1 << (2 * capacity - 1).bit_length(), -1, np.int32)
    return Tree(ids[0], ids[1], ids[2], slots, np.full(1, count, np.int64))


def rooted_anew(tree: Tree, nodes: np.ndarray) -> tuple[Tree, np.ndarray, list[int]]:
    """A tree of what the prefixes ``nodes`` need, without the tokens that all of them begin with.

    Its root is the longest prefix that all others begin with less one token, which stands for
    itself: so a node but the root has its last token.

    Returns:
        The tree, without room for more; the nodes in it; and the tokens that led to its root.
    """
    parents, tokens = tree.parents.tolist(), tree.tokens.tolist()
    live, common = needed_nodes(parents, nodes, int(tree.used[0]))
    root = max(0, parents[common])
    live[root] = True
    path, node = [], root
    while node > 0:
        path.append(tokens[node])
        node = parents[node]
    kept = np.flatnonzero(live)
    numbers = np.cumsum(live, dtype=np.int32) - np.int32(1)
    new_parents, new_tokens = numbers[tree.parents[kept]], tree.tokens[kept]
    new_parents[0], new_tokens[0] = -1, -1
    small = rooted(new_parents, new_tokens, -1, len(kept))
    moved = numbers[nodes]
    small.places[moved] = np.arange(len(moved), dtype=np.int32)
    return small, moved, path[::-1]


@array_part
def new_tree(capacity):
    """A tree of the empty prefix, which is in the beam."""
    slots = 1
    while slots < 2 * capacity:
        slots *= 2
    tree = Tree(
        np.empty(capacity, np.int32),
        np.empty(capacity, np.int32),
        np.full(capacity, -1, np.int32),
        np.full(slots, -1, np.int32),
        np.ones(1, np.int64),
    )
    tree.parents[0], tree.tokens[0], tree.places[0] = -1, -1, 0
    return tree


@array_part
def with_room(tree, more):
    """The same tree, or a larger copy, with room for more nodes."""
    count, capacity = tree.used[0], len(tree.parents)
    if count + more <= capacity:
        return tree
    larger = new_tree(2 * capacity + more)
    parents, tokens, places, slots, used = larger
    old_parents, old_tokens, old_places, _, _ = tree
    for node in range(1, count):
        parents[node], tokens[node] = old_parents[node], old_tokens[node]
        slots[slot_of(parents, tokens, slots, parents[node], tokens[node])] = node
    for node in range(count):
        places[node] = old_places[node]
    used[0] = count
    return larger


@array_part
def slot_of(parents, tokens, slots, parent, token):
    """Where the hash table has a child, or a free slot for it."""
    key = (np.uint64(parent) << np.uint64(32)) | np.uint64(token)
    slot = np.int64((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & (len(slots) - 1)
    while True:
        node = slots[slot]
        if node < 0 or (parents[node] == parent and tokens[node] == token):
            return slot
        slot = (slot + 1) & (len(slots) - 1)


@array_part
def set_places(nodes, places, count, are_inside):
    """Note that prefixes are in the beam, or are not any longer."""
    for n in range(count):
        places[nodes[n]] = n if are_inside else -1


@array_part
def spelt_before(parents, tokens, a, k, b, m):
    """Whether prefix a with token k comes before b with m in a dictionary, both equally long."""
    while a != b:
        k, m = tokens[a], tokens[b]
        a, b = parents[a], parents[b]
    return k < m


@array_kernel
def spelling(parents, tokens, nodes, lengths):
    """The tokens of prefixes, one prefix after the other."""
    out = np.empty(lengths.sum(), np.int64)
    end = 0
    for n in range(len(nodes)):
        end += lengths[n]
        node = nodes[n]
        for at in range(end - 1, end - 1 - lengths[n], -1):
            out[at], node = tokens[node], parents[node]
    return out
