#!/usr/bin/env python3
"""Average the weights of several models, or of the last epochs of one, into a new model.

Usage: average_models.py [options] MODEL_DIR … OUT_DIR

With --last=N the weights of the last N epochs of each MODEL_DIR are averaged; train_*.py keeps them
if it is run with --keep-epochs=N. Otherwise the finished weights are averaged. All models must have
the same architecture and the same tokens. The front end and the normalisation of the first model
are used.

e.g.: average_models.py --last=5 exp/ctc exp/ctc_average
e.g.: average_models.py exp/ctc_seed0 exp/ctc_seed1 exp/ctc_both

See also: train_ctc.py, train_transducer.py, show_model.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, log, run
from pipeline.errors import UsageError


def main(
    models: Annotated[
        list[Path],
        Argument(metavar="MODEL_DIR… OUT_DIR", help="models to average, then the new directory"),
    ],
    last: Annotated[
        int, Option(help="number of last epochs to average; 0: the finished weights")
    ] = 0,
) -> int:
    from pipeline.models.averaging import average, sources_of, write_average
    from pipeline.models.model_dir import ModelDir

    if len(models) < 2:
        raise UsageError("expected MODEL_DIR … OUT_DIR; name the new directory at the end")
    if last < 0:
        raise UsageError(f"--last must be 0 or more, not {last}")
    *sources, out = models
    if out.exists():
        raise UsageError(f"{out}: already exists; give a new directory, or remove this one")
    directories = [ModelDir.open(source) for source in sources]
    files = sources_of(directories, last=last)
    write_average(directories[0], average(directories, files), files, out)
    log.info("%s: the average of %d sets of weights", out, len(files))
    tally = Tally("sets of weights")
    tally.ok(len(files))
    return tally.finish()


if __name__ == "__main__":
    run(main)
