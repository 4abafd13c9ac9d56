"""From model directories to one page that opens from disk: everything is inside it.

The same inputs give the same bytes: the page says when models were trained, not when it was made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.report.audio import Key, Player, make_players
from pipeline.report.comparisons import compare_systems
from pipeline.report.model_facts import ModelFacts, read_model
from pipeline.report.page import render
from pipeline.report.pictures import Gallery
from pipeline.report.scores import Decoding, find_decodings, labels
from pipeline.report.selection import Recognised, recognised_by_all, typical, worst_and_best
from pipeline.report.views import (
    PictureSet,
    TestSet,
    Texts,
    make_card,
    make_groups,
    make_systems,
)
from pipeline.report.workers import read_teamwork


@dataclass(frozen=True)
class ReportOptions:
    """What stands on the page.

    Attributes:
        title: at its head; empty: one that names the models.
        sets: which ``decode_SET``; all that are scored if empty.
        utts: utterances whose pictures are drawn; if empty, a typical one of the first set.
        audio: how many recordings may be listened to.
        worst: how many of the worst utterances of each set are shown.
        best: how many of the best.
        pictures: whether anything is drawn.
    """

    title: str = ""
    sets: tuple[str, ...] = ()
    utts: tuple[str, ...] = ()
    audio: int = 8
    worst: int = 10
    best: int = 5
    pictures: bool = True

    def check(self) -> None:
        """Raise UsageError for a count below 0."""
        for name in ("audio", "worst", "best"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name} must be 0 or more, not {getattr(self, name)}")


def make_report(models: Sequence[Path], options: ReportOptions) -> str:
    """The page as HTML.

    Raises:
        UsageError: an option is out of its range, or an utterance is in no set.
        DataError: a model has no scores, or a file is damaged.
    """
    options.check()
    models = list(dict.fromkeys(models))
    by_set: dict[str, list[Decoding]] = {}
    for decoding in find_decodings(models, options.sets):
        by_set.setdefault(decoding.set_name, []).append(decoding)
    facts = {model: read_model(model) for model in models}
    names = labels(models)
    recognised = {name: recognised_by_all(by_set[name]) for name in sorted(by_set)}
    chosen = {n: worst_and_best(recognised[n], options.worst, options.best) for n in recognised}
    drawn = _to_draw(recognised, options)
    wanted = _to_listen_to(by_set, chosen, drawn)[: options.audio]
    players, audio_notes = make_players(wanted)
    sets = [_test_set(by_set[n], facts, names, chosen[n], players) for n in recognised]
    gallery = Gallery(names) if options.pictures else None
    for test_set in sets:
        _add_pictures(test_set, by_set[test_set.name], drawn, gallery, players)
    return render(
        sets,
        [(names[model], facts[model]) for model in models],
        title=options.title,
        curves=gallery.curves(models) if gallery else ([], []),
        sweeps=gallery.sweeps(models) if gallery else ([], []),
        teamwork=read_teamwork(models, names, gallery),
        audio_notes=audio_notes,
        with_pictures=options.pictures,
    )


def _to_draw(recognised: Mapping[str, Sequence[Recognised]], options: ReportOptions) -> list[Key]:
    """(set, utterance) of each utterance whose pictures are drawn."""
    if not options.utts and options.pictures:
        first = next((name for name in recognised if recognised[name]), None)
        found = typical(recognised[first]) if first is not None else None
        return [(first, found)] if first is not None and found is not None else []
    drawn = []
    for utt_id in dict.fromkeys(options.utts):
        sets = [
            name for name, group in recognised.items() if any(h.utt_id == utt_id for h in group)
        ]
        if not sets:
            raise UsageError(
                f"--utt={utt_id}: no such utterance in {', '.join(recognised)}; "
                "the first column of DECODE_DIR/scoring/alignments has their names"
            )
        drawn += [(name, utt_id) for name in sets]
    return drawn if options.pictures else []


def _to_listen_to(
    by_set: Mapping[str, Sequence[Decoding]],
    chosen: Mapping[str, Sequence[Recognised]],
    drawn: Sequence[Key],
) -> list[tuple[Decoding, str]]:
    """Utterances worth listening to, first those drawn, then those of each set in turn."""
    turns = zip_longest(*([(name, h.utt_id) for h in group] for name, group in chosen.items()))
    keys = dict.fromkeys([*drawn, *(key for turn in turns for key in turn if key is not None)])
    return [(by_set[name][0], utt_id) for name, utt_id in keys]


def _test_set(
    decodings: Sequence[Decoding],
    facts: Mapping[Path, ModelFacts],
    names: Mapping[Path, str],
    chosen: Sequence[Recognised],
    players: Mapping[Key, Player],
) -> TestSet:
    """All systems on one set, without pictures."""
    name, texts = decodings[0].set_name, Texts(decodings)
    own = [names[d.model] for d in decodings]
    comparisons, comparison_notes = compare_systems(decodings, own, texts.speaker)
    systems = make_systems(decodings, own, [facts[d.model] for d in decodings], comparisons)
    cards = [make_card(h, texts, players.get((name, h.utt_id))) for h in chosen]
    notes = []
    for system in systems:
        if not system.decoding.utterances:
            notes.append(f"{system.label} has no table of alignments for {name}.")
    return TestSet(
        name,
        systems,
        make_groups(decodings),
        comparisons,
        comparison_notes,
        texts,
        cards=cards,
        notes=notes,
    )


def _add_pictures(
    test_set: TestSet,
    decodings: Sequence[Decoding],
    drawn: Sequence[Key],
    gallery: Gallery | None,
    players: Mapping[Key, Player],
) -> None:
    """Draw the confusions of a set's systems, and its utterances that are to be drawn."""
    if gallery is None:
        return
    for decoding in decodings:
        pictures, notes = gallery.confusions(decoding)
        test_set.confusion_pictures += pictures
        test_set.confusion_notes += notes
    for name, utt_id in drawn:
        if name == test_set.name:
            pictures, notes = gallery.inside(decodings, utt_id)
            words, player = test_set.texts.words(utt_id), players.get((name, utt_id))
            test_set.drawn.append(PictureSet(utt_id, words, player, pictures, notes))
