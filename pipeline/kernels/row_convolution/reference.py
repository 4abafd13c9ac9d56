"""The row convolution as it is printed: NumPy float64, one output at a time.

[DS2] D. Amodei et al., "Deep Speech 2: End-to-End Speech Recognition in English and Mandarin",
ICML 2016, eq. 5: r_{t,i} = Σ_{j=1..τ+1} W_{i,j} h_{t+j-1,i}.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def row_convolution(h: Array, weight: Array) -> Array:
    """One sequence h (T, H), zero from frame T on, by ``weight`` (τ + 1, H): r (T, H)."""
    r = np.zeros_like(h)
    for t, i in np.ndindex(*h.shape):
        r[t, i] = sum(w * h[t + j, i] for j, w in enumerate(weight[:, i]) if t + j < len(h))
    return r
