#!/usr/bin/env python3
"""Alignment of two text tables, token by token, in Kaldi's form: "utt a a ; b <eps> ; c d ".

Usage: align_text.py [options] REF_RSPECIFIER HYP_RSPECIFIER ALIGNMENT_WSPECIFIER

Each pair is a reference token and what was recognised for it. Insertions, deletions and
substitutions cost 1 each; among the best alignments a substitution is preferred to a deletion,
and that to an insertion, from the end backwards.

e.g.: align_text.py --special-symbol="<eps>" ark:data/test/text ark:hyp.txt ark,t:-

See also: compute_wer.py, map_phones.py
"""

from collections.abc import Iterable
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, run
from pipeline.errors import DataError, SpecifierError, UsageError
from pipeline.scoring import EPS, align, phone_folder, read_transcripts
from pipeline.tables import open_output, parse_rspecifier, parse_wspecifier


def main(
    ref_rspecifier: Annotated[str, Argument(metavar="REF_RSPECIFIER", help="what was said")],
    hyp_rspecifier: Annotated[str, Argument(metavar="HYP_RSPECIFIER", help="what was recognised")],
    wspecifier: Annotated[
        str, Argument(metavar="ALIGNMENT_WSPECIFIER", help="the alignments, a text table")
    ],
    special_symbol: Annotated[str, Option(help="stands where a token has no partner")] = EPS,
    separator: Annotated[str, Option(help="stands between pairs")] = ";",
    map_file: Annotated[
        str, Option("--map", metavar="MAP", help="phone map to fold both sides with")
    ] = "",
    map_to: Annotated[int, Option(help="set to fold to: 61, 48 or 39 phones")] = 39,
) -> int:
    reserved = {special_symbol, separator}
    if len(reserved) != 2 or any(symbol.split() != [symbol] for symbol in reserved):
        raise UsageError("--special-symbol and --separator are two different, single words")
    target = parse_wspecifier(wspecifier)
    if target.ark is None or target.scp is not None:
        raise SpecifierError(f"{wspecifier}: alignments are one text file; write ark,t:FILE")
    fold = phone_folder(map_file, to=map_to) if map_file else None
    refs = read_transcripts(ref_rspecifier, fold=fold)
    hyps = read_transcripts(hyp_rspecifier, fold=fold)
    tally = Tally(permissive=parse_rspecifier(ref_rspecifier).permissive)
    with open_output(target.ark) as stream:
        for utt_id, ref in refs.items():
            try:
                pairs = align(ref, find(hyps, utt_id, ref, reserved), eps=special_symbol)
            except DataError as error:
                tally.fail(utt_id, error)
                continue
            stream.write(f"{utt_id} {layout(pairs, separator)}\n".encode())
            tally.ok()
    return tally.finish()


def find(
    hyps: dict[str, list[str]], utt_id: str, ref: Iterable[str], reserved: set[str]
) -> list[str]:
    """The hypothesis of an utterance, if it and the reference can be laid out."""
    if utt_id not in hyps:
        raise DataError("no hypothesis for this utterance; decode it")
    if clash := reserved & {*ref, *hyps[utt_id]}:
        raise DataError(f'the text holds "{min(clash)}"; choose another symbol for it')
    return hyps[utt_id]


def layout(pairs: list[tuple[str, str]], separator: str) -> str:
    """``a a ; b c ``: a blank after every token, the last as well, as Kaldi writes lists."""
    return f" {separator} ".join(f"{ref} {hyp}" for ref, hyp in pairs) + " " * bool(pairs)


if __name__ == "__main__":
    run(main)
