"""What all pictures share: colours, figures, time axes, and reproducible files.

Pictures are drawn without a screen and without matplotlib's global state, so that several can be
drawn in one process. matplotlib is imported only when something is drawn.
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
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

# The colours of Okabe and Ito, which colour-blind people can distinguish as well.
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
LETTERS_AN_INCH = 10.0  # width of the letters of a title
WIDEST = 130.0  # largest width of names in several columns, in points
STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.linewidth": 0.6,
    "image.interpolation": "nearest",
    "legend.framealpha": 1.0,
    "legend.edgecolor": "white",
    "text.parse_math": False,  # tokens may hold dollar signs
    "svg.hashsalt": "pipeline",  # makes the ids in an SVG reproducible
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """A context, or decorator, with a fixed style, whatever is configured on this machine."""
    from matplotlib.style import context

    with context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a bold face may lack characters
        fonts = logging.getLogger("matplotlib.font_manager")
        level = fonts.level
        fonts.setLevel(logging.ERROR)  # a family may have no bold face at all
        try:
            yield
        finally:
            fonts.setLevel(level)


def check_picture(path: Path) -> None:
    """Raise UsageError unless the name ends in .png or .svg."""
    if path.suffix not in (".png", ".svg"):
        raise UsageError(f"{path}: the name of a picture must end in .png or .svg")


def new_figure(width: float, height: float, title: str = "") -> "Figure":
    """An empty figure with a title that is cut to its width.

    Args:
        width: in inches; at least 8 inches (1200 pixels) are used.
        height: in inches.
        title: the title; may have several lines.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(8.0, width), height), layout="constrained")
    if title:
        most = LETTERS_AN_INCH * figure.get_figwidth()
        lines = [shown(line, most) for line in title.split("\n")]
        figure.suptitle("\n".join(lines), fontsize=11.0)
    return figure


def render(figure: "Figure", kind: str) -> bytes:
    """The bytes of a ``png`` or ``svg`` file, which are the same for the same figure."""
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    stream = io.BytesIO()
    with style():
        complete(figure)
        figure.savefig(stream, format=kind, dpi=DPI, metadata=metadata)
    return stream.getvalue()


def save(figure: "Figure", path: Path) -> None:
    """Write a picture atomically.

    Raises:
        UsageError: the name ends in neither .png nor .svg.
        TableError: the file cannot be created.
    """
    check_picture(path)
    picture = render(figure, path.suffix[1:])
    with open_output(str(path)) as stream:
        stream.write(picture)


# ---- parts of pictures ---------------------------------------------------------------------------


def width_for(duration_s: float, tokens: int) -> float:
    """The width in inches at which the tokens of an utterance can be distinguished."""
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
    """Draw a heat map with time on the horizontal axis; row r is centred on the height r.

    Args:
        axes: the axes to draw into.
        values: (T, R).
        end_s: the end of the last frame in seconds.
        colours: matplotlib's name of the colour map.
        limits: the values of the first and the last colour.
        log: whether the colours follow the logarithm; smaller values get the first colour.
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
    image: "ScalarMappable",
    label: str,
    *,
    below: bool = False,
    above: bool = False,
    place: str = "right",
    slimness: float = 18.0,
) -> None:
    """Draw a colour bar beside the axes.

    Args:
        axes: the axes of the image.
        image: the image.
        label: the label of the bar.
        below: whether values below the limits are drawn too; then the bar has a point there.
        above: the same for values above the limits.
        place: the side of the axes.
        slimness: the ratio of the length of the bar to its width.
    """
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
    """1000 -> 10³, 1 -> 1; the empty text for a number that is not a power of ten."""
    exponent = round(np.log10(value))
    if exponent == 0:
        return "1"
    if not np.isclose(value, 10.0**exponent):
        return ""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def time_axes(axes: Sequence["Axes"], end_s: float) -> None:
    """Give axes that lie below each other the same time axis, labelled only at the lowest."""
    for one in axes:
        one.set_xlim(0.0, end_s)
        one.tick_params(labelbottom=one is axes[-1])
    axes[-1].set_xlabel("time (s)")


def label_rows(axes: "Axes", names: Sequence[str], *, inches: float, ylabel: str = "") -> None:
    """Write the names of rows beside the axes, from row 0 upwards.

    Many names are written in several columns. If there are too many of them, the rows are numbered.

    Args:
        axes: the axes, with the names on the left.
        names: one name for each row.
        inches: the height of the axes.
        ylabel: the label of the axis.
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
