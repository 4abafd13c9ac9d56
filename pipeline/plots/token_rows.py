"""Tokens at their times, in as many rows as are needed so that no names overlap."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.plots.figures import GREY, RED
from pipeline.plots.lettering import columns, shown
from pipeline.plots.segments import Segment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FONT = 7.5
ROW = 0.14  # height of a row of names in inches
FEWEST, MOST = 3, 8  # smallest and largest number of rows


@dataclass(frozen=True)
class Place:
    """The position of the middle of a name: its time, and its row from 0."""

    time_s: float
    row: int


@dataclass(frozen=True)
class TokenRows:
    """A part of a picture that shows tokens at their times.

    Attributes:
        segments: tokens with their times.
        names: the names of the segments, as they are drawn.
        places: the positions of the names; None for a name without room.
        label: the label of the axes.
        boxes: whether the starts and ends of segments are drawn.
        chosen: the numbers of the segments that are drawn in red.
    """

    segments: Sequence[Segment]
    names: list[str]
    places: list[Place | None]
    label: str
    boxes: bool
    chosen: frozenset[int]

    @property
    def count(self) -> int:
        """The number of rows, at least three."""
        return max(FEWEST, count_rows(self.places))

    @property
    def inches(self) -> float:
        """The height of all rows in inches."""
        return ROW * self.count


def make_token_rows(
    segments: Sequence[Segment],
    name: str,
    *,
    boxes: bool,
    inches_a_second: float,
    end_s: float,
    chosen: Collection[int] = (),
) -> TokenRows:
    """Find a position for the name of each token.

    Args:
        segments: the tokens in order.
        name: the label of the axes; the number of drawn names is added if some have no room.
        boxes: see `TokenRows`.
        inches_a_second: the approximate length of a second.
        end_s: the end of the picture in seconds.
        chosen: the numbers of the segments that are drawn in red; their positions are found first.
    """
    names = [shown(segment.token) for segment in segments]
    middles = [segment.middle_s for segment in segments]
    places = find_places(names, middles, inches_a_second, end_s, chosen)
    missing = places.count(None)
    label = f"{name}\n{len(names) - missing} of {len(names)}" if missing else name
    return TokenRows(segments, names, places, label, boxes, frozenset(chosen))


def find_places(
    names: Sequence[str],
    middles_s: Sequence[float],
    inches_a_second: float,
    end_s: float,
    first: Collection[int] = (),
) -> list[Place | None]:
    """For each name the first row in which it overlaps no other name; None if there is none.

    Args:
        names: the names to write.
        middles_s: the times of their middles; a name that would cross an end is moved inside.
        inches_a_second: the approximate length of a second.
        end_s: the end of the picture in seconds.
        first: the numbers of the names whose positions are found first.
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
    """The number of rows that have names."""
    return 1 + max((place.row for place in places if place), default=-1)


def row_heights(count: int) -> list[float]:
    """The middle of each row for a total height of 1; of three rows the middle one is the first."""
    heights = [1.0 - (row + 0.5) / count for row in range(count)]
    return heights if count > FEWEST else sorted(heights, key=lambda h: (abs(h - 0.5), -h))


def draw_token_rows(axes: "Axes", rows: TokenRows) -> None:
    """Draw tokens into empty axes."""
    axes.set_ylim(0.0, 1.0)
    axes.set_yticks([])
    axes.set_ylabel(rows.label, rotation=0, ha="right", va="center", fontsize=8, labelpad=8)
    for spine in axes.spines.values():
        spine.set_visible(rows.boxes)
    axes.tick_params(bottom=False, labelbottom=False)
    heights = row_heights(rows.count)
    for number, segment in enumerate(rows.segments):
        red = number in rows.chosen
        if rows.boxes:
            axes.axvline(segment.start_s, color=GREY, linewidth=0.5)
            axes.axvline(segment.end_s, color=GREY, linewidth=0.5)
        if rows.boxes and red:
            axes.axvspan(segment.start_s, segment.end_s, color=RED, alpha=0.15, linewidth=0)
        place = rows.places[number]
        if place is not None:
            axes.text(
                place.time_s,
                heights[place.row],
                rows.names[number],
                color=RED if red else "black",
                fontweight="bold" if red else "normal",
                fontsize=FONT,
                ha="center",
                va="center_baseline",
            )
