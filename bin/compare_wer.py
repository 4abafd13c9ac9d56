#!/usr/bin/env python3
"""Test whether the error rates of systems differ, by the four tests of NIST's sc_stats.

Usage: compare_wer.py [options] REF_RSPECIFIER HYP_RSPECIFIER HYP2_RSPECIFIER…

Each pair of systems gets four two-tailed tests: matched pairs of sentence segments (MP), the sign
test (SI) and Wilcoxon's signed-rank test (WI) on the error rates of the speakers, and McNemar's
test (MN) on whole utterances. A row shows the better system ("~" if the difference is not
significant at 5 %), the probability p of such a difference between equal systems, "*", "**" or
"***" for significance at 5, 1 and 0.1 %, and the numbers behind the test. As in sc_stats, z is
rounded to two decimals before p is looked up. --alignment=nist also aligns as NIST's sclite does.

e.g.: compare_wer.py --utt2spk=ark:data/dev/utt2spk ark:data/dev/text \\
        ark:exp/ctc/decode_dev/hyp.txt ark:exp/transducer/decode_dev/hyp.txt

See also: score.py, compute_wer_bootci.py, compute_wer.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import json
from itertools import combinations
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, log, options_from_fields, run
from pipeline.errors import DataError, UsageError
from pipeline.scoring.score_options import MODE_HELP, ScoringOptions, bracket


def main(
    ref_rspecifier: Annotated[
        str, Argument(metavar="REF_RSPECIFIER", help="references, a text table")
    ],
    hyp_rspecifiers: Annotated[
        list[str], Argument(metavar="HYP_RSPECIFIER…", help="hypotheses of two systems or more")
    ],
    options: ScoringOptions,
    utt2spk: Annotated[
        str, Option(help="rspecifier of speakers; empty: the name up to its first - or _")
    ] = "",
    name: Annotated[
        list[str] | None,
        Option(help="name of a system, given once for each; default: the rspecifiers"),
    ] = None,
    mode: Annotated[str, Option(help=MODE_HELP)] = "strict",
    min_correct: Annotated[
        int, Option(help="consecutive correct tokens that separate two segments")
    ] = 2,
    metric: Annotated[
        str, Option(help="name of the error rate, such as CER; empty: PER with --map, else WER")
    ] = "",
    as_json: Annotated[
        bool, Option("--json/--no-json", help="print JSON, with all details")
    ] = False,
) -> int:
    from pipeline.scoring.alignment import align_all
    from pipeline.scoring.comparison import as_data, find_speakers, table
    from pipeline.scoring.significance import compare
    from pipeline.scoring.transcripts import read_systems

    names = name or list(hyp_rspecifiers)
    if len(hyp_rspecifiers) < 2:
        raise UsageError("give the hypotheses of two systems or more")
    if len(names) != len(hyp_rspecifiers):
        raise UsageError(
            f"{len(names)} names for {len(hyp_rspecifiers)} systems; give one --name for each"
        )
    if metric and len(metric.split()) != 1:
        raise UsageError(f"--metric must be one word, such as PER, not {metric!r}")
    if len(set(names)) != len(names):
        twice = next(one for one in names if names.count(one) > 1)
        raise UsageError(f"two systems are named {twice}; give each a --name of its own")
    texts = read_systems(ref_rspecifier, hyp_rspecifiers, fold=options.fold(), mode=mode)
    found = [
        align_all(texts.pairs(number), options.rule, optional=options.optional)
        for number in range(len(names))
    ]
    if not any(map(len, (texts.refs[utt_id] for utt_id in texts.utt_ids))):
        raise DataError(
            "the references hold no tokens, so there is nothing to compare; give others"
        )
    speakers = find_speakers(texts.utt_ids, utt2spk)
    results = {
        (a, b): compare(found[a], found[b], speakers, min_correct=min_correct)
        for a, b in combinations(range(len(names)), 2)
    }
    totals = [system.total() for system in found]
    if as_json:
        print(json.dumps(as_data(names, totals, results, options), indent=2, ensure_ascii=False))
    else:
        rate = metric or ("CER" if options.cer else "PER" if options.map else "WER")
        print(table(names, totals, results, metric=rate, note=bracket(options)), end="")
    tally = Tally()
    tally.ok(len(texts.utt_ids))
    log.info("rule: %s", options.describe())
    return tally.finish()


if __name__ == "__main__":
    run(options_from_fields(main))
