#!/usr/bin/env python3
"""Decode features with a CTC model into token sequences.

Usage: decode_ctc.py [options] MODEL_DIR FEATS_RSPECIFIER HYP_WSPECIFIER

e.g.: decode_ctc.py --beam=10 exp/ctc scp:data/dev/feats.scp ark,t:exp/ctc/decode_dev/hyp.txt

--beam=1 takes the most probable token of each frame; a wider beam searches over prefixes and
sums all paths that spell the same one. The model normalises features with its own statistics.

See also: decode_transducer.py, recognize.py, compute_wer.py, map_phones.py
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, run
from pipeline.tables import parse_rspecifier


def main(
    model_dir: Annotated[Path, Argument(help="directory made by train_ctc.py")],
    rspecifier: Annotated[str, Argument(metavar="FEATS_RSPECIFIER", help="features")],
    wspecifier: Annotated[str, Argument(metavar="HYP_WSPECIFIER", help="best hypotheses")],
    beam: Annotated[int, Option(help="prefixes kept after each frame; 1: greedy")] = 10,
    nbest: Annotated[int, Option(min=1, help="hypotheses an utterance in --write-nbest")] = 10,
    write_nbest: Annotated[
        str, Option(help="wspecifier of the n-best: UTT-1 log-probability tokens …")
    ] = "",
    allow_pipes: Annotated[
        bool, Option("--allow-pipes/--no-allow-pipes", help="run commands that an scp file names")
    ] = False,
    device: Annotated[str, Option(help="cpu, cuda or auto")] = "auto",
    threads: Annotated[int, Option(help="CPU threads")] = 1,
) -> int:
    from pipeline.decoding.tables import DecodeArguments, decode_table

    arguments = DecodeArguments(
        kind="ctc",
        model_dir=model_dir,
        rspecifier=rspecifier,
        wspecifier=wspecifier,
        beam=beam,
        nbest=nbest,
        nbest_wspecifier=write_nbest,
        device=device,
        threads=threads,
        allow_pipes=allow_pipes,
    )
    tally = Tally(permissive=parse_rspecifier(rspecifier).permissive)
    return tally.finish(decode_table(arguments, tally))


if __name__ == "__main__":
    run(main)
