#!/usr/bin/env python3
"""Decode features or recordings with a frame-wise model into token sequences.

Usage: decode_framewise.py [options] MODEL_DIR FEATS_RSPECIFIER HYP_WSPECIFIER

e.g.: decode_framewise.py --lm=bigram.arpa exp/framewise scp:data/dev/feats.scp ark,t:hyp.txt
      decode_framewise.py --write-ctm=hyp.ctm --from-audio exp/framewise scp:wav.scp ark,t:hyp.txt

The search is Viterbi's: it finds the best sequence of labels, of which each lasts --min-frames
frames or more and is followed by another with the probability that the bigram --lm gives it (make
it with make_ngram_lm.py --order=2). Outputs are divided by the labels' shares of the training
frames, to the power of --prior-scale. Features are normalised with the statistics in MODEL_DIR.

See also: train_framewise.py, decode_ctc.py, make_ngram_lm.py, compute_wer.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument

from pipeline.cli import Tally, options_from_fields, run
from pipeline.decoding.decode_options import FramewiseDecodeOptions
from pipeline.tables import parse_rspecifier


def main(
    model_dir: Annotated[Path, Argument(help="model directory of train_framewise.py")],
    rspecifier: Annotated[
        str, Argument(metavar="FEATS_RSPECIFIER", help="features, or recordings (--from-audio)")
    ],
    wspecifier: Annotated[
        str, Argument(metavar="HYP_WSPECIFIER", help="best hypothesis of each utterance, to write")
    ],
    options: FramewiseDecodeOptions,
) -> int:
    from pipeline.decoding.decode_table import decode_table
    from pipeline.models.model_dir import ModelDir

    permissive = parse_rspecifier(rspecifier).permissive
    tally = Tally(permissive=permissive, allow_empty=options.allow_empty, source=rspecifier)
    directory = ModelDir.open(model_dir, kind="framewise")
    return tally.finish(decode_table(directory, rspecifier, wspecifier, options, tally))


if __name__ == "__main__":
    run(options_from_fields(main))
