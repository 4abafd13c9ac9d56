"""Kaldi's features: filter banks, MFCC, spectrograms, their deltas and their normalisation.

kaldi-native-fbank does the arithmetic of filter banks and MFCC, NumPy the rest. Samples are on the
scale of 16-bit integers (`pipeline.frontend.audio`); features are float32 ``(T, F)``. The same
recording and options give the same features, on any machine that computes alike and however work is
split.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pipeline.errors import AudioError, ConfigError, FeatureError
from pipeline.frontend.feature_options import (
    DeltaOptions,
    FbankOptions,
    FeatureOptions,
    FrameOptions,
    MfccOptions,
    SpectrogramOptions,
    load_options,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.float32]

EPSILON = 2.0**-23  # Kaldi's floor under a logarithm: float32's epsilon
VARIANCE_FLOOR = 1e-20  # Kaldi's floor under a variance that is divided by


def compute_fbank(samples: "FloatArray", options: FbankOptions) -> "FloatArray":
    """Log mel filter-bank energies, as compute-fbank-feats.

    Args:
        samples: ``(S,)`` on the scale of 16-bit integers.

    Returns:
        ``(T, num_mel_bins)``, one more column with ``use_energy``: first, or last as in HTK.

    Raises:
        FeatureError: the recording is shorter than a frame, or the features hold NaN.
    """
    import kaldi_native_fbank as native

    settings = native.FbankOptions()
    settings.use_log_fbank, settings.use_power = options.use_log_fbank, options.use_power
    return _compute_mel(samples, options, settings, native.OnlineFbank)


def compute_mfcc(samples: "FloatArray", options: MfccOptions) -> "FloatArray":
    """Mel-frequency cepstral coefficients ``(T, num_ceps)``, as compute-mfcc-feats."""
    import kaldi_native_fbank as native

    settings = native.MfccOptions()
    settings.num_ceps, settings.cepstral_lifter = options.num_ceps, options.cepstral_lifter
    return _compute_mel(samples, options, settings, native.OnlineMfcc)


def compute_features(samples: "FloatArray", options: FeatureOptions) -> "FloatArray":
    """Features ``(T, F)`` of the kind that ``options`` are for."""
    match options:
        case FbankOptions():
            return compute_fbank(samples, options)
        case MfccOptions():
            return compute_mfcc(samples, options)
        case SpectrogramOptions():
            return compute_spectrogram(samples, options)


def _compute_mel(
    samples: "FloatArray", options: FbankOptions | MfccOptions, settings: Any, computer: Any
) -> "FloatArray":
    """Run kaldi-native-fbank's ``computer`` with ``settings`` completed from ``options``."""
    import numpy as np

    settings.use_energy, settings.htk_compat = options.use_energy, options.htk_compat
    settings.energy_floor, settings.raw_energy = options.energy_floor, options.raw_energy
    mel, frame = settings.mel_opts, settings.frame_opts
    mel.num_bins, mel.low_freq, mel.high_freq = (
        options.num_mel_bins,
        options.low_freq,
        options.high_freq,
    )
    frame.samp_freq, frame.dither = options.sample_frequency, 0.0
    frame.frame_length_ms, frame.frame_shift_ms = options.frame_length, options.frame_shift
    frame.preemph_coeff = options.preemphasis_coefficient
    frame.remove_dc_offset, frame.snip_edges = options.remove_dc_offset, options.snip_edges
    frame.window_type, frame.blackman_coeff = options.window_type, options.blackman_coeff
    frame.round_to_power_of_two = options.round_to_power_of_two
    extractor = computer(settings)
    extractor.accept_waveform(options.sample_frequency, _dithered(samples, options))
    extractor.input_finished()
    frames = [extractor.get_frame(t) for t in range(extractor.num_frames_ready)]
    return _finished(np.array(frames, np.float32), samples, options)


def compute_spectrogram(samples: "FloatArray", options: SpectrogramOptions) -> "FloatArray":
    """Log power spectra ``(T, fft_samples / 2 + 1)``, as compute-spectrogram-feats.

    The first column is the frame's log energy and not the spectrum's constant term.
    """
    import numpy as np

    frames = _frames(_dithered(samples, options), options)
    if options.remove_dc_offset:
        frames = frames - frames.mean(axis=1, keepdims=True)
    raw = frames
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = frames - (options.preemphasis_coefficient * before).astype(np.float32)
    frames *= _window(options)
    spectrum = np.fft.rfft(frames, options.fft_samples)
    power = spectrum.real**2 + spectrum.imag**2
    feats = np.log(np.maximum(power, EPSILON)).astype(np.float32)
    feats[:, 0] = _log_energy(raw if options.raw_energy else frames, options)
    return _finished(feats, samples, options)


def _dithered(samples: "FloatArray", options: FrameOptions) -> "FloatArray":
    """``samples`` with noise, if any: the same noise each time, however the work is split."""
    import numpy as np

    samples = np.asarray(samples, dtype=np.float32)
    if options.dither == 0:
        return samples
    noise = np.random.default_rng(0).standard_normal(len(samples), dtype=np.float32)
    return samples + np.float32(options.dither) * noise


