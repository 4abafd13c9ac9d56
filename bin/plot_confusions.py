#!/usr/bin/env python3
"""Draw which token was recognised for which, from an alignment.

Usage: plot_confusions.py [options] ALIGNMENTS PICTURE

e.g.: plot_confusions.py alignments confusions.png
      plot_confusions.py --title="TIMIT, core test" scoring/alignments confusions.svg

ALIGNMENTS is what align_text.py writes, a file or an rspecifier. Rows are reference tokens, each in
percent of its count; the last column are deletions, the last row insertions, in percent of all of
them. Phones stand by class (vowels, semivowels, nasals, …), other tokens by the alphabet. Colours
go by the root of the percentage, so that rare confusions show. PICTURE ends in .png or .svg.

See also: align_text.py, compute_wer.py
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import run


def main(
    alignments: Annotated[str, Argument(help="file or rspecifier of align_text.py")],
    picture: Annotated[Path, Argument(help="where to: .png or .svg")],
    title: Annotated[str, Option(help="above the picture; empty: the file's name")] = "",
    special_symbol: Annotated[str, Option(help="stands where a token has no partner")] = "<eps>",
    separator: Annotated[str, Option(help="stands between pairs")] = ";",
    most: Annotated[int, Option(help="tokens with a row of their own, the most frequent")] = 62,
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
