"""Kaldi's features: mel filter banks, MFCCs and spectrograms.

Filter banks and MFCCs are computed by kaldi-native-fbank, everything else with NumPy. Samples are
on the scale of 16-bit integers (see `pipeline.frontend.audio`); features are float32 ``(T, F)``.
The same recording and options give the same features, however the utterances are split into jobs.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

from pipeline.errors import FeatureError
from pipeline.frontend.feature_options import (
    FbankOptions,
    FeatureOptions,
    FrameOptions,
    MfccOptions,
    SpectrogramOptions,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.float32]

EPSILON = 2.0**-23  # smallest argument of a logarithm, as in Kaldi: the epsilon of float32


def compute_fbank(samples: "FloatArray", options: FbankOptions) -> "FloatArray":
    """Log mel filter-bank energies, as computed by Kaldi's compute-fbank-feats.

    Args:
        samples: ``(S,)`` on the scale of 16-bit integers.
        options: the options of the features.

    Returns:
        ``(T, num_mel_bins)``. With ``use_energy`` there is one more column, which is the first, or,
        with ``htk_compat``, the last.

    Raises:
        FeatureError: the recording is shorter than a frame, or the features hold NaN.
    """
    return _compute_mel(samples, options)


def compute_mfcc(samples: "FloatArray", options: MfccOptions) -> "FloatArray":
    """Mel-frequency cepstral coefficients ``(T, num_ceps)``, as in Kaldi's compute-mfcc-feats."""
    return _compute_mel(samples, options)


def compute_features(samples: "FloatArray", options: FeatureOptions) -> "FloatArray":
    """Features ``(T, F)`` of the kind that ``options`` describe."""
    match options:
        case FbankOptions():
            return compute_fbank(samples, options)
        case MfccOptions():
            return compute_mfcc(samples, options)
        case SpectrogramOptions():
            return compute_spectrogram(samples, options)


def _compute_mel(samples: "FloatArray", options: FbankOptions | MfccOptions) -> "FloatArray":
    import numpy as np

    extractor = mel_extractor(options)
    extractor.accept_waveform(options.sample_frequency, _dithered(samples, options))
    extractor.input_finished()
    frames = [extractor.get_frame(t) for t in range(extractor.num_frames_ready)]
    return _finished(np.array(frames, np.float32), samples, options)


def mel_extractor(options: FbankOptions | MfccOptions) -> Any:
    """kaldi-native-fbank's computer of filter banks or MFCCs, without dither."""
    import kaldi_native_fbank as native

    settings: Any
    match options:
        case FbankOptions():
            settings, computer = native.FbankOptions(), native.OnlineFbank
            settings.use_log_fbank, settings.use_power = options.use_log_fbank, options.use_power
        case MfccOptions():
            settings, computer = native.MfccOptions(), native.OnlineMfcc
            settings.num_ceps, settings.cepstral_lifter = options.num_ceps, options.cepstral_lifter
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
    return computer(settings)


def compute_spectrogram(samples: "FloatArray", options: SpectrogramOptions) -> "FloatArray":
    """Log power spectra ``(T, fft_samples / 2 + 1)``, as in Kaldi's compute-spectrogram-feats.

    The first column is the log energy of the frame, not the constant term of the spectrum.
    """
    frames = _frames(_dithered(samples, options), options)
    return _finished(spectra_of(frames, options), samples, options)


def spectra_of(frames: "FloatArray", options: SpectrogramOptions) -> "FloatArray":
    """The log power spectra of frames ``(T, window_samples)``; each depends on its frame alone."""
    import numpy as np

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
    return feats


def _dithered(samples: "FloatArray", options: FrameOptions) -> "FloatArray":
    """``samples`` with dither, if any; the noise is the same for every utterance and every run."""
    import numpy as np

    return Dither(options)(np.asarray(samples, dtype=np.float32))


class Dither:
    """Adds dither, if any, to the samples of a recording, chunk after chunk."""

    def __init__(self, options: FrameOptions) -> None:
        import numpy as np

        self.amplitude, self.random = options.dither, np.random.default_rng(0)

    def __call__(self, samples: "FloatArray") -> "FloatArray":
        """The next samples with noise."""
        import numpy as np

        if self.amplitude == 0:
            return samples
        noise = self.random.standard_normal(len(samples), dtype=np.float32)
        return samples + np.float32(self.amplitude) * noise


def frame_places(count: int, options: FrameOptions) -> tuple[int, int]:
    """How many frames ``count`` samples have, and at which sample the first begins."""
    window, shift = options.window_samples, options.shift_samples
    if options.snip_edges:
        return (1 + (count - window) // shift if count >= window else 0), 0
    # Frame t is centred on the middle of the t-th shift; the signal is reflected at its ends.
    return (count + shift // 2) // shift, shift // 2 - window // 2


def _frames(samples: "FloatArray", options: FrameOptions) -> "FloatArray":
    """Overlapping frames ``(T, window_samples)``."""
    import numpy as np

    window, shift, count = options.window_samples, options.shift_samples, len(samples)
    number, first = frame_places(count, options)
    if number == 0:
        return np.zeros((0, window), np.float32)
    left, right = max(0, -first), max(0, first + (number - 1) * shift + window - count)
    padded = np.pad(samples, (left, right), mode="symmetric")
    return np.lib.stride_tricks.sliding_window_view(padded, window)[left + first :: shift][:number]


def _window(options: FrameOptions) -> "FloatArray":
    """The window function of a frame, ``(window_samples,)``."""
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
    """The log energy of each frame, ``(T,)``."""
    import numpy as np

    energy = np.square(frames).sum(axis=1)
    logs: FloatArray = np.log(np.maximum(energy, max(EPSILON, options.energy_floor)))
    return logs


def _finished(feats: "FloatArray", samples: "FloatArray", options: FrameOptions) -> "FloatArray":
    if len(feats) == 0:
        raise too_short(len(samples), options)
    check_features(feats)
    return feats - feats.mean(axis=0) if options.subtract_mean else feats


def too_short(count: int, options: FrameOptions) -> FeatureError:
    """The error of a recording of so many samples, which has no frame."""
    seconds = count / options.sample_frequency
    return FeatureError(
        f"{seconds:.4g} s of audio are shorter than a frame of {options.frame_length:g} ms; "
        "leave this utterance out"
    )


def check_features(feats: "NDArray[Any]", dim: int | None = None) -> None:
    """Raise FeatureError if ``feats (T, F)`` hold NaN or infinity, or if F is not ``dim``."""
    import numpy as np

    if dim is not None and feats.shape[-1] != dim:
        raise FeatureError(
            f"the features have {feats.shape[-1]} columns, expected {dim}; compute them again"
        )
    if not np.isfinite(feats).all():
        frame = int(np.flatnonzero(~np.isfinite(feats).all(axis=-1))[0])
        raise FeatureError(f"frame {frame} holds NaN or infinity; check the recording")
