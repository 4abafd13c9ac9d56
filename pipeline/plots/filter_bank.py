"""The columns of the features that a picture shows as a spectrogram, and derivatives in them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.frontend.deltas import add_deltas
from pipeline.frontend.feature_options import FbankOptions, SpectrogramOptions
from pipeline.frontend.front_end import FrontEnd
from pipeline.plots.figures import colour_bar, show_matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000, 16000)


@dataclass(frozen=True)
class FilterBank:
    """Columns of the features, with their meaning."""

    columns: slice
    label: str  # label of the vertical axis
    unit: str  # unit of the values in a picture
    derivative: str  # name of the variable that derivatives are taken with respect to
    hertz: Array | None = None  # (R,), centre frequency of each column; None if there are no bands


def filter_bank(front_end: FrontEnd | None, dim: int) -> FilterBank:
    """The columns to show of the features of a front end.

    Args:
        front_end: the front end; None if it is not known, in which case all columns are shown.
        dim: number of columns of the features, with deltas.
    """
    options = None if front_end is None else front_end.options
    match options:
        case FbankOptions():
            first = int(options.use_energy and not options.htk_compat)
            columns = slice(first, first + options.num_mel_bins)
            unit = "ln energy" if options.use_log_fbank else "energy"
            hertz = _mel_centres(options)
            return FilterBank(columns, "mel filter (kHz)", unit, f"{unit} of a filter", hertz)
        case SpectrogramOptions():
            size = options.fft_samples
            hertz = np.arange(1, size // 2 + 1) * options.sample_frequency / size
            columns = slice(1, size // 2 + 1)  # the first is the energy
            return FilterBank(columns, "frequency (kHz)", "ln power", "ln power of a bin", hertz)
        case None:
            return FilterBank(slice(0, dim), "feature", "normalised", "normalised feature")
        case _:
            orders = 1 if front_end is None or front_end.delta is None else _orders(front_end)
            columns = slice(0, dim // orders)
            return FilterBank(columns, "coefficient", "normalised", "coefficient")


def _orders(front_end: FrontEnd) -> int:
    return 1 if front_end.delta is None else front_end.delta.delta_order + 1


def _mel_centres(options: FbankOptions) -> Array:
    """The centre frequencies of the filters in Hz, (R,), evenly spaced on 1127 ln(1 + f / 700)."""
    nyquist = options.sample_frequency / 2
    high = options.high_freq if options.high_freq > 0 else nyquist + options.high_freq
    low_mel, high_mel = 1127.0 * np.log1p(np.array([options.low_freq, high]) / 700.0)
    places = np.arange(1, options.num_mel_bins + 1) / (options.num_mel_bins + 1)
    centres: Array = 700.0 * np.expm1((low_mel + places * (high_mel - low_mel)) / 1127.0)
    return centres


def to_static(gradient: Array, scales: Array, front_end: FrontEnd | None) -> Array:
    """Convert derivatives with respect to network inputs into those with respect to features.

    Each static value enters the input through its own column and through the deltas of the frames
    around it; the chain rule adds up these contributions. Normalisation is a constant factor.

    Args:
        gradient: (T, F), the derivative with respect to the normalised inputs.
        scales: (F,), the derivative of an input with respect to its feature.
        front_end: the front end; None if it is not known, in which case nothing is converted.

    Returns:
        (T, S) for S static columns, in units of 1 / feature; or ``gradient`` itself.
    """
    if front_end is None:
        return gradient
    scaled = gradient * scales
    if front_end.delta is None:
        return scaled
    frames, orders = len(gradient), _orders(front_end)
    # Column s of the identity matrix is a static feature that is 1 in frame s and 0 elsewhere.
    spread = add_deltas(
        np.eye(frames, dtype=np.float32), order=orders - 1, window=front_end.delta.delta_window
    ).reshape(frames, orders, frames)
    blocks = scaled.reshape(frames, orders, -1)
    static: Array = np.einsum("tos,tof->sf", spread, blocks, optimize=True)
    return static


# ---- drawing -------------------------------------------------------------------------------------


def draw_spectrogram(axes: "Axes", values: Array, bank: FilterBank, end_s: float) -> None:
    """Draw features over time, with the lowest frequency at the bottom.

    Args:
        axes: the axes to draw into.
        values: (T, R).
        bank: the meaning of the columns.
        end_s: the end of the last frame in seconds.
    """
    low, high = np.percentile(values, (1.0, 99.8))
    if high <= low:
        low, high = low - 1.0, low + 1.0
    image = show_matrix(axes, values, end_s, colours="magma", limits=(float(low), float(high)))
    colour_bar(axes, image, bank.unit, below=True, above=True)
    frequency_axis(axes, bank)


def frequency_axis(axes: "Axes", bank: FilterBank) -> None:
    """Label the vertical axis, with ticks in kHz if the rows are frequency bands."""
    axes.set_ylabel(bank.label)
    if bank.hertz is None:
        return
    centres = bank.hertz
    if bank.label.startswith("mel"):
        ticks = [f for f in TICKS_HZ if centres[0] <= f <= centres[-1]]
    else:
        step = 1000 if centres[-1] <= 8000 else 2000
        ticks = list(range(step, int(centres[-1]) + 1, step))
    places = np.interp(ticks, centres, np.arange(len(centres)))
    axes.set_yticks(places, [f"{f / 1000:g}" for f in ticks])
    axes.tick_params(axis="y", labelsize=7)
