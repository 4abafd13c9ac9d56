"""Options of features, with Kaldi's names and defaults, except that dither is 0.

Each field is an option of a command in ``bin/`` and may be a line ``--name=value`` of an options
file.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.options import Options, option, require

LONGEST_FRAME = 1 << 20  # samples
WINDOWS = ("povey", "hamming", "hanning", "blackman", "sine", "rectangular")


@dataclass(frozen=True, kw_only=True)
class FrameOptions(Options):
    """How a recording is cut into frames, which all three kinds of features share."""

    sample_frequency: float = option(
        16000.0, "sample rate that every recording must have, in Hz", above=0, high=10_000_000
    )
    frame_length: float = option(25.0, "length of a frame, in ms", above=0, high=10_000)
    frame_shift: float = option(
        10.0, "time from the start of a frame to the next, in ms", above=0, high=10_000
    )
    preemphasis_coefficient: float = option(
        0.97, "coefficient c of pre-emphasis, x[t] - c x[t-1]", low=0, high=1
    )
    remove_dc_offset: bool = option(True, "subtract its mean from each frame")
    dither: float = option(
        0.0, "amplitude of added noise; 0 makes features reproducible (Kaldi: 1)", low=0, high=1e6
    )
    window_type: str = option("povey", f"window: {', '.join(WINDOWS)}", choices=WINDOWS)
    blackman_coeff: float = option(0.42, "coefficient of the blackman window", low=-1e6, high=1e6)
    round_to_power_of_two: bool = option(True, "pad frames with zeros to a power of two")
    snip_edges: bool = option(
        True, "keep only frames inside the signal; otherwise reflect the signal at its ends"
    )
    energy_floor: float = option(
        0.0, "smallest energy, before the logarithm; 0: none", low=0, high=1e30
    )
    raw_energy: bool = option(True, "compute energy before pre-emphasis and windowing")
    subtract_mean: bool = option(False, "subtract each utterance's mean (better: apply_cmvn.py)")
    allow_downsample: bool = option(
        False, "resample recordings whose sample rate is higher than --sample-frequency"
    )
    allow_upsample: bool = option(
        False, "resample recordings whose sample rate is lower than --sample-frequency"
    )
    max_feature_vectors: int = option(
        -1, "option of Kaldi's program for streams; without effect, all frames are kept", low=-1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.window_samples > 1, "frame-length", "at least two samples long")
        most = LONGEST_FRAME
        require(self.window_samples <= most, "frame-length", f"at most {most} samples long")
        require(self.fft_samples % 2 == 0, "round-to-power-of-two", "true for frames of odd length")
        require(self.shift_samples > 0, "frame-shift", "at least one sample long")

    @property
    def window_samples(self) -> int:
        """The length of a frame in samples."""
        return int(self.sample_frequency * 0.001 * self.frame_length)

    @property
    def shift_samples(self) -> int:
        """The distance between frames in samples."""
        return int(self.sample_frequency * 0.001 * self.frame_shift)

    @property
    def fft_samples(self) -> int:
        """The length of a padded frame in samples."""
        size = self.window_samples
        return 1 << (size - 1).bit_length() if self.round_to_power_of_two else size


@dataclass(frozen=True, kw_only=True)
class MelOptions(FrameOptions):
    """The mel filter bank, which filter-bank features and MFCCs share."""

    num_mel_bins: int = option(23, "number of triangular mel filters", low=3, high=1000)
    low_freq: float = option(20.0, "lower edge of the lowest filter, in Hz")
    high_freq: float = option(
        0.0, "upper edge of the highest filter, in Hz; 0 or less: added to the Nyquist frequency"
    )
    htk_compat: bool = option(False, "put energy or C0 last, as HTK does")

    def __post_init__(self) -> None:
        super().__post_init__()
        nyquist = self.sample_frequency / 2
        high = self.high_freq if self.high_freq > 0 else nyquist + self.high_freq
        require(0 <= self.low_freq < nyquist, "low-freq", f"0 Hz to less than {nyquist:g} Hz")
        require(
            self.low_freq < high <= nyquist, "high-freq", f"above --low-freq, up to {nyquist:g} Hz"
        )
        require(self._no_empty_filter(high), "num-mel-bins", "smaller: a filter has no FFT bin")

    def _no_empty_filter(self, high: float) -> bool:
        """Whether every triangular filter contains a bin of the Fourier transform."""
        low, top = _mel(self.low_freq), _mel(high)
        step = (top - low) / (self.num_mel_bins + 1)
        width = self.sample_frequency / self.fft_samples
        bins = range(self.fft_samples // 2)
        for k in range(self.num_mel_bins):
            left = low + k * step
            first = bisect_right(bins, left, key=lambda i: _mel(i * width))
            if first == len(bins) or _mel(first * width) >= left + 2 * step:
                return False
        return True


@dataclass(frozen=True, kw_only=True)
class FbankOptions(MelOptions):
    """Log mel filter-bank energies."""

    use_energy: bool = option(False, "add the log energy of the frame as the first column")
    use_log_fbank: bool = option(True, "take the logarithm of the filter energies")
    use_power: bool = option(True, "use the power spectrum, otherwise the magnitude spectrum")


@dataclass(frozen=True, kw_only=True)
class MfccOptions(MelOptions):
    """Mel-frequency cepstral coefficients."""

    num_ceps: int = option(13, "number of coefficients, with C0 or the energy")
    use_energy: bool = option(True, "put the log energy of the frame in place of C0")
    cepstral_lifter: float = option(
        22.0, "coefficient of cepstral liftering; 0: none", low=0, high=1e6
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.num_ceps <= self.num_mel_bins, "num-ceps", "1 to --num-mel-bins")


@dataclass(frozen=True, kw_only=True)
class SpectrogramOptions(FrameOptions):
    """Log power spectra."""


@dataclass(frozen=True, kw_only=True)
class DeltaOptions(Options):
    """Time derivatives (deltas)."""

    delta_order: int = option(2, "highest order of time derivatives", low=0, high=100)
    delta_window: int = option(2, "window of a delta: frames on each side", low=1, high=1000)
    truncate: int = option(0, "number of columns to keep before deltas are added; 0: all", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        frames = self.delta_order * self.delta_window
        require(frames <= 1000, "delta-window", "at most 1000 / --delta-order")


FeatureOptions: TypeAlias = FbankOptions | MfccOptions | SpectrogramOptions


def _mel(hertz: float) -> float:
    return 1127.0 * math.log(1.0 + hertz / 700.0)
