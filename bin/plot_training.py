#!/usr/bin/env python3
"""Draw the loss and the error rate of trainings over their epochs.

Usage: plot_training.py [options] MODEL_DIR… PICTURE

e.g.: plot_training.py exp/ctc exp/predictor exp/transducer training.png

The curves are read from MODEL_DIR/metrics.jsonl, which may still be growing. Dashed curves belong
to the training data, solid curves to the development data; a dot marks the best epoch. The loss of
a predictor is in bits per token, and its error rate is the share of next tokens that it predicts
wrongly. PICTURE ends in .png or .svg.

See also: train_ctc.py, train_predictor.py, train_transducer.py, plot_sweep.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import run


def main(
    files: Annotated[
        list[Path],
        Argument(metavar="MODEL_DIR… PICTURE", help="models, then the picture, .png or .svg"),
    ],
    title: Annotated[str, Option(help="title above the picture; empty: none")] = "",
    name: Annotated[
        list[str] | None, Option(help="name of a model, given once for each; default: its path")
    ] = None,
) -> int:
    from pipeline.errors import UsageError
    from pipeline.plots.figures import check_picture, save
    from pipeline.plots.learning_curves import draw_training, read_run

    *directories, picture = files
    if not directories:
        raise UsageError(
            "give at least one model directory, and the name of the picture at the end"
        )
    check_picture(picture)
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
