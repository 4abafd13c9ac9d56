#!/usr/bin/env python3
"""Decode features or recordings with a transducer by beam search ([G12] Algorithm 1).

Usage: decode_transducer.py [options] MODEL_DIR FEATS_RSPECIFIER HYP_WSPECIFIER

e.g.: decode_transducer.py --beam=100 exp/transducer scp:data/dev/feats.scp \\
        ark,t:exp/transducer/decode_dev/hyp.txt
      decode_transducer.py --resume --write-ctm=hyp.ctm --from-audio exp/transducer scp:wav.scp \\
        ark,t:hyp.txt

[G13] sorts the hypotheses by log Pr(y) at width 100; [G12] by log Pr(y)/|y| at width 4000: give
--length-normalise. --beam=1 takes the greedy path, an approximation. The model normalises
features with its own statistics.

See also: decode_ctc.py, recognize.py, compute_wer.py, map_phones.py
"""

from pathlib import Path
from typing import Annotated

from typer import Argument

from pipeline.cli import Tally, options_from_fields, run
from pipeline.decoding.decode_options import DecodeOptions
from pipeline.tables import parse_rspecifier


def main(
    model_dir: Annotated[Path, Argument(help="directory made by train_transducer.py")],
    rspecifier: Annotated[str, Argument(metavar="FEATS_RSPECIFIER", help="features")],
    wspecifier: Annotated[str, Argument(metavar="HYP_WSPECIFIER", help="best hypotheses")],
    options: DecodeOptions,
) -> int:
    from pipeline.decoding.decode_table import decode_table
    from pipeline.models.model_dir import ModelDir

    tally = Tally(permissive=parse_rspecifier(rspecifier).permissive)
    directory = ModelDir.open(model_dir, kind="transducer")
    return tally.finish(decode_table(directory, rspecifier, wspecifier, options, tally))


if __name__ == "__main__":
    run(options_from_fields(main))
