"""What all pictures share: colours, figures, axes in seconds, files with the same bytes each time.

Pictures are drawn without a screen and without matplotlib's global state, so several may be drawn
in one process. matplotlib is imported where something is drawn.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.plots.lettering import MOST, columns, complete, shown
from pipeline.tables import open_output

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

# Okabe and Ito's colours, told apart by all eyes.
BLUE, RED, GREEN, PINK, SKY, ORANGE = COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
)
GREY = "#8C8C8C"
DPI = 150
LETTERS_AN_INCH = 10.0  # of a title
WIDEST = 130.0  # points that names in several columns may take
STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.linewidth": 0.6,
    "image.interpolation": "nearest",
    "legend.framealpha": 1.0,
    "legend.edgecolor": "white",
    "text.parse_math": False,  # tokens may be dollars
    "svg.hashsalt": "pipeline",  # ids in an SVG are the same each time
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """matplotlib's own defaults and ours, whatever is set on this machine; also a decorator."""
    from matplotlib.style import context

    with context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a bold face may lack what others have
        fonts = logging.getLogger("matplotlib.font_manager")
        level = fonts.level
        fonts.setLevel(logging.ERROR)  # nor need a family be bold
        try:
            yield
        finally:
            fonts.setLevel(level)


def check_picture(path: Path) -> None:
    """Raise UsageError unless the name ends in .png or .svg."""
    if path.suffix not in (".png", ".svg"):
        raise UsageError(f"{path}: a picture ends in .png or .svg")


def new_figure(width: float, height: float, title: str = "") -> "Figure":
    """An empty figure of this size in inches, at least 8 wide: 1200 pixels; a title that fits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(8.0, width), height), layout="constrained")
    if title:
        most = LETTERS_AN_INCH * figure.get_figwidth()
        lines = [shown(line, most) for line in title.split("\n")]
        figure.suptitle("\n".join(lines), fontsize=11.0)
    return figure


def render(figure: "Figure", kind: str) -> bytes:
    """The picture as a ``png`` or ``svg`` file: the same figure, the same bytes."""
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    stream = io.BytesIO()
    with style():
        complete(figure)
        figure.savefig(stream, format=kind, dpi=DPI, metadata=metadata)
    return stream.getvalue()


def save(figure: "Figure", path: Path) -> None:
    """Write a picture as a whole or not at all.

    Raises:
        UsageError: the name ends in neither .png nor .svg.
        TableError: the file cannot be made.
    """
    check_picture(path)
    picture = render(figure, path.suffix[1:])
    with open_output(str(path)) as stream:
        stream.write(picture)


# ---- parts of pictures ---------------------------------------------------------------------------


def width_for(duration_s: float, tokens: int) -> float:
    """Inches in which an utterance's tokens can be told apart."""
    return min(18.0, max(10.0, 1.2 * duration_s, 0.25 * tokens))


def show_matrix(
    axes: "Axes",
    values: "NDArray[np.float64]",
    end_s: float,
    *,
    colours: str,
    limits: tuple[float, float],
    log: bool = False,
) -> "AxesImage":
    """A heat map with time to the right and rows upwards, row r around the height r.

    Args:
        axes: where to draw.
        values: (T, R).
        end_s: where the last frame ends, in s.
        colours: matplotlib's name of the colour map.
        limits: values that get its first and its last colour.
        log: colours by the logarithm; what is not above 0 is drawn as the first.
    """
    from matplotlib.colors import LogNorm, Normalize

    rows = values.shape[1]
    return axes.imshow(
        np.maximum(values, limits[0]).T if log else values.T,
        origin="lower",
        aspect="auto",
        extent=(0.0, end_s, -0.5, rows - 0.5),
        cmap=colours,
        norm=LogNorm(*limits) if log else Normalize(*limits),
    )


def colour_bar(
    axes: "Axes",
    image: "AxesImage",
    label: str,
    *,
    below: bool = False,
    above: bool = False,
    place: str = "right",
    slimness: float = 18.0,
) -> None:
    """A bar beside the axes; pointed where values below or above its ends are drawn too."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter

    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}
    figure = axes.figure
    bar = figure.colorbar(
        image,
        ax=axes,
        pad=0.01,
        aspect=slimness,
        location=place,
        extend=extend.get((below, above), "neither"),
    )
    bar.set_label(label, fontsize=8)
    if isinstance(image.norm, LogNorm):
        bar.formatter = FuncFormatter(lambda value, _: power_of_ten(value))
        bar.minorticks_off()
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_linewidth(0.4)


def power_of_ten(value: float) -> str:
    """1000 -> 10³; 1 -> 1; what is no power of ten gets no name."""
    exponent = round(np.log10(value))
    if exponent == 0:
        return "1"
    if not np.isclose(value, 10.0**exponent):
        return ""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def time_axes(axes: Sequence["Axes"], end_s: float) -> None:
    """Axes one below the other that share their time, which the lowest says."""
    for one in axes:
        one.set_xlim(0.0, end_s)
        one.tick_params(labelbottom=one is axes[-1])
    axes[-1].set_xlabel("time (s)")


def token_rows(axes: "Axes", names: Sequence[str], *, inches: float, ylabel: str = "") -> None:
    """Write the name of each row, from row 0 upwards, in columns where they are many; numbers
    where they are too many for names.

    Args:
        axes: whose left side they stand at.
        names: one a row.
        inches: height of the axes.
        ylabel: of the axis.
    """
    size = 7.0
    count = max(1, -int(-len(names) * size * 1.15 / 72.0 // inches))
    if count > 4:
        axes.set_ylabel(ylabel)
        return
    letter, gap = 0.68 * size, 5.0
    names = [shown(name, min(MOST, (WIDEST / count - gap) / letter)) for name in names]
    width = max(22.0, letter * max(map(columns, names)) + gap)
    axes.set_yticks([])
    for row, name in enumerate(names):
        axes.annotate(
            name,
            (0.0, row),
            xytext=(-6.0 - width * (count - 1 - row % count), 0.0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=size,
            arrowprops={
                "arrowstyle": "-",
                "linewidth": 0.3,
                "color": GREY,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )
    axes.set_ylabel(ylabel, labelpad=14.0 + width * count)
