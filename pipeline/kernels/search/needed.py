"""Which nodes of a tree of prefixes a search still needs."""

import heapq

import numpy as np
from numpy.typing import NDArray


def needed_nodes(
    parents: list[int], nodes: NDArray[np.integer], count: int
) -> tuple[NDArray[np.bool_], int]:
    """The nodes that lie between some prefixes and the longest one that all of them begin with.

    Args:
        parents: of each node the one before it, which has a smaller number; the root's is below 0.
        nodes: at least one.
        count: how many nodes there are.

    Returns:
        Whether each node is needed, and the node of that longest prefix.
    """
    front = set(nodes.tolist())
    heap = [-node for node in front]
    heapq.heapify(heap)
    needed = np.zeros(count, bool)
    while len(heap) > 1:
        node = -heap[0]
        needed[node], parent = True, parents[node]
        if parent in front:
            heapq.heappop(heap)
        else:
            front.add(parent)
            heapq.heapreplace(heap, -parent)
    common = -heap[0]
    needed[common] = True
    return needed, common
