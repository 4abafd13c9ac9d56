#!/usr/bin/env python3
"""Compute the error rate of hypotheses against references; print %WER and %SER lines as Kaldi does.

Usage: compute_wer.py [options] REF_RSPECIFIER HYP_RSPECIFIER

References and hypotheses are text tables; their tokens may be words, phones or numbers. With --map
both sides are folded to --map-to phones before they are aligned. Insertions, deletions and
substitutions cost 1 each. "[PARTIAL]" in the output means that some references had no hypothesis. A
second bracket names the variants of the scoring rule that were chosen, such as "[collapse-sil]";
error rates under different variants cannot be compared.

e.g.: compute_wer.py --text --mode=strict ark:data/test/text ark:exp/ctc/decode_test/hyp.txt
e.g.: compute_wer.py --name=PER --map=conf/phones.60-48-39.map ark:data/dev/text ark:hyp.txt

See also: score.py, align_text.py, compare_wer.py, compute_wer_bootci.py, map_phones.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, log, options_from_fields, run
from pipeline.errors import UsageError
from pipeline.scoring.score_options import MODE_HELP, ScoringOptions, bracket


def main(
    ref_rspecifier: Annotated[
        str, Argument(metavar="REF_RSPECIFIER", help="references, a text table")
    ],
    hyp_rspecifier: Annotated[
        str, Argument(metavar="HYP_RSPECIFIER", help="hypotheses, a text table")
    ],
    options: ScoringOptions,
    mode: Annotated[str, Option(help=MODE_HELP)] = "strict",
    text: Annotated[
        bool,
        Option("--text/--no-text", help="option of Kaldi's program; ignored, tokens are text"),
    ] = True,
    name: Annotated[
        str,
        Option(help="name of the error rate in the output; empty: CER with --cer, else WER"),
    ] = "",
) -> int:
    from pipeline.scoring.alignment import KALDI, KALDI_COUNTS, align_all
    from pipeline.scoring.kaldi_forms import wer_lines
    from pipeline.scoring.transcripts import read_systems

    name = name or ("CER" if options.cer else "WER")
    if name.split() != [name]:
        raise UsageError(f"--name must be one word, such as PER, not {name!r}")
    texts = read_systems(ref_rspecifier, [hyp_rspecifier], fold=options.fold(), mode=mode)
    rule = KALDI_COUNTS if options.rule is KALDI else options.rule
    counts = align_all(texts.pairs(), rule, optional=options.optional).total()
    print(wer_lines(counts, absent=texts.absent, name=name, note=bracket(options)), end="")
    tally = Tally()
    tally.ok(counts.sentences)
    log.info("rule: %s", options.describe())
    return tally.finish()


if __name__ == "__main__":
    run(options_from_fields(main))
