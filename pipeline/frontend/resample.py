"""Resampling of recordings whose sample rate is not that of the features: by soxr, or as Kaldi."""

from typing import TYPE_CHECKING, Protocol

from pipeline.errors import AudioError
from pipeline.frontend.feature_options import FrameOptions
from pipeline.frontend.linear_resample import LinearResampler, linear_resample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

LARGEST_RATIO = 64  # of the two rates; a header with a rate beyond it is damaged


def resample(samples: "Samples", rate: int, wanted: int, name: str) -> "Samples":
    """Samples ``(S,)`` of ``rate`` Hz at ``wanted`` Hz, about ``(S * wanted / rate,)``.

    Raises:
        AudioError: the rates are further apart than those of recordings; names the recording.
    """
    import numpy as np
    import soxr

    if rate == wanted:
        return samples
    _check_ratio(rate, wanted, name)
    found: Samples = np.asarray(soxr.resample(samples, rate, wanted, quality="VHQ"), np.float32)
    if len(found) == 0:
        raise AudioError(f"{name}: holds no samples at {wanted} Hz; leave it out")
    return found


def to_rate(
    samples: "Samples",
    rate: int,
    options: FrameOptions,
    *,
    resampled: bool,
    name: str,
    whose: str,
    remedy: str,
) -> "Samples":
    """Samples at the rate of the features: as Kaldi resamples, if its options allow it, or by soxr.

    Args:
        samples: ``(S,)``, of a recording.
        rate: its sample rate in Hz.
        options: of the features, with their rate, ``allow_downsample`` and ``allow_upsample``.
        resampled: whether soxr resamples what these do not allow.
        name: the recording, for messages.
        whose: the wanted rate's owner, for the message "…, but OWNER 16000".
        remedy: the options to give, for the same message.

    Returns:
        ``(S',)``, about ``S * options.sample_frequency / rate``.

    Raises:
        AudioError: the rate is another and may not be changed, or further away than those of
            recordings are from each other.
    """
    wanted = round(options.sample_frequency)
    match _way(rate, options, resampled=resampled, name=name, whose=whose, remedy=remedy):
        case "linear":
            return linear_resample(samples, rate, wanted)
        case "soxr":
            return resample(samples, rate, wanted, name)
    return samples


class Resampler(Protocol):
    """Resamples a recording that comes in chunks, to the same samples however it is cut."""

    def resample_chunk(self, samples: "Samples", *, last: bool = False) -> "Samples":
        """What is known after more samples ``(n,)``; with ``last`` all that is left."""


class _AsItIs:
    """For a recording that has the rate of the features."""

    def resample_chunk(self, samples: "Samples", *, last: bool = False) -> "Samples":
        """The samples."""
        return samples


def resampler(
    rate: int, options: FrameOptions, *, resampled: bool, name: str, whose: str, remedy: str
) -> Resampler:
    """`to_rate` for a recording that comes in chunks; arguments and errors are the same."""
    wanted = round(options.sample_frequency)
    match _way(rate, options, resampled=resampled, name=name, whose=whose, remedy=remedy):
        case "linear":
            return LinearResampler(rate, wanted)
        case "soxr":
            import soxr

            found: Resampler = soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="VHQ")
            return found
    return _AsItIs()


def _way(
    rate: int, options: FrameOptions, *, resampled: bool, name: str, whose: str, remedy: str
) -> str:
    """How to resample: ``linear``, ``soxr``, or not at all, the empty text; see `to_rate`."""
    wanted = round(options.sample_frequency)
    if rate == wanted:
        return ""
    allowed = options.allow_downsample if rate > wanted else options.allow_upsample
    if allowed or resampled:
        _check_ratio(rate, wanted, name)
        return "linear" if allowed else "soxr"
    raise AudioError(
        f"{name}: has a sample rate of {rate} Hz, but {whose} {wanted}; "
        f"resample it: {remedy}, or sox IN -r {wanted} OUT"
    )


def _check_ratio(rate: int, wanted: int, name: str) -> None:
    if max(rate, wanted) > LARGEST_RATIO * min(rate, wanted):
        raise AudioError(
            f"{name}: has a sample rate of {rate} Hz, too far from {wanted} Hz to be resampled; "
            "correct its header"
        )
