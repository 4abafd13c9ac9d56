"""Resampling with the arithmetic of Kaldi, for --allow-downsample and --allow-upsample."""

import math
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.float32]

ZEROS = 6  # zeros of the filter on each side, as in Kaldi
CUTOFF = 0.99  # of half the lower sample rate


def linear_resample(samples: "FloatArray", rate: int, new_rate: int) -> "FloatArray":
    """Resample by a sinc filter in a Hann window, with the arithmetic of Kaldi's LinearResample.

    Args:
        samples: (S,), of a recording.
        rate: its sample rate in Hz.
        new_rate: the sample rate wanted, in Hz.

    Returns:
        (S',) with S' = ceil(S * new_rate / rate).
    """
    import numpy as np

    common = math.gcd(rate, new_rate)
    step, phases = rate // common, new_rate // common
    cutoff = CUTOFF * 0.5 * min(rate, new_rate)
    width_s = ZEROS / (2.0 * cutoff)
    reach = math.ceil(width_s * rate) + 1
    count = -(-len(samples) * new_rate // rate)
    padded = np.pad(samples, (reach, reach + step + 1))
    out = np.zeros(count, dtype=np.float32)
    for phase in range(min(phases, count)):
        centre_s = phase / new_rate
        first = math.ceil((centre_s - width_s) * rate)
        last = math.floor((centre_s + width_s) * rate)
        offsets = np.arange(first, last + 1) / rate - centre_s
        weights = (_filter(offsets, cutoff) / rate).astype(np.float32)
        places = np.arange(len(out[phase::phases])) * step + first + reach
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(weights))
        out[phase::phases] = windows[places] @ weights
    return out


def _filter(times_s: "NDArray[np.float64]", cutoff: float) -> "NDArray[np.float64]":
    """The low-pass filter at some times."""
    import numpy as np

    window = 0.5 * (1.0 + np.cos(2.0 * math.pi * cutoff / ZEROS * times_s))
    return 2.0 * cutoff * np.sinc(2.0 * cutoff * times_s) * window
