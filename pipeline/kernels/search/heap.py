"""The greatest of many numbers, as a heap in an array, for compiled searches."""

from pipeline.kernels.compiler.compiling import part


@part
def add_to_best(best, room, filled, p):
    """Keep the ``room`` greatest numbers, the least of them first; returns how many there are."""
    if filled < room:
        at = filled
        while at > 0 and best[(at - 1) // 2] > p:
            best[at] = best[(at - 1) // 2]
            at = (at - 1) // 2
        best[at] = p
        filled += 1
    elif p > best[0]:
        at = 0
        low = 1
        while low < filled:
            if low + 1 < filled and best[low + 1] < best[low]:
                low += 1
            if best[low] >= p:
                low = filled
            else:
                best[at] = best[low]
                at = low
                low = 2 * at + 1
        best[at] = p
    return filled
