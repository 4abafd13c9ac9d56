#!/usr/bin/env python3
"""A language model of a million n-grams over words: loading, memory, and search with CTC.

Usage: bench_word_lm.py [--rounds N]

e.g.: python3 -m pip install --target DIR --no-deps kenlm pyctcdecode pygtrie && \\
      PYTHONPATH=$PYTHONPATH:DIR python3 tests/bench/bench_word_lm.py

The file is that of synthetic_arpa.py. Posteriors spell sentences of its words: peaks of one to
three frames with some noise between blanks. Times are of this process's processor. Peers that are
not installed are left out: kenlm loads the same file, pyctcdecode searches with it as it comes
(tokens below e^-5 left out, a beam of 100, words outside the model 10 nats less). Ours has only
words of the model, and the pruning of Deep Speech 2 or none.
"""

import importlib.util
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import machine, start
from synthetic_arpa import write

from pipeline.decoding.language_model import word_fusion
from pipeline.kernels.search.ctc import ctc_beam_search
from pipeline.scoring.distance import edit_distance
from pipeline.text.tokens import Tokens

TOKENS = Tokens.from_characters([["abcdefghijklmnopqrstuvwxyz"], ["a", "b"]])
ALPHA, BETA = 0.5, 1.0
MEMORY = "import resource as r; print(r.getrusage(r.RUSAGE_SELF).ru_maxrss // 1024)"
LOADS = {
    "ours": "from pipeline.text.tokens import Tokens\n"
    "from pipeline.text.word_ngram import read_word_ngram\n"
    "tokens = Tokens.from_characters([['abcdefghijklmnopqrstuvwxyz'], ['a', 'b']])\n"
    "before = t.process_time()\nread_word_ngram(sys.argv[1], tokens)\n",
    "kenlm": "import kenlm\nbefore = t.process_time()\nkenlm.Model(sys.argv[1])\n",
}


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def load_rows(path: Path, count: int) -> None:
    print(f"\n| load {count:,} n-grams | s | MB of the process |\n|---|---|---|")
    for name, code in LOADS.items():
        if name != "ours" and not has(name):
            continue
        program = f"import sys, time as t\n{code}print(t.process_time() - before)\n{MEMORY}"
        command = [sys.executable, "-c", program, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, megabytes = done.stdout.split()[-2:]
        print(f"| {name} | {float(seconds):.2f} | {megabytes} |")


def posteriors(words: list[str], g: np.random.Generator) -> np.ndarray:
    """log Pr(k|t) of a sentence, (T, V)."""
    rows = []
    for k in TOKENS.encode(words):
        for _ in range(int(g.integers(1, 4))):
            row = 2.0 * g.standard_normal(len(TOKENS))
            row[k] += g.uniform(4.0, 9.0)
            rows.append(row)
        for _ in range(int(g.integers(1, 4))):
            row = 1.5 * g.standard_normal(len(TOKENS))
            row[0] += 9.0
            rows.append(row)
    logits = np.array(rows)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def by_pyctcdecode(path: Path, words: list[str]) -> Callable[[np.ndarray], str]:
    logging.getLogger("pyctcdecode").setLevel(logging.ERROR)
    from pyctcdecode import build_ctcdecoder

    labels = ["", " ", *TOKENS.symbols[2:]]
    decoder = build_ctcdecoder(labels, str(path), words, alpha=ALPHA, beta=BETA)
    return lambda x: str(decoder.decode_beams(x, beam_width=100)[0][0])


def search_rows(path: Path, rounds: int) -> None:
    g = np.random.default_rng(0)
    lines = path.read_text(encoding="utf-8").splitlines()
    words = [line.split("\t")[1] for line in lines[8:30_000]]
    sentences = [[words[int(g.zipf(1.3)) % len(words)] for _ in range(10)] for _ in range(rounds)]
    utterances = [posteriors(sentence, g) for sentence in sentences]
    frames = sum(map(len, utterances))
    fused = word_fusion(
        str(path), TOKENS, weight=ALPHA, word_bonus=BETA, bonus=0.0, only_known=True
    )
    searches: dict[str, Callable[[np.ndarray], str]] = {}
    for beam in (100, 500):
        for what, pruning in (("0.99, 40", (0.99, 40)), ("none", (1.0, 0))):
            searches[f"ours, beam {beam}, pruning {what}"] = lambda x, b=beam, p=pruning: text(
                ctc_beam_search(x, beam=b, fusion=fused, token_mass=p[0], max_tokens=p[1])[0].tokens
            )
        searches[f"ours, beam {beam}, no language model"] = lambda x, b=beam: text(
            ctc_beam_search(x, beam=b)[0].tokens
        )
    if has("pyctcdecode") and has("kenlm"):
        searches["pyctcdecode, beam 100"] = by_pyctcdecode(path, words)
    print(
        f"\n| search in {len(utterances)} utterances, {frames} frames | ms a 100 frames | WER % |"
    )
    print("|---|---|---|")
    for name, search in searches.items():
        search(utterances[0])  # is compiled here
        before = time.process_time()
        found = [search(x) for x in utterances]
        spent = (time.process_time() - before) / frames
        pairs = zip(sentences, found, strict=True)
        wrong = sum(edit_distance(ref, hyp.split()) for ref, hyp in pairs)
        print(f"| {name} | {1e5 * spent:.2f} | {10.0 * wrong / len(sentences):.1f} |")


def text(tokens: tuple[int, ...]) -> str:
    return " ".join(TOKENS.decode(tokens))


if __name__ == "__main__":
    arguments = start("A language model of a million n-grams over words.")
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "million.arpa"
        made = write(str(file))
        load_rows(file, made)
        search_rows(file, arguments.rounds)
