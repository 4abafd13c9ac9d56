"""Scores in the formats of NIST's SCTK: ``.sys``, ``.raw``, ``.dtl``, ``.pra``, ``.sgml``, and the
input files of its ``sclite``: trn, stm and ctm."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import sqrt
from statistics import median

import numpy as np

from pipeline.scoring.alignment import CORRECT, INS, NO_HYP, Alignments, Pair
from pipeline.scoring.counts import ErrorCounts
from pipeline.scoring.summary import Confusions

_LETTERS = "CSDIC"  # a forgiven deletion counts as correct

Speakers = Mapping[str, str]  # utt_id -> speaker


# ---- input files of sclite -----------------------------------------------------------------------


def trn_id(utt_id: str, speaker: str) -> str:
    """The name of an utterance in a trn file; it begins with the speaker and ``-`` or ``_``."""
    return utt_id if utt_id.startswith((f"{speaker}-", f"{speaker}_")) else f"{speaker}-{utt_id}"


def trn_lines(
    texts: Iterable[tuple[str, Sequence[str]]], speakers: Speakers, optional: Collection[str] = ()
) -> Iterator[str]:
    """Lines ``token token (speaker-utterance)``, optional tokens as ``(token)`` for sclite -D."""
    for utt_id, tokens in texts:
        words = _marked(tokens, optional)
        yield f"{words} ({trn_id(utt_id, speakers[utt_id])})\n"


def _marked(tokens: Sequence[str], optional: Collection[str]) -> str:
    return " ".join([f"({t})" if t in optional else t for t in tokens] if optional else tokens)


def is_sclite_syntax(token: str) -> bool:
    """Whether sclite would not read a token as a word, but as a part of its own syntax."""
    return (
        token == "@"
        or any(sign in token for sign in '{}"')
        or token.startswith((";;", "("))
        or token.endswith((")", "*"))
    )


def stm_lines(
    pairs: Iterable[Pair],
    speakers: Speakers,
    durations: Mapping[str, float],
    sexes: Speakers,
    optional: Collection[str] = (),
) -> Iterator[str]:
    """Lines ``utt 1 speaker 0.00 duration <O,M> tokens``, labelled as in Kaldi's TIMIT recipe."""
    yield ';; LABEL "O" "Overall" "Overall"\n'
    yield ';; LABEL "F" "Female" "Female speakers"\n;; LABEL "M" "Male" "Male speakers"\n'
    for utt_id, ref, _ in pairs:
        labels = ",".join(["O", *{"m": "M", "f": "F"}.get(sexes.get(utt_id, ""), "")])
        times = f"0.00 {durations[utt_id]:.3f}"
        yield f"{utt_id} 1 {speakers[utt_id]} {times} <{labels}> {_marked(ref, optional)}\n"


# ---- tables by speaker ---------------------------------------------------------------------------


def sys_table(
    title: str, speakers: Mapping[str, ErrorCounts], total: ErrorCounts, *, percent: bool
) -> str:
    """The table of sclite's ``.sys`` (percentages) or ``.raw`` (counts): speakers, then a summary.

    As in sclite, a speaker without reference tokens is shown with counts in place of percentages
    and is left out of the means of percentages. A column is as wide as its widest cell in bytes.
    """
    numbers = [_numbers(counts, percent=percent) for counts in speakers.values()]
    silent = [percent and not counts.ref_tokens for counts in speakers.values()]
    rows = [[" SPKR", " # Snt", "# Wrd", "Corr", " Sub", " Del", " Ins", " Err", "S.Err"]]
    for name, row, star in zip(speakers, numbers, silent, strict=True):
        rows.append([f" {name} ", *_cells(row, percent=percent, star=star)])
    sums = _cells(_numbers(total, percent=percent), percent=percent)
    rows.append([" Sum/Avg" if percent else " Sum", *sums])
    marks = ["", " ", " ", *("+" if any(silent) else " ") * 5, " "]
    for name, of in (("Mean", _mean), ("S.D.", _deviation), ("Median", median)):
        cells = [f"{name:^6}", *(f"{_rounded(x):5.1f}" for x in _summary(numbers, silent, of))]
        rows.append([cell + mark for cell, mark in zip(cells, marks, strict=True)])
    head = _centred("SYSTEM SUMMARY PERCENTAGES by SPEAKER", 80)  # in its .raw as well
    return f"\n\n\n{head}\n\n{_box(title, rows)}" + (_NOTES if any(silent) else "")


