#!/usr/bin/env python3
"""Put what models can do on one page that opens from disk.

Usage: make_report.py [options] MODEL_DIR… --output=REPORT_HTML

e.g.: make_report.py exp/ctc exp/transducer -o report.html
      make_report.py --set=dev --utt=fxbp0_si574 --audio=20 exp/ctc exp/transducer -o report.html

Every decode_NAME in a MODEL_DIR that score.py has scored is shown: error rates with their
intervals and whether they differ, speakers, confusions, the worst and the best utterances with
their recordings, learning curves, sweep_*/sweep.tsv, and the papers' pictures of a few utterances.
The page needs no network. Run it in the folder of the recipe, where the paths of its data begin.

See also: score.py, plot_lattice.py, plot_sensitivity.py, plot_posteriors.py, plot_training.py
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import log, run


def main(
    models: Annotated[list[Path], Argument(metavar="MODEL_DIR…", help="of train_*.py")],
    output: Annotated[str, Option("--output", "-o", help="the page; - is stdout")],
    title: Annotated[str, Option(help="of the page; empty: it names the models")] = "",
    sets: Annotated[
        list[str] | None, Option("--set", help="NAME of decode_NAME, repeated; all if not given")
    ] = None,
    utts: Annotated[
        list[str] | None,
        Option("--utt", help="whose pictures are drawn, repeated; a typical one if not given"),
    ] = None,
    audio: Annotated[int, Option(help="how many recordings to put in")] = 8,
    worst: Annotated[int, Option(help="how many of the worst utterances of a set to show")] = 10,
    best: Annotated[int, Option(help="how many of the best")] = 5,
    pictures: Annotated[bool, Option("--pictures/--no-pictures", help="draw pictures")] = True,
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
