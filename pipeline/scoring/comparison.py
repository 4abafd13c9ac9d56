"""The results of significance tests on several systems, as a table and as JSON."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import DataError
from pipeline.scoring.counts import ErrorCounts
from pipeline.scoring.score_options import ScoringOptions, bracket
from pipeline.scoring.significance import TestResult
from pipeline.scoring.summary import counts_as_data
from pipeline.tables import TextReader

Results = Mapping[tuple[int, int], Sequence[TestResult]]  # numbers of two systems -> their tests


def find_speakers(utt_ids: Sequence[str], utt2spk: str = "") -> list[str]:
    """The speaker of each utterance.

    Args:
        utt_ids: the utterances.
        utt2spk: rspecifier of a table of speakers. If it is empty, the speaker is the part of the
            utterance's name before the first ``-`` or ``_``, as in sclite.

    Raises:
        DataError: the table lacks an utterance; names it.
    """
    if not utt2spk:
        return [re.split("[-_]", utt_id, maxsplit=1)[0] for utt_id in utt_ids]
    table = dict(TextReader(utt2spk))
    if odd := next((u for u, speaker in table.items() if " " in speaker or not speaker), None):
        raise DataError(
            f"{utt2spk}: expected one speaker of {odd}, not {table[odd]!r}; correct the line"
        )
    try:
        return [table[utt_id] for utt_id in utt_ids]
    except KeyError as error:
        raise DataError(f"{utt2spk}: has no speaker of {error.args[0]}; add a line") from None


def table(
    names: Sequence[str], totals: Sequence[ErrorCounts], results: Results, options: ScoringOptions
) -> str:
    """A table of the systems with their error rates, then of each pair with its four tests."""
    width = max(map(len, names))
    text = ""
    for name, counts in zip(names, totals, strict=True):
        kind = "CER" if options.cer else "WER"
        rate = f"%{kind} {counts.error_rate:.2f} [ {counts.errors} / {counts.ref_tokens} ]"
        text += f"{name:<{width}}  {rate}{bracket(options)}\n"
    for (a, b), tests in results.items():
        text += f"\n{names[a]} and {names[b]}\n"
        for test in tests:
            better = names[(a, b)[test.better]] if test.significant else "~"
            p = "<0.001" if test.p < 0.001 else f"{test.p:.3f}"
            details = ", ".join(f"{k} {_short(v)}" for k, v in test.details.items())
            text += f"  {test.abbreviation}  {better:<{width}}  {p:>6} {test.stars:<3}  {details}\n"
    text += "\nMP matched pairs of segments, SI signs and WI Wilcoxon's ranks of speakers' rates,\n"
    return (
        text + "MN McNemar on utterances; two-tailed; * 5 %, ** 1 %, *** 0.1 %, ~ no difference\n"
    )


def _short(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def as_data(
    names: Sequence[str], totals: Sequence[ErrorCounts], results: Results, options: ScoringOptions
) -> dict[str, Any]:
    """The same results for JSON."""
    return {
        "rule": options.describe(),
        "systems": [
            {"name": name, **counts_as_data(counts)}
            for name, counts in zip(names, totals, strict=True)
        ],
        "comparisons": [
            {
                "systems": [names[a], names[b]],
                "test": test.abbreviation,
                "name": test.name,
                "p": test.p,
                "significant": test.significant,
                "better": names[(a, b)[test.better]] if test.better >= 0 else None,
                **test.details,
            }
            for (a, b), tests in results.items()
            for test in tests
        ],
    }
