#!/usr/bin/env python3
"""Draw error rate and time against the width of the beam.

Usage: plot_sweep.py [options] SWEEP_TSV… PICTURE

e.g.: plot_sweep.py exp/ctc/sweep_dev/sweep.tsv exp/transducer/sweep_dev/sweep.tsv sweep.png

SWEEP_TSV is what sweep_beam.sh writes. PICTURE ends in .png or .svg. Above is the error rate with
its insertions and deletions, below the time of encoder and search together as a share of the
duration of the speech, for a frame shift of --frame-shift.

See also: sweep_beam.sh, decode_transducer.py, decode_ctc.py
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import run


def main(
    files: Annotated[list[Path], Argument(metavar="SWEEP_TSV… PICTURE", help="tables, picture")],
    frame_shift: Annotated[float, Option(help="in ms, of the features")] = 10.0,
    title: Annotated[str, Option(help="above the picture")] = "",
    name: Annotated[list[str] | None, Option(help="of each table, in their order")] = None,
) -> int:
    from pipeline.errors import UsageError
    from pipeline.plots.sweep import plot_sweeps, read_sweep

    *tables, picture = files
    if not tables:
        raise UsageError("give one table or more, and the picture's name at the end")
    names = name or [str(table.parent) for table in tables]
    if len(names) != len(tables):
        raise UsageError(f"{len(names)} names for {len(tables)} tables")
    sweeps = {n: read_sweep(table) for n, table in zip(names, tables, strict=True)}
    plot_sweeps(sweeps, picture, frame_shift_ms=frame_shift, title=title)
    return 0


if __name__ == "__main__":
    run(main)
