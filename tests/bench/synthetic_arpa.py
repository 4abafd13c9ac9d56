#!/usr/bin/env python3
"""Write an ARPA file of made-up words with about a million n-grams, for measurements.

Usage: synthetic_arpa.py [--words N] [--length N] [--order N] FILE

e.g.: python3 tests/bench/synthetic_arpa.py /tmp/million.arpa

The n-grams are those of a text of --length words, whose frequencies follow Zipf's law: every
n-gram is there with its first and its last words, as an estimator would leave it. log10 P and
log10 bow are drawn at random. The same options give the same bytes.
"""

import argparse

import numpy as np

LETTERS = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))


def spelt(count: int, g: np.random.Generator) -> list[str]:
    """Different words of 2 to 12 letters."""
    found: dict[str, None] = {}
    weights = 1.0 / np.arange(1, 27)
    while len(found) < count:
        lengths = g.integers(2, 13, count)
        letters = g.choice(LETTERS, lengths.sum(), p=weights / weights.sum())
        ends = lengths.cumsum().tolist()
        text = "".join(letters.tolist())
        found |= dict.fromkeys(text[a:b] for a, b in zip([0, *ends], ends, strict=False))
    return list(found)[:count]


def n_grams(text: np.ndarray, order: int) -> list[np.ndarray]:
    """The different n-grams of each length, (C, n), sorted."""
    groups, found = text, []
    for n in range(1, order + 1):
        if n > 1:
            groups = groups[:-1] * (text.max() + 1) + text[n - 1 :]
        _, places, groups = np.unique(groups, return_index=True, return_inverse=True)
        found.append(text[places[:, None] + np.arange(n)])
    return found


def write(path: str, *, words: int = 60_000, length: int = 560_000, order: int = 3) -> int:
    """Write the file; returns the number of n-grams."""
    g = np.random.default_rng(0)
    names = ["<s>", "</s>", "<unk>", *spelt(words, g)]
    weights = 1.0 / np.arange(3, words + 3)
    text = 3 + g.choice(words, length, p=weights / weights.sum())
    text[::20], text[19::20] = 0, 1  # sentences of 18 words
    text = np.concatenate([np.arange(len(names)), text])
    tables = n_grams(text, order)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("\\data\\\n")
        stream.writelines(f"ngram {n}={len(t)}\n" for n, t in enumerate(tables, start=1))
        for n, table in enumerate(tables, start=1):
            stream.write(f"\n\\{n}-grams:\n")
            log_probs, backoffs = g.uniform(-6, -0.2, len(table)), g.uniform(-1, 0, len(table))
            for row, p, b in zip(table.tolist(), log_probs, backoffs, strict=True):
                gram = " ".join(names[k] for k in row)
                ends = f"\t{b:.6f}" if n < order and row[-1] != 1 else ""
                stream.write(f"{-99 if row == [0] else p:.6f}\t{gram}{ends}\n")
        stream.write("\n\\end\\\n")
    return sum(map(len, tables))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file")
    parser.add_argument("--words", type=int, default=60_000)
    parser.add_argument("--length", type=int, default=560_000)
    parser.add_argument("--order", type=int, default=3)
    asked = parser.parse_args()
    made = write(asked.file, words=asked.words, length=asked.length, order=asked.order)
    print(f"{asked.file}: {made} n-grams")
