#!/usr/bin/env python3
"""Draw the confusion matrix of alignments: which token was recognised in place of which.

Usage: plot_confusions.py [options] ALIGNMENTS PICTURE

e.g.: plot_confusions.py alignments confusions.png
      plot_confusions.py --title="TIMIT, core test" scoring/alignments confusions.svg

ALIGNMENTS is the output of align_text.py, a file or an rspecifier. A row belongs to a reference
token and shows percentages of its count; the last column shows deletions. The last row shows
insertions, in percent of all insertions. Phones are ordered by class (vowels, semivowels, nasals,
…), other tokens alphabetically. The colour follows the square root of the percentage, so that rare
confusions stay visible. PICTURE ends in .png or .svg.

See also: align_text.py, compute_wer.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import run


def main(
    alignments: Annotated[
        str, Argument(help="alignments of align_text.py, a file or an rspecifier")
    ],
    picture: Annotated[Path, Argument(help="picture to write, .png or .svg")],
    title: Annotated[
        str, Option(help="title above the picture; empty: the name of ALIGNMENTS")
    ] = "",
    special_symbol: Annotated[str, Option(help="symbol where a token has no partner")] = "<eps>",
    separator: Annotated[str, Option(help="symbol between two pairs")] = ";",
    most: Annotated[
        int, Option(help="number of most frequent tokens that get a row of their own")
    ] = 62,
) -> int:
    from pipeline.plots.confusions import count_confusions, draw_confusions, read_pairs
    from pipeline.plots.figures import check_picture, save

    check_picture(picture)
    pairs = read_pairs(alignments, special_symbol=special_symbol, separator=separator)
    found = count_confusions(pairs, most=most)
    save(draw_confusions(found, title=title or alignments), picture)
    return 0


if __name__ == "__main__":
    run(main)
