#!/usr/bin/env python3
"""Fold the phones of a text table, such as TIMIT's 61 phones to the 39 that are scored.

Usage: map_phones.py [options] MAP TEXT_RSPECIFIER TEXT_WSPECIFIER

Phones without a name in the target set (TIMIT's q) are dropped, and phones that are already in the
target set stay as they are. Equal neighbours are not merged. An utterance that loses all its phones
is written with its key alone.

e.g.: map_phones.py conf/phones.60-48-39.map ark:data/test/text ark:data/test/text.39
e.g.: map_phones.py --from-set=48 conf/phones.60-48-39.map - - < hyp48.txt > hyp39.txt

See also: compute_wer.py, decode_ctc.py, decode_transducer.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, run
from pipeline.errors import PhoneError
from pipeline.tables import TextReader, TextWriter, parse_rspecifier
from pipeline.text.phones import fold_with, load_phone_map


def main(
    phone_map: Annotated[
        str, Argument(metavar="MAP", help="phone map: names in the sets of 61, 48 and 39")
    ],
    rspecifier: Annotated[
        str, Argument(metavar="TEXT_RSPECIFIER", help="text to read; - is stdin")
    ],
    wspecifier: Annotated[
        str, Argument(metavar="TEXT_WSPECIFIER", help="text to write; - is stdout")
    ],
    from_set: Annotated[int, Option(help="size of the input's phone set: 61, 48 or 39")] = 61,
    to_set: Annotated[int, Option(help="size of the output's phone set: 61, 48 or 39")] = 39,
) -> int:
    folds = load_phone_map(phone_map).folds(to=to_set, from_set=from_set)
    rspecifier = "ark:-" if rspecifier == "-" else rspecifier
    source = parse_rspecifier(rspecifier)
    texts = TextReader(rspecifier)
    tally = Tally(permissive=source.permissive, source=rspecifier)
    with TextWriter("ark,t:-" if wspecifier == "-" else wspecifier) as writer:
        for number, (utt_id, text) in enumerate(texts, start=1):
            where = f"{source.rxfilename}:{number + texts.skipped}"
            try:
                phones = fold_with(folds, text.split(), where=where, map_path=phone_map)
            except PhoneError as error:
                if not source.permissive:
                    raise
                tally.fail(utt_id, error)
                continue
            writer.write(utt_id, " ".join(phones))
            tally.ok()
        tally.require_some()
    tally.failed += texts.skipped
    return tally.finish()


if __name__ == "__main__":
    run(main)
