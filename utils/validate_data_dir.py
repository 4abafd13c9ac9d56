#!/usr/bin/env python3
"""Check a Kaldi data directory and report all problems.

Usage: validate_data_dir.py [options] DIR

The form, the order and the keys of all files are checked, and whether they name the same
utterances, speakers and recordings. Each problem is reported in a line "FILE:LINE: problem;
remedy". The exit status is 1 if there are problems; warnings do not count.

e.g.: validate_data_dir.py --no-feats data/train

See also: fix_data_dir.py, split_data.py, subset_data_dir.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import log, run
from pipeline.data.data_dir import validate, validation_warnings


def main(
    directory: Annotated[str, Argument(metavar="DIR", help="data directory to check")],
    feats: Annotated[bool, Option("--feats/--no-feats", help="require feats.scp")] = True,
    text: Annotated[bool, Option("--text/--no-text", help="require and check text")] = True,
    wav: Annotated[bool, Option("--wav/--no-wav", help="require wav.scp")] = True,
    spk_sort: Annotated[
        bool, Option("--spk-sort/--no-spk-sort", help="require utt2spk sorted by speaker, too")
    ] = True,
    non_print: Annotated[
        bool, Option("--non-print/--no-non-print", help="allow characters that cannot be printed")
    ] = False,
) -> int:
    problems = validate(
        directory, feats=feats, text=text, wav=wav, spk_sort=spk_sort, non_print=non_print
    )
    name = Path(sys.argv[0]).name
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
        print(f"{name}: data-directory {directory} has the problems above", file=sys.stderr)
        return 1
    for warning in validation_warnings(directory):
        log.warning("%s", warning)
    print(f"{name}: Successfully validated data-directory {directory}")
    return 0


if __name__ == "__main__":
    run(main)
