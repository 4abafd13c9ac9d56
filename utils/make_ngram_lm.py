#!/usr/bin/env python3
"""Estimate an n-gram language model over the tokens of a text, as an ARPA file.

Usage: make_ngram_lm.py [options] TEXT ARPA

TEXT is a text table (first field the utterance's id) or an rspecifier of one; its utterances are
sentences, also those without a word. With --vocab they are encoded by the tokens first, so that a
model over characters or subwords is made of a text of words, and each token has a probability,
seen or not.

Smoothing is interpolated modified Kneser-Ney (S. Chen and J. Goodman, 1998). An order whose counts
do not give its three discounts (of n-grams seen once, twice, more often) has Ney's one discount
instead, and if n-grams seen once or twice are lacking, as among the 1-grams of phones, 0.5, 1, 1.5.
An order that is longer than the longest sentence is left out. The same text gives the same bytes.

e.g.: make_ngram_lm.py data/train/text exp/lm/3gram.arpa
e.g.: make_ngram_lm.py --order=4 --vocab=exp/ctc/tokens.txt data/train/text exp/lm/4gram.arpa
e.g.: make_ngram_lm.py ark:data/train/text "| gzip -c > exp/lm/3gram.arpa.gz"

See also: train_tokenizer.py, train_predictor.py, decode_transducer.py
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Annotated, NamedTuple

from typer import Argument, Option

from pipeline.cli import Tally, log, run
from pipeline.errors import DataError, PhoneError
from pipeline.scoring.transcripts import Fold, read_transcripts
from pipeline.tables import is_specifier, open_output
from pipeline.text.ngram import BOS, EOS, EPS, UNKNOWN
from pipeline.text.tokens import BLANK, Tokens

UNK = UNKNOWN[0]
MARKS = {BOS, EOS, EPS, BLANK, *UNKNOWN}
FALLBACK = (0.5, 1.0, 1.5)

Words = tuple[str, ...]
Discounts = tuple[float, float, float]  # of what was counted once, twice, more often


class Order(NamedTuple):
    """The n-grams of one length."""

    probs: dict[Words, float]  # P(w|h)
    backoffs: dict[Words, float]  # bow(h), of histories one shorter


def main(
    text: Annotated[str, Argument(metavar="TEXT", help="text table or rspecifier; - is stdin")],
    arpa: Annotated[str, Argument(metavar="ARPA", help="file to write; - is stdout")],
    order: Annotated[int, Option(min=1, help="n, the longest n-grams")] = 3,
    vocab: Annotated[
        str, Option(metavar="TOKENS", help="tokens.txt, to encode the text and to be its words")
    ] = "",
    unk: Annotated[
        bool, Option("--unk/--no-unk", help="with <unk>, also for phones that --vocab lacks")
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
        raise DataError(f"{text}: no tokens to learn from; give it a text that is not empty")
    orders = estimate(count(sentences, order), words | {EOS})
    with open_output(arpa) as stream:
        for line in arpa_lines(orders):
            stream.write(line.encode())
    number = sum(len(o.probs) for o in orders)
    return tally.finish(f"{number} n-grams of {len(words)} tokens: {arpa}")


def speller(tokens: Tokens | None, *, unk: bool) -> Fold:
    """What makes of an utterance's words the tokens that the model is about."""

    def spell(words: list[str], where: str) -> list[str]:
        if tokens is None:
            spelt = words
        elif unk and tokens.kind == "phones":
            spelt = [word if word in tokens else UNK for word in words]
        else:
            spelt = [tokens.symbols[i] for i in tokens.encode(words, where=where)]
        if marks := [word for word in spelt if word in MARKS - ({UNK} if unk else set())]:
            advice = "say --unk" if marks[0] == UNK else "remove it"
            raise PhoneError(f'{where}: "{marks[0]}" is a mark of the model, no token; {advice}')
        return spelt

    return spell


def count(sentences: list[list[str]], longest: int) -> list[Counter[Words]]:
    """How often each n-gram counts, for n from 1.

    The longest as often as they are there, and so do those that begin a sentence; a shorter one
    once for each word that it comes after (its continuation count).
    """
    order = min(longest, max(map(len, sentences)) + 2)
    if order < longest:
        log.warning("the longest sentence has no %d-grams; the model's order is %d", longest, order)
    counts: list[Counter[Words]] = [Counter() for _ in range(order)]
    for sentence in sentences:
        marked = (BOS, *sentence, EOS)
        for n in range(1, min(order, len(marked) + 1)):
            counts[n - 1][marked[:n]] += 1
        counts[-1].update(marked[i : i + order] for i in range(len(marked) - order + 1))
    for n in range(order - 1, 0, -1):
        counts[n - 1].update(longer[1:] for longer in counts[n])
    del counts[0][BOS,]  # it is a history, and never predicted
    return counts


def discounts(counts: Iterable[int]) -> Discounts:
    """What is taken off a count of 1, of 2, and of more."""
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
    """P(w|h) = (count - discount) / total of h + bow(h) · P(w|h'), from short histories to long.

    The shortest h' of all gives each of ``words`` the same.
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
    """What is taken off a count."""
    return off[min(c, 3) - 1] if c else 0.0


def arpa_lines(orders: list[Order]) -> Iterator[str]:
    """The lines of an ARPA file, n-grams sorted."""
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
