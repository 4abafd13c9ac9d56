#!/usr/bin/env python3
"""Decode features with a transducer by beam search ([G12] Algorithm 1).

Usage: decode_transducer.py [options] MODEL_DIR FEATS_RSPECIFIER HYP_WSPECIFIER

e.g.: decode_transducer.py --beam=100 exp/transducer scp:data/dev/feats.scp \\
        ark,t:exp/transducer/decode_dev/hyp.txt

[G13] sorts the hypotheses by log Pr(y) at width 100; [G12] by log Pr(y)/|y| at width 4000: give
--length-normalise. --beam=1 takes the greedy path, an approximation. The model normalises
features with its own statistics.

See also: decode_ctc.py, recognize.py, compute_wer.py, map_phones.py
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, run
from pipeline.tables import parse_rspecifier


def main(
    model_dir: Annotated[Path, Argument(help="directory made by train_transducer.py")],
    rspecifier: Annotated[str, Argument(metavar="FEATS_RSPECIFIER", help="features")],
    wspecifier: Annotated[str, Argument(metavar="HYP_WSPECIFIER", help="best hypotheses")],
    beam: Annotated[int, Option(help="hypotheses kept after each frame, W; 1: greedy")] = 10,
    nbest: Annotated[int, Option(min=1, help="hypotheses an utterance in --write-nbest")] = 10,
    write_nbest: Annotated[
        str, Option(help="wspecifier of the n-best: UTT-1 log-probability tokens …")
    ] = "",
    length_normalise: Annotated[
        bool, Option("--length-normalise/--no-length-normalise", help="sort by log Pr(y)/|y|")
    ] = False,
    allow_pipes: Annotated[
        bool, Option("--allow-pipes/--no-allow-pipes", help="run commands that an scp file names")
    ] = False,
    device: Annotated[str, Option(help="cpu, cuda or auto")] = "auto",
    threads: Annotated[int, Option(help="CPU threads")] = 1,
) -> int:
    from pipeline.decoding.tables import DecodeArguments, decode_table

    arguments = DecodeArguments(
        kind="transducer",
        model_dir=model_dir,
        rspecifier=rspecifier,
        wspecifier=wspecifier,
        beam=beam,
        nbest=nbest,
        nbest_wspecifier=write_nbest,
        device=device,
        threads=threads,
        allow_pipes=allow_pipes,
        length_normalise=length_normalise,
    )
    tally = Tally(permissive=parse_rspecifier(rspecifier).permissive)
    return tally.finish(decode_table(arguments, tally))


if __name__ == "__main__":
    run(main)
