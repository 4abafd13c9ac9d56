#!/usr/bin/env python3
"""Error rate of hypotheses against references: %WER and %SER, Kaldi's lines.

Usage: compute_wer.py [options] REF_RSPECIFIER HYP_RSPECIFIER

The two are text tables; the tokens may be words, phones or numbers. With --map both sides are
folded to --map-to phones before they are aligned. Insertions, deletions and substitutions cost 1
each; "[PARTIAL]" says that some references had no hypothesis.

e.g.: compute_wer.py --text --mode=strict ark:data/test/text ark:exp/ctc/decode_test/hyp.txt
e.g.: compute_wer.py --name=PER --map=conf/phones.60-48-39.map ark:data/dev/text ark:hyp.txt

See also: align_text.py, map_phones.py
"""

from typing import Annotated

import numpy as np
from typer import Argument, Option

from pipeline.cli import Tally, log, run
from pipeline.errors import UsageError
from pipeline.scoring import (
    MODES,
    ErrorCounts,
    pair_up,
    phone_folder,
    read_transcripts,
    total_errors,
)


def main(
    ref_rspecifier: Annotated[str, Argument(metavar="REF_RSPECIFIER", help="what was said")],
    hyp_rspecifier: Annotated[str, Argument(metavar="HYP_RSPECIFIER", help="what was recognised")],
    mode: Annotated[
        str,
        Option(
            help="a reference without hypothesis: strict is an error, present leaves it out, "
            "all counts it as deleted"
        ),
    ] = "strict",
    text: Annotated[
        bool,
        Option("--text/--no-text", help="taken for Kaldi's sake; tokens are always text"),
    ] = True,
    map_file: Annotated[
        str, Option("--map", metavar="MAP", help="phone map to fold both sides with")
    ] = "",
    map_to: Annotated[int, Option(help="set to fold to: 61, 48 or 39 phones")] = 39,
    name: Annotated[str, Option(help="what the first line calls the error rate")] = "WER",
) -> int:
    if mode not in MODES:
        raise UsageError(f"--mode is {', '.join(MODES[:-1])} or {MODES[-1]}, not {mode!r}")
    fold = phone_folder(map_file, to=map_to) if map_file else None
    refs = read_transcripts(ref_rspecifier, fold=fold)
    hyps = read_transcripts(hyp_rspecifier, fold=fold)
    counts = total_errors(pair_up(refs, hyps, mode=mode))
    print_report(counts, absent=len(refs.keys() - hyps.keys()), name=name)
    strays = hyps.keys() - refs.keys()
    if strays:
        log.warning("%d hypotheses have no reference, e.g. %s", len(strays), min(strays))
    tally = Tally()
    tally.ok(counts.sentences)
    return tally.finish()


def print_report(counts: ErrorCounts, *, absent: int, name: str) -> None:
    """Three lines on stdout."""
    rates = counts.sentence_error_rate, counts.error_rate
    sentence_rate, rate = (float(np.float32(r)) for r in rates)  # rounds as Kaldi's single does
    kinds = f"{counts.ins} ins, {counts.del_} del, {counts.sub} sub"
    partial = " [PARTIAL]" if absent else ""
    print(f"%{name} {rate:.2f} [ {counts.errors} / {counts.ref_tokens}, {kinds} ]{partial}")
    print(f"%SER {sentence_rate:.2f} [ {counts.wrong_sentences} / {counts.sentences} ]")
    print(f"Scored {counts.sentences} sentences, {absent} not present in hyp.")


if __name__ == "__main__":
    run(main)
