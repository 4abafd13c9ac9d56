#!/usr/bin/env python3
"""Print the scores of decode directories, one per line, as text or as columns for other programs.

Usage: print_scores.py [options] DECODE_DIR …

e.g.: print_scores.py exp/ctc/decode_dev exp/ctc/decode_test
      print_scores.py --columns=metric,error_rate,errors,ref_tokens exp/ctc/decode_test

Without --columns a line holds DECODE_DIR and its error rate in the form of Kaldi's compute-wer,
with the name of the error rate. With --columns a line holds the values of these columns between
tabs: metric (such as PER), error_rate in percent, errors, ref_tokens, ins, del, sub; and, if
decode.sh has decoded, frames, and seconds for the time of all jobs together for encoding and
search.

See also: score.sh, print_results.py, sweep_beam.sh, tune_fusion.sh
"""

import pipeline.environment  # isort: skip  # noqa: F401

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import run
from pipeline.errors import UsageError
from pipeline.scoring.kaldi_forms import rate_text
from pipeline.scoring.results import read_score, read_speed, read_wer

COLUMNS: dict[str, Callable[[Path], object]] = {
    "metric": lambda path: read_score(path).name,
    "error_rate": lambda path: rate_text(read_wer(path).error_rate),
    "errors": lambda path: read_wer(path).errors,
    "ref_tokens": lambda path: read_wer(path).ref_tokens,
    "ins": lambda path: read_wer(path).ins,
    "del": lambda path: read_wer(path).del_,
    "sub": lambda path: read_wer(path).sub,
    "frames": lambda path: read_speed(path).frames,
    "seconds": lambda path: f"{read_speed(path).seconds:.2f}",
}


def main(
    directories: Annotated[
        list[Path], Argument(metavar="DECODE_DIR…", help="decode directories scored by score.py")
    ],
    columns: Annotated[
        str, Option(help="columns to print, separated by commas; empty: lines of text")
    ] = "",
) -> int:
    names = columns.split(",") if columns else []
    for name in names:
        if name not in COLUMNS:
            raise UsageError(
                f"--columns: unknown column {name!r}; choose from {', '.join(COLUMNS)}"
            )
    for directory in directories:
        score = read_score(directory)  # even if no column needs it, because it checks the digest
        if names:
            print(*(COLUMNS[name](directory) for name in names), sep="\t")
        else:
            for line, _ in score.lines(read_wer(directory)):
                print(f"{directory}: {line}")
    return 0


if __name__ == "__main__":
    run(main)
