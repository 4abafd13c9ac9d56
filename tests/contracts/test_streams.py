"""What every encoder promises of streams: however they are cut and batched, the whole utterance."""

import inspect
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.nn.encoders import kinds
from pipeline.nn.encoders.encoder import Encoder
from pipeline.nn.encoders.kinds import encoder_config
from pipeline.nn.layers import initialise

torch.set_num_threads(1)

RECURRENT = {"kind": "recurrent", "layers": 2, "cells": 9}
CONVOLUTIONS = {
    "kind": "deep_speech2",
    "channels": (3, 2),
    "time_kernels": (5, 3),
    "time_strides": (2, 1),
    "layers": 2,
    "cells": 8,
}
# Each kind of encoder, and what makes a difference to a stream.
ENCODERS: dict[str, dict[str, Any]] = {
    "lstm": RECURRENT,
    "tanh": {**RECURRENT, "cell": "tanh"},
    "lstmp": {**RECURRENT, "projection": 4},
    "frames stacked": {**RECURRENT, "stack_frames": 3},
    "deep speech 2": {**CONVOLUTIONS, "lookahead": 4},
    "gru, 2-D": {**CONVOLUTIONS, "cell": "gru", "freq_kernels": (3, 3), "freq_strides": (2, 1)},
}


def build(options: dict[str, Any], *, bidirectional: bool = False) -> Encoder:
    config = encoder_config(options["kind"])
    encoder = config(input_dim=6, bidirectional=bidirectional, **options).build()
    initialise(encoder, scale=0.5, generator=torch.Generator().manual_seed(1))
    return encoder.eval()


def test_every_kind_is_here() -> None:
    known = set(re.findall(r'case "(\w+)"', inspect.getsource(kinds.encoder_config)))
    assert {options["kind"] for options in ENCODERS.values()} == known


def utterances(g: np.random.Generator, count: int) -> list[Tensor]:
    lengths = g.integers(1, 60, count).tolist()
    return [torch.from_numpy(g.standard_normal((n, 6)).astype(np.float32)) for n in lengths]


def in_chunks(encoder: Encoder, whole: list[Tensor], g: np.random.Generator) -> list[Tensor]:
    """The vectors of streams that are cut anywhere, and some of which end before others."""
    states, done = [encoder.start() for _ in whole], [0] * len(whole)
    found: list[list[Tensor]] = [[] for _ in whole]
    going = list(range(len(whole)))
    while going:
        sizes = [int(g.integers(0, g.choice([2, 9, 40]))) for _ in going]
        pieces = [whole[n][done[n] : done[n] + size] for n, size in zip(going, sizes, strict=True)]
        for n, piece in zip(going, pieces, strict=True):
            done[n] += len(piece)
        ends = [done[n] == len(whole[n]) and bool(g.integers(2)) for n in going]
        after, vectors = encoder.advance([states[n] for n in going], pieces, ends)
        for n, state, new in zip(going, after, vectors, strict=True):
            states[n] = state
            found[n].append(new)
        going = [n for n, has_ended in zip(going, ends, strict=True) if not has_ended]
    return [torch.cat(parts) for parts in found]


@pytest.mark.parametrize("options", ENCODERS.values(), ids=ENCODERS)
def test_a_stream_in_chunks_is_the_whole_to_the_last_bit(options: dict[str, Any]) -> None:
    encoder, g = build(options), np.random.default_rng(1)
    assert encoder.whole_only() == ""
    with torch.inference_mode():
        for _ in range(15):
            whole = utterances(g, int(g.integers(1, 5)))
            for x, found in zip(whole, in_chunks(encoder, whole, g), strict=True):
                vectors, count = encoder(x[None], torch.tensor([len(x)]))
                assert torch.equal(found, vectors[0, : int(count)])


@pytest.mark.parametrize("options", ENCODERS.values(), ids=ENCODERS)
def test_states_are_not_changed(options: dict[str, Any]) -> None:
    """An earlier state can be gone on from again."""
    encoder, (x,) = build(options), utterances(np.random.default_rng(2), 1)
    x = x.repeat(20, 1)[:40]
    with torch.inference_mode():
        (state,), _ = encoder.advance([encoder.start()], [x[:20]], [False])
        first = encoder.advance([state], [x[20:]], [True])[1][0]
        again = encoder.advance([state], [x[20:]], [True])[1][0]
    assert torch.equal(first, again)
    assert len(first) > 0


@pytest.mark.parametrize("options", ENCODERS.values(), ids=ENCODERS)
def test_in_both_directions_it_says_that_it_cannot(options: dict[str, Any]) -> None:
    why = build({**options, "lookahead": 0} if "lookahead" in options else options,
                bidirectional=True).whole_only()  # fmt: skip
    assert "both directions" in why
    assert "bidirectional = false" in why
