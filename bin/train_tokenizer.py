#!/usr/bin/env python3
"""Tokens of a text: its phones, its characters, or subwords learnt from it by sentencepiece.

Usage: train_tokenizer.py [options] TEXT_RSPECIFIER TOKENS

TOKENS is the file tokens.txt: "<blk> 0", then a symbol and its number a line. Subwords have the
sentencepiece model beside it, tokens.model for tokens.txt. The same text gives the same bytes.

e.g.: train_tokenizer.py ark:data/train/text exp/tokens.txt
e.g.: train_tokenizer.py --phone-map=conf/phones.60-48-39.map ark:data/train/text exp/tokens.txt
e.g.: train_tokenizer.py --kind=bpe --vocab-size=500 ark:data/train/text exp/bpe500/tokens.txt

See also: map_phones.py, train_ctc.py, train_transducer.py
"""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, log, run
from pipeline.errors import UsageError
from pipeline.scoring.transcripts import read_transcripts
from pipeline.text.phones import load_phone_map
from pipeline.text.tokens import BLANK, Tokens, train_sentencepiece


class Kind(StrEnum):
    """What the tokens are."""

    PHONES = "phones"
    CHARS = "chars"
    BPE = "bpe"
    UNIGRAM = "unigram"


def main(
    rspecifier: Annotated[str, Argument(metavar="TEXT_RSPECIFIER", help="text; - is stdin")],
    tokens_path: Annotated[Path, Argument(metavar="TOKENS", help="the tokens file to write")],
    kind: Annotated[Kind, Option(help="phones: every item of the text is a token")] = Kind.PHONES,
    vocab_size: Annotated[
        int, Option(min=2, help="tokens with the blank, for bpe and unigram")
    ] = 500,
    phone_map: Annotated[
        str, Option(metavar="MAP", help="take the phones from this map, all of a set")
    ] = "",
    phone_set: Annotated[int, Option(help="the map's set: 61, 48 or 39 phones")] = 61,
) -> int:
    if phone_map and kind is not Kind.PHONES:
        raise UsageError(f"--phone-map goes with --kind=phones, not {kind}")
    text = list(read_transcripts(rspecifier).values())
    if phone_map:
        tokens = phones_of_map(phone_map, phone_set, text)
    elif kind is Kind.PHONES:
        tokens = Tokens.from_text(text)
    elif kind is Kind.CHARS:
        tokens = Tokens.from_characters(text)
    else:
        tokens = train_sentencepiece(text, kind=kind, vocab_size=vocab_size, where=rspecifier)
    tally = Tally()
    tally.ok(len(text))
    if text:
        tokens.save(tokens_path)
        log.info("%s: %d tokens with the blank", tokens_path, len(tokens))
    return tally.finish()


def phones_of_map(path: str, size: int, text: Iterable[list[str]]) -> Tokens:
    """All phones of a set; those of the text must be among them."""
    tokens = Tokens([BLANK, *load_phone_map(path).phones(size)], where=f"the {size} of {path}")
    for phones in text:
        tokens.encode(phones)
    return tokens


if __name__ == "__main__":
    run(main)
