#!/usr/bin/env python3
"""Speed of three bidirectional peephole LSTM layers against torch.nn.LSTM, which has no peepholes.

Usage: bench_lstm.py [--threads N] [--rounds N]

e.g.: python3 tests/bench/bench_lstm.py
"""

from collections.abc import Callable

import torch
from measure import Row, machine, medians, show, start
from torch import Tensor, nn

from pipeline.nn.encoders.recurrent import RecurrentConfig, RecurrentEncoder
from pipeline.nn.layers import initialise

FEATURES, CELLS, LAYERS, FRAMES = 123, 250, 3, 304


def encoder() -> RecurrentEncoder:
    """[G13]'s encoder of three layers."""
    made = RecurrentEncoder(RecurrentConfig(input_dim=FEATURES, layers=LAYERS, cells=CELLS))
    initialise(made, scale=0.1, generator=torch.Generator().manual_seed(0))
    return made


def packed(theirs: nn.LSTM, x: Tensor, lengths: Tensor) -> Tensor:
    rows = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return nn.utils.rnn.pad_packed_sequence(theirs(rows)[0], batch_first=True)[0]


def step(network: nn.Module, run: Callable[[], Tensor]) -> Callable[[], None]:
    """One forward and backward pass."""

    def both() -> None:
        network.zero_grad(set_to_none=True)
        hidden = run()
        hidden.backward(torch.full_like(hidden, 0.01))

    return both


def ragged_lengths(count: int) -> Tensor:
    """Frames of ``count`` utterances, at most `FRAMES`."""
    lengths = torch.randint(150, FRAMES + 1, (count,), generator=torch.Generator().manual_seed(2))
    lengths[0] = FRAMES
    return lengths


def rows_for(name: str, lengths: Tensor, rounds: int, peers: dict[str, float]) -> list[Row]:
    """Ours against some of the ``peers``, padded and packed, with their floors."""
    ours, theirs = encoder(), nn.LSTM(FEATURES, CELLS, LAYERS, batch_first=True, bidirectional=True)
    x = torch.randn(len(lengths), FRAMES, FEATURES)
    runs = {
        "ours": step(ours, lambda: ours(x, lengths)[0]),
        "padded": step(theirs, lambda: theirs(x)[0]),
        "packed": step(theirs, lambda: packed(theirs, x, lengths)),
    }
    times = medians({name: runs[name] for name in ("ours", *peers)}, rounds)
    what = f"{LAYERS} × {CELLS} bidirectional LSTM, {name}"
    return [
        Row(what, times["ours"], f"nn.LSTM, {peer}", times[peer], floor)
        for peer, floor in peers.items()
    ]


def measure(rounds: int) -> list[Row]:
    """All rows."""
    full = torch.full((16,), FRAMES)
    return [
        *rows_for(
            "N 16, 150-304 frames", ragged_lengths(16), rounds, {"padded": 1.0, "packed": 5.0}
        ),
        *rows_for("N 16, 304 frames each", full, rounds, {"padded": 1.0}),
        *rows_for("N 1, 304 frames", full[:1], rounds, {"padded": 1.0}),
    ]


if __name__ == "__main__":
    arguments = start("Speed of the recurrent layers.")
    print(machine(), f"{arguments.threads} threads")
    show(measure(arguments.rounds))
