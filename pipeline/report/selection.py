"""Which utterances a page shows: the worst, the best, and one that is as good as the whole."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.scores import ERRORS, Decoding, Utterance

TYPICAL_TOKENS = range(8, 31)  # few enough for a picture to be read


@dataclass(frozen=True)
class Recognised:
    """One utterance as several systems recognised it.

    Attributes:
        best: whether it stands among the best, not the worst.
        versions: index of a decoding among those of the set -> its alignment.
        errors: of all systems together.
        ref_tokens: the same.
    """

    utt_id: str
    best: bool
    versions: dict[int, Utterance]
    errors: int
    ref_tokens: int

    @property
    def rate(self) -> float:
        """Errors in percent of the reference's tokens, all systems together; may be infinite."""
        if self.ref_tokens:
            return 100.0 * self.errors / self.ref_tokens
        return math.inf if self.errors else 0.0

    @property
    def kinds(self) -> str:
        """The letters of the errors that occur."""
        return "".join(k for k in ERRORS if any(k in v.kinds for v in self.versions.values()))


def recognised_by_all(decodings: Sequence[Decoding]) -> list[Recognised]:
    """Every utterance of a set that all its systems with alignments have recognised, by id."""
    tables = {i: d.utterances for i, d in enumerate(decodings) if d.utterances}
    if not tables:
        return []
    common = set.intersection(*(set(table) for table in tables.values()))
    found = []
    for utt_id in sorted(common):
        versions = {i: table[utt_id] for i, table in tables.items()}
        errors = sum(v.errors for v in versions.values())
        tokens = sum(v.ref_tokens for v in versions.values())
        found.append(Recognised(utt_id, False, versions, errors, tokens))
    return found


def worst_and_best(recognised: Sequence[Recognised], worst: int, best: int) -> list[Recognised]:
    """The worst, worst first, then the best, best first; none twice.

    Utterances go by their errors a token; of equally good ones the longer is the better, of
    equally bad ones the longer is the worse.
    """
    by_worst = sorted(recognised, key=lambda h: (-h.rate, -h.ref_tokens, h.utt_id))[:worst]
    taken = {h.utt_id for h in by_worst}
    rest = [h for h in recognised if h.utt_id not in taken]
    by_best = sorted(rest, key=lambda h: (h.rate, -h.ref_tokens, h.utt_id))[:best]
    good = [Recognised(h.utt_id, True, h.versions, h.errors, h.ref_tokens) for h in by_best]
    return [*by_worst, *good]


def typical(recognised: Sequence[Recognised]) -> str | None:
    """The utterance whose error rate is nearest to that of all, of a length that fits a picture."""
    tokens = sum(h.ref_tokens for h in recognised)
    if not tokens:
        return None
    rate = 100.0 * sum(h.errors for h in recognised) / tokens
    sized = [
        h for h in recognised if h.ref_tokens // len(h.versions) in TYPICAL_TOKENS
    ] or recognised
    return min(sized, key=lambda h: (abs(h.rate - rate), h.utt_id)).utt_id
