#!/usr/bin/env python3
"""Train an RNN transducer: encoder, predictor and joiner together.

Usage: train_transducer.py [options] ARCHITECTURE TOKENS TRAIN_DIR DEV_DIR MODEL_DIR

e.g.: train_transducer.py --config=conf/g13/train_transducer.conf --init-ctc=exp/ctc \\
        --init-predictor=exp/predictor conf/trans_3l_250h.toml data/tokens.txt \\
        data/train data/dev exp/transducer

The method is that of A. Graves, Sequence Transduction with RNNs, 2012 ([G12]), and of section 3.2
in A. Graves, A. Mohamed and G. Hinton, Speech Recognition with Deep RNNs, 2013 ([G13]). With
--init-ctc and --init-predictor the encoder and the predictor start from trained networks, whose
output layers are dropped, and the joiner starts from random weights, as in PreTrans-3l-250h of
[G13]. The same command with the same MODEL_DIR continues an interrupted training.

Several processes can train one model together, on one machine or several:
  torchrun --nproc-per-node=4 --max-restarts=3 bin/train_transducer.py --device=cuda ...
  srun --ntasks-per-node=4 --kill-on-bad-exit=1 train_transducer.py ...  (in a Slurm job)

See also: train_ctc.py, train_predictor.py, decode_transducer.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, options_from_fields, run
from pipeline.training.train_options import TransducerTrainOptions


def main(
    architecture: Annotated[
        Path, Argument(help="TOML file with [encoder], [predictor] and [joiner] tables")
    ],
    tokens: Annotated[Path, Argument(help="tokens.txt of train_tokenizer.py")],
    train_dir: Annotated[Path, Argument(help="data directory to train on")],
    dev_dir: Annotated[Path, Argument(help="data directory for choosing the best epoch")],
    model_dir: Annotated[Path, Argument(help="model directory to write")],
    options: TransducerTrainOptions,
    init_ctc: Annotated[
        Path | None, Option(help="CTC model to take the encoder from; default: random weights")
    ] = None,
    init_predictor: Annotated[
        Path | None,
        Option(help="predictor model to take the predictor from; default: random weights"),
    ] = None,
    init: Annotated[
        Path | None, Option(help="transducer to start from; default: random initial weights")
    ] = None,
    phone_map: Annotated[
        Path | None,
        Option(help="phone map for scoring the dev set with 39 phones; default: no folding"),
    ] = None,
    cmvn: Annotated[
        str,
        Option(help="CMVN statistics: a file, speaker or none; empty: TRAIN_DIR/cmvn.ark"),
    ] = "",
) -> int:
    from pipeline.training.run import train
    from pipeline.training.train_directory import TrainArguments

    sources = {"encoder": init_ctc, "predictor": init_predictor}
    arguments = TrainArguments(
        kind="transducer",
        config=architecture,
        tokens=tokens,
        train_dir=train_dir,
        dev_dir=dev_dir,
        model_dir=model_dir,
        phone_map=phone_map,
        cmvn=cmvn,
        init=init,
        parts=tuple((part, path) for part, path in sources.items() if path is not None),
    )
    trained, too_short = train(arguments, options)
    tally = Tally("training utterances")
    tally.ok(trained)
    return tally.finish(f"{too_short} too short" if too_short else "")


if __name__ == "__main__":
    run(options_from_fields(main))
