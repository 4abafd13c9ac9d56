#!/usr/bin/env python3
"""Draw error rate and decoding time against the beam.

Usage: plot_sweep.py [options] SWEEP_TSV… PICTURE

e.g.: plot_sweep.py exp/ctc/sweep_dev/sweep.tsv exp/transducer/sweep_dev/sweep.tsv sweep.png

SWEEP_TSV is a table that sweep_beam.sh has written. The upper part of the picture shows the error
rate with its insertions and deletions. The lower part shows the time of encoder and search together
as a fraction of the duration of the speech, which is computed with the frame shift of
--frame-shift. PICTURE ends in .png or .svg.

See also: sweep_beam.sh, decode_transducer.py, decode_ctc.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import run


def main(
    files: Annotated[
        list[Path],
        Argument(metavar="SWEEP_TSV… PICTURE", help="tables, then the picture, .png or .svg"),
    ],
    frame_shift: Annotated[float, Option(help="frame shift of the features, in ms")] = 10.0,
    title: Annotated[str, Option(help="title above the picture; empty: none")] = "",
    name: Annotated[
        list[str] | None, Option(help="name of a table, given once for each; default: its folder")
    ] = None,
) -> int:
    from pipeline.errors import UsageError
    from pipeline.plots.sweep import plot_sweeps, read_sweep

    *tables, picture = files
    if not tables:
        raise UsageError("give at least one table, and the picture's name at the end")
    names = name or [str(table.parent) for table in tables]
    if len(names) != len(tables):
        raise UsageError(f"{len(names)} names for {len(tables)} tables; give one --name for each")
    sweeps = {n: read_sweep(table) for n, table in zip(names, tables, strict=True)}
    plot_sweeps(sweeps, picture, frame_shift_ms=frame_shift, title=title)
    return 0


if __name__ == "__main__":
    run(main)
