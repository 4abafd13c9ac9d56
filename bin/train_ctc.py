#!/usr/bin/env python3
"""Train a CTC network: a recurrent encoder with a linear output layer.

Usage: train_ctc.py [options] ARCHITECTURE TOKENS TRAIN_DIR DEV_DIR MODEL_DIR

e.g.: train_ctc.py --config=conf/g13/train_ctc.conf conf/ctc_3l_250h.toml data/tokens.txt \\
        data/train data/dev exp/ctc

The method is that of section 3.1 in A. Graves, A. Mohamed and G. Hinton, Speech Recognition with
Deep RNNs, 2013. TRAIN_DIR and DEV_DIR are data directories with feats.scp and text; TRAIN_DIR/conf
holds the options that the features were computed with. The features are normalised with
TRAIN_DIR/cmvn.ark, or, with --cmvn=speaker, with the cmvn.scp of each data directory. The same
command with the same MODEL_DIR continues an interrupted training.

Several processes can train one model together, on one machine or several:
  torchrun --nproc-per-node=4 --max-restarts=3 bin/train_ctc.py --device=cuda ...
  srun --ntasks-per-node=4 --kill-on-bad-exit=1 train_ctc.py ...  (in a Slurm job)

See also: train_transducer.py, decode_ctc.py, show_model.py, compute_cmvn_stats.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, options_from_fields, run
from pipeline.training.train_options import AcousticTrainOptions


def main(
    architecture: Annotated[Path, Argument(help="TOML file with an [encoder] table")],
    tokens: Annotated[Path, Argument(help="tokens.txt of train_tokenizer.py")],
    train_dir: Annotated[Path, Argument(help="data directory to train on")],
    dev_dir: Annotated[Path, Argument(help="data directory for choosing the best epoch")],
    model_dir: Annotated[Path, Argument(help="model directory to write")],
    options: AcousticTrainOptions,
    phone_map: Annotated[
        Path | None,
        Option(help="phone map for scoring the dev set with 39 phones; default: no folding"),
    ] = None,
    cmvn: Annotated[
        str,
        Option(help="CMVN statistics: a file, speaker or none; empty: TRAIN_DIR/cmvn.ark"),
    ] = "",
    init: Annotated[
        Path | None, Option(help="CTC model to start from; default: random initial weights")
    ] = None,
) -> int:
    from pipeline.training.run import train
    from pipeline.training.train_directory import TrainArguments

    arguments = TrainArguments(
        kind="ctc",
        config=architecture,
        tokens=tokens,
        train_dir=train_dir,
        dev_dir=dev_dir,
        model_dir=model_dir,
        phone_map=phone_map,
        cmvn=cmvn,
        init=init,
    )
    trained, too_short = train(arguments, options)
    tally = Tally("training utterances")
    tally.ok(trained)
    return tally.finish(f"{too_short} too short" if too_short else "")


if __name__ == "__main__":
    run(options_from_fields(main))
