#!/usr/bin/env python3
"""Draw loss and error rate of trainings over their epochs.

Usage: plot_training.py [options] MODEL_DIR… PICTURE

e.g.: plot_training.py exp/ctc exp/predictor exp/transducer training.png

The curves are those of MODEL_DIR/metrics.jsonl, also while the training runs: train dashed, dev
solid, a dot at the best epoch. A predictor's loss is in bits a token, its error rate the share of
next tokens that it gets wrong. PICTURE ends in .png or .svg.

See also: train_ctc.py, train_predictor.py, train_transducer.py, plot_sweep.py
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import run


def main(
    files: Annotated[list[Path], Argument(metavar="MODEL_DIR… PICTURE", help="models, picture")],
    title: Annotated[str, Option(help="above the picture")] = "",
    name: Annotated[list[str] | None, Option(help="of each model, in their order")] = None,
) -> int:
    from pipeline.errors import UsageError
    from pipeline.plots.figures import check_picture, save
    from pipeline.plots.learning_curves import draw_training, read_run

    *directories, picture = files
    if not directories:
        raise UsageError("give one model directory or more, and the picture's name at the end")
    check_picture(picture)
    names = name or [str(directory) for directory in directories]
    if len(names) != len(directories) or len(set(names)) != len(names):
        raise UsageError(f"{len(set(names))} different names for {len(directories)} models")
    runs = {n: read_run(directory) for n, directory in zip(names, directories, strict=True)}
    save(draw_training(runs, title=title), picture)
    return 0


if __name__ == "__main__":
    run(main)
