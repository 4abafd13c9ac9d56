"""A convolution over frequency and time as it is printed: NumPy float64, one output at a time.

D. Amodei et al., "Deep Speech 2: End-to-End Speech Recognition in English and Mandarin", arXiv
1512.02595: h_{t,i} = f(ω_i ∘ h_{t-c:t+c}), here without f and with a second axis.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def convolution(x: Array, weight: Array, stride: tuple[int, int]) -> Array:
    """One sequence, continued by zeros on all sides.

    Args:
        x: (T, F, C).
        weight: (C', C, kernel over frequency, kernel over time), both kernels odd.
        stride: over frequency and time.

    Returns:
        (ceil(T / stride), ceil(F / stride), C').
    """
    outputs, _, wide, long = weight.shape
    padded = np.pad(x, [(long // 2, long // 2), (wide // 2, wide // 2), (0, 0)])
    out = np.zeros((-(-x.shape[0] // stride[1]), -(-x.shape[1] // stride[0]), outputs))
    for t, f in np.ndindex(out.shape[:2]):
        patch = padded[t * stride[1] :, f * stride[0] :][:long, :wide]
        out[t, f] = np.einsum("tfc,ocft->o", patch, weight)
    return out
