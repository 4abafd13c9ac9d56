"""Summaries of alignments: error counts of groups, counts of distinct errors, and both for JSON."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.scoring.alignment import CORRECT, DEL, INS, SUB, Alignments, add_up
from pipeline.scoring.counts import ErrorCounts

FORMAT_VERSION = 1
UNKNOWN = "unknown"  # the group of an utterance if its speaker's gender, dialect … is not known

Groups = dict[str, dict[str, ErrorCounts]]  # grouping (speaker, gender …) -> group -> its errors


def count_groups(alignments: Alignments, group_of: Mapping[str, Mapping[str, str]]) -> Groups:
    """The error counts of each group of utterances.

    Args:
        alignments: the alignments of the utterances.
        group_of: grouping (speaker, gender, dialect …) -> utterance -> group.
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
    """The counts of the distinct steps of alignments, the most frequent first.

    Attributes:
        substitutions: (reference token, hypothesis token, count).
        insertions, deletions, correct: (token, count).
    """

    substitutions: list[tuple[str, str, int]]
    insertions: list[tuple[str, int]]
    deletions: list[tuple[str, int]]
    correct: list[tuple[str, int]]


def count_confusions(alignments: Alignments) -> Confusions:
    """Count the distinct steps; those with equal counts are in the order of their tokens."""
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
    """The counts and rates of a group for JSON; a rate with the denominator 0 is null."""
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
