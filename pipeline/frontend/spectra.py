"""Kaldi's features: mel filter banks, MFCC and spectrograms.

kaldi-native-fbank does the arithmetic of filter banks and MFCC, NumPy the rest. Samples are on the
scale of 16-bit integers (`pipeline.frontend.audio`); features are float32 ``(T, F)``. The same
recording and options give the same features, on any machine that computes alike and however work is
split.
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

EPSILON = 2.0**-23  # Kaldi's floor under a logarithm: float32's epsilon


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
