#!/usr/bin/env python3
"""Train a prediction network, which predicts the next token of a transcription.

Usage: train_predictor.py [options] ARCHITECTURE TOKENS TRAIN_DIR DEV_DIR MODEL_DIR

e.g.: train_predictor.py --config=conf/g13/train_predictor.conf conf/trans_3l_250h.toml \\
        data/tokens.txt data/train data/dev exp/predictor

The method is that of section 3.2 in A. Graves, A. Mohamed and G. Hinton, Speech Recognition with
Deep RNNs, 2013. Only the file `text` of the data directories is read. The error rate on DEV_DIR is
the share of next tokens that the network does not rank first; losses are in bits per token. The
same command with the same MODEL_DIR continues an interrupted training.

Several processes can train one model together, on one machine or several:
  torchrun --nproc-per-node=4 --max-restarts=3 bin/train_predictor.py --device=cuda ...
  srun --ntasks-per-node=4 --kill-on-bad-exit=1 train_predictor.py ...  (in a Slurm job)

See also: train_transducer.py, show_model.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, options_from_fields, run
from pipeline.training.train_options import TrainOptions


def main(
    architecture: Annotated[Path, Argument(help="TOML file with a [predictor] table")],
    tokens: Annotated[Path, Argument(help="tokens.txt of train_tokenizer.py")],
    train_dir: Annotated[Path, Argument(help="data directory with the text to train on")],
    dev_dir: Annotated[Path, Argument(help="data directory for choosing the best epoch")],
    model_dir: Annotated[Path, Argument(help="model directory to write")],
    options: TrainOptions,
    init: Annotated[
        Path | None, Option(help="predictor model to start from; default: random initial weights")
    ] = None,
) -> int:
    from pipeline.training.run import train
    from pipeline.training.train_directory import TrainArguments

    arguments = TrainArguments(
        kind="predictor",
        config=architecture,
        tokens=tokens,
        train_dir=train_dir,
        dev_dir=dev_dir,
        model_dir=model_dir,
        init=init,
    )
    trained, too_short = train(arguments, options)
    tally = Tally("training utterances")
    tally.ok(trained)
    return tally.finish(f"{too_short} too short" if too_short else "")


if __name__ == "__main__":
    run(options_from_fields(main))
