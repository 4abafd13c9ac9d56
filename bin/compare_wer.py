#!/usr/bin/env python3
"""Do systems differ? Matched pairs, sign, Wilcoxon and McNemar tests, as NIST's sc_stats has them.

Usage: compare_wer.py [options] REF_RSPECIFIER HYP_RSPECIFIER HYP2_RSPECIFIER…

Each pair of systems is tested four ways, two-tailed: MP (matched pairs of sentence segments), SI
(signs) and WI (Wilcoxon's ranks) on the speakers' error rates, MN (McNemar) on whole utterances.
A row says which system is better ("~": none at 5 %), the probability p of such a difference
between equal systems, "*", "**" or "***" for 5, 1 and 0.1 %, and what the test rests on. p has
sc_stats' own rounding of z to two decimals. Use --alignment=nist for sclite's alignments too.

e.g.: compare_wer.py --utt2spk=ark:data/dev/utt2spk ark:data/dev/text \\
        ark:exp/ctc/decode_dev/hyp.txt ark:exp/transducer/decode_dev/hyp.txt

See also: score.py, compute_wer_bootci.py, compute_wer.py
"""

import json
from itertools import combinations
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, log, options_from_fields, run
from pipeline.errors import DataError, UsageError
from pipeline.scoring.score_options import ScoringOptions, bracket


def main(
    ref_rspecifier: Annotated[str, Argument(metavar="REF_RSPECIFIER", help="what was said")],
    hyp_rspecifiers: Annotated[
        list[str], Argument(metavar="HYP_RSPECIFIER…", help="what two systems or more recognised")
    ],
    options: ScoringOptions,
    utt2spk: Annotated[
        str, Option(help="rspecifier of speakers; empty: what is before the first - or _")
    ] = "",
    name: Annotated[list[str] | None, Option(help="of each system, in their order")] = None,
    mode: Annotated[
        str, Option(help="an utterance that not all tables have: strict, present or all")
    ] = "strict",
    min_correct: Annotated[int, Option(help="right tokens on end between two segments")] = 2,
    as_json: Annotated[bool, Option("--json", help="print JSON, with everything")] = False,
) -> int:
    from pipeline.scoring.alignment import align_all
    from pipeline.scoring.comparison import as_data, find_speakers, table
    from pipeline.scoring.significance import compare
    from pipeline.scoring.transcripts import read_systems

    names = name or list(hyp_rspecifiers)
    if len(hyp_rspecifiers) < 2:
        raise UsageError("give the hypotheses of two systems or more")
    if len(names) != len(hyp_rspecifiers):
        raise UsageError(f"{len(names)} names for {len(hyp_rspecifiers)} systems")
    if len(set(names)) != len(names):
        raise UsageError("two systems have the same name; tell them apart with --name")
    texts = read_systems(ref_rspecifier, hyp_rspecifiers, fold=options.fold(), mode=mode)
    found = [
        align_all(texts.pairs(number), options.rule, optional=options.optional)
        for number in range(len(names))
    ]
    if not any(map(len, (texts.refs[utt_id] for utt_id in texts.utt_ids))):
        raise DataError("the references hold no tokens, so there is nothing to compare")
    speakers = find_speakers(texts.utt_ids, utt2spk)
    results = {
        (a, b): compare(found[a], found[b], speakers, min_correct=min_correct)
        for a, b in combinations(range(len(names)), 2)
    }
    totals = [system.total() for system in found]
    if as_json:
        print(json.dumps(as_data(names, totals, results, options), indent=2, ensure_ascii=False))
    else:
        print(table(names, totals, results, note=bracket(options)), end="")
    tally = Tally()
    tally.ok(len(texts.utt_ids))
    log.info("rule: %s", options.describe())
    return tally.finish()


if __name__ == "__main__":
    run(options_from_fields(main))
