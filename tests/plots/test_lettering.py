"""Names in pictures: their length, and characters that matplotlib's font lacks."""

import logging

import pytest
from matplotlib.text import Text

from pipeline.plots import lettering
from pipeline.plots.figures import new_figure, render
from pipeline.plots.lettering import FONT, columns, complete, shown, written

NO_FONT = "\U0010fffd"  # for private use: no font has it


@pytest.fixture(autouse=True)
def fresh() -> None:
    lettering._warn.cache_clear()


@pytest.fixture
def only_own_font(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with no other font."""
    lettering._family_of.cache_clear()
    monkeypatch.setattr(lettering, "_families", lambda: [FONT])
    yield
    lettering._family_of.cache_clear()


def test_a_long_name_is_cut() -> None:
    assert shown("a" * 20) == "a" * 20
    assert shown("a" * 21) == "a" * 19 + "…"
    assert shown("abcdef", 4) == "abc…"
    assert columns("ab") == 2.0
    assert columns("e\u0301\u0301") == 1.0  # marks stand over the letter
    assert columns("音") > 1.5


@pytest.mark.usefixtures("only_own_font")
def test_what_no_font_has_is_a_number(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="pipeline")
    assert written("αβ∅…שלום") == "αβ∅…שלום"
    assert not caplog.records
    assert written("音") == "U+97F3"
    assert written("a音楽b") == "aU+97F3+697Db"
    assert written(NO_FONT) == "U+10FFFD"
    assert shown("音楽" * 9) == "U+97F3+697D+97F3+69…"
    assert len(caplog.records) == 1
    assert caplog.records[0].name == "pipeline"
    assert "install a font" in caplog.text


def test_blanks_that_nobody_sees_are_numbers(caplog: pytest.LogCaptureFixture) -> None:
    assert written("a b\nc") == "a b\nc"
    assert written("l\u2028m\u00a0n\t") == "lU+2028mU+00A0nU+0009"
    assert not caplog.records


@pytest.mark.usefixtures("only_own_font")
def test_no_picture_holds_boxes() -> None:
    """Labels that differ are drawn differently, in titles and on axes."""
    figure = new_figure(8.0, 2.0, "音 楽")
    axes = figure.subplots()
    axes.text(0.5, 0.5, "楽")
    render(figure, "png")
    found = {text.get_text() for text in figure.findobj(Text)}
    assert {"U+97F3 U+697D", "U+697D"} <= found
    assert not any(char in text for text in found for char in "音楽")


def test_a_font_that_has_a_character_is_taken() -> None:
    """STIX comes with matplotlib too and has a letter that its first font lacks."""
    letter = "\u1d81"
    own, other = (lettering._characters(name) for name in (FONT, "STIXGeneral"))
    assert ord(letter) in other - own
    figure = new_figure(8.0, 2.0, f"plain {letter}")
    axes = figure.subplots()
    axes.text(0.5, 0.5, "plain")
    complete(figure)
    title = figure._suptitle
    assert title.get_text() == f"plain {letter}"
    assert title.get_fontfamily()[0] == FONT
    assert len(title.get_fontfamily()) == 2
    assert axes.texts[0].get_fontfamily() == ["sans-serif"]
    assert render(figure, "png") == render(figure, "png")


def test_a_title_fits_its_picture() -> None:
    figure = new_figure(8.0, 2.0, "x" * 500 + "\nsecond")
    figure.draw_without_rendering()
    first, second = figure._suptitle.get_text().split("\n")
    assert first.endswith("x…")
    assert second == "second"
    extent = figure._suptitle.get_window_extent()
    assert extent.x0 >= 0.0
    assert extent.x1 <= figure.canvas.get_width_height()[0]
