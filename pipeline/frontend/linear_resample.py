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
    return LinearResampler(rate, new_rate).resample_chunk(samples, last=True)


class LinearResampler:
    """`linear_resample` of a recording that comes in chunks, the same however it is cut."""

    def __init__(self, rate: int, new_rate: int) -> None:
        import numpy as np

        self.rate, self.new_rate = rate, new_rate
        common = math.gcd(rate, new_rate)
        self.step, self.phases = rate // common, new_rate // common
        cutoff = CUTOFF * 0.5 * min(rate, new_rate)
        self.width_s = ZEROS / (2.0 * cutoff)
        self.filters: dict[int, tuple[int, FloatArray]] = {}  # of phases: first tap, and weights
        self.cutoff = cutoff
        reach = math.ceil(self.width_s * rate) + 1
        self.kept = np.zeros(reach, np.float32)  # samples from number ``origin`` on, zeros before 0
        self.origin, self.count, self.done = -reach, 0, 0  # samples read, and samples put out

    def resample_chunk(self, samples: "FloatArray", *, last: bool = False) -> "FloatArray":
        """What is known after more samples; with ``last`` all that is left."""
        import numpy as np

        self.count += len(samples)
        ready = math.floor(((self.count - 1) / self.rate - self.width_s) * self.new_rate)
        silence = np.zeros(len(self.kept) + self.step + 1 if last else 0, np.float32)
        if last:
            ready = -(-self.count * self.new_rate // self.rate)
        self.kept = np.concatenate([self.kept, np.asarray(samples, np.float32), silence])
        out = np.zeros(max(0, ready - self.done), np.float32)
        for place in range(min(self.phases, len(out))):
            out[place :: self.phases] = self._of_phase(self.done + place, len(out) - place)
        self.done += len(out)
        needed = self._filter(self.done % self.phases)[0] + self.done // self.phases * self.step
        unused = min(max(0, needed - self.step - self.origin), len(self.kept))
        self.kept, self.origin = self.kept[unused:], self.origin + unused
        return out

    def _of_phase(self, number: int, count: int) -> "FloatArray":
        """Every sample of one phase from ``number`` to before ``number + count``."""
        import numpy as np

        first, weights = self._filter(number % self.phases)
        start = number // self.phases * self.step + first - self.origin
        size = -(-count // self.phases)
        out = np.zeros(size, np.float32)
        for tap, weight in enumerate(weights):  # in one order, wherever a recording is cut
            out += weight * self.kept[start + tap :: self.step][:size]
        return out

    def _filter(self, phase: int) -> "tuple[int, FloatArray]":
        """The first tap of a phase, from sample 0, and the weights."""
        import numpy as np

        if phase not in self.filters:
            centre_s = phase / self.new_rate
            first = math.ceil((centre_s - self.width_s) * self.rate)
            last = math.floor((centre_s + self.width_s) * self.rate)
            offsets = np.arange(first, last + 1) / self.rate - centre_s
            weights = (_filter(offsets, self.cutoff) / self.rate).astype(np.float32)
            self.filters[phase] = first, weights
        return self.filters[phase]


def _filter(times_s: "NDArray[np.float64]", cutoff: float) -> "NDArray[np.float64]":
    """The low-pass filter at some times."""
    import numpy as np

    window = 0.5 * (1.0 + np.cos(2.0 * math.pi * cutoff / ZEROS * times_s))
    return 2.0 * cutoff * np.sinc(2.0 * cutoff * times_s) * window
