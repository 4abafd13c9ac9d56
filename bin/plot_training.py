#!/usr/bin/env python3
"""Draw the loss and the error rate of trainings over their epochs, or the staleness of one.

Usage: plot_training.py [options] MODEL_DIR… PICTURE

e.g.: plot_training.py exp/ctc exp/predictor exp/transducer training.png
      plot_training.py --what=staleness exp/ctc staleness.png

The curves are read from MODEL_DIR/metrics.jsonl, which may still be growing. Dashed curves belong
to the training data, solid curves to the development data; a dot marks the best epoch. The loss of
a predictor is in bits per token, and its error rate is the share of next tokens that it predicts
wrongly. PICTURE ends in .png or .svg.

With --what=staleness the picture shows one model that was trained with --async. Above, for each
epoch, how many updates a shard made between a worker's pull of the weights and its push. Below, the
speed of each worker, and the share of its time in which it waited for others.

See also: train_ctc.py, train_predictor.py, train_transducer.py, plot_sweep.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import run


class What(StrEnum):
    """What is drawn."""

    CURVES = "curves"
    STALENESS = "staleness"


def main(
    files: Annotated[
        list[Path],
        Argument(metavar="MODEL_DIR… PICTURE", help="models, then the picture, .png or .svg"),
    ],
    title: Annotated[str, Option(help="title above the picture; empty: none")] = "",
    name: Annotated[
        list[str] | None, Option(help="name of a model, given once for each; default: its path")
    ] = None,
    what: Annotated[What, Option(help="part of the training to draw")] = What.CURVES,
) -> int:
    from pipeline.errors import UsageError
    from pipeline.plots.figures import check_picture, save
    from pipeline.plots.learning_curves import draw_training, read_run
    from pipeline.plots.staleness import draw_staleness, read_asynchronous

    *directories, picture = files
    if not directories:
        raise UsageError(
            "give at least one model directory, and the name of the picture at the end"
        )
    check_picture(picture)
    if what == What.STALENESS:
        if len(directories) > 1 or name:
            raise UsageError("--what=staleness draws one model, without --name")
        save(draw_staleness(read_asynchronous(directories[0]), title=title), picture)
        return 0
    names = name or [str(directory) for directory in directories]
    if len(names) != len(directories) or len(set(names)) != len(names):
        raise UsageError(
            f"{len(set(names))} different names for {len(directories)} models; give each its own"
        )
    runs = {n: read_run(directory) for n, directory in zip(names, directories, strict=True)}
    save(draw_training(runs, title=title), picture)
    return 0


if __name__ == "__main__":
    run(main)
