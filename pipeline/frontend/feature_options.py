"""The options of features: Kaldi's names and defaults, except that dither is 0.

Each field is an option of a program of ``bin/`` and a line ``--name=value`` of an options file.
"""

import dataclasses
import difflib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pipeline.errors import ConfigError

WINDOWS = ("povey", "hamming", "hanning", "blackman", "sine", "rectangular")


def option(default: Any, help_text: str) -> Any:
    """A dataclass field that is a command-line option with this help text."""
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclass(frozen=True, kw_only=True)
class FrameOptions:
    """How a recording is cut into frames: what all three kinds of features share."""

    sample_frequency: float = option(16000.0, "rate in Hz that every recording must have")
    frame_length: float = option(25.0, "length of a frame in ms")
    frame_shift: float = option(10.0, "from one frame's start to the next's, in ms")
    preemphasis_coefficient: float = option(0.97, "each sample less this share of the one before")
    remove_dc_offset: bool = option(True, "subtract each frame's mean from it")
    dither: float = option(
        0.0, "amplitude of added noise (0 here, 1.0 in Kaldi; 0 makes features reproducible)"
    )
    window_type: str = option("povey", f"taper of a frame: {', '.join(WINDOWS)}")
    blackman_coeff: float = option(0.42, "constant of the blackman window")
    round_to_power_of_two: bool = option(True, "pad frames with zeros to a power of two")
    snip_edges: bool = option(
        True, "only frames that fit whole; else one a shift, the signal reflected at its ends"
    )
    energy_floor: float = option(0.0, "floor under the energy, not its logarithm; 0: none")
    raw_energy: bool = option(True, "energy before pre-emphasis and windowing")
    subtract_mean: bool = option(False, "subtract each utterance's mean; apply_cmvn does it better")

    def __post_init__(self) -> None:
        _require(self.sample_frequency > 0, "sample-frequency", "more than 0 Hz")
        _require(self.window_samples > 1, "frame-length", "at least two samples long")
        _require(
            self.fft_samples % 2 == 0, "round-to-power-of-two", "true for frames of odd length"
        )
        _require(0 < self.frame_length <= 10_000, "frame-length", "above 0 and up to 10000 ms")
        _require(0 < self.frame_shift <= 10_000, "frame-shift", "above 0 and up to 10000 ms")
        _require(self.shift_samples > 0, "frame-shift", "at least one sample long")
        _require(0 <= self.preemphasis_coefficient <= 1, "preemphasis-coefficient", "0 to 1")
        _require(self.dither >= 0, "dither", "0 or more")
        _require(self.window_type in WINDOWS, "window-type", f"one of {', '.join(WINDOWS)}")
        _require(self.energy_floor >= 0, "energy-floor", "0 or more")

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
        """The length of a frame in samples after padding."""
        size = self.window_samples
        return 1 << (size - 1).bit_length() if self.round_to_power_of_two else size


