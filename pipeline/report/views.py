"""What the template shows: scores of several systems brought side by side, numbers as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.data_dir import DataDir
from pipeline.errors import PipelineError
from pipeline.report.audio import Player
from pipeline.report.comparisons import MAIN_TEST, Comparison
from pipeline.report.model_facts import ModelFacts
from pipeline.report.pictures import Picture
from pipeline.report.scores import EPS, Decoding
from pipeline.report.selection import Recognised
from pipeline.scoring.counts import ErrorCounts

GROUP_TITLES = {"speaker": "By speaker", "gender": "By sex", "dialect": "By dialect region"}
MEMBERS = {"gender": {"m": "male", "f": "female"}}
FEW_ROWS = 12  # a table of more has a filter
MANY_ROWS = 20  # and of more than that scrolls in its box


@dataclass(frozen=True)
class System:
    """A row of the table of systems.

    Attributes:
        standing: ``best`` of the set, or ``best under its rule`` where the set has several; empty
            for all others, and where there is nothing to be better than.
        p_value: against the best under the same rule, by matched pairs.
    """

    label: str
    facts: ModelFacts
    decoding: Decoding
    standing: str
    p_value: float | None

    @property
    def remarks(self) -> list[str]:
        """What must stand beside the number: the rule's variants, and that it is partial."""
        return [text for text in (self.decoding.score.note, self.decoding.partial) if text]


@dataclass(frozen=True)
class GroupRow:
    """A speaker, a sex, a dialect: what each system makes of it, None where it is not scored."""

    key: str
    sentences: int
    ref_tokens: int
    counts: list[ErrorCounts | None]


@dataclass(frozen=True)
class Group:
    """A table of such rows; ``highest`` is the largest rate in it, in percent."""

    title: str
    column: str
    rows: list[GroupRow]
    highest: float

    @property
    def long(self) -> bool:
        """Whether it is worth a filter."""
        return len(self.rows) > FEW_ROWS

    @property
    def tall(self) -> bool:
        """Whether it would push the rest of the page away."""
        return len(self.rows) > MANY_ROWS

    def share(self, rate: float | None) -> float:
        """A rate in percent of the highest: the length of its bar."""
        return 100.0 * (rate or 0.0) / self.highest if self.highest else 0.0


@dataclass(frozen=True)
class Card:
    """An utterance: who speaks, what was said, how each system recognised it."""

    recognised: Recognised
    speaker: str
    words: str
    search: str  # what the text filter looks into
    player: Player | None


@dataclass(frozen=True)
class PictureSet:
    """The pictures of one utterance, and why some are not there."""

    utt_id: str
    words: str
    player: Player | None
    pictures: list[Picture]
    notes: list[str]


class Texts:
    """Who says what in a set, as far as its data directory tells."""

    def __init__(self, decodings: Sequence[Decoding]) -> None:
        path = next((d.data_dir for d in decodings if d.data_dir), None)
        self._speakers = _table(path, "utt2spk")
        self._words = _table(path, "text_words")

    def speaker(self, utt_id: str) -> str:
        """The speaker, or nothing."""
        return self._speakers.get(utt_id, "")

    def words(self, utt_id: str) -> str:
        """What is said in words, or nothing."""
        return self._words.get(utt_id, "")


def _table(path: Path | None, name: str) -> Mapping[str, str]:
    try:
        data = DataDir(path) if path else None
        return data.table(name) if data and data.has(name) else {}
    except PipelineError:  # the page does without it
        return {}


@dataclass
class TestSet:
    """All systems on one set. ``notes`` say what is not there, and why."""

    __test__ = False  # pytest takes the name for its own

    name: str
    systems: list[System]
    groups: list[Group]
    comparisons: list[Comparison]
    comparison_notes: list[str]
    texts: Texts
    cards: list[Card] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    confusion_pictures: list[Picture] = field(default_factory=list)
    confusion_notes: list[str] = field(default_factory=list)
    drawn: list[PictureSet] = field(default_factory=list)

    @property
    def speakers(self) -> list[str]:
        """Who speaks the utterances that are shown."""
        return sorted({card.speaker for card in self.cards} - {""})


def rivals_of(decodings: Sequence[Decoding]) -> list[list[int]]:
    """Indices of scores that may be ranked against each other, the lowest error rate first.

    These are whole and under one rule; of equals the first comes first. A score that stands alone
    is in none of the lists.
    """
    groups: dict[object, list[int]] = {}
    rates = [decoding.score.total.rate for decoding in decodings]
    for i, decoding in enumerate(decodings):
        if not decoding.partial and rates[i] is not None:
            groups.setdefault(decoding.standard, []).append(i)
    ranked = [sorted(group, key=lambda i: rates[i] or 0.0) for group in groups.values()]
    return [group for group in ranked if len(group) > 1]


def make_systems(
    decodings: Sequence[Decoding],
    labels: Sequence[str],
    facts: Sequence[ModelFacts],
    comparisons: Sequence[Comparison],
) -> list[System]:
    """The rows of a set in the table of systems."""
    p_values = {(c.first, c.second): c.p_values.get(MAIN_TEST) for c in comparisons}
    several = len({decoding.standard for decoding in decodings}) > 1
    standings: dict[int, str] = {}
    against: dict[int, float | None] = {}
    for best, *others in rivals_of(decodings):
        standings[best] = "best under its rule" if several else "best"
        against |= {i: p_values.get((min(i, best), max(i, best))) for i in others}
    return [
        System(label, fact, decoding, standings.get(i, ""), against.get(i))
        for i, (label, fact, decoding) in enumerate(zip(labels, facts, decodings, strict=True))
    ]


def make_groups(decodings: Sequence[Decoding]) -> list[Group]:
    """One table a grouping that any system has, speakers first."""
    names = dict.fromkeys([*GROUP_TITLES, *(n for d in decodings for n in d.score.groups)])
    groups = [_group(name, [d.score.groups.get(name, {}) for d in decodings]) for name in names]
    return [group for group in groups if group.rows]


def _group(name: str, tables: Sequence[Mapping[str, ErrorCounts]]) -> Group:
    keys = sorted({key for table in tables for key in table})
    rows = []
    for key in keys:
        counts = [table.get(key) for table in tables]
        known = next(c for c in counts if c is not None)
        shown = MEMBERS.get(name, {}).get(key, key)
        rows.append(GroupRow(shown, known.sentences, known.ref_tokens, counts))
    rates = [c.rate for row in rows for c in row.counts if c and c.rate is not None]
    title = GROUP_TITLES.get(name, f"By {name}")
    return Group(title, title.removeprefix("By "), rows, max(rates, default=0.0))


def make_card(recognised: Recognised, texts: Texts, player: Player | None) -> Card:
    """What is shown of an utterance."""
    speaker, words = texts.speaker(recognised.utt_id), texts.words(recognised.utt_id)
    found = [recognised.utt_id, speaker, words]
    for version in recognised.versions.values():
        found += [ref if ref == hyp else f"{_bare(ref)}>{_bare(hyp)}" for ref, hyp in version.pairs]
        found += [hyp for ref, hyp in version.pairs if ref != hyp]
    search = " ".join(dict.fromkeys(" ".join(found).lower().split()))
    return Card(recognised, speaker, words, search, player)


def _bare(token: str) -> str:
    return "" if token == EPS else token
