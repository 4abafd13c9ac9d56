#!/usr/bin/env python3
"""Align two text tables, token by token, in the form of Kaldi: "utt a a ; b <eps> ; c d ".

Usage: align_text.py [options] REF_RSPECIFIER HYP_RSPECIFIER ALIGNMENT_WSPECIFIER

Each pair holds a reference token and the token that was recognised in its place. Insertions,
deletions and substitutions cost 1 each. Where several alignments are equally good, the choice is
made from the end backwards: a substitution is preferred to a deletion, and a deletion to an
insertion. --alignment=nist aligns as NIST's sclite does, with costs of 4 for a substitution and 3
for a deletion or an insertion.

e.g.: align_text.py --special-symbol="<eps>" ark:data/test/text ark:hyp.txt ark,t:-

See also: score.py, compute_wer.py, map_phones.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, log, options_from_fields, run
from pipeline.errors import DataError, SpecifierError, UsageError
from pipeline.scoring.alignment import EPS, Pair, align_all
from pipeline.scoring.kaldi_forms import alignment_lines
from pipeline.scoring.score_options import ScoringOptions
from pipeline.scoring.transcripts import read_transcripts
from pipeline.tables import open_output, parse_rspecifier, parse_wspecifier


def main(
    ref_rspecifier: Annotated[
        str, Argument(metavar="REF_RSPECIFIER", help="references, a text table")
    ],
    hyp_rspecifier: Annotated[
        str, Argument(metavar="HYP_RSPECIFIER", help="hypotheses, a text table")
    ],
    wspecifier: Annotated[
        str, Argument(metavar="ALIGNMENT_WSPECIFIER", help="alignments to write, a text table")
    ],
    options: ScoringOptions,
    special_symbol: Annotated[str, Option(help="symbol where a token has no partner")] = EPS,
    separator: Annotated[str, Option(help="symbol between two pairs")] = ";",
) -> int:
    reserved = {special_symbol, separator}
    if len(reserved) != 2 or any(symbol.split() != [symbol] for symbol in reserved):
        raise UsageError("--special-symbol and --separator must be single words, and differ")
    target = parse_wspecifier(wspecifier)
    if target.ark is None or target.scp is not None:
        raise SpecifierError(f"{wspecifier}: alignments go to one text file; write ark,t:FILE")
    fold = options.fold()
    vocabulary: dict[str, str] = {}
    refs = read_transcripts(ref_rspecifier, fold=fold, vocabulary=vocabulary)
    hyps = read_transcripts(hyp_rspecifier, fold=fold, vocabulary=vocabulary)
    tally = Tally(permissive=parse_rspecifier(ref_rspecifier).permissive)
    pairs = []
    for utt_id, ref in refs.items():
        try:
            pairs.append(find(hyps, utt_id, ref, reserved))
            tally.ok()
        except DataError as error:
            tally.fail(utt_id, error)
    found = align_all(pairs, options.rule, optional=options.optional)
    with open_output(target.ark) as stream:
        for line in alignment_lines(found, eps=special_symbol, separator=separator):
            stream.write(line.encode())
    log.info("rule: %s", options.describe())
    return tally.finish()


def find(hyps: dict[str, list[str]], utt_id: str, ref: list[str], reserved: set[str]) -> Pair:
    """The reference and the hypothesis of an utterance.

    Raises:
        DataError: there is no hypothesis, or the text holds a reserved symbol.
    """
    if utt_id not in hyps:
        raise DataError("there is no hypothesis for this utterance; decode it")
    clash = reserved & {*ref, *hyps[utt_id]}
    if clash:
        raise DataError(
            f'the text holds the symbol "{min(clash)}"; choose another --special-symbol '
            "or --separator"
        )
    return utt_id, ref, hyps[utt_id]


if __name__ == "__main__":
    run(options_from_fields(main))
