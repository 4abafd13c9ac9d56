#!/usr/bin/env python3
"""Decode features or recordings with a CTC model into token sequences.

Usage: decode_ctc.py [options] MODEL_DIR FEATS_RSPECIFIER HYP_WSPECIFIER

e.g.: decode_ctc.py --beam=100 exp/ctc scp:data/dev/feats.scp ark,t:exp/ctc/decode_dev/hyp.txt
      decode_ctc.py --lm=lm.arpa --write-ctm=hyp.ctm --from-audio exp/ctc scp:wav.scp ark,t:hyp.txt

--beam=1 takes the most probable token of each frame. A larger beam searches over prefixes and adds
up all paths that spell the same prefix ([G13]: A. Graves, A. Mohamed and G. Hinton, Speech
Recognition with Deep RNNs, 2013). --prefix-search is the search of [G12] (A. Graves, Sequence
Transduction with RNNs, 2012). Features are normalised with the statistics in MODEL_DIR.

See also: decode_transducer.py, recognize.py, compute_wer.py, map_phones.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument

from pipeline.cli import Tally, options_from_fields, run
from pipeline.decoding.decode_options import CtcDecodeOptions
from pipeline.tables import parse_rspecifier


def main(
    model_dir: Annotated[Path, Argument(help="model directory of train_ctc.py")],
    rspecifier: Annotated[
        str, Argument(metavar="FEATS_RSPECIFIER", help="features, or recordings (--from-audio)")
    ],
    wspecifier: Annotated[
        str, Argument(metavar="HYP_WSPECIFIER", help="best hypothesis of each utterance, to write")
    ],
    options: CtcDecodeOptions,
) -> int:
    from pipeline.decoding.decode_table import decode_table
    from pipeline.models.model_dir import ModelDir

    permissive = parse_rspecifier(rspecifier).permissive
    tally = Tally(permissive=permissive, allow_empty=options.allow_empty, source=rspecifier)
    directory = ModelDir.open(model_dir, kind="ctc")
    return tally.finish(decode_table(directory, rspecifier, wspecifier, options, tally))


if __name__ == "__main__":
    run(options_from_fields(main))
