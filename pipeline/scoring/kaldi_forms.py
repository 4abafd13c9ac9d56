"""Scores in the formats of Kaldi's tools: ``%WER`` lines, and per_utt, per_spk and ops."""

from collections.abc import Iterator, Mapping

import numpy as np

from pipeline.scoring.alignment import EPS, INS, NO_HYP, Alignments
from pipeline.scoring.bootstrap import Interval
from pipeline.scoring.counts import ErrorCounts

_LETTERS = "CSDIC"  # a forgiven deletion counts as correct
_KINDS = ("correct", "substitution", "deletion", "insertion", "correct")
GAP = "***"  # stands for a missing token, as in Kaldi's recipes


def wer_lines(counts: ErrorCounts, *, absent: int = 0, name: str = "WER", note: str = "") -> str:
    """The three lines of Kaldi's ``compute-wer``.

    Args:
        counts: the error counts.
        absent: number of references without a hypothesis.
        name: the name of the error rate.
        note: text at the end of the first line.

    Raises:
        DataError: there are no reference tokens or no utterances.
    """
    sentence_rate, rate = map(rate_text, (counts.sentence_error_rate, counts.error_rate))
    kinds = f"{counts.ins} ins, {counts.del_} del, {counts.sub} sub"
    partial = " [PARTIAL]" if absent else ""
    return (
        f"%{name} {rate} [ {counts.errors} / {counts.ref_tokens}, {kinds} ]{partial}{note}\n"
        f"%SER {sentence_rate} [ {counts.wrong_sentences} / {counts.sentences} ]\n"
        f"Scored {counts.sentences} sentences, {absent} not present in hyp.\n"
    )


def rate_text(rate: float) -> str:
    """A rate in percent as ``compute-wer`` prints it: in single precision, to two decimals."""
    return f"{float(np.float32(rate)):.2f}"


def bootci_line(found: Interval, *, name: str = "WER", note: str = "") -> str:
    """The line of Kaldi's ``compute-wer-bootci`` for one system."""
    ends = f"{found.low:.2f}, {found.high:.2f}"
    return f"Set1: %{name} {found.mean:.2f} 95% Conf Interval [ {ends} ]{note}\n"


def alignment_lines(
    alignments: Alignments, *, eps: str = EPS, separator: str = ";"
) -> Iterator[str]:
    """Lines of Kaldi's ``align-text``: ``utt a a ; b <eps> ``, with a blank after every token."""

    def pair(op: int, ref: str, hyp: str) -> str:
        return f"{eps if op == INS else ref} {eps if op in NO_HYP else hyp} "

    steps = alignments.lines(pair, f"{separator} ")
    for utt_id, text in zip(alignments.utt_ids, steps, strict=True):
        yield f"{utt_id} {text}\n"


def per_utt_lines(alignments: Alignments) -> Iterator[str]:
    """Lines of Kaldi's ``wer_per_utt_details.pl``: ref, hyp and op in columns, then C S I D."""

    def centred(op: int, ref: str, hyp: str) -> tuple[str, ...]:
        cells = (GAP if op == INS else ref, GAP if op in NO_HYP else hyp, _LETTERS[op])
        width = max(map(len, cells))
        return tuple(
            " " * (width - len(cell) - (width - len(cell)) // 2)
            + cell
            + " " * ((width - len(cell)) // 2)
            for cell in cells
        )

    rows = zip(alignments.utt_ids, alignments.columns(centred, "  "), strict=True)
    for (utt, lines), (cor, sub, del_, ins) in zip(rows, alignments.tallies.tolist(), strict=True):
        for name, line in zip(("ref ", "hyp ", "op  "), lines or ("", "", ""), strict=True):
            yield f"{utt} {name} {line}\n"
        yield f"{utt} #csid {cor} {sub} {ins} {del_}\n"


def per_group_lines(groups: Mapping[str, ErrorCounts], total: ErrorCounts, title: str) -> str:
    """The table of Kaldi's ``wer_per_spk_details.pl``: counts and percentages of each group, then
    the SUM."""
    width = max(15, *map(len, groups))
    heads = ("#SENT", "#WORD", "Corr", "Sub", "Ins", "Del", "Err", "S.Err")
    text = f"{title.upper():<{width}} id {''.join(f' {head:>10}' for head in heads)}\n"
    for name, counts in [*groups.items(), ("SUM", total)]:
        sizes = f" {counts.sentences:>10} {counts.ref_tokens:>10}"
        numbers = (counts.cor, counts.sub, counts.ins, counts.del_, counts.errors)
        raw = "".join(f" {n:>10}" for n in (*numbers, counts.wrong_sentences))
        text += f"{name:<{width}} raw{sizes}{raw}\n"
        if counts.ref_tokens:
            rates = (*map(counts.share, numbers), counts.sentence_error_rate)
            text += f"{name:<{width}} sys{sizes}{''.join(f' {r:>10.2f}' for r in rates)}\n"
    return text


def ops_lines(alignments: Alignments) -> Iterator[str]:
    """Lines of Kaldi's ``wer_ops_details.pl``, sorted by kind and count as in its score.sh."""
    kinds, _, counts = alignments.kinds
    rows = [
        (_KINDS[op], -count, GAP if op == INS else ref, GAP if op in NO_HYP else hyp)
        for (op, ref, hyp), count in zip(kinds, counts.tolist(), strict=True)
    ]
    width = min(16, max((len(word) for row in rows for word in row[2:]), default=0))
    digits = max((len(str(-row[1])) for row in rows), default=0)
    for kind, count, ref, hyp in sorted(rows):
        yield f"{kind:<12}  {ref:>{width}}    {hyp:>{width}}    {-count:>{digits}}\n"
