#!/usr/bin/env python3
"""Make the tokens of a text: phones, characters, pairs of them, or subwords of sentencepiece.

Usage: train_tokenizer.py [options] TEXT_RSPECIFIER TOKENS

TOKENS is the file tokens.txt: its first line is "<blk> 0", and every further line holds a symbol
and its number. For subwords, the sentencepiece model is written beside it, as tokens.model. The
same text gives the same bytes.

chars are code points of Unicode's normal form C, of any script, and <space> between words. bigrams
are those of Deep Speech 2: "the cat" is "th e <space> ca t".

A text to recognise or to train on later may have characters or phones that this text lacks. Without
--unk they end the later program, which lists them. With --unk they become the token <unk>, which
decode_*.py never put out unless --allow-unk is given.

e.g.: train_tokenizer.py ark:data/train/text exp/tokens.txt
e.g.: train_tokenizer.py --phone-map=conf/phones.60-48-39.map ark:data/train/text exp/tokens.txt
e.g.: train_tokenizer.py --kind=bigrams ark:data/train/text exp/bigrams/tokens.txt
e.g.: train_tokenizer.py --kind=bpe --vocab-size=500 ark:data/train/text exp/bpe500/tokens.txt

See also: map_phones.py, train_ctc.py, train_transducer.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, log, run
from pipeline.errors import UsageError
from pipeline.scoring.transcripts import read_transcripts
from pipeline.text.characters import check_words
from pipeline.text.phones import load_phone_map
from pipeline.text.subwords import train_sentencepiece
from pipeline.text.tokens import BLANK, UNK, Tokens


class Kind(StrEnum):
    """What the tokens are."""

    PHONES = "phones"
    CHARS = "chars"
    BIGRAMS = "bigrams"
    BPE = "bpe"
    UNIGRAM = "unigram"


def main(
    rspecifier: Annotated[
        str, Argument(metavar="TEXT_RSPECIFIER", help="text to read; - is stdin")
    ],
    tokens_path: Annotated[Path, Argument(metavar="TOKENS", help="tokens file to write")],
    kind: Annotated[
        Kind, Option(help="kind of tokens; phones: every item of the text is a token")
    ] = Kind.PHONES,
    vocab_size: Annotated[
        int, Option(min=2, help="number of tokens with the blank, for bpe and unigram")
    ] = 500,
    phone_map: Annotated[
        str,
        Option(metavar="MAP", help="phone map that lists the phones; empty: those of the text"),
    ] = "",
    phone_set: Annotated[
        int, Option(help="size of the set to take from --phone-map: 61, 48 or 39")
    ] = 61,
    unk: Annotated[
        bool,
        Option("--unk/--no-unk", help="add <unk>, a token for all symbols that the text lacks"),
    ] = False,
) -> int:
    if phone_map and kind is not Kind.PHONES:
        raise UsageError(f"--phone-map applies to --kind=phones, not to {kind}; leave it off")
    utterances = read_transcripts(rspecifier)
    text = list(utterances.values())
    if kind is not Kind.PHONES:
        for utt_id, words in utterances.items():
            check_words(words, f"{rspecifier}: {utt_id}")
    if phone_map:
        tokens = phones_of_map(phone_map, phone_set, rspecifier, utterances, unk=unk)
    elif kind is Kind.PHONES:
        tokens = Tokens.from_text(text, unk=unk, where=rspecifier)
    elif kind is Kind.CHARS:
        tokens = Tokens.from_characters(text, unk=unk, where=rspecifier)
    elif kind is Kind.BIGRAMS:
        tokens = Tokens.from_bigrams(text, unk=unk, where=rspecifier)
    else:
        tokens = train_sentencepiece(
            text, kind=kind, vocab_size=vocab_size, where=rspecifier, unk=unk
        )
    tally = Tally(source=rspecifier)
    tally.ok(len(text))
    if text:
        tokens.save(tokens_path)
        log.info("%s: %d tokens with the blank", tokens_path, len(tokens))
    return tally.finish()


def phones_of_map(
    path: str, size: int, source: str, utterances: dict[str, list[str]], *, unk: bool
) -> Tokens:
    """The tokens of all phones of a set. Raises PhoneError if a text has a phone beyond them."""
    phones = [*([UNK] if unk else []), *load_phone_map(path).phones(size)]
    tokens = Tokens([BLANK, *phones], where=f"the {size} of {path}")
    tokens.encode_all((f"{source}: {utt_id}", text) for utt_id, text in utterances.items())
    return tokens


if __name__ == "__main__":
    run(main)
