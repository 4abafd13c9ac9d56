"""The part of the features that a picture shows as a spectrogram, and derivatives in it."""

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
    """Columns of the features and what they are."""

    columns: slice
    label: str  # of the vertical axis
    unit: str  # of the values in a picture
    derivative: str  # what a derivative is taken to
    hertz: Array | None = None  # (R,) middle of each column's band; None: they are no bands


def filter_bank(front_end: FrontEnd | None, dim: int) -> FilterBank:
    """What to show of features that a front end makes; all columns of unknown ones.

    Args:
        front_end: None where the model does not know it.
        dim: columns of the features, deltas included.
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
    """Middle of each triangle in Hz, (R,): evenly spaced on 1127 ln(1 + f / 700)."""
    nyquist = options.sample_frequency / 2
    high = options.high_freq if options.high_freq > 0 else nyquist + options.high_freq
    low_mel, high_mel = 1127.0 * np.log1p(np.array([options.low_freq, high]) / 700.0)
    places = np.arange(1, options.num_mel_bins + 1) / (options.num_mel_bins + 1)
    centres: Array = 700.0 * np.expm1((low_mel + places * (high_mel - low_mel)) / 1127.0)
    return centres


def to_static(gradient: Array, scales: Array, front_end: FrontEnd | None) -> Array:
    """Derivatives in the network's inputs -> derivatives in what the front end measured.

    Each static value enters the input through its own column and through the differences of the
    frames around it; the chain rule adds these up. Normalisation is a factor, its statistics
    being constants.

    Args:
        gradient: (T, F) derivative in the normalised inputs.
        scales: (F,) derivative of an input in its feature.
        front_end: None: nobody says how columns hang together, and nothing is done.

    Returns:
        (T, S), S static columns, in units of 1 / feature; or ``gradient`` itself.
    """
    if front_end is None:
        return gradient
    scaled = gradient * scales
    if front_end.delta is None:
        return scaled
    frames, orders = len(gradient), _orders(front_end)
    # Column s of the unit matrix is a static feature that is 1 in frame s and 0 elsewhere.
    spread = add_deltas(
        np.eye(frames, dtype=np.float32), order=orders - 1, window=front_end.delta.delta_window
    ).reshape(frames, orders, frames)
    blocks = scaled.reshape(frames, orders, -1)
    static: Array = np.einsum("tos,tof->sf", spread, blocks, optimize=True)
    return static


# ---- drawing -------------------------------------------------------------------------------------


def draw_spectrogram(axes: "Axes", values: Array, bank: FilterBank, end_s: float) -> None:
    """Features over time, the lowest frequency at the bottom.

    Args:
        axes: where to draw.
        values: (T, R).
        bank: what they are.
        end_s: where the last frame ends, in s.
    """
    low, high = np.percentile(values, (1.0, 99.8))
    if high <= low:
        low, high = low - 1.0, low + 1.0
    image = show_matrix(axes, values, end_s, colours="magma", limits=(float(low), float(high)))
    colour_bar(axes, image, bank.unit, below=True, above=True)
    frequency_axis(axes, bank)


def frequency_axis(axes: "Axes", bank: FilterBank) -> None:
    """Ticks in kHz where the rows are bands."""
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
