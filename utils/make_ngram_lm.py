#!/usr/bin/env python3
"""Estimate an n-gram language model over the tokens of a text, and write an ARPA file.

Usage: make_ngram_lm.py [options] TEXT ARPA

TEXT is a text table (its first field is the utterance) or an rspecifier. Every utterance is a
sentence, even without words. With --vocab the text is converted to these tokens first, so that a
model over characters or subwords can be estimated from words, and all tokens get a probability.

Smoothing is interpolated modified Kneser-Ney (S. Chen and J. Goodman, 1998), with three discounts
for n-grams that were seen once, twice or more often. If the counts of an order do not determine
them, Ney's single discount is used. If no n-grams were seen once or twice, as is usual for single
phones, the discounts are 0.5, 1 and 1.5. Orders above the length of the longest sentence are left
out. The same text gives the same bytes.

e.g.: make_ngram_lm.py data/train/text exp/lm/3gram.arpa
e.g.: make_ngram_lm.py --order=4 --vocab=exp/ctc/tokens.txt data/train/text exp/lm/4gram.arpa
e.g.: make_ngram_lm.py ark:data/train/text "| gzip -c > exp/lm/3gram.arpa.gz"

See also: train_tokenizer.py, train_predictor.py, decode_transducer.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Annotated, NamedTuple

from typer import Argument, Option

from pipeline.cli import Tally, log, run
from pipeline.errors import DataError, PhoneError
from pipeline.scoring.transcripts import Fold, read_transcripts
from pipeline.tables import is_specifier, open_output
from pipeline.text.arpa import BOS, EOS, EPS, UNKNOWN
from pipeline.text.tokens import BLANK, Tokens

UNK = UNKNOWN[0]
MARKS = {BOS, EOS, EPS, BLANK, *UNKNOWN}
FALLBACK = (0.5, 1.0, 1.5)

Words = tuple[str, ...]
Discounts = tuple[float, float, float]  # of n-grams that were counted once, twice, more often


class Order(NamedTuple):
    """The n-grams of one length."""

    probs: dict[Words, float]  # P(w|h)
    backoffs: dict[Words, float]  # bow(h) of histories that are one word shorter


def main(
    text: Annotated[str, Argument(metavar="TEXT", help="text table or rspecifier; - is stdin")],
    arpa: Annotated[str, Argument(metavar="ARPA", help="ARPA file to write; - is stdout")],
    order: Annotated[int, Option(min=1, help="order n of the model, in tokens")] = 3,
    vocab: Annotated[
        str,
        Option(metavar="TOKENS", help="tokens.txt to convert the text with; empty: no conversion"),
    ] = "",
    unk: Annotated[
        bool, Option("--unk/--no-unk", help="add <unk>, also for phones that --vocab lacks")
    ] = False,
) -> int:
    tokens = Tokens.from_file(vocab) if vocab else None
    rspecifier = text if text == "-" or is_specifier(text) else f"ark:{text}"
    sentences = list(read_transcripts(rspecifier, fold=speller(tokens, unk=unk)).values())
    tally = Tally()
    tally.ok(len(sentences))
    if not sentences:
        return tally.finish()
    words = {word for sentence in sentences for word in sentence} | ({UNK} if unk else set())
    words |= set(tokens.symbols) - MARKS if tokens else set()
    if not words:
        raise DataError(f"{text}: there are no tokens to learn from; give another text")
    orders = estimate(count(sentences, order), words | {EOS})
    with open_output(arpa) as stream:
        for line in arpa_lines(orders):
            stream.write(line.encode())
    number = sum(len(o.probs) for o in orders)
    return tally.finish(f"{number} n-grams of {len(words)} tokens: {arpa}")


def speller(tokens: Tokens | None, *, unk: bool) -> Fold:
    """A function that converts the words of an utterance to the tokens of the model."""

    def spell(words: list[str], where: str) -> list[str]:
        if tokens is None:
            spelt = words
        elif unk and tokens.kind == "phones":
            spelt = [word if word in tokens else UNK for word in words]
        else:
            spelt = [tokens.symbols[i] for i in tokens.encode(words, where=where)]
        marks = [word for word in spelt if word in MARKS - ({UNK} if unk else set())]
        if marks:
            advice = "give --unk" if marks[0] == UNK else "remove it"
            raise PhoneError(f'{where}: "{marks[0]}" has a special meaning in models; {advice}')
        return spelt

    return spell


def count(sentences: list[list[str]], longest: int) -> list[Counter[Words]]:
    """The counts of all n-grams, for n from 1.

    The longest n-grams, and those at the beginning of a sentence, are counted as often as they
    occur. A shorter one is counted once for each word that it follows (its continuation count).
    """
    order = min(longest, max(map(len, sentences)) + 2)
    if order < longest:
        log.warning("no sentence has %d-grams; the order of the model is %d", longest, order)
    counts: list[Counter[Words]] = [Counter() for _ in range(order)]
    for sentence in sentences:
        marked = (BOS, *sentence, EOS)
        for n in range(1, min(order, len(marked) + 1)):
            counts[n - 1][marked[:n]] += 1
        counts[-1].update(marked[i : i + order] for i in range(len(marked) - order + 1))
    for n in range(order - 1, 0, -1):
        counts[n - 1].update(longer[1:] for longer in counts[n])
    del counts[0][BOS,]  # <s> is only a history and never predicted
    return counts


def discounts(counts: Iterable[int]) -> Discounts:
    """The discounts of counts of 1, of 2, and of more."""
    of = Counter(counts)
    once, twice = of[1], of[2]
    if not (once and twice):
        return FALLBACK
    y = once / (once + 2 * twice)
    if of[3] and of[4]:
        of_two, of_more = 2 - 3 * y * of[3] / twice, 3 - 4 * y * of[4] / of[3]
        if min(of_two, of_more) > 0:
            return y, of_two, of_more  # 1 - 2 · y · twice / once is y
    return y, y, y


def estimate(counts: list[Counter[Words]], words: set[str]) -> list[Order]:
    """Estimate P(w|h) = (count - discount) / total of h + bow(h) · P(w|h'), lower orders first.

    Below the unigrams, all ``words`` have the same probability.
    """
    for word in sorted(words):
        counts[0][word,] += 0
    orders: list[Order] = []
    for n, of in enumerate(counts, start=1):
        off = discounts(of.values())
        log.info("%d-grams: %d, discounts %.4f %.4f %.4f", n, len(of), *off)
        totals: dict[Words, int] = defaultdict(int)
        left: dict[Words, float] = defaultdict(float)
        for gram, c in of.items():
            totals[gram[:-1]] += c
            left[gram[:-1]] += discount(c, off)
        backoffs = {h: left[h] / total for h, total in totals.items()}
        probs = {}
        for gram, c in of.items():
            shorter = orders[-1].probs[gram[1:]] if orders else 1 / len(words)
            own = (c - discount(c, off)) / totals[gram[:-1]]
            probs[gram] = own + backoffs[gram[:-1]] * shorter
        orders.append(Order(probs, backoffs))
    return orders


def discount(c: int, off: Discounts) -> float:
    """The discount of a count."""
    return off[min(c, 3) - 1] if c else 0.0


def arpa_lines(orders: list[Order]) -> Iterator[str]:
    """The lines of an ARPA file, with sorted n-grams."""
    tables = [{(BOS,): 1e-99} | orders[0].probs, *(o.probs for o in orders[1:])]
    yield "\\data\\\n"
    for n, probs in enumerate(tables, start=1):
        yield f"ngram {n}={len(probs)}\n"
    for n, probs in enumerate(tables, start=1):
        yield f"\n\\{n}-grams:\n"
        backoffs = orders[n].backoffs if n < len(orders) else {}
        for gram, prob in sorted(probs.items()):
            fields = [f"{math.log10(prob):.7f}", " ".join(gram)]
            if gram in backoffs:
                fields.append(f"{math.log10(backoffs[gram]):.7f}")
            yield "\t".join(fields) + "\n"
    yield "\n\\end\\\n"


if __name__ == "__main__":
    run(main)
