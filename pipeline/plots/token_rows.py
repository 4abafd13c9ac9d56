"""Rows of tokens at their times, in as many rows of a strip as it takes that none overlap."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.plots.figures import GREY, RED
from pipeline.plots.lettering import columns, shown
from pipeline.plots.segments import Segment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FONT = 7.5
ROW = 0.14  # inches that a row of names is high
FEWEST, MOST = 3, 8  # rows of a strip


@dataclass(frozen=True)
class Place:
    """Where the middle of a name stands: its time, and its row from 0."""

    time_s: float
    row: int


@dataclass(frozen=True)
class Strip:
    """A row of a picture.

    Attributes:
        segments: tokens with their times.
        names: of the segments, as they are drawn.
        places: of the names; None for one that finds no room.
        label: what it shows.
        boxes: whether starts and ends mean something and are drawn; else only the middles.
        chosen: numbers of segments that stand in red.
    """

    segments: Sequence[Segment]
    names: list[str]
    places: list[Place | None]
    label: str
    boxes: bool
    chosen: frozenset[int]

    @property
    def rows(self) -> int:
        """How many rows the names take, at least three."""
        return max(FEWEST, count_rows(self.places))

    @property
    def inches(self) -> float:
        """Its height."""
        return ROW * self.rows


def make_strip(
    segments: Sequence[Segment],
    name: str,
    *,
    boxes: bool,
    inches_a_second: float,
    end_s: float,
    chosen: Collection[int] = (),
) -> Strip:
    """Find a place for each token.

    Args:
        segments: in order.
        name: what the strip shows.
        boxes: see `Strip`.
        inches_a_second: about how long a second is.
        end_s: where the picture ends.
        chosen: numbers of segments that stand in red; they take their places first.
    """
    names = [shown(segment.token) for segment in segments]
    middles = [segment.middle_s for segment in segments]
    places = find_places(names, middles, inches_a_second, end_s, chosen)
    missing = places.count(None)
    said = f"{name}\n{len(names) - missing} of {len(names)}" if missing else name
    return Strip(segments, names, places, said, boxes, frozenset(chosen))


def find_places(
    names: Sequence[str],
    middles_s: Sequence[float],
    inches_a_second: float,
    end_s: float,
    first: Collection[int] = (),
) -> list[Place | None]:
    """For each name the first row where it overlaps with none, None if there is no such row.

    Args:
        names: what is written.
        middles_s: where their middles belong; near an end they are moved inside.
        inches_a_second: about how long a second is.
        end_s: where the picture ends.
        first: numbers of the names that choose first.
    """
    places: list[Place | None] = [None] * len(names)
    taken: list[list[tuple[float, float]]] = [[] for _ in range(MOST)]
    for number in sorted(range(len(names)), key=lambda n: n not in first):
        half = 0.5 * FONT / 72.0 * (0.66 * columns(names[number]) + 0.4) / inches_a_second
        middle = max(half, min(middles_s[number], end_s - half))
        start, end = middle - half, middle + half
        for row, others in enumerate(taken):
            if all(end <= other[0] or other[1] <= start for other in others):
                others.append((start, end))
                places[number] = Place(middle, row)
                break
    return places


def count_rows(places: Sequence[Place | None]) -> int:
    """Rows that names stand in."""
    return 1 + max((place.row for place in places if place), default=-1)


def row_heights(count: int) -> list[float]:
    """The middle of each row in a strip of height 1: of three the middle first, of more a stair."""
    heights = [1.0 - (row + 0.5) / count for row in range(count)]
    return heights if count > FEWEST else sorted(heights, key=lambda h: (abs(h - 0.5), -h))


def draw_strip(axes: "Axes", strip: Strip) -> None:
    """Draw a strip into empty axes."""
    axes.set_ylim(0.0, 1.0)
    axes.set_yticks([])
    axes.set_ylabel(strip.label, rotation=0, ha="right", va="center", fontsize=8, labelpad=8)
    for spine in axes.spines.values():
        spine.set_visible(strip.boxes)
    axes.tick_params(bottom=False, labelbottom=False)
    heights = row_heights(strip.rows)
    for number, segment in enumerate(strip.segments):
        red = number in strip.chosen
        if strip.boxes:
            axes.axvline(segment.start_s, color=GREY, linewidth=0.5)
            axes.axvline(segment.end_s, color=GREY, linewidth=0.5)
        if strip.boxes and red:
            axes.axvspan(segment.start_s, segment.end_s, color=RED, alpha=0.15, linewidth=0)
        place = strip.places[number]
        if place is not None:
            axes.text(
                place.time_s,
                heights[place.row],
                strip.names[number],
                color=RED if red else "black",
                fontweight="bold" if red else "normal",
                fontsize=FONT,
                ha="center",
                va="center_baseline",
            )
