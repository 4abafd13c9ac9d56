"""Distributions over time."""

import numpy as np
import pytest

from pipeline.errors import DataError, UsageError
from pipeline.plots.posteriors import (
    compute_posteriors,
    draw_posteriors,
    path_points,
    recognised_spans,
    strongest_tokens,
)
from pipeline.plots.segments import Segment


@pytest.mark.parametrize("name", ["ctc", "tanh"])
def test_distributions(utterance, name: str) -> None:
    one = utterance(name, reference=(1, 3))
    found = compute_posteriors(one, [1, 3])
    np.testing.assert_allclose(found.probs.sum(axis=1), 1.0)
    assert len(found.probs) == (7 if name == "ctc" else 7 + 2)
    assert (np.diff(found.times_s) > 0).all()
    assert 0.0 < found.times_s[0] < found.times_s[-1] < one.end_s == pytest.approx(0.14)
    assert [span.token for span in found.spans] == ["ah", "s$x"]


def test_points_of_a_path() -> None:
    """Frame 1 emits two labels: three points share its time."""
    t, u, times = path_points([1, 1, 3], 4)
    assert t.tolist() == [0, 1, 1, 1, 2, 3, 3]
    assert u.tolist() == [0, 0, 1, 2, 2, 2, 3]
    np.testing.assert_allclose(times, [0.5, 1 + 1 / 6, 1.5, 1 + 5 / 6, 2.5, 3.25, 3.75])
    assert path_points([], 2)[0].tolist() == [0, 1]


def test_text_that_does_not_fit(utterance) -> None:
    with pytest.raises(DataError, match=r"utt\$1: no path of 7 frames"):
        compute_posteriors(utterance("ctc"), [1, 2] * 9)


def test_the_strongest_tokens() -> None:
    probs = np.array([[0.9, 0.02, 0.0, 0.08], [0.2, 0.05, 0.6, 0.15]])
    assert strongest_tokens(probs, 0) == [2, 3]
    assert strongest_tokens(probs, 1) == [2]
    assert strongest_tokens(probs, 9) == [2, 3, 1]


def test_the_picture(utterance) -> None:
    one = utterance("ctc", reference=(1, 3))
    found = compute_posteriors(one, [1, 3])
    hyp = recognised_spans(one)
    segments = [Segment(0.0, 0.1, "ah")]
    figure = draw_posteriors(one, found, hyp=hyp, segments=segments, segments_label="by hand")
    labels = [axes.get_ylabel() for axes in figure.axes[:5]]
    assert labels == ["Pr(k|t)", "ref", "hyp", "by hand", "mel filter (kHz)"]
    assert len(figure.axes[0].lines) == 1 + len(strongest_tokens(found.probs, 0))
    assert [t.get_text() for t in figure.axes[1].texts] == ["ah", "s$x"]
    with pytest.raises(UsageError, match="--strongest"):
        draw_posteriors(one, found, strongest=-1)
