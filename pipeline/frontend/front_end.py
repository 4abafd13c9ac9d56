"""The front end of a model: it computes the features that the model was trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pipeline.errors import ConfigError
from pipeline.frontend.deltas import add_deltas, truncated
from pipeline.frontend.feature_options import (
    DeltaOptions,
    FbankOptions,
    FeatureOptions,
    MfccOptions,
    SpectrogramOptions,
)
from pipeline.frontend.resample import to_rate
from pipeline.frontend.spectra import compute_features
from pipeline.options import load_options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class FrontEnd:
    """Computes features from samples, before normalisation; ``delta`` is None without deltas."""

    options: FeatureOptions
    delta: DeltaOptions | None = None

    @classmethod
    def load(cls, directory: str | Path) -> "FrontEnd":
        """Read a front end from the options files of a directory.

        The directory holds one of ``fbank.conf``, ``mfcc.conf`` and ``spectrogram.conf``, and
        ``delta.conf`` if the features have deltas.

        Raises:
            ConfigError: none or several of the three exist, or one has an unknown option.
        """
        kinds: dict[str, type[FeatureOptions]] = {
            "fbank.conf": FbankOptions,
            "mfcc.conf": MfccOptions,
            "spectrogram.conf": SpectrogramOptions,
        }
        found = [name for name in kinds if (Path(directory) / name).exists()]
        if len(found) != 1:
            raise ConfigError(
                f"{directory}: must hold exactly one of {', '.join(kinds)}, "
                f"not {' and '.join(found) or 'none'}"
            )
        delta = Path(directory) / "delta.conf"
        return cls(
            load_options(kinds[found[0]], Path(directory) / found[0]),
            load_options(DeltaOptions, delta) if delta.exists() else None,
        )

    def __call__(
        self, samples: "FloatArray", rate: int, *, resampled: bool = False, name: str = ""
    ) -> "FloatArray":
        """Features ``(T, dim)``, before normalisation.

        Args:
            samples: ``(S,)`` on the scale of 16-bit integers.
            rate: their sample rate in Hz.
            resampled: whether samples of another rate than the front end's are resampled.
            name: the recording, for messages.

        Raises:
            AudioError: ``rate`` is not the sample rate of the front end, and may not be changed.
            FeatureError: the recording is shorter than a frame.
        """
        samples = to_rate(
            samples,
            rate,
            self.options,
            resampled=resampled,
            name=name or "the recording",
            whose="the model",
            remedy="--resample=true",
        )
        feats = compute_features(samples, self.options)
        if self.delta is None:
            return feats
        feats = truncated(feats, self.delta.truncate)
        return add_deltas(feats, order=self.delta.delta_order, window=self.delta.delta_window)

    @property
    def bands_from(self) -> int | None:
        """The first column that is a band of frequencies; None for cepstra."""
        if isinstance(self.options, FbankOptions):
            return int(self.options.use_energy)
        return 1 if self.is_linear else None  # the first column of a spectrogram is the energy

    @property
    def is_linear(self) -> bool:
        """Whether the bands are as far apart in Hz, not in mel."""
        return isinstance(self.options, SpectrogramOptions)

    @property
    def dim(self) -> int:
        """The number of columns of the features, with deltas."""
        match self.options:
            case FbankOptions() as fbank:
                columns = fbank.num_mel_bins + fbank.use_energy
            case MfccOptions() as mfcc:
                columns = mfcc.num_ceps
            case SpectrogramOptions() as spectrogram:
                columns = spectrogram.fft_samples // 2 + 1
        if self.delta is None:
            return columns
        return (self.delta.truncate or columns) * (self.delta.delta_order + 1)

    @property
    def sample_rate(self) -> int:
        """The sample rate in Hz."""
        return round(self.options.sample_frequency)

    @property
    def frame_shift_ms(self) -> float:
        """The time from one frame to the next in ms."""
        return self.options.frame_shift