@dataclass(frozen=True, kw_only=True)
class MelOptions(FrameOptions):
    """The mel filter bank, which filter-bank features and MFCC share."""

    num_mel_bins: int = option(23, "triangular mel filters")
    low_freq: float = option(20.0, "lower edge of the lowest filter in Hz")
    high_freq: float = option(
        0.0, "upper edge of the highest filter in Hz; 0 or less: from Nyquist"
    )
    htk_compat: bool = option(False, "HTK's order: energy, or C0, last")

    def __post_init__(self) -> None:
        super().__post_init__()
        nyquist = self.sample_frequency / 2
        high = self.high_freq if self.high_freq > 0 else nyquist + self.high_freq
        _require(self.num_mel_bins >= 3, "num-mel-bins", "3 or more")
        _require(0 <= self.low_freq < nyquist, "low-freq", f"0 Hz to less than {nyquist:g} Hz")
        _require(
            self.low_freq < high <= nyquist, "high-freq", f"above --low-freq, up to {nyquist:g} Hz"
        )
        _require(self._no_empty_filter(high), "num-mel-bins", "fewer: a filter holds no FFT bin")

    def _no_empty_filter(self, high: float) -> bool:
        """Whether a bin of the transform lies inside every triangle."""
        low, top = _mel(self.low_freq), _mel(high)
        step = (top - low) / (self.num_mel_bins + 1)
        width = self.sample_frequency / self.fft_samples
        mels = [_mel(i * width) for i in range(self.fft_samples // 2)]
        lefts = (low + k * step for k in range(self.num_mel_bins))
        return all(any(left < mel < left + 2 * step for mel in mels) for left in lefts)


@dataclass(frozen=True, kw_only=True)
class FbankOptions(MelOptions):
    """Log mel filter-bank energies."""

    use_energy: bool = option(False, "one more column, the frame's log energy, first")
    use_log_fbank: bool = option(True, "log energies, else energies")
    use_power: bool = option(True, "power spectrum, else magnitude")


@dataclass(frozen=True, kw_only=True)
class MfccOptions(MelOptions):
    """Mel-frequency cepstral coefficients."""

    num_ceps: int = option(13, "coefficients, C0 or the energy among them")
    use_energy: bool = option(True, "the frame's log energy in the place of C0")
    cepstral_lifter: float = option(22.0, "constant of the liftering; 0: none")

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(1 <= self.num_ceps <= self.num_mel_bins, "num-ceps", "1 to --num-mel-bins")
        _require(self.cepstral_lifter >= 0, "cepstral-lifter", "0 or more")


@dataclass(frozen=True, kw_only=True)
class SpectrogramOptions(FrameOptions):
    """Log power spectra."""


@dataclass(frozen=True, kw_only=True)
class DeltaOptions:
    """Differences in time."""

    delta_order: int = option(2, "how many times differences are taken")
    delta_window: int = option(2, "frames on each side that a difference is taken over")

    def __post_init__(self) -> None:
        _require(self.delta_order >= 0, "delta-order", "0 or more")
        _require(self.delta_window >= 1, "delta-window", "1 frame or more")


FeatureOptions: TypeAlias = FbankOptions | MfccOptions | SpectrogramOptions
AnyOptions = TypeVar("AnyOptions", bound=FeatureOptions | DeltaOptions)


def _require(holds: bool, name: str, what: str) -> None:
    if not holds:
        raise ConfigError(f"--{name} must be {what}")


def _mel(hertz: float) -> float:
    return 1127.0 * math.log(1.0 + hertz / 700.0)


def read_option_file(path: str | Path) -> dict[str, str]:
    """The lines ``--name=value`` of an options file, ``#`` comments left out.

    A name without a value is ``true``; ``_`` and capitals in names are those of the command line.

    Raises:
        ConfigError: the file cannot be read, or a line is none of these. Names file and line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read this options file: {error}") from error
    options = {}
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        name, equals, value = text.partition("=")
        if text and (not name.startswith("--") or " " in name.rstrip()):
            raise ConfigError(f"{path}:{number}: expected --name=value, not {text!r}")
        if text:
            key = name[2:].strip().replace("_", "-").lower()
            options[key] = value.strip() if equals else "true"
    return options


def load_options(kind: type[AnyOptions], path: str | Path) -> AnyOptions:
    """Options of ``kind`` from an options file.

    Raises:
        ConfigError: an unknown name (the nearest is named) or a value that does not fit.
    """
    fields = {f.name.replace("_", "-"): f for f in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for name, text in read_option_file(path).items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean --{near[0]}?" if near else f"not an option of {kind.__name__}"
            raise ConfigError(f"{path}: unknown option --{name}; {hint}")
        values[fields[name].name] = _parse(text, fields[name].default, f"{path}: --{name}")
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _parse(text: str, default: Any, where: str) -> Any:
    """``text`` as a value of the default's type."""
    try:
        if isinstance(default, bool):
            return {"true": True, "t": True, "false": False, "f": False}[text.lower()]
        return type(default)(text)
    except (KeyError, ValueError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[type(default)]
        raise ConfigError(f"{where} is {wanted}, not {text!r}") from None
