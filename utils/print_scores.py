#!/usr/bin/env python3
"""Print the scores of decode directories, a line each, to read or for other programs.

Usage: print_scores.py [options] DECODE_DIR …

e.g.: print_scores.py exp/ctc/decode_dev exp/ctc/decode_test
      print_scores.py --columns=metric,error_rate,errors,ref_tokens exp/ctc/decode_test

Without --columns a line is DECODE_DIR and its error rate in the form of Kaldi's compute-wer, under
the score's own name. With it a line has the values of the columns between tabs: metric (such as
PER), error_rate in percent, errors, ref_tokens, ins, del, sub; and, where decode.sh has decoded,
frames, and the seconds that all jobs together took for encoding and search.

See also: score.sh, print_results.py, sweep_beam.sh, tune_fusion.sh
"""

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
    directories: Annotated[list[Path], Argument(metavar="DECODE_DIR…", help="scored by score.py")],
    columns: Annotated[str, Option(help="names between commas; empty: lines to read")] = "",
) -> int:
    names = columns.split(",") if columns else []
    for name in names:
        if name not in COLUMNS:
            raise UsageError(f"--columns: no {name!r}; there are {', '.join(COLUMNS)}")
    for directory in directories:
        score = read_score(directory)  # also where no column needs it: it may be out of date
        if names:
            print(*(COLUMNS[name](directory) for name in names), sep="\t")
        else:
            print(f"{directory}: {score.line(read_wer(directory))}")
    return 0


if __name__ == "__main__":
    run(main)
