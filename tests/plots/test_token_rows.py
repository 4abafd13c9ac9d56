"""Rows of tokens: no names overlap, whatever their number."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pipeline.plots.figures import new_figure
from pipeline.plots.posteriors import Posteriors, draw_posteriors
from pipeline.plots.segments import Segment
from pipeline.plots.token_rows import (
    MOST,
    Place,
    draw_token_rows,
    find_places,
    make_token_rows,
    row_heights,
)


def rows(places: list[Place | None]) -> list[int | None]:
    return [None if place is None else place.row for place in places]


def overlapping(figure, axes) -> int:
    """The number of pairs of texts in the axes that overlap by more than a pixel."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    return sum(
        min(a.x1, b.x1) - max(a.x0, b.x0) > 1.0 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1.0
        for a, b in itertools.combinations(boxes, 2)
    )


def test_names_close_together_stand_in_other_rows() -> None:
    names, middles = ["abc"] * 4, [1.0, 1.1, 1.2, 3.0]
    assert rows(find_places(names, middles, 1.0, 9.0)) == [0, 1, 2, 0]
    assert rows(find_places(names, middles, 100.0, 9.0)) == [0] * 4
    assert rows(find_places(["音音音"] * 2, [1.0, 1.3], 1.0, 9.0)) == [0, 1]  # wider than letters


def test_those_that_are_chosen_come_first_and_some_find_no_room() -> None:
    places = find_places(["abc"] * 12, [1.0] * 12, 1.0, 9.0, first=[11])
    assert rows(places) == [1, 2, 3, 4, 5, 6, 7, None, None, None, None, 0]
    assert MOST == 8


def test_names_at_the_ends_stay_inside() -> None:
    first, last = find_places(["abcdefgh"] * 2, [0.0, 5.0], 1.0, 5.0)
    assert first is not None
    assert last is not None
    assert first.time_s == pytest.approx(5.0 - last.time_s)
    assert first.time_s > 0.25


def test_heights_of_rows() -> None:
    assert row_heights(3) == pytest.approx([0.5, 5 / 6, 1 / 6])
    assert row_heights(4) == pytest.approx([7 / 8, 5 / 8, 3 / 8, 1 / 8])


@pytest.mark.parametrize("count", [20, 160, 600])
def test_no_names_overlap(count: int) -> None:
    tokens = ["sil", "ah", "dcl", "UW", "th"]
    edges = np.linspace(0.0, 34.0, count + 1)
    segments = [
        Segment(float(a), float(b), tokens[n % 5])
        for n, (a, b) in enumerate(itertools.pairwise(edges))
    ]
    ref = make_token_rows(segments, "ref", boxes=True, inches_a_second=0.45, end_s=34.0)
    figure = new_figure(18.0, 1.0 + ref.inches)
    axes = figure.subplots()
    draw_token_rows(axes, ref)
    axes.set_xlim(0.0, 34.0)
    missing = ref.places.count(None)
    assert len(axes.texts) == count - missing
    assert (missing > 0) == (count == 600)
    assert axes.get_ylabel() == (f"ref\n{count - missing} of 600" if missing else "ref")
    assert overlapping(figure, axes) == 0


def test_a_long_utterance_is_readable(utterance) -> None:
    """Names as dense as in half a minute, seventeen per inch, above and below the curves."""
    one = utterance("ctc", reference=(1, 3))
    times = np.linspace(0.001, 0.139, 288)
    probs = np.full((288, 5), 0.01)
    probs[np.arange(288), [0, 1, 0, 3] * 72] = 0.96
    spans = [Segment(float(t), float(t), "s$x") for t in times[::2]]
    found = Posteriors(times, probs, (3,) * 40, spans)  # so the picture is 10 inches wide
    figure = draw_posteriors(one, found, hyp=spans)
    curves, ref, hyp = figure.axes[:3]
    assert len(curves.texts) == len(ref.texts) == len(hyp.texts) == 144
    assert [overlapping(figure, axes) for axes in (curves, ref, hyp)] == [0, 0, 0]
    heights = {text.get_position()[1] for text in curves.texts}
    assert len(heights) > 3
    assert max(heights) < curves.get_ylim()[1]
