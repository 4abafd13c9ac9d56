#!/usr/bin/env python3
"""Decode features or recordings with a transducer by beam search (Algorithm 1 of [G12]).

Usage: decode_transducer.py [options] MODEL_DIR FEATS_RSPECIFIER HYP_WSPECIFIER

e.g.: decode_transducer.py --beam=100 exp/transducer scp:data/dev/feats.scp \\
        ark,t:exp/transducer/decode_dev/hyp.txt
      decode_transducer.py --resume --write-ctm=hyp.ctm --from-audio exp/transducer scp:wav.scp \\
        ark,t:hyp.txt

[G12] (A. Graves, Sequence Transduction with RNNs, 2012) used a beam of 4000 and sorted the
hypotheses by log Pr(y)/|y|; --length-normalise does so too. [G13] (A. Graves, A. Mohamed and
G. Hinton, Speech Recognition with Deep RNNs, 2013) used a beam of 100 and sorted by log Pr(y).
--beam=1 follows the greedy path, an approximation. Features are normalised with the statistics in
MODEL_DIR.

See also: decode_ctc.py, recognize.py, compute_wer.py, map_phones.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument

from pipeline.cli import Tally, options_from_fields, run
from pipeline.decoding.decode_options import TransducerDecodeOptions
from pipeline.tables import parse_rspecifier


def main(
    model_dir: Annotated[Path, Argument(help="model directory of train_transducer.py")],
    rspecifier: Annotated[
        str, Argument(metavar="FEATS_RSPECIFIER", help="features, or recordings (--from-audio)")
    ],
    wspecifier: Annotated[
        str, Argument(metavar="HYP_WSPECIFIER", help="best hypothesis of each utterance, to write")
    ],
    options: TransducerDecodeOptions,
) -> int:
    from pipeline.decoding.decode_table import decode_table
    from pipeline.models.model_dir import ModelDir

    permissive = parse_rspecifier(rspecifier).permissive
    tally = Tally(permissive=permissive, allow_empty=options.allow_empty, source=rspecifier)
    directory = ModelDir.open(model_dir, kind="transducer")
    return tally.finish(decode_table(directory, rspecifier, wspecifier, options, tally))


if __name__ == "__main__":
    run(options_from_fields(main))
