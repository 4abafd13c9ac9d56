#!/usr/bin/env python3
"""Score a decode directory and write the results in the formats of Kaldi and of NIST's sclite.

Usage: score.py [options] DATA_DIR DECODE_DIR

e.g.: score.py --map=conf/phones.60-48-39.map data/test exp/ctc/decode_test
e.g.: score.py --with-cer data/test exp/ctc_chars/decode_test
e.g.: score.py --cer data/test exp/ctc_mandarin/decode_test
e.g.: score.py --collapse-sil --alignment=nist data/test exp/ctc/decode_test

DECODE_DIR/hyp.txt is compared with DATA_DIR/text. With --map both are folded first. The scoring
rule is Kaldi's unless the options choose a variant. It is printed together with the error rate,
because error rates under different rules cannot be compared. These files are written to
DECODE_DIR/scoring:

  wer                  the %WER, %SER and Scored lines of Kaldi's compute-wer (%CER with --cer)
  cer                  the %CER lines beside them (--with-cer)
  ref.txt, hyp.txt     references and hypotheses after the rule was applied
  alignments           their alignments in the form of Kaldi's align-text
  wer_details/         per_utt, per_spk, ops and wer_bootci as Kaldi's scripts write them, and
                       per_gender, per_dialect … if DATA_DIR has spk2gender, spk2dialect …
  sclite/              hyp.sys, .raw, .dtl, .pra and .sgml in the formats of NIST's sclite, and its
                       input: ref.trn and hyp.trn, and ref.stm and hyp.ctm if times are known
  score.json           all numbers and the name of the error rate, for print_scores.py and others


See also: print_scores.py, compute_wer.py, compare_wer.py, make_report.py, plot_confusions.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, options_from_fields, run
from pipeline.errors import UsageError
from pipeline.scoring.score_options import MODE_HELP, ScoringOptions


def main(
    data_dir: Annotated[
        Path, Argument(metavar="DATA_DIR", help="data directory with text and utt2spk")
    ],
    decode_dir: Annotated[
        Path, Argument(metavar="DECODE_DIR", help="decode directory with hyp.txt")
    ],
    options: ScoringOptions,
    mode: Annotated[str, Option(help=MODE_HELP)] = "strict",
    name: Annotated[
        str, Option(help="name of the error rate; empty: PER with --map, CER with --cer, else WER")
    ] = "",
    replications: Annotated[
        int, Option(help="number of test sets to draw for the 95 % interval")
    ] = 10000,
    seed: Annotated[int, Option(help="seed of the random draws")] = 0,
    with_cer: Annotated[
        bool,
        Option(
            "--with-cer/--no-with-cer", help="count characters, too: %CER beside the error rate"
        ),
    ] = False,
    sclite: Annotated[
        bool, Option("--sclite/--no-sclite", help="write the output and input files of sclite")
    ] = True,
) -> int:
    from pipeline.scoring.kaldi_forms import wer_lines
    from pipeline.scoring.score_directory import score_directory

    name = name or options.name
    if with_cer and (options.cer or options.map):
        raise UsageError("--with-cer counts beside words; leave off --cer and --map")
    score = score_directory(
        data_dir,
        decode_dir,
        options,
        mode=mode,
        replications=replications,
        seed=seed,
        name=name,
        sclite=sclite,
        with_cer=with_cer,
    )
    for rate, part in ((name, score), ("CER", score.cer)):
        if part:
            lines = wer_lines(part.counts, absent=score.texts.absent, name=rate, note=score.note)
            print(lines if part is score else lines.partition("\n")[0] + "\n", end="")
            print(f"95 % interval [ {part.interval.low:.2f}, {part.interval.high:.2f} ]")
    print(f"Rule: {options.describe()}" + (f"; mode {mode}" if mode != "strict" else ""))
    tally = Tally()
    tally.ok(score.counts.sentences)
    return tally.finish(f"see {decode_dir / 'scoring'}")


if __name__ == "__main__":
    run(options_from_fields(main))
