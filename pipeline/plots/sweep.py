"""Error rate and time of a search against the width of its beam."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import DataError
from pipeline.plots.figures import COLOURS, check_picture, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERS = ("beam", "error_rate", "ref_tokens", "ins", "del", "frames", "seconds")


@dataclass(frozen=True)
class Width:
    """One line of a sweep."""

    beam: int
    metric: str  # what the error rate is called: PER, WER, CER
    error_rate: float  # percent
    insertions: float  # percent of the reference's tokens
    deletions: float
    seconds_a_frame: float


def read_sweep(path: Path) -> list[Width]:
    """The table that ``sweep_beam.sh`` writes, by beam.

    Raises:
        DataError: it cannot be read, or columns or numbers are missing.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        found = [
            _width(row["metric"], {name: float(row[name]) for name in NUMBERS}) for row in rows
        ]
    except OSError as error:
        raise DataError(f"{path}: cannot read this table: {error.strerror}") from error
    except KeyError as error:
        raise DataError(
            f"{path}: not a table of sweep_beam.sh: no column {error.args[0]}; make it again"
        ) from error
    except (TypeError, ValueError, ZeroDivisionError, csv.Error) as error:
        raise DataError(
            f"{path}: not a table of sweep_beam.sh: something in it is no number, or 0; "
            "make it again"
        ) from error
    if not found:
        raise DataError(f"{path}: no widths; run sweep_beam.sh")
    return sorted(found, key=lambda width: width.beam)


def _width(metric: str, row: dict[str, float]) -> Width:
    return Width(
        int(row["beam"]),
        metric,
        row["error_rate"],
        100.0 * row["ins"] / row["ref_tokens"],
        100.0 * row["del"] / row["ref_tokens"],
        row["seconds"] / row["frames"],
    )


def plot_sweeps(
    sweeps: dict[str, list[Width]], picture: Path, *, frame_shift_ms: float, title: str = ""
) -> None:
    """Draw sweeps, by their names, into a PNG or SVG file.

    Raises:
        UsageError: another kind of file.
    """
    check_picture(picture)
    save(draw_sweeps(sweeps, frame_shift_ms=frame_shift_ms, title=title), picture)


@style()
def draw_sweeps(
    sweeps: dict[str, list[Width]], *, frame_shift_ms: float, title: str = ""
) -> "Figure":
    """Above error rates with insertions and deletions, below time, over the beam's width.

    Args:
        sweeps: by their names.
        frame_shift_ms: of the features: what a second of search is a share of.
        title: above the picture.
    """
    figure = new_figure(8.0, 7.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for (name, widths), colour in zip(sweeps.items(), COLOURS * len(sweeps), strict=False):
        beams = [w.beam for w in widths]
        above.plot(beams, [w.error_rate for w in widths], "o-", color=colour, label=name)
        above.plot(beams, [w.deletions for w in widths], "v--", color=colour, linewidth=1)
        above.plot(beams, [w.insertions for w in widths], "^:", color=colour, linewidth=1)
        shares = [1000.0 * w.seconds_a_frame / frame_shift_ms for w in widths]
        below.plot(beams, shares, "o-", color=colour, label=name)
    above.plot([], [], "v--", color="black", linewidth=1, label="deletions")
    above.plot([], [], "^:", color="black", linewidth=1, label="insertions")
    metrics = dict.fromkeys(w.metric for widths in sweeps.values() for w in widths)
    above.set_ylabel(f"{' or '.join(metrics)} (%)")
    above.set_ylim(bottom=0)
    above.legend()
    above.set_title(title)
    below.set_xscale("log")
    below.set_yscale("log")
    below.yaxis.set_major_formatter("{x:g}")
    below.set_xlabel("width of the beam, W")
    below.set_ylabel("real-time factor of one core")
    ticks = sorted({w.beam for widths in sweeps.values() for w in widths})
    below.set_xticks(ticks, [str(tick) for tick in ticks])
    below.minorticks_off()
    for axes in (above, below):
        axes.grid(visible=True, alpha=0.3)
    return figure
