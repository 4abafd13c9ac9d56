"""Memory that a training frees is kept for its next step."""

import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Ask the C library to keep what is freed, for this process; whether it can.

    By default glibc returns large blocks to the kernel at once, which must then clear every page
    anew at the next step: a third of the time of a recurrent layer on a CPU. A process so never
    shrinks below its peak.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False  # another C library
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: 2**26}
    return all(mallopt(name, value) == 1 for name, value in settings.items())
