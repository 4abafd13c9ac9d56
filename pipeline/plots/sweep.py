"""Error rate and decoding time against the beam."""

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
class SweepPoint:
    """A line of a sweep: the results with one beam."""

    beam: int
    metric: str  # the name of the error rate: PER, WER or CER
    error_rate: float  # in percent
    insertions: float  # in percent of the reference tokens
    deletions: float  # in percent of the reference tokens
    seconds_a_frame: float


def read_sweep(path: Path) -> list[SweepPoint]:
    """Read a table of ``sweep_beam.sh``; the points are sorted by beam.

    Raises:
        DataError: the table cannot be read, or columns or numbers are missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        found = [
            _point(row["metric"], {name: float(row[name]) for name in NUMBERS}) for row in rows
        ]
    except OSError as error:
        raise DataError(f"{path}: cannot read this table: {error.strerror}") from error
    except KeyError as error:
        raise DataError(
            f"{path}: not a table of sweep_beam.sh: it lacks the column {error.args[0]}; "
            "make it again"
        ) from error
    except (TypeError, ValueError, ZeroDivisionError, csv.Error) as error:
        raise DataError(
            f"{path}: not a table of sweep_beam.sh: a value is not a number, or is 0; make it again"
        ) from error
    if not found:
        raise DataError(f"{path}: has no lines; run sweep_beam.sh")
    return sorted(found, key=lambda point: point.beam)


def _point(metric: str, row: dict[str, float]) -> SweepPoint:
    return SweepPoint(
        int(row["beam"]),
        metric,
        row["error_rate"],
        100.0 * row["ins"] / row["ref_tokens"],
        100.0 * row["del"] / row["ref_tokens"],
        row["seconds"] / row["frames"],
    )


def plot_sweeps(
    sweeps: dict[str, list[SweepPoint]], picture: Path, *, frame_shift_ms: float, title: str = ""
) -> None:
    """Draw sweeps into a PNG or SVG file; for the arguments see `draw_sweeps`.

    Raises:
        UsageError: the file is of another kind.
    """
    check_picture(picture)
    save(draw_sweeps(sweeps, frame_shift_ms=frame_shift_ms, title=title), picture)


@style()
def draw_sweeps(
    sweeps: dict[str, list[SweepPoint]], *, frame_shift_ms: float, title: str = ""
) -> "Figure":
    """Draw error rates with insertions and deletions, and below them the decoding time, by beam.

    Args:
        sweeps: name -> points.
        frame_shift_ms: the frame shift of the features, from which the duration is computed.
        title: the title above the picture.
    """
    figure = new_figure(8.0, 7.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for (name, points), colour in zip(sweeps.items(), COLOURS * len(sweeps), strict=False):
        beams = [point.beam for point in points]
        above.plot(beams, [point.error_rate for point in points], "o-", color=colour, label=name)
        above.plot(beams, [point.deletions for point in points], "v--", color=colour, linewidth=1)
        above.plot(beams, [point.insertions for point in points], "^:", color=colour, linewidth=1)
        shares = [1000.0 * point.seconds_a_frame / frame_shift_ms for point in points]
        below.plot(beams, shares, "o-", color=colour, label=name)
    above.plot([], [], "v--", color="black", linewidth=1, label="deletions")
    above.plot([], [], "^:", color="black", linewidth=1, label="insertions")
    metrics = dict.fromkeys(point.metric for points in sweeps.values() for point in points)
    above.set_ylabel(f"{' or '.join(metrics)} (%)")
    above.set_ylim(bottom=0)
    above.legend()
    above.set_title(title)
    below.set_xscale("log")
    below.set_yscale("log")
    below.yaxis.set_major_formatter("{x:g}")
    below.set_xlabel("beam, W")
    below.set_ylabel("real-time factor of one core")
    ticks = sorted({point.beam for points in sweeps.values() for point in points})
    below.set_xticks(ticks, [str(tick) for tick in ticks])
    below.minorticks_off()
    for axes in (above, below):
        axes.grid(visible=True, alpha=0.3)
    return figure