def _frames(samples: "FloatArray", options: FrameOptions) -> "FloatArray":
    """Overlapping frames ``(T, window_samples)``."""
    import numpy as np

    window, shift, count = options.window_samples, options.shift_samples, len(samples)
    if options.snip_edges:
        number, first = (1 + (count - window) // shift if count >= window else 0), 0
    else:  # frame t lies around the middle of the t-th shift, the signal reflected at both ends
        number, first = (count + shift // 2) // shift, shift // 2 - window // 2
    if number == 0:
        return np.zeros((0, window), np.float32)
    left, right = max(0, -first), max(0, first + (number - 1) * shift + window - count)
    padded = np.pad(samples, (left, right), mode="symmetric")
    return np.lib.stride_tricks.sliding_window_view(padded, window)[left + first :: shift][:number]


def _window(options: FrameOptions) -> "FloatArray":
    """The taper of a frame ``(window_samples,)``."""
    import numpy as np

    at = np.arange(options.window_samples) / (options.window_samples - 1)
    turn = np.cos(2 * np.pi * at)
    a = options.blackman_coeff
    shapes = {
        "povey": (0.5 - 0.5 * turn) ** 0.85,
        "hamming": 0.54 - 0.46 * turn,
        "hanning": 0.5 - 0.5 * turn,
        "blackman": a - 0.5 * turn + (0.5 - a) * np.cos(4 * np.pi * at),
        "sine": np.sin(np.pi * at),
        "rectangular": np.ones_like(at),
    }
    return shapes[options.window_type].astype(np.float32)


def _log_energy(frames: "FloatArray", options: FrameOptions) -> "FloatArray":
    """``(T,)``."""
    import numpy as np

    energy = np.square(frames).sum(axis=1)
    logs: FloatArray = np.log(np.maximum(energy, max(EPSILON, options.energy_floor)))
    return logs


def _finished(feats: "FloatArray", samples: "FloatArray", options: FrameOptions) -> "FloatArray":
    if len(feats) == 0:
        seconds = len(samples) / options.sample_frequency
        raise FeatureError(
            f"{seconds:.4g} s of audio hold no frame of {options.frame_length:g} ms; "
            "leave this utterance out"
        )
    check_features(feats)
    return feats - feats.mean(axis=0) if options.subtract_mean else feats


def check_features(feats: "NDArray[Any]", dim: int | None = None) -> None:
    """Raise FeatureError where ``feats (T, F)`` hold NaN or infinity, or F is not ``dim``."""
    import numpy as np

    if dim is not None and feats.shape[-1] != dim:
        raise FeatureError(f"{feats.shape[-1]} columns where {dim} are expected; recompute it")
    if not np.isfinite(feats).all():
        frame = int(np.flatnonzero(~np.isfinite(feats).all(axis=-1))[0])
        raise FeatureError(f"NaN or infinity in frame {frame}; look at the recording")


# ---- deltas ------------------------------------------------------------------------------------


def add_deltas(feats: "FloatArray", *, order: int = 2, window: int = 2) -> "FloatArray":
    """Append differences in time, as Kaldi's add-deltas.

    The windows of all orders are composed first and applied once, the first and last frame
    repeated beyond the edges. (Differences of differences, each padded anew, are not the same in
    the first and last ``window`` frames.)

    Args:
        feats: ``(T, F)``.

    Returns:
        ``(T, F * (order + 1))``: the features, their differences, the differences of these, …
    """
    import numpy as np

    frames = len(feats)
    if frames == 0:
        raise FeatureError("no frames; leave this utterance out")
    offsets = np.arange(-window, window + 1)
    ramp = offsets / np.sum(offsets**2)
    reach = order * window
    padded = np.pad(feats, ((reach, reach), (0, 0)), mode="edge")
    scales, blocks = np.ones(1), [feats]
    for _ in range(order):
        scales = np.convolve(scales, ramp)
        block = np.zeros_like(feats)
        # np.convolve turns neither window round: weight k belongs to frame t - half + k
        half = len(scales) // 2
        for k, scale in enumerate(scales.astype(feats.dtype)):
            start = reach - half + k
            block += scale * padded[start : start + frames]
        blocks.append(block)
    return np.concatenate(blocks, axis=1)


# ---- cepstral mean and variance normalisation --------------------------------------------------


class CmvnStats:
    """Sums over frames from which features are normalised; Kaldi's layout.

    Args:
        matrix: ``(2, F + 1)``: sums and the count of frames; sums of squares and 0.

    Raises:
        FeatureError: ``matrix`` has another shape or holds NaN.
    """

    def __init__(self, matrix: "NDArray[Any]") -> None:
        import numpy as np

        if matrix.ndim != 2 or matrix.shape[0] != 2 or matrix.shape[1] < 2:
            raise FeatureError(
                f"shape {matrix.shape} is not that of CMVN statistics, 2 x (columns + 1); "
                "make them with compute_cmvn_stats.py"
            )
        check_features(matrix)
        self.matrix = matrix.astype(np.float64)

    @classmethod
    def zeros(cls, dim: int) -> "CmvnStats":
        """Statistics of no frame of ``dim`` columns."""
        import numpy as np

        return cls(np.zeros((2, dim + 1)))

    @property
    def dim(self) -> int:
        """Columns F of the features."""
        return int(self.matrix.shape[1]) - 1

    @property
    def count(self) -> float:
        """Frames seen."""
        return float(self.matrix[0, -1])

    def accumulate(self, feats: "NDArray[Any]") -> None:
        """Add the frames of ``feats (T, F)``.

        Raises:
            FeatureError: F differs, or NaN; nothing is added then.
        """
        import numpy as np

        check_features(feats, self.dim)
        single = feats.astype(np.float32)  # squared in float32 and summed in float64, as Kaldi does
        self.matrix[0, :-1] += single.sum(axis=0, dtype=np.float64)
        self.matrix[1, :-1] += np.square(single).sum(axis=0, dtype=np.float64)
        self.matrix[0, -1] += len(feats)

    def apply(
        self,
        feats: "NDArray[Any]",
        *,
        norm_means: bool = True,
        norm_vars: bool = False,
        reverse: bool = False,
    ) -> "NDArray[Any]":
        """``feats (T, F)`` with mean 0 and, on demand, variance 1, or back from there.

        Args:
            norm_vars: divide by the (biased) standard deviation, the variance floored at 1e-20.
            reverse: undo the normalisation.

        Raises:
            FeatureError: F differs, NaN, or the statistics are of less than one frame.
            ConfigError: ``norm_vars`` without ``norm_means``.
        """
        import numpy as np

        if norm_vars and not norm_means:
            raise ConfigError("--norm-vars needs --norm-means; drop --norm-means=false")
        check_features(feats, self.dim)
        if not norm_means:
            return feats
        if self.count < 1.0:
            raise FeatureError(f"CMVN statistics of {self.count:g} frames; compute them again")
        mean = self.matrix[0, :-1] / self.count
        variance = self.matrix[1, :-1] / self.count - np.square(mean)
        scale = np.sqrt(np.maximum(variance, VARIANCE_FLOOR)) if norm_vars else np.ones_like(mean)
        out = feats * scale + mean if reverse else (feats - mean) / scale
        return out.astype(feats.dtype)


# ---- the front end of a model ------------------------------------------------------------------


@dataclass(frozen=True)
class FrontEnd:
    """From samples to what a model's CMVN takes. ``delta`` is None where there are no deltas."""

    options: FeatureOptions
    delta: DeltaOptions | None = None

    @classmethod
    def load(cls, directory: str | Path) -> "FrontEnd":
        """The front end of ``fbank.conf``, ``mfcc.conf`` or ``spectrogram.conf`` in ``directory``,
        and of ``delta.conf`` if it is there.

        Raises:
            ConfigError: none or several of the three are there, or one has an unknown option.
        """
        kinds: dict[str, type[FeatureOptions]] = {
            "fbank.conf": FbankOptions,
            "mfcc.conf": MfccOptions,
            "spectrogram.conf": SpectrogramOptions,
        }
        found = [name for name in kinds if (Path(directory) / name).exists()]
        if len(found) != 1:
            raise ConfigError(
                f"{directory}: exactly one of {', '.join(kinds)} must be here, "
                f"not {' and '.join(found) or 'none'}"
            )
        delta = Path(directory) / "delta.conf"
        return cls(
            load_options(kinds[found[0]], Path(directory) / found[0]),
            load_options(DeltaOptions, delta) if delta.exists() else None,
        )

    def __call__(self, samples: "FloatArray", rate: int) -> "FloatArray":
        """Features ``(T, dim)``, before normalisation.

        Raises:
            AudioError: ``rate`` in Hz is not the front end's.
            FeatureError: the recording is shorter than a frame.
        """
        if rate != self.sample_rate:
            raise AudioError(
                f"{rate} Hz where this model wants {self.sample_rate} Hz; resample it, "
                f"e.g. sox IN -r {self.sample_rate} OUT"
            )
        feats = compute_features(samples, self.options)
        if self.delta is None:
            return feats
        return add_deltas(feats, order=self.delta.delta_order, window=self.delta.delta_window)

    @property
    def mel_from(self) -> int | None:
        """The column from which on static features are mel filters; None where none are."""
        return int(self.options.use_energy) if isinstance(self.options, FbankOptions) else None

    @property
    def dim(self) -> int:
        """Columns of the features, deltas included."""
        match self.options:
            case FbankOptions() as fbank:
                columns = fbank.num_mel_bins + fbank.use_energy
            case MfccOptions() as mfcc:
                columns = mfcc.num_ceps
            case SpectrogramOptions() as spectrogram:
                columns = spectrogram.fft_samples // 2 + 1
        return columns * (1 if self.delta is None else self.delta.delta_order + 1)

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return round(self.options.sample_frequency)

    @property
    def frame_shift_ms(self) -> float:
        """From one frame to the next."""
        return self.options.frame_shift