def _box(title: str, rows: Sequence[Sequence[str]]) -> str:
    """A table with a frame in the middle of a page of 80: heads, speakers, the sum, three more."""
    widths = [max(map(_size, column)) for column in zip(*rows, strict=True)]
    inside = max(sum(widths) + len(widths) - 1, _size(title))
    more = inside - sum(widths) - len(widths) + 1  # blanks that a wide title leaves to the columns
    ends = [int(more / len(widths) * n + 0.5) for n in range(1, len(widths))] + [more]
    gaps = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    lines = []
    for number, row in enumerate(rows):
        fields = []
        for column, (text, width, gap) in enumerate(zip(row, widths, gaps, strict=True)):
            is_name = column == 0 and number < len(rows) - 3
            cell = _left(text, width) if is_name else _centred(text, width)
            fields.append(" " * (gap // 2) + cell + " " * (gap - gap // 2))
        lines.append(f"|{fields[0]}|{' '.join(fields[1:3])}|{' '.join(fields[3:])}|")
    parts = [sum(widths[a:b]) + sum(gaps[a:b]) + b - a - 1 for a, b in ((0, 1), (1, 3), (3, 9))]
    rule, bar = f"|{'+'.join('-' * part for part in parts)}|", f"|{'=' * inside}|"
    shown = [line for row in lines[:-4] for line in (row, rule)][:-1]
    box = [f",{'-' * inside}.", f"|{_centred(title, inside)}|", f"|{'-' * inside}|", *shown, bar]
    box += [lines[-4], bar, *lines[-3:], f"`{'-' * inside}'"]
    margin = " " * ((78 - inside) // 2)
    return "".join(f"{margin}{line}\n" for line in box)


def _size(text: str) -> int:
    """The width of a text as sclite counts it, in bytes of UTF-8."""
    return len(text.encode("utf-8", "surrogateescape"))


def _left(text: str, width: int) -> str:
    return text + " " * (width - _size(text))


def _centred(text: str, width: int) -> str:
    before = (width - _size(text)) // 2
    return " " * before + _left(text, width - before)


_NOTES = """
* No Reference words for this/these speaker(s).  Word counts supplied
  rather than percents.
# No Reference words for this/these speaker(s).  NCE not computable.
+ Speaker(s) with no reference data is ignored
"""


def _percent(count: int, of: int) -> float:
    """A percentage, in sclite's order of operations: 57 of 80 is a little less than 71.25."""
    return count / of * 100.0 if of else 0.0


def _numbers(counts: ErrorCounts, *, percent: bool) -> list[float]:
    """The numbers of a row: sentences, words, Corr, Sub, Del, Ins, Err and S.Err."""
    own = (counts.cor, counts.sub, counts.del_, counts.ins, counts.errors)
    sizes = [counts.sentences, counts.ref_tokens]
    if not percent:
        return [*sizes, *own, counts.wrong_sentences]
    shares = [_percent(n, counts.ref_tokens) for n in own] if counts.ref_tokens else own
    return [*sizes, *shares, _percent(counts.wrong_sentences, counts.sentences)]


def _summary(
    rows: Sequence[Sequence[float]], silent: Sequence[bool], of: Callable[[list[float]], float]
) -> list[float]:
    """A row of statistics over all speakers; those of words leave out the silent speakers.

    sclite takes the silent out one after the other, each at its place in the whole list, so after
    the first it takes out the next speaker instead; this does the same, for the same numbers.
    """
    spoken = list(rows)
    for place, quiet in enumerate(silent):
        if quiet:
            spoken.append(spoken.pop(place))
    spoken = spoken[: len(rows) - sum(silent)] or list(rows)
    columns, counted = list(zip(*rows, strict=True)), list(zip(*spoken, strict=True))
    chosen = [*columns[:2], *counted[2:7], columns[7]]
    return [float(of(list(column))) for column in chosen]


def _cells(row: Sequence[float], *, percent: bool, star: bool = False) -> list[str]:
    """The cells of a row of numbers, with a star if they are counts in place of percentages."""
    digits, mark = (0 if star or not percent else 1), "*" if star else " "
    own = [f"{_rounded(x, digits):5.{digits}f}{mark}" for x in row[2:7]]
    sentences = f"{_rounded(row[7], int(percent)):5.{int(percent)}f} "
    return [*(f"{x:5.0f}" for x in row[:2]), *own, sentences]


def _rounded(value: float, digits: int = 1) -> float:
    """Round halves up, then to single precision, as sclite does."""
    scale = 10.0**digits
    return float(np.float32(int(value * scale + (0.5 if value > 0 else -0.5)))) / scale


def _mean(values: Sequence[float]) -> float:
    """The mean, in which the values are added one after the other, as in sclite."""
    total = 0.0
    for value in values:
        total += value
    return total / len(values)


def _deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample, in sclite's order of operations."""
    centre, total = _mean(values), 0.0
    for value in values:
        total += (value - centre) * (value - centre)
    return sqrt(total / (len(values) - 1)) if total else 0.0


# ---- details -------------------------------------------------------------------------------------


def dtl_text(title: str, total: ErrorCounts, wrong: Sequence[int], found: Confusions) -> str:
    """The text of sclite's ``.dtl``: totals, confusion pairs, insertions, deletions, substitutions.

    Args:
        title: the name of the system.
        total: the error counts of all utterances.
        wrong: the numbers of utterances with a substitution, a deletion and an insertion.
        found: the counts of the distinct errors.
    """
    text = f"DETAILED OVERALL REPORT FOR THE SYSTEM: {title}\n\nSENTENCE RECOGNITION PERFORMANCE\n"
    text += f"\n sentences                                        {total.sentences:4d}\n"
    kinds = ("substitions", "deletions", "insertions")  # as sclite spells them
    heads = (" with errors", *(f"   with {kind}" for kind in kinds))
    for gap, head, count in zip(
        ("", "\n", "", ""), heads, (total.wrong_sentences, *wrong), strict=True
    ):
        share = _rounded(_percent(count, total.sentences))
        text += f"{gap}{head:<39} {share:5.1f}%   ({count:4d})\n"
    text += "\n\nWORD RECOGNITION PERFORMANCE\n\n"
    rows = (
        ("Total Error ", total.errors), ("Correct ", total.cor), ("Substitution ", total.sub),
        ("Deletions ", total.del_), ("Insertions ", total.ins),
    )  # fmt: skip
    for number, (head, count) in enumerate(rows):
        gap = "\n" if number < 2 else ""
        share = _rounded(_percent(count, total.ref_tokens))
        text += f"Percent {head:<18}={share:7.1f}%   ({count:4d})\n{gap}"
    accuracy = 100.0 - _percent(total.errors, total.ref_tokens)
    text += f"Percent Word Accuracy     ={_rounded(accuracy):7.1f}%\n"
    hyp = total.ref_tokens - total.del_ + total.ins
    sizes = (("Ref. words", total.ref_tokens), ("Hyp. words", hyp))
    text += "\n\n"
    for head, count in (*sizes, ("Aligned words", total.ref_tokens + total.ins)):
        text += f"{head:<26}={'':11}({count:4d})\n"
    return text + "\n" + _lists(found)


def _lists(found: Confusions) -> str:
    """The five lists of a ``.dtl``."""
    replaced: dict[str, int] = {}
    recognised: dict[str, int] = {}
    for ref, hyp, count in found.substitutions:
        replaced[ref] = replaced.get(ref, 0) + count
        recognised[hyp] = recognised.get(hyp, 0) + count
    pairs = [(f"{ref} ==> {hyp}", count) for ref, hyp, count in found.substitutions]
    notes = [
        "* NOTE: The 'Substitution' words are those reference words\n"
        "        for which the recognizer supplied an incorrect word.\n\n",
        "* NOTE: The 'Falsely Recognized' words are those hypothesis words\n"
        "        which the recognizer incorrectly substituted for a reference word.\n",
    ]
    lists = [
        ("CONFUSION PAIRS", pairs, ""),
        ("INSERTIONS", found.insertions, ""),
        ("DELETIONS", found.deletions, ""),
        ("SUBSTITUTIONS", _by_count(replaced), notes[0]),
        ("FALSELY RECOGNIZED", _by_count(recognised), notes[1]),
    ]
    parts = []
    for head, items, note in lists:
        size = len(items)
        parts.append(f"{head:<33}Total{'':17}({size})\n{'':33}With >=  1 occurrences ({size})\n\n")
        parts += [f"{n:4d}: {count:4d}  ->  {what}\n" for n, (what, count) in enumerate(items, 1)]
        parts.append(f"     -------\n{sum(count for _, count in items):10d}\n\n\n")
        parts.append(f"{note}\n" if note else "\n")
    return "".join(parts)


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


# ---- alignments ----------------------------------------------------------------------------------


def pra_lines(title: str, alignments: Alignments, speakers: Speakers) -> Iterator[str]:
    """Lines of sclite's ``.pra``: REF, HYP and Eval in columns, with errors in capital letters."""

    def column(which: int) -> Iterator[str]:
        def padded(op: int, ref: str, hyp: str) -> str:
            length = len(hyp if op == INS else ref if op in NO_HYP else max(ref, hyp, key=len))
            ref = "*" * length if op == INS else ref if op == CORRECT else ref.upper()
            hyp = "*" * length if op in NO_HYP else hyp if op == CORRECT else hyp.upper()
            letter = "" if op == CORRECT else _LETTERS[op]
            return (ref, hyp, letter)[which].ljust(max(map(len, (ref, hyp)))) + " "

        return alignments.lines(padded, "")

    names = sorted({speakers[utt_id] for utt_id in alignments.utt_ids})
    order = {name: number for number, name in enumerate(names)}
    yield f"\n\n\t\tDUMP OF SYSTEM ALIGNMENT STRUCTURE\n\nSystem name:   {title}\n\nSpeakers: \n"
    yield "".join(f"{number:5d}:  {name}\n" for number, name in enumerate(names)) + "\n"
    columns = zip(column(0), column(1), column(2), alignments.tallies.tolist(), strict=True)
    sizes = dict.fromkeys(order, 0)
    for utt_id in alignments.utt_ids:
        sizes[speakers[utt_id]] += 1
    last = None
    for utt_id, (ref, hyp, op, tally) in zip(alignments.utt_ids, columns, strict=True):
        speaker = speakers[utt_id]
        if speaker != last:
            yield f"Speaker sentences{order[speaker]:4d}:  {speaker}   #utts: {sizes[speaker]}\n"
        last = speaker
        yield f"id: ({trn_id(utt_id, speaker)})\nScores: (#C #S #D #I) "
        yield f"{' '.join(map(str, tally))}\n"
        yield f"REF:  {ref}\nHYP:  {hyp}\nEval: {op}\n\n" if ref else "\n"
    yield "\n"


def sgml_lines(title: str, alignments: Alignments, speakers: Speakers) -> Iterator[str]:
    """Lines of sclite's ``.sgml``, which ``sc_stats`` reads."""

    def word(op: int, ref: str, hyp: str) -> str:
        ref_side = "" if op == INS else f'"{ref}"'
        return f"{_LETTERS[op]},{ref_side},{'' if op in NO_HYP else f'{chr(34)}{hyp}{chr(34)}'}"

    yield f'<SYSTEM title="{title}" ref_fname="ref.trn" hyp_fname="hyp.trn" creation_date="" '
    yield 'format="2.4" frag_corr="FALSE" opt_del="FALSE" weight_ali="FALSE" weight_filename="">\n'
    last = None
    lengths = (alignments.starts[1:] - alignments.starts[:-1]).tolist()
    rows = zip(alignments.utt_ids, alignments.lines(word, ":"), lengths, strict=True)
    for number, (utt_id, words, length) in enumerate(rows):
        speaker = speakers[utt_id]
        if speaker != last:
            yield f'{"</SPEAKER>" + chr(10) if last is not None else ""}<SPEAKER id="{speaker}">\n'
        last = speaker
        yield f'<PATH id="({trn_id(utt_id, speaker)})" word_cnt="{length}" sequence="{number}">\n'
        yield f"{words}\n</PATH>\n"
    yield "</SPEAKER>\n</SYSTEM>\n"


def count_wrong(alignments: Alignments) -> tuple[int, int, int]:
    """The numbers of utterances with a substitution, with a deletion and with an insertion."""
    counts = (alignments.tallies[:, 1:] > 0).sum(axis=0)
    return int(counts[0]), int(counts[1]), int(counts[2])
