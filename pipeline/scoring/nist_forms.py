"""Scores in the forms of NIST's SCTK: ``.sys``, ``.raw``, ``.dtl``, ``.pra``, ``.sgml``, and the
files that its ``sclite`` reads: trn, stm, ctm."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import floor
from statistics import mean, median, stdev

from pipeline.scoring.alignment import CORRECT, INS, NO_HYP, Alignments, Pair
from pipeline.scoring.counts import ErrorCounts
from pipeline.scoring.summary import Confusions

_LETTERS = "CSDIC"  # a forgiven deletion counts as correct

Speakers = Mapping[str, str]  # utt_id -> speaker


# ---- what sclite reads ---------------------------------------------------------------------------


def trn_id(utt_id: str, speaker: str) -> str:
    """The name of an utterance in a trn file; before its first ``-`` or ``_`` is the speaker."""
    return utt_id if utt_id.startswith((f"{speaker}-", f"{speaker}_")) else f"{speaker}-{utt_id}"


def trn_lines(texts: Iterable[tuple[str, Sequence[str]]], speakers: Speakers) -> Iterator[str]:
    """``token token (speaker-utterance)``."""
    for utt_id, tokens in texts:
        yield f"{' '.join(tokens)} ({trn_id(utt_id, speakers[utt_id])})\n"


def stm_lines(
    pairs: Iterable[Pair], speakers: Speakers, durations: Mapping[str, float], sexes: Speakers
) -> Iterator[str]:
    """``utt 1 speaker 0.00 duration <O,M> tokens``, labels as Kaldi's TIMIT recipe has them."""
    yield ';; LABEL "O" "Overall" "Overall"\n'
    yield ';; LABEL "F" "Female" "Female speakers"\n;; LABEL "M" "Male" "Male speakers"\n'
    for utt_id, ref, _ in pairs:
        labels = ",".join(["O", *{"m": "M", "f": "F"}.get(sexes.get(utt_id, ""), "")])
        times = f"0.00 {durations[utt_id]:.3f}"
        yield f"{utt_id} 1 {speakers[utt_id]} {times} <{labels}> {' '.join(ref)}\n"


# ---- tables by speaker ---------------------------------------------------------------------------


def sys_table(
    title: str, speakers: Mapping[str, ErrorCounts], total: ErrorCounts, *, percent: bool
) -> str:
    """sclite's ``.sys`` (percentages) or ``.raw`` (counts): a row a speaker, then their summary."""
    numbers = [_numbers(counts, percent=percent) for counts in speakers.values()]
    sum_name = "Sum/Avg" if percent else "Sum"
    width = 1 + max(6, len(sum_name), *map(len, speakers))
    rule = f"|{'-' * width}+{'-' * 13}+{'-' * 41}|"
    inside = len(rule) - 2
    heads = f" # Snt # Wrd | {'Corr    Sub    Del    Ins    Err  S.Err'} |"
    shown = [f"|{' SPKR':<{width}}|{heads}", rule]
    for name, row in zip(speakers, numbers, strict=True):
        shown += [f"|{' ' + name:<{width}}|{_row(row, percent=percent)}", rule]
    shown.pop()
    bar = f"|{'=' * inside}|"
    sums = _row(_numbers(total, percent=percent), percent=percent)
    shown += [bar, f"|{' ' + sum_name:<{width}}|{sums}", bar]
    columns = list(zip(*numbers, strict=True))
    for name, of in (("Mean", mean), ("S.D.", _deviation), ("Median", median)):
        row = [float(of(column)) for column in columns]
        left = (width - len(name)) // 2
        shown.append(f"|{' ' * left + name:<{width}}|{_row(row, means=True, percent=percent)}")
    head = "SYSTEM SUMMARY PERCENTAGES by SPEAKER"  # in its .raw as well
    left = (80 - len(head)) // 2
    top = f"\n\n\n{' ' * left}{head}{' ' * (80 - len(head) - left)}\n\n"
    left = (inside - len(title)) // 2
    name_row = f"|{' ' * left}{title:<{inside - left}}|"
    box = [f",{'-' * inside}.", name_row, f"|{'-' * inside}|", *shown, f"`{'-' * inside}'"]
    return top + "".join(f"{' ' * 7}{line}\n" for line in box)


def _numbers(counts: ErrorCounts, *, percent: bool) -> list[float]:
    """Sentences, words, Corr, Sub, Del, Ins, Err, S.Err."""
    own = (counts.cor, counts.sub, counts.del_, counts.ins, counts.errors)
    sizes = [counts.sentences, counts.ref_tokens]
    if not percent:
        return [*sizes, *own, counts.wrong_sentences]
    return [*sizes, *map(counts.share, own), counts.sentence_error_rate]


def _row(row: Sequence[float], *, percent: bool, means: bool = False) -> str:
    sizes = f"{row[0]:5.1f}{row[1]:7.1f}" if means else f"{row[0]:5.0f}{row[1]:7.0f}"
    form = ".1f" if percent or means else "d"
    row = [_rounded(x) for x in row] if percent or means else row
    numbers = f"{row[2]:5{form}}" + "".join(f"{x:7{form}}" for x in row[3:])
    return f"{sizes} |{numbers} |"


def _rounded(value: float) -> float:
    """To one digit, half of it up, as sclite rounds."""
    return floor(10 * value + 0.5) / 10


def _deviation(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


# ---- details -------------------------------------------------------------------------------------


def dtl_text(title: str, total: ErrorCounts, wrong: Sequence[int], found: Confusions) -> str:
    """sclite's ``.dtl``: totals, confusion pairs, insertions, deletions, substitutions.

    Args:
        title: names the system.
        total: of all utterances.
        wrong: utterances with a substitution, a deletion, an insertion.
        found: how often what happened.
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
    said: dict[str, int] = {}
    heard: dict[str, int] = {}
    for ref, hyp, count in found.substitutions:
        said[ref] = said.get(ref, 0) + count
        heard[hyp] = heard.get(hyp, 0) + count
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
        ("SUBSTITUTIONS", _by_count(said), notes[0]),
        ("FALSELY RECOGNIZED", _by_count(heard), notes[1]),
    ]
    text = ""
    for head, items, note in lists:
        size = len(items)
        text += f"{head:<33}Total{'':17}({size})\n{'':33}With >=  1 occurrences ({size})\n\n"
        for number, (what, count) in enumerate(items, start=1):
            text += f"{number:4d}: {count:4d}  ->  {what}\n"
        text += f"     -------\n{sum(count for _, count in items):10d}\n\n\n"
        text += f"{note}\n" if note else "\n"
    return text


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


# ---- alignments ----------------------------------------------------------------------------------


def pra_lines(title: str, alignments: Alignments, speakers: Speakers) -> Iterator[str]:
    """sclite's ``.pra``: REF, HYP and Eval of each utterance in columns, errors in capitals."""

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
    """sclite's ``.sgml``, which ``sc_stats`` reads."""

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
    """Utterances with a substitution, with a deletion, with an insertion."""
    counts = (alignments.tallies[:, 1:] > 0).sum(axis=0)
    return int(counts[0]), int(counts[1]), int(counts[2])
