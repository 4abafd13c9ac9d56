#!/usr/bin/env python3
"""Train a CTC network: a recurrent encoder and a linear output layer ([G13] section 3.1).

Usage: train_ctc.py [options] ARCHITECTURE TOKENS TRAIN_DIR DEV_DIR MODEL_DIR

e.g.: train_ctc.py --config=conf/g13/train_ctc.conf conf/ctc_3l_250h.toml data/tokens.txt \\
        data/train data/dev exp/ctc

TRAIN_DIR and DEV_DIR are data directories with feats.scp and text; TRAIN_DIR/cmvn.ark
normalises the features, TRAIN_DIR/conf says how they were made. The same command on the same
MODEL_DIR goes on where it stopped.

Several processes train one model together, on one machine or more:
  torchrun --nproc-per-node=4 --max-restarts=3 bin/train_ctc.py --device=cuda ...
  srun --ntasks-per-node=4 --kill-on-bad-exit=1 train_ctc.py ...  (in a Slurm job)

See also: train_transducer.py, decode_ctc.py, show_model.py, compute_cmvn_stats.py
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, options_from_fields, run
from pipeline.training.train_options import AcousticTrainOptions


def main(
    architecture: Annotated[Path, Argument(help="TOML file with an [encoder]")],
    tokens: Annotated[Path, Argument(help="tokens.txt")],
    train_dir: Annotated[Path, Argument(help="data directory to train on")],
    dev_dir: Annotated[Path, Argument(help="data directory that chooses the best epoch")],
    model_dir: Annotated[Path, Argument(help="where the model goes")],
    options: AcousticTrainOptions,
    phone_map: Annotated[
        Path | None, Option(help="fold to 39 phones by this map before dev PER")
    ] = None,
    cmvn: Annotated[
        str, Option(help="statistics; empty: TRAIN_DIR/cmvn.ark; speaker: cmvn.scp; none")
    ] = "",
    init: Annotated[
        Path | None, Option(help="start from this CTC model, e.g. to retrain with weight noise")
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
