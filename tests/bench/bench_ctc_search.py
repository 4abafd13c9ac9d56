#!/usr/bin/env python3
"""Speed of CTC's searches against fast-ctc-decode, flashlight-text, pyctcdecode and a reference.

Usage: bench_ctc_search.py [--threads N] [--rounds N]

e.g.: python3 -m pip install --target DIR --no-deps fast-ctc-decode flashlight-text pyctcdecode \\
      pygtrie && PYTHONPATH=DIR python3 tests/bench/bench_ctc_search.py

A peer that is not installed is left out. Every search has a beam of 100 and runs on one thread.
fast-ctc-decode and flashlight-text prune nothing but the beam, as ours; flashlight-text, like ours,
sums the paths of a prefix. pyctcdecode is measured as it comes: it leaves out tokens below e^-5 and
prefixes 10 nats below the best. Posteriors are random (a softmax of normally distributed numbers),
or peaky: labels of one to three frames between blanks, as a trained network has them.
"""

import importlib.util
import logging
import sys
from collections.abc import Callable

import numpy as np
from measure import Row, machine, medians, seconds, show, start

from pipeline.kernels.search import ctc_reference as ctc_search_reference
from pipeline.kernels.search.ctc import ctc_beam_search, ctc_prefix_search

T, V, BEAM = 304, 62, 100
LABELS = [chr(ord("!") + k) for k in range(V)]

Search = Callable[[], object]


def by_fast_ctc_decode(log_probs: np.ndarray) -> Search:
    from fast_ctc_decode import beam_search

    posteriors = np.exp(log_probs).astype(np.float32)
    return lambda: beam_search(posteriors, LABELS, beam_size=BEAM, beam_cut_threshold=0.0)


def by_flashlight_text(log_probs: np.ndarray) -> Search:
    from flashlight.lib.text.decoder import (
        CriterionType,
        LexiconFreeDecoder,
        LexiconFreeDecoderOptions,
        ZeroLM,
    )

    options = LexiconFreeDecoderOptions(
        beam_size=BEAM, beam_size_token=V, beam_threshold=1e9, lm_weight=0.0, sil_score=0.0,
        log_add=True, criterion_type=CriterionType.CTC,
    )  # fmt: skip
    decoder = LexiconFreeDecoder(options, ZeroLM(), -1, 0, [])
    emissions = np.ascontiguousarray(log_probs, dtype=np.float32)
    return lambda: decoder.decode(emissions.ctypes.data, T, V)


def by_pyctcdecode(log_probs: np.ndarray) -> Search:
    logging.getLogger("pyctcdecode").setLevel(logging.ERROR)
    from pyctcdecode import build_ctcdecoder

    decoder = build_ctcdecoder(["", *LABELS[1:]])
    return lambda: decoder.decode_beams(log_probs, beam_width=BEAM)


PEERS = {
    "fast_ctc_decode": by_fast_ctc_decode,
    "flashlight": by_flashlight_text,
    "pyctcdecode": by_pyctcdecode,
}


def installed() -> dict[str, Callable[[np.ndarray], Search]]:
    there = {name: peer for name, peer in PEERS.items() if importlib.util.find_spec(name)}
    for name in PEERS.keys() - there.keys():
        print(f"{name} is not installed and left out", file=sys.stderr)
    return there


def normalised(logits: np.ndarray) -> np.ndarray:
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def peaky_logits() -> np.ndarray:
    g = np.random.default_rng(1)
    logits = 1.5 * g.standard_normal((T, V))
    logits[:, 0] += 9.0
    t = 0
    while t < T:
        frames = int(g.integers(1, 4))
        logits[t : t + frames, g.integers(1, V)] += g.uniform(5.0, 12.0)
        t += frames + int(g.integers(2, 10))
    return logits


RANDOM = normalised(np.random.default_rng(1).standard_normal((T, V)))
PEAKY = normalised(peaky_logits())


def beam_rows(rounds: int) -> list[Row]:
    rows, peers = [], installed()
    for name, log_probs in (("random", RANDOM), ("peaky", PEAKY)):
        runs: dict[str, Search] = {"ours": lambda x=log_probs: ctc_beam_search(x, beam=BEAM)}
        runs |= {peer: make(log_probs) for peer, make in peers.items()}
        times = medians(runs, rounds)
        what = f"beam {BEAM}, {name} posteriors, T {T}, V {V}"
        rows += [
            Row(what, times["ours"], peer, times[peer], 30.0) for peer in times if peer != "ours"
        ]
    return rows


def prefix_search_row(rounds: int) -> Row:
    """Against the reference, in loops, once."""
    ours = medians({"ours": lambda: ctc_prefix_search(PEAKY)}, rounds)["ours"]
    reference = seconds(lambda: ctc_search_reference.prefix_search(PEAKY))
    what = f"prefix search, peaky posteriors, T {T}, V {V}"
    return Row(what, ours, "our reference", reference, 50.0)


if __name__ == "__main__":
    arguments = start("Speed of CTC's searches.")
    print(machine())
    show([*beam_rows(arguments.rounds), prefix_search_row(arguments.rounds)])
