"""Scores in the formats of NIST's SCTK: ``.sys``, ``.raw``, ``.dtl``, ``.pra``, ``.sgml``, and the
input files of its ``sclite``: trn, stm and ctm."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import floor
from statistics import mean, median, stdev

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
    and is left out of the means of percentages.
    """
    numbers = [_numbers(counts, percent=percent) for counts in speakers.values()]
    silent = [percent and not counts.ref_tokens for counts in speakers.values()]
    sum_name = "Sum/Avg" if percent else "Sum"
    width = max(len(sum_name) + 1, 6, *(len(name) + 2 for name in speakers))
    rule = f"|{'-' * width}+{'-' * 13}+{'-' * 41}|"
    inside = len(rule) - 2
    heads = f" # Snt # Wrd | {'Corr    Sub    Del    Ins    Err  S.Err'} |"
    shown = [f"|{' SPKR':<{width}}|{heads}", rule]
    for name, row, star in zip(speakers, numbers, silent, strict=True):
        shown += [f"|{' ' + name:<{width}}|{_row(row, percent=percent, star=star)}", rule]
    shown.pop()
    bar = f"|{'=' * inside}|"
    sums = _row(_numbers(total, percent=percent), percent=percent)
    shown += [bar, f"|{' ' + sum_name:<{width}}|{sums}", bar]
    for name, of in (("Mean", mean), ("S.D.", _deviation), ("Median", median)):
        row = _summary(numbers, silent, of)
        left = (width - len(name)) // 2
        cells = _row(row, percent=percent, means=True, plus=any(silent))
        shown.append(f"|{' ' * left + name:<{width}}|{cells}")
    head = "SYSTEM SUMMARY PERCENTAGES by SPEAKER"  # in its .raw as well
    left = (80 - len(head)) // 2
    top = f"\n\n\n{' ' * left}{head}{' ' * (80 - len(head) - left)}\n\n"
    left = (inside - len(title)) // 2
    name_row = f"|{' ' * left}{title:<{inside - left}}|"
    box = [f",{'-' * inside}.", name_row, f"|{'-' * inside}|", *shown, f"`{'-' * inside}'"]
    margin = " " * ((80 - len(rule)) // 2)
    notes = _NOTES if any(silent) else ""
    return top + "".join(f"{margin}{line}\n" for line in box) + notes


_NOTES = """
* No Reference words for this/these speaker(s).  Word counts supplied
  rather than percents.
# No Reference words for this/these speaker(s).  NCE not computable.
+ Speaker(s) with no reference data is ignored
"""


def _numbers(counts: ErrorCounts, *, percent: bool) -> list[float]:
    """The numbers of a row: sentences, words, Corr, Sub, Del, Ins, Err and S.Err."""
    own = (counts.cor, counts.sub, counts.del_, counts.ins, counts.errors)
    sizes = [counts.sentences, counts.ref_tokens]
    if not percent:
        return [*sizes, *own, counts.wrong_sentences]
    shares = map(counts.share, own) if counts.ref_tokens else own
    return [*sizes, *shares, counts.sentence_error_rate]


def _summary(
    rows: Sequence[Sequence[float]], silent: Sequence[bool], of: Callable[[list[float]], float]
) -> list[float]:
    """A row of statistics over all speakers; those of words leave out the silent speakers."""
    spoken = [row for row, quiet in zip(rows, silent, strict=True) if not quiet] or rows
    columns, counted = list(zip(*rows, strict=True)), list(zip(*spoken, strict=True))
    chosen = [*columns[:2], *counted[2:7], columns[7]]
    return [float(of(list(column))) for column in chosen]


def _row(
    row: Sequence[float],
    *,
    percent: bool,
    means: bool = False,
    star: bool = False,
    plus: bool = False,
) -> str:
    sizes = f"{row[0]:5.1f}{row[1]:7.1f}" if means else f"{row[0]:5.0f}{row[1]:7.0f}"
    form = ".1f" if percent or means else "d"
    shown = [f"{_rounded(x) if form == '.1f' else x:{form}}" for x in row[2:]]
    if star:
        shown[:-1] = [f"{x:.0f}" for x in row[2:7]]
    mark = "*" if star else "+" if plus else " "
    numbers = mark.join(f"{text:>{5 if n == 0 else 6}}" for n, text in enumerate(shown))
    return f"{sizes} |{numbers} |"


def _rounded(value: float) -> float:
    """Round to one digit, halves up, as sclite does."""
    return floor(10 * value + 0.5) / 10


def _deviation(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


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
        share = _rounded(100 * count / total.sentences)
        text += f"{gap}{head:<39} {share:5.1f}%   ({count:4d})\n"
    text += "\n\nWORD RECOGNITION PERFORMANCE\n\n"
    rows = (
        ("Total Error ", total.errors), ("Correct ", total.cor), ("Substitution ", total.sub),
        ("Deletions ", total.del_), ("Insertions ", total.ins),
    )  # fmt: skip
    for number, (head, count) in enumerate(rows):
        gap = "\n" if number < 2 else ""
        text += f"Percent {head:<18}={_rounded(total.share(count)):7.1f}%   ({count:4d})\n{gap}"
    accuracy = 100.0 - total.share(total.errors)
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
