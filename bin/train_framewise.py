#!/usr/bin/env python3
"""Train a frame-wise network: an encoder that names the label of every frame.

Usage: train_framewise.py [options] ARCHITECTURE TOKENS TRAIN_DIR DEV_DIR MODEL_DIR

e.g.: train_framewise.py --streams=8 conf/framewise/lstmp.toml data/tokens.txt \\
        data/train data/dev exp/framewise

The method is that of H. Sak, A. Senior and F. Beaufays, Long Short-Term Memory Based Recurrent
Neural Network Architectures for Large Vocabulary Speech Recognition (arXiv 1402.1128), 2014:
cross-entropy of the labels of frames, which come --delay frames late, by truncated backpropagation
over subsequences of --bptt frames of --streams utterances, whose states are carried. --bptt=0 reads
whole utterances, which a bidirectional encoder needs. TRAIN_DIR and DEV_DIR are data directories
with feats.scp and ali.scp, the ids of the labels of all frames, as align_tokens.py and
ctm_to_ali.py write them. The error rate on DEV_DIR is the share of frames with a wrong label.
Features, several processes and interrupted trainings are as with train_ctc.py.

See also: align_tokens.py, ctm_to_ali.py, decode_framewise.py, train_ctc.py, show_model.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, options_from_fields, run
from pipeline.training.train_options import FramewiseTrainOptions


def main(
    architecture: Annotated[Path, Argument(help="TOML file with an [encoder] table")],
    tokens: Annotated[Path, Argument(help="tokens.txt of train_tokenizer.py")],
    train_dir: Annotated[Path, Argument(help="data directory to train on")],
    dev_dir: Annotated[Path, Argument(help="data directory for choosing the best epoch")],
    model_dir: Annotated[Path, Argument(help="model directory to write")],
    options: FramewiseTrainOptions,
    cmvn: Annotated[
        str,
        Option(help="CMVN statistics: a file, speaker or none; empty: TRAIN_DIR/cmvn.ark"),
    ] = "",
    init: Annotated[
        Path | None, Option(help="frame-wise model to start from; default: random initial weights")
    ] = None,
) -> int:
    from pipeline.training.run import train
    from pipeline.training.train_directory import TrainArguments

    arguments = TrainArguments(
        kind="framewise",
        config=architecture,
        tokens=tokens,
        train_dir=train_dir,
        dev_dir=dev_dir,
        model_dir=model_dir,
        cmvn=cmvn,
        init=init,
    )
    trained, too_short = train(arguments, options)
    tally = Tally("training utterances")
    tally.ok(trained)
    return tally.finish(f"{too_short} too short" if too_short else "")


if __name__ == "__main__":
    run(options_from_fields(main))
