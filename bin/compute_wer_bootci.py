#!/usr/bin/env python3
"""Error rate with its 95 % interval, and how probably one system beats another.

Usage: compute_wer_bootci.py [options] REF_RSPECIFIER HYP_RSPECIFIER [HYP2_RSPECIFIER]

Test sets are drawn from the given one, utterance by utterance, with replacement (M. Bisani, H. Ney,
ICASSP 2004); the interval is 1.96 standard deviations of their error rates to both sides. Both
systems are scored on the same sets. The lines are those of Kaldi's compute-wer-bootci; its random
numbers are others.

e.g.: compute_wer_bootci.py ark:data/dev/text ark:exp/ctc/hyp.txt ark:exp/transducer/hyp.txt

See also: compute_wer.py, align_text.py
"""

from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from pipeline.cli import Tally, run
from pipeline.errors import DataError, UsageError
from pipeline.scoring import MODES, edit_distance, pair_up, phone_folder, read_transcripts

if TYPE_CHECKING:
    from numpy.typing import NDArray

AT_A_TIME = 2**24  # drawn utterances in memory


def main(
    ref_rspecifier: Annotated[str, Argument(metavar="REF_RSPECIFIER", help="what was said")],
    hyp_rspecifier: Annotated[str, Argument(metavar="HYP_RSPECIFIER", help="what was recognised")],
    hyp2_rspecifier: Annotated[
        str, Argument(metavar="[HYP2_RSPECIFIER]", help="the same by another system")
    ] = "",
    mode: Annotated[
        str,
        Option(help="a reference without hypothesis: strict is an error, present leaves it out, "
               "all counts it as deleted"),
    ] = "strict",
    map_file: Annotated[
        str, Option("--map", metavar="MAP", help="phone map to fold all sides with")
    ] = "",
    map_to: Annotated[int, Option(help="set to fold to: 61, 48 or 39 phones")] = 39,
    replications: Annotated[int, Option(help="test sets drawn")] = 10000,
    seed: Annotated[int, Option(help="of the random draws")] = 0,
) -> int:  # fmt: skip
    if mode not in MODES:
        raise UsageError(f"--mode is {', '.join(MODES[:-1])} or {MODES[-1]}, not {mode!r}")
    if replications < 2:
        raise UsageError(f"--replications must be 2 or more, not {replications}")
    if seed < 0:
        raise UsageError(f"--seed must be 0 or more, not {seed}")
    fold = phone_folder(map_file, to=map_to) if map_file else None
    refs = read_transcripts(ref_rspecifier, fold=fold)
    hyps = [read_transcripts(h, fold=fold) for h in (hyp_rspecifier, hyp2_rspecifier) if h]
    if mode == "present":
        refs = {key: ref for key, ref in refs.items() if all(key in hyp for hyp in hyps)}
    rates = bootstrap(
        [len(ref) for ref in refs.values()],
        [[edit_distance(ref, hyp) for _, ref, hyp in pair_up(refs, h, mode=mode)] for h in hyps],
        replications,
        seed,
    )
    for number, rate in enumerate(rates, start=1):
        mean, margin = 100 * rate.mean(), 196 * rate.std()
        print(f"Set{number}: %WER {mean:.2f} 95% Conf Interval "
              f"[ {mean - margin:.2f}, {mean + margin:.2f} ]")  # fmt: skip
    if len(rates) == 2:
        share = 100 * float((rates[0] > rates[1]).mean())
        print(f"Probability of Set2 improving Set1: {share:.2f}")
    tally = Tally()
    tally.ok(len(refs))
    return tally.finish()


def bootstrap(
    tokens: list[int], errors: list[list[int]], replications: int, seed: int
) -> "NDArray[float]":  # type: ignore[type-var]
    """Error rates (systems, replications) of test sets drawn with replacement.

    Args:
        tokens: length of each reference.
        errors: of each system, its errors in each utterance.
        replications: how many test sets.
        seed: of the draws.

    Raises:
        DataError: the references hold no tokens.
    """
    import numpy as np

    if not sum(tokens):
        raise DataError("the references hold no tokens, so there is no error rate")
    random = np.random.default_rng(seed)
    table = np.array([tokens, *errors], dtype=np.float64)
    step = max(1, AT_A_TIME // len(tokens))
    parts = []
    for start in range(0, replications, step):
        count = min(step, replications - start)
        drawn = random.integers(len(tokens), size=(count, len(tokens)))
        parts.append(np.stack([row[drawn].sum(axis=1) for row in table]))
    sums = np.concatenate(parts, axis=1)
    return sums[1:] / np.maximum(sums[0], 1.0)


if __name__ == "__main__":
    run(main)
