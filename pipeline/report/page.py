"""The page itself: the template, filled in. What comes from files is escaped by Jinja."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.report.model_facts import ModelFacts
from pipeline.report.pictures import Found
from pipeline.report.views import TestSet
from pipeline.report.workers import Teamwork
from pipeline.scoring.results import SavedScore

HERE = Path(__file__).parent
LISTED = 12  # of the most frequent confusions, insertions, deletions


@dataclass(frozen=True)
class Axis:
    """Where error rates stand in the drawing of the intervals, 0 … 100."""

    low: float
    high: float

    def at(self, rate: float) -> str:
        """The place of a rate in percent, with a margin at both ends."""
        width = self.high - self.low
        return f"{2.0 + 96.0 * (rate - self.low) / width if width else 50.0:.2f}"


def render(
    sets: Sequence[TestSet],
    models: Sequence[tuple[str, ModelFacts]],
    *,
    title: str,
    curves: Found,
    sweeps: Found,
    teamwork: Sequence[Teamwork],
    audio_notes: list[str],
    with_pictures: bool,
) -> str:
    """The page as HTML.

    Args:
        sets: what each set's systems can do.
        models: name and facts of each.
        title: at the head; empty: one that names the models.
        curves: the learning curves.
        sweeps: error rates against the width of the beam.
        teamwork: of the models that were trained asynchronously.
        audio_notes: why recordings are not there.
        with_pictures: whether pictures were asked for.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    script = (HERE / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    scores = [system.decoding.score for one in sets for system in one.systems]
    measures = {score.name for score in scores}
    interval = next((score.interval for score in scores if score.interval), None)
    return environment.get_template("template.html").render(
        title=title or "What " + _listed([name for name, _ in models]) + " recognise",
        rules=_rules(sets),
        summary=_summary(sets, [facts for _, facts in models]),
        style=(HERE / "style.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=f"sha256-{digest}",
        sets=sets,
        models=models,
        measure=measures.pop() if len(measures) == 1 else "Error rate",
        axis=_axis(scores),
        beside=next((score.beside.name for score in scores if score.beside), ""),
        level=f"{100 * interval.level:.3g}" if interval else "",
        replications=interval.replications if interval else 0,
        compared=any(one.comparisons for one in sets),
        listed=LISTED,
        curves=curves,
        sweeps=sweeps,
        teamwork=teamwork,
        audio_notes=audio_notes,
        with_pictures=with_pictures,
    )


def _rules(sets: Sequence[TestSet]) -> list[str]:
    """How the scores were made, a sentence a rule; of several, what each of them is of."""
    scored: dict[str, list[str]] = {}
    for one in sets:
        for system in one.systems:
            name = f"{system.label} on {one.name}"
            scored.setdefault(system.decoding.score.rule.rstrip("."), []).append(name)
    if len(scored) == 1:
        return [f"Scoring rule: {next(iter(scored))}."]
    return [f"Scoring rule of {_listed(names)}: {rule}." for rule, names in scored.items()]


def _axis(scores: Iterable[SavedScore]) -> Axis | None:
    intervals = [score.interval for score in scores if score.interval]
    if not intervals:
        return None
    return Axis(min(i.low for i in intervals), max(i.high for i in intervals))


def _summary(sets: Sequence[TestSet], models: Sequence[ModelFacts]) -> str:
    """How much was measured on what, and when and from what the models came about."""
    many = "models" if len(models) > 1 else "model"
    parts = [f"{len(models)} {many} on {_listed([one.name for one in sets])}"]
    days = list(dict.fromkeys(day for m in models if (day := m.fact("started")[:10])))
    commits = list(dict.fromkeys(commit for m in models if (commit := m.fact("commit"))))
    seeds = list(dict.fromkeys(seed for m in models if (seed := m.fact("seed"))))
    for what, values in (("trained on", days), ("commit", commits), ("seed", seeds)):
        if values:
            parts.append(f"{what} {_listed(values)}")
    return " · ".join(parts)


def _listed(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


# ---- numbers as text -----------------------------------------------------------------------------


def percent(value: float | None) -> str:
    """12.34, or a dash."""
    return "–" if value is None else f"{value:.2f}"


def count(value: int | None) -> str:
    """12,345, or a dash."""
    return "–" if value is None else f"{value:,}"


def p_value(value: float | None) -> str:
    """0.012, < 0.001, or a dash."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def points(value: float) -> str:
    """+1.23, with a true minus sign."""
    return f"{value:+.2f}".replace("-", "−")


def plain(value: float | None) -> str:
    """What a column is sorted by; empty where there is nothing."""
    return "" if value is None else repr(value)


FILTERS = {
    "percent": percent,
    "count": count,
    "p_value": p_value,
    "points": points,
    "plain": plain,
}
