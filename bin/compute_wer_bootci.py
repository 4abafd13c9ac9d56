#!/usr/bin/env python3
"""Compute an error rate with its 95 % interval, and the probability that a second system is better.

Usage: compute_wer_bootci.py [options] REF_RSPECIFIER HYP_RSPECIFIER [HYP2_RSPECIFIER]

The method is the bootstrap (M. Bisani and H. Ney, ICASSP 2004): new test sets are drawn from the
utterances of the given one with replacement, and the interval reaches 1.96 standard deviations of
their error rates to either side of the mean. Both systems are scored on the same test sets. The
output has the form of Kaldi's compute-wer-bootci, which draws other random numbers.

e.g.: compute_wer_bootci.py ark:data/dev/text ark:exp/ctc/hyp.txt ark:exp/transducer/hyp.txt

See also: compute_wer.py, compare_wer.py, score.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, log, options_from_fields, run
from pipeline.scoring.score_options import MODE_HELP, ScoringOptions, bracket


def main(
    ref_rspecifier: Annotated[
        str, Argument(metavar="REF_RSPECIFIER", help="references, a text table")
    ],
    hyp_rspecifier: Annotated[
        str, Argument(metavar="HYP_RSPECIFIER", help="hypotheses, a text table")
    ],
    options: ScoringOptions,
    hyp2_rspecifier: Annotated[
        str, Argument(metavar="[HYP2_RSPECIFIER]", help="hypotheses of a second system")
    ] = "",
    mode: Annotated[str, Option(help=MODE_HELP)] = "strict",
    replications: Annotated[int, Option(help="number of test sets to draw")] = 10000,
    seed: Annotated[int, Option(help="seed of the random draws")] = 0,
) -> int:
    import numpy as np

    from pipeline.scoring.alignment import align_all
    from pipeline.scoring.bootstrap import (
        bootstrap,
        check_draws,
        interval,
        probability_better,
    )
    from pipeline.scoring.transcripts import read_systems

    check_draws(replications, seed)
    rspecifiers = [rspecifier for rspecifier in (hyp_rspecifier, hyp2_rspecifier) if rspecifier]
    texts = read_systems(ref_rspecifier, rspecifiers, fold=options.fold(), mode=mode)
    tallies = [
        align_all(texts.pairs(number), options.rule, optional=options.optional).tallies
        for number in range(len(rspecifiers))
    ]
    errors = np.stack([table[:, 1:].sum(axis=1) for table in tallies])
    tokens = tallies[0][:, :3].sum(axis=1)
    rates = bootstrap(tokens, errors, replications=replications, seed=seed)
    for number, found in enumerate(map(interval, rates), start=1):
        print(f"Set{number}: %{'CER' if options.cer else 'WER'} {found.mean:.2f} 95% Conf Interval "
              f"[ {found.low:.2f}, {found.high:.2f} ]{bracket(options)}")  # fmt: skip
    if len(rates) == 2:
        print(f"Probability of Set2 improving Set1: {probability_better(*rates):.2f}")
    tally = Tally()
    tally.ok(len(texts.utt_ids))
    log.info("rule: %s", options.describe())
    return tally.finish()


if __name__ == "__main__":
    run(options_from_fields(main))
