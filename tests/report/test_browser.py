"""The page in a browser: it sorts, filters, plays, by mouse and keyboard, wide and narrow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.report import ReportOptions, make_report

ROWS = "[...document.querySelectorAll('#results tbody tr')].map(r => r.cells[0].innerText.trim())"
CARDS = "[...document.querySelectorAll('.utt')]"
SHOWN = f"{CARDS}.filter(u => !u.hidden).map(u => u.querySelector('h4').innerText)"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
TAB, ENTER = ("Tab", 9), ("Enter", 13, "\r")

Open = Callable[..., Any]


@pytest.fixture
def page(scored: Path) -> Path:
    path = scored / "report.html"
    models = [scored / "exp" / "one", scored / "exp" / "two"]
    path.write_text(make_report(models, ReportOptions(pictures=False)), encoding="utf-8")
    return path


def choose(tab: Any, name: str, value: str) -> list[str]:
    """Set a field of the utterances' filter as a person does; what is then shown."""
    field = f"document.querySelector('[data-utterances] [name={name}]')"
    event = "new Event('input', {bubbles: true})"
    return tab.value(f"{field}.value = '{value}', {field}.dispatchEvent({event}), {SHOWN}")


@pytest.mark.parametrize("width", [390, 1200])
def test_it_loads_without_a_complaint_and_fits(page: Path, open_page: Open, width: int) -> None:
    tab = open_page(page, width, dark=width == 390)
    assert tab.value("document.querySelectorAll('h2').length") == 9
    assert tab.value(OVERFLOW) == 0
    assert tab.value("getComputedStyle(document.querySelector('.skip')).color") != ""
    assert tab.problems() == []


def test_a_header_sorts_its_table(page: Path, open_page: Open) -> None:
    tab = open_page(page, 1200)
    headers = "document.querySelectorAll('#results thead th')"
    assert tab.value(ROWS) == ["one", "twobest"]
    sort = f"{headers}[3].querySelector('button').click(), {ROWS}"
    assert tab.value(sort) == ["twobest", "one"]  # PER, the lowest first
    assert tab.value(f"{headers}[3].getAttribute('aria-sort')") == "ascending"
    assert tab.value(sort) == ["one", "twobest"]
    assert tab.value(f"{headers}[3].getAttribute('aria-sort')") == "descending"
    assert tab.value(f"{headers}[0].querySelector('button').click(), {ROWS}") == ["one", "twobest"]
    assert tab.value("document.querySelectorAll('#results [aria-sort]').length") == 1


def test_utterances_are_filtered(page: Path, open_page: Open) -> None:
    tab = open_page(page, 1200)
    everything = ["amy-1", "amy-2", "bob-1", "bob-2"]
    assert sorted(tab.value(SHOWN)) == everything
    assert choose(tab, "text", "b>c amy") == ["amy-1"]  # that substitution, that speaker
    assert choose(tab, "text", "nowhere") == []
    assert (
        tab.value("document.querySelector('[data-utterances] output').value") == "0 of 4 utterances"
    )
    assert sorted(choose(tab, "text", "")) == everything
    assert sorted(choose(tab, "speaker", "bob")) == ["bob-1", "bob-2"]
    assert choose(tab, "kind", "S") == ["bob-2"]
    assert choose(tab, "kind", "I") == []
    assert tab.problems() == []


def test_a_recording_plays(page: Path, open_page: Open) -> None:
    tab = open_page(page, 1200)
    assert tab.value("document.querySelectorAll('audio').length") == 4
    play = (
        "(async () => { const a = document.querySelector('audio'); await a.play();"
        " for (let i = 0; i < 100 && a.currentTime === 0; i++)"
        " await new Promise(f => setTimeout(f, 20));"
        " return [a.currentTime, a.duration]; })()"
    )
    at, duration = tab.value(play)
    assert at > 0
    assert duration == pytest.approx(0.5, abs=0.01)
    assert tab.problems() == []


def test_the_keyboard_suffices(page: Path, open_page: Open) -> None:
    tab = open_page(page, 1200)
    reached = []
    for _ in range(16):
        tab.press(*TAB)
        reached.append(tab.value("document.activeElement.innerText.trim()"))
        if reached[-1] == "System":
            break
    assert reached[0] == "Skip to the results"
    assert "Provenance" in reached  # the list of sections
    assert reached[-1] == "System"
    outline = tab.value("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    assert tab.value(ROWS) == ["one", "twobest"]
    for order in ("ascending", "descending"):
        tab.press(*ENTER)
        state = "document.activeElement.closest('th').getAttribute('aria-sort')"
        assert tab.value(state) == order
    assert tab.value(ROWS) == ["twobest", "one"]


def test_without_javascript_all_is_there(page: Path, open_page: Open) -> None:
    tab = open_page(page, 390, scripts=False)
    document = tab.call("DOM.getDocument", depth=0)["root"]["nodeId"]

    def found(selector: str) -> list[int]:
        return tab.call("DOM.querySelectorAll", nodeId=document, selector=selector)["nodeIds"]

    assert len(found(".utt")) == 4
    assert len(found("#results tbody tr")) == 2
    assert not found("th button")  # nothing that would do nothing
    assert len(found(".tools[hidden]")) == 1
    box = tab.call("DOM.getBoxModel", nodeId=found(".utt")[0])["model"]
    assert box["height"] > 50
    assert tab.problems() == []
