"""A decode directory's scores as one object: totals, groups, confusions, and as JSON."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.scoring.alignment import CORRECT, DEL, INS, SUB, Alignments, add_up
from pipeline.scoring.counts import ErrorCounts

FORMAT_VERSION = 1
UNKNOWN = "unknown"  # the group of an utterance whose speaker's sex, dialect … is not told

Groups = dict[str, dict[str, ErrorCounts]]  # speaker, gender …: name of a group: its errors


def count_groups(alignments: Alignments, group_of: Mapping[str, Mapping[str, str]]) -> Groups:
    """Errors by group.

    Args:
        alignments: of N utterances.
        group_of: of each grouping (speaker, gender, dialect) each utterance's group.
    """
    tallies = alignments.tallies
    found: Groups = {}
    for grouping, groups in group_of.items():
        names = [groups.get(utt_id, UNKNOWN) for utt_id in alignments.utt_ids]
        values, owners = np.unique(np.array(names, dtype=object), return_inverse=True)
        order = np.argsort(owners, kind="stable")
        bounds = np.searchsorted(owners[order], np.arange(len(values) + 1))
        found[grouping] = {
            str(value): add_up(tallies[order[bounds[n] : bounds[n + 1]]])
            for n, value in enumerate(values)
        }
    return found


@dataclass(frozen=True)
class Confusions:
    """How often each kind of step was taken, the most frequent first.

    Attributes:
        substitutions: (reference token, hypothesis token, count).
        insertions, deletions, correct: (token, count).
    """

    substitutions: list[tuple[str, str, int]]
    insertions: list[tuple[str, int]]
    deletions: list[tuple[str, int]]
    correct: list[tuple[str, int]]


def count_confusions(alignments: Alignments) -> Confusions:
    """The different steps with their counts; equal counts in the order of the tokens."""
    kinds, _, counts = alignments.kinds
    pairs: Counter[tuple[str, str]] = Counter()
    singles: dict[int, Counter[str]] = {op: Counter() for op in (INS, DEL, CORRECT)}
    for (op, ref, hyp), count in zip(kinds, counts.tolist(), strict=True):
        if op == SUB:
            pairs[ref, hyp] += count
        else:
            own = op if op in singles else CORRECT  # a forgiven deletion
            singles[own][hyp if op == INS else ref] += count
    substitutions = [(*pair, count) for pair, count in _sorted(pairs)]
    return Confusions(substitutions, *(_sorted(singles[op]) for op in (INS, DEL, CORRECT)))


def _sorted(counts: Counter[Any]) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def counts_as_data(counts: ErrorCounts) -> dict[str, Any]:
    """Counts and rates of a group for JSON; a rate without anything to divide by is null."""
    return {
        "ref_tokens": counts.ref_tokens,
        "hyp_tokens": counts.ref_tokens - counts.del_ + counts.ins,
        "cor": counts.cor,
        "ins": counts.ins,
        "del": counts.del_,
        "sub": counts.sub,
        "errors": counts.errors,
        "error_rate": _rounded(counts.rate),
        "sentences": counts.sentences,
        "wrong_sentences": counts.wrong_sentences,
        "sentence_error_rate": _rounded(counts.sentence_rate),
    }


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 6)
