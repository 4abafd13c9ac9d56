"""Features of a recording that comes in chunks: those of the whole recording, bit for bit.

What is kept from one chunk to the next are the samples of frames that have not ended, and the
frames on which deltas to come depend.
"""

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from pipeline.errors import AudioError, FeatureError
from pipeline.frontend.deltas import DeltaStream, truncated
from pipeline.frontend.feature_options import (
    FbankOptions,
    FeatureOptions,
    MfccOptions,
    SpectrogramOptions,
)
from pipeline.frontend.resample import resampler
from pipeline.frontend.spectra import (
    Dither,
    check_features,
    compute_spectrogram,
    frame_places,
    mel_extractor,
    spectra_of,
    too_short,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.frontend.front_end import FrontEnd

    FloatArray: TypeAlias = NDArray[np.float32]


class FeatureStream:
    """The features of one recording, which comes in chunks.

    Args:
        front_end: says which features.
        rate: the sample rate of the recording in Hz.
        resampled: whether samples of another rate than the front end's are resampled.
        name: the recording, for messages.

    Raises:
        AudioError: ``rate`` is not the sample rate of the front end, and may not be changed.
        FeatureError: the front end subtracts a mean that only a whole recording has.
    """

    def __init__(
        self, front_end: "FrontEnd", rate: int, *, resampled: bool = False, name: str
    ) -> None:
        options = front_end.options
        if options.subtract_mean:
            raise FeatureError(
                f"{name}: the model's features have --subtract-mean=true, the mean of a whole "
                "utterance, which a stream does not have; use --cmvn=global in its place"
            )
        self.options, self.delta, self.name = options, front_end.delta, name
        self.resampler = resampler(
            rate,
            options,
            resampled=resampled,
            name=name,
            whose="the model",
            remedy="--resample=true",
        )
        self.count, self.frames = 0, 0  # samples at the front end's rate, and frames of them
        self.dither = Dither(options)
        self.spectra = _spectra(options)
        self.deltas = None
        if self.delta is not None:
            order, window = self.delta.delta_order, self.delta.delta_window
            self.deltas = DeltaStream(order=order, window=window)

    def accept(self, samples: "FloatArray") -> "FloatArray":
        """The features ``(n, dim)``, n ≥ 0, that are known after more samples ``(m,)``.

        Raises:
            AudioError: samples are not one channel of finite numbers.
        """
        return self._advance(samples, last=False)

    def finish(self) -> "FloatArray":
        """The features that are left.

        Raises:
            FeatureError: the recording is shorter than a frame.
        """
        import numpy as np

        return self._advance(np.zeros(0, np.float32), last=True)

    def _advance(self, samples: "FloatArray", *, last: bool) -> "FloatArray":
        import numpy as np

        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1:
            raise AudioError(
                f"{self.name}: samples of shape {samples.shape}; give one channel, (S,)"
            )
        if not np.isfinite(samples).all():
            raise AudioError(f"{self.name}: holds NaN or infinite samples; convert it again")
        samples = self.dither(self.resampler.resample_chunk(samples, last=last))
        self.count += len(samples)
        feats = self.spectra.advance(samples, last=last)
        check_features(feats)
        self.frames += len(feats)
        if last and not self.frames:
            raise too_short(self.count, self.options)
        if self.delta is None or self.deltas is None:
            return feats
        feats = truncated(feats, self.delta.truncate)
        found = self.deltas.accept(feats)
        if last:
            found = np.concatenate([found, self.deltas.finish(feats.shape[1])])
        return found


# ---- spectra -------------------------------------------------------------------------------------


class _Spectra(Protocol):
    def advance(self, samples: "FloatArray", *, last: bool) -> "FloatArray":
        """The spectra ``(n, F)`` that are known after more samples."""


def _spectra(options: FeatureOptions) -> _Spectra:
    match options:
        case SpectrogramOptions():
            return _Spectrograms(options)
        case _:
            return _Mels(options)


class _Mels:
    """Filter banks and MFCCs, of which kaldi-native-fbank keeps the samples between chunks."""

    def __init__(self, options: FbankOptions | MfccOptions) -> None:
        self.rate, self.extractor, self.done = options.sample_frequency, mel_extractor(options), 0
        self.dim = int(self.extractor.dim)

    def advance(self, samples: "FloatArray", *, last: bool) -> "FloatArray":
        import numpy as np

        extractor: Any = self.extractor
        if len(samples):
            extractor.accept_waveform(self.rate, samples)
        if last:
            extractor.input_finished()
        ready = extractor.num_frames_ready
        frames = [extractor.get_frame(t) for t in range(self.done, ready)]
        found = np.array(frames, np.float32).reshape(-1, self.dim)
        extractor.pop(ready - self.done)  # whose memory ``frames`` are
        self.done = ready
        return found


class _Spectrograms:
    """Log power spectra; samples from number ``origin`` on are kept."""

    def __init__(self, options: SpectrogramOptions) -> None:
        import numpy as np

        self.options, self.done = options, 0
        self.kept, self.origin, self.count = np.zeros(0, np.float32), 0, 0

    def advance(self, samples: "FloatArray", *, last: bool) -> "FloatArray":
        import numpy as np

        options = self.options
        window, shift = options.window_samples, options.shift_samples
        self.kept, self.count = np.concatenate([self.kept, samples]), self.count + len(samples)
        total, first = frame_places(self.count, options)
        inside = 1 + (self.count - first - window) // shift  # frames that end with these samples
        ready = total if last else max(self.done, min(total, inside))
        if last and not self.done:  # edges that the signal may be too short to be reflected at once
            return compute_spectrogram(self.kept, _undithered(options)) if total else self._none()
        if ready == self.done:
            return self._none()
        if not self.done and first < 0:
            self.kept, self.origin = np.pad(self.kept, (-first, 0), mode="symmetric"), first
        begin = first + self.done * shift - self.origin
        end = first + (ready - 1) * shift + window - self.origin
        signal = np.pad(self.kept, (0, max(0, end - len(self.kept))), mode="symmetric")
        frames = np.lib.stride_tricks.sliding_window_view(signal[begin:end], window)[::shift]
        self.done = ready
        unused = max(0, min(first + ready * shift, self.count - window) - self.origin)
        self.kept, self.origin = self.kept[unused:], self.origin + unused
        return spectra_of(frames, options)

    def _none(self) -> "FloatArray":
        import numpy as np

        return np.zeros((0, self.options.fft_samples // 2 + 1), np.float32)


def _undithered(options: SpectrogramOptions) -> SpectrogramOptions:
    import dataclasses

    return dataclasses.replace(options, dither=0.0)
