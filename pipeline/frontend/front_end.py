"""The front end of a model: from samples to the features that it was trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pipeline.errors import AudioError, ConfigError
from pipeline.frontend.deltas import add_deltas
from pipeline.frontend.feature_options import (
    DeltaOptions,
    FbankOptions,
    FeatureOptions,
    MfccOptions,
    SpectrogramOptions,
)
from pipeline.frontend.spectra import compute_features
from pipeline.options import load_options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.float32]


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
