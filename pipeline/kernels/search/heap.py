"""The greatest of many numbers, as a heap in an array, for compiled searches."""

from pipeline.kernels.compiler.compiling import kernel


@kernel
def add_to_best(best, filled, p):
    """A heap of the most probable, the least of them on top; returns how many it has."""
    if filled < best.size:
        at = filled
        while at > 0 and best[(at - 1) // 2] > p:
            best[at] = best[(at - 1) // 2]
            at = (at - 1) // 2
        best[at] = p
        return filled + 1
    if p <= best[0]:
        return filled
    at = 0
    while True:
        low = 2 * at + 1
        if low >= filled:
            break
        if low + 1 < filled and best[low + 1] < best[low]:
            low += 1
        if best[low] >= p:
            break
        best[at] = best[low]
        at = low
    best[at] = p
    return filled
