#!/usr/bin/env python3
"""Print the errors on what occurred in training and on what did not, a line for each set.

Usage: count_unseen.py [options] TRAIN_TEXT DECODE_DIR …

DECODE_DIR was scored by score.py. The characters of its references, or the syllables with
--units=pinyin, are counted in two groups: those that TRAIN_TEXT has, and those that it lacks, which
no network can put out. An error is a substitution or a deletion; insertions belong to neither group
and count in the error rate of all. With --units=pinyin the last column is the share of all
syllables of which only the tone was wrong.

e.g.: count_unseen.py char/data/train/text char/exp/ctc/decode_test_words
e.g.: count_unseen.py --units=pinyin pinyin/data/train/text pinyin/exp/ctc/decode_test_words

See also: score.py, print_results.py, prepare_data.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import run
from pipeline.scoring.results import read_score, scored_file
from pipeline.scoring.transcripts import read_transcripts
from pipeline.text.mandarin import without_tone

NOTHING = "<eps>"

Pairs = Counter[tuple[str, str]]


class Units(StrEnum):
    """What was scored."""

    CHAR = "char"
    PINYIN = "pinyin"


def main(
    train_text: Annotated[
        str, Argument(metavar="TRAIN_TEXT", help="text of the training set, file or rspecifier")
    ],
    directories: Annotated[
        list[Path], Argument(metavar="DECODE_DIR…", help="decode directories scored by score.py")
    ],
    units: Annotated[Units, Option(help="what was scored: char or pinyin")] = Units.CHAR,
) -> int:
    from pipeline.plots.confusions import read_pairs

    rspecifier = train_text if ":" in train_text else f"ark:{train_text}"
    words = {word for line in read_transcripts(rspecifier).values() for word in line}
    known = words if units is Units.PINYIN else {char for word in words for char in word}
    for number, directory in enumerate(directories):
        name = read_score(directory).name
        pairs = read_pairs(str(scored_file(directory, "alignments")))
        if number == 0:
            print(heading(name, units))
        print(f"{directory.parent.name}/{directory.name:24}"[:32].ljust(32) + line(pairs, known))
    return 0


def heading(name: str, units: Units) -> str:
    """The first line of the table."""
    tone = "   tone alone" if units is Units.PINYIN else ""
    unit = "syllables" if units is Units.PINYIN else "characters"
    return f"{'':32}{'%' + name:>8} of {unit:12}seen: error   unseen: different, all, error{tone}"


def line(pairs: Pairs, known: set[str]) -> str:
    """The numbers of a set: of all, of those that training has, of those that it lacks."""
    ref: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    inserted = tones = 0
    for (said, heard), count in pairs.items():
        if said == NOTHING:
            inserted += count
            continue
        ref[said] += count
        if said != heard:
            wrong[said] += count
            tones += count * (without_tone(said) == without_tone(heard))
    unseen = {symbol for symbol in ref if symbol not in known}
    total, new = sum(ref.values()), sum(ref[s] for s in unseen)
    lost = sum(wrong[s] for s in unseen)
    fields = [
        f"{percent(sum(wrong.values()) + inserted, total):>8} of {total:<12}",
        f"{percent(sum(wrong.values()) - lost, total - new):>11}   ",
        f"{len(unseen):>17}, {new:>3}, {percent(lost, new):>5}",
    ]
    if any(symbol[-1:].isdigit() for symbol in ref):
        fields.append(f"{percent(tones, total):>13}")
    return "".join(fields)


def percent(part: int, whole: int) -> str:
    """A share in percent; - of nothing."""
    return f"{100 * part / whole:.2f}" if whole else "-"


if __name__ == "__main__":
    run(main)
