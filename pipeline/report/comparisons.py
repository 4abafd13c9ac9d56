"""Whether two systems on the same set differ by more than chance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pipeline.errors import PipelineError
from pipeline.report.scores import EPS, Decoding, Utterance
from pipeline.scoring.alignment import CORRECT, DEL, FORGIVEN, INS, SUB, Alignments
from pipeline.scoring.significance import compare

MAIN_TEST = "MP"  # the one that the table of systems shows
TESTS = {"MP": "Matched pairs", "SI": "Sign", "WI": "Wilcoxon", "MN": "McNemar"}
BY_SPEAKER = ("SI", "WI")
OPS = {"C": CORRECT, "S": SUB, "D": DEL, "I": INS, "F": FORGIVEN}


@dataclass(frozen=True)
class Comparison:
    """Two systems, as indices among those of the set.

    Attributes:
        difference: error rate of the second less that of the first, in points.
        p_values: abbreviation of the test -> two-tailed p-value.
    """

    first: int
    second: int
    difference: float
    p_values: dict[str, float]

    @property
    def named(self) -> dict[str, float]:
        """The p-values by the tests' names."""
        return {TESTS[short]: p for short, p in self.p_values.items()}


def compare_systems(
    decodings: Sequence[Decoding], names: Sequence[str], speaker_of: Callable[[str], str]
) -> tuple[list[Comparison], list[str]]:
    """Every pair of a set's systems, and sentences on what is left out.

    Args:
        decodings: of the set.
        names: of the systems.
        speaker_of: from an utterance to its speaker; empty: unknown.
    """
    set_name = decodings[0].set_name
    if len(decodings) < 2:
        return [], [f"One system alone on {set_name}: there is nothing to compare it with."]
    found, notes = [], []
    for (i, first), (j, second) in combinations(enumerate(decodings), 2):
        if obstacle := _obstacle(first, second, names[i], names[j]):
            notes.append(obstacle)
            continue
        utt_ids = sorted(first.utterances)
        speakers = [speaker_of(utt_id) for utt_id in utt_ids]
        sides = [alignments([d.utterances[u] for u in utt_ids]) for d in (first, second)]
        try:
            results = compare(sides[0], sides[1], speakers)
        except PipelineError as error:
            notes.append(f"{names[i]} and {names[j]} are not compared: {error}.")
            continue
        kept = {r.abbreviation: r.p for r in results}
        if not all(speakers):
            kept = {test: p for test, p in kept.items() if test not in BY_SPEAKER}
            notes.append(f"No tests over speakers on {set_name}: who speaks is not known.")
        difference = (second.score.total.rate or 0.0) - (first.score.total.rate or 0.0)
        found.append(Comparison(i, j, difference, kept))
    return found, list(dict.fromkeys(notes))


def _obstacle(first: Decoding, second: Decoding, name: str, other: str) -> str:
    """Why two scores tell nothing of each other, a sentence; empty where they do."""
    for decoding, own in ((first, name), (second, other)):
        if decoding.partial:
            return f"{own} is not compared on {decoding.set_name}: {decoding.partial}."
    pair = f"{name} and {other} on {first.set_name} are not compared: scored"
    if first.standard != second.standard:
        return f"{pair} under other rules."
    return "" if _same_references(first, second) else f"{pair} on other references."


def _same_references(first: Decoding, second: Decoding) -> bool:
    one, two = first.utterances, second.utterances
    return (
        bool(one)
        and one.keys() == two.keys()
        and all(one[utt].reference == two[utt].reference for utt in one)
    )


def alignments(utterances: Sequence[Utterance]) -> Alignments:
    """The steps of utterances as the tests read them."""
    numbers: dict[str, int] = {}

    def number(token: str) -> int:
        return -1 if token == EPS else numbers.setdefault(token, len(numbers))

    steps = [step for utterance in utterances for step in utterance.steps]
    lengths = [len(utterance.pairs) for utterance in utterances]
    ref = np.array([number(ref) for _, ref, _ in steps], dtype=np.int32)
    hyp = np.array([number(hyp) for _, _, hyp in steps], dtype=np.int32)
    return Alignments(
        [utterance.utt_id for utterance in utterances],
        list(numbers),
        ref,
        hyp,
        np.array([OPS[kind] for kind, _, _ in steps], dtype=np.uint8),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )
