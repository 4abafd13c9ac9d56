"""Resampling, by soxr: for recordings of another sample rate than that of the features."""

from typing import TYPE_CHECKING

from pipeline.errors import AudioError

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
    if max(rate, wanted) > LARGEST_RATIO * min(rate, wanted):
        raise AudioError(
            f"{name}: has a sample rate of {rate} Hz, too far from {wanted} Hz to be resampled; "
            "correct its header"
        )
    found: Samples = np.asarray(soxr.resample(samples, rate, wanted, quality="VHQ"), np.float32)
    if len(found) == 0:
        raise AudioError(f"{name}: holds no samples at {wanted} Hz; leave it out")
    return found
