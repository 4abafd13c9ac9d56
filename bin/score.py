#!/usr/bin/env python3
"""Score a decode directory: totals, groups, confusions, alignments, in the forms of several tools.

Usage: score.py [options] DATA_DIR DECODE_DIR

e.g.: score.py --map=conf/phones.60-48-39.map data/test exp/ctc/decode_test
e.g.: score.py --collapse-sil --alignment=nist data/test exp/ctc/decode_test

DECODE_DIR/hyp.txt is compared with DATA_DIR/text; with --map both are folded first. The rule is
Kaldi's unless an option asks for a variant, and it is printed with the error rate, because error
rates under different rules cannot be compared. These files are written to DECODE_DIR/scoring:

  wer                  the %WER, %SER and Scored lines of compute-wer, which always says %WER
  ref.txt, hyp.txt, alignments        both sides under the rule, and align-text's alignments
  wer_details/         per_utt, per_spk, ops and wer_bootci as Kaldi's tools write them, and
                       per_gender, per_dialect … for the files spk2gender, spk2dialect … of DATA_DIR
  sclite/              hyp.sys, .raw, .dtl, .pra and .sgml in the forms of NIST's sclite, and its
                       inputs: ref.trn and hyp.trn, ref.stm and hyp.ctm where times are known
  score.json           all numbers, under the name of the error rate, for print_scores.py and others

See also: print_scores.py, compute_wer.py, compare_wer.py, make_report.py, plot_confusions.py
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, options_from_fields, run
from pipeline.scoring.score_options import ScoringOptions


def main(
    data_dir: Annotated[Path, Argument(metavar="DATA_DIR", help="holds text and utt2spk")],
    decode_dir: Annotated[Path, Argument(metavar="DECODE_DIR", help="holds hyp.txt")],
    options: ScoringOptions,
    mode: Annotated[
        str,
        Option(
            help="what to do with an utterance that one side lacks: strict fails, present leaves "
            "it out, all counts a missing hypothesis as deletions"
        ),
    ] = "strict",
    name: Annotated[
        str, Option(help="name of the error rate, e.g. CER; empty: PER with --map, else WER")
    ] = "",
    replications: Annotated[
        int, Option(help="number of test sets drawn for the 95 % interval")
    ] = 10000,
    seed: Annotated[int, Option(help="seed of the random draws")] = 0,
    sclite: Annotated[
        bool, Option("--sclite/--no-sclite", help="write the files in sclite's forms")
    ] = True,
) -> int:
    from pipeline.scoring.kaldi_forms import wer_lines
    from pipeline.scoring.score_directory import score_directory

    name = name or ("PER" if options.map else "WER")
    score = score_directory(
        data_dir,
        decode_dir,
        options,
        mode=mode,
        replications=replications,
        seed=seed,
        name=name,
        sclite=sclite,
    )
    lines = wer_lines(score.counts, absent=score.texts.absent, name=name, note=score.note)
    print(lines, end="")
    print(f"95 % interval [ {score.interval.low:.2f}, {score.interval.high:.2f} ]")
    print(f"Rule: {options.describe()}" + (f"; mode {mode}" if mode != "strict" else ""))
    tally = Tally()
    tally.ok(score.counts.sentences)
    return tally.finish(f"see {decode_dir / 'scoring'}")


if __name__ == "__main__":
    run(options_from_fields(main))
