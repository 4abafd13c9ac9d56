#!/usr/bin/env python3
"""Write a report on decoded and scored models: one HTML page that opens from disk.

Usage: make_report.py [options] MODEL_DIR… --output=REPORT_HTML

e.g.: make_report.py exp/ctc exp/transducer -o report.html
      make_report.py --set=dev --utt=fxbp0_si574 --audio=20 exp/ctc exp/transducer -o report.html

The report covers every decode_NAME in a MODEL_DIR that score.py has scored. It shows error rates
with confidence intervals and significance tests, speakers, confusions, the worst and the best
utterances with their recordings, learning curves, the workers and the staleness of an asynchronous
training, the beam sweeps in sweep_*/sweep.tsv, and for a few utterances the pictures of the papers.
The page needs no network. Run the command in the folder of the recipe, because the paths in its
data directories are relative to that folder.

See also: score.py, plot_lattice.py, plot_sensitivity.py, plot_posteriors.py, plot_training.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import log, run


def main(
    models: Annotated[
        list[Path], Argument(metavar="MODEL_DIR…", help="model directories of train_*.py")
    ],
    output: Annotated[str, Option("--output", "-o", help="HTML file to write; - is stdout")],
    title: Annotated[str, Option(help="title of the page; empty: the names of the models")] = "",
    sets: Annotated[
        list[str] | None,
        Option("--set", help="set to show, NAME of decode_NAME; may be repeated; default: all"),
    ] = None,
    utts: Annotated[
        list[str] | None,
        Option("--utt", help="utterance to draw; may be repeated; default: a typical one"),
    ] = None,
    audio: Annotated[int, Option(help="number of recordings to include")] = 8,
    worst: Annotated[int, Option(help="number of worst utterances to show per set")] = 10,
    best: Annotated[int, Option(help="number of best utterances to show per set")] = 5,
    pictures: Annotated[
        bool, Option("--pictures/--no-pictures", help="draw pictures of utterances")
    ] = True,
) -> int:
    from pipeline.report.report import ReportOptions, make_report
    from pipeline.tables.streams import open_output

    options = ReportOptions(title, (*(sets or ()),), (*(utts or ()),), audio, worst, best, pictures)
    page = make_report(models, options).encode("utf-8")
    with open_output(output) as stream:
        stream.write(page)
    log.info("Done %d models, %.2f MB in %s", len(models), len(page) / 1e6, output)
    return 0


if __name__ == "__main__":
    run(main)
