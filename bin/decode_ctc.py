#!/usr/bin/env python3
"""Decode features or recordings with a CTC model into token sequences.

Usage: decode_ctc.py [options] MODEL_DIR FEATS_RSPECIFIER HYP_WSPECIFIER

e.g.: decode_ctc.py --beam=100 exp/ctc scp:data/dev/feats.scp ark,t:exp/ctc/decode_dev/hyp.txt
      decode_ctc.py --lm=lm.arpa --write-ctm=hyp.ctm --from-audio exp/ctc scp:wav.scp ark,t:hyp.txt

--beam=1 takes the most probable token of each frame; a wider beam searches over prefixes and
sums all paths that spell the same one ([G13]); --prefix-search is the search of [G12]. The model
normalises features with its own statistics.

See also: decode_transducer.py, recognize.py, compute_wer.py, map_phones.py
"""

from pathlib import Path
from typing import Annotated

from typer import Argument

from pipeline.cli import Tally, options_from_fields, run
from pipeline.decoding.decode_options import DecodeOptions
from pipeline.tables import parse_rspecifier


def main(
    model_dir: Annotated[Path, Argument(help="directory made by train_ctc.py")],
    rspecifier: Annotated[str, Argument(metavar="FEATS_RSPECIFIER", help="features")],
    wspecifier: Annotated[str, Argument(metavar="HYP_WSPECIFIER", help="best hypotheses")],
    options: DecodeOptions,
) -> int:
    from pipeline.decoding.decode_table import decode_table
    from pipeline.models.model_dir import ModelDir

    tally = Tally(permissive=parse_rspecifier(rspecifier).permissive)
    directory = ModelDir.open(model_dir, kind="ctc")
    return tally.finish(decode_table(directory, rspecifier, wspecifier, options, tally))


if __name__ == "__main__":
    run(options_from_fields(main))
