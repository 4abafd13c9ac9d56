#!/usr/bin/env python3
"""Speed of LSTM layers with projections and peepholes against torch.nn.LSTM(proj_size).

Usage: bench_lstmp.py [--threads N] [--rounds N]

e.g.: python3 tests/bench/bench_lstmp.py
"""

import torch
from bench_lstm import step
from measure import Row, machine, medians, show, start
from torch import nn

from pipeline.kernels.ragged import layout, pack, unpack
from pipeline.nn.layers import RecurrentLayer, initialise

FEATURES, CELLS, PROJECTION, FRAMES = 512, 800, 512, 100


def rows_for(count: int, directions: int, rounds: int) -> list[Row]:
    """Forward and backward of one layer on a padded batch of equally long utterances."""
    ours = {
        name: RecurrentLayer(
            input_dim=FEATURES, cells=CELLS, cell="lstm", bidirectional=directions == 2,
            projection=recurrent, nonrecurrent=PROJECTION - recurrent,
        )
        for name, recurrent in (("r", PROJECTION), ("r and p", PROJECTION // 2))
    }  # fmt: skip
    for layer in ours.values():
        initialise(layer, scale=0.1, generator=torch.Generator().manual_seed(0))
    theirs = nn.LSTM(
        FEATURES, CELLS, proj_size=PROJECTION, batch_first=True, bidirectional=directions == 2
    )
    x = torch.randn(count, FRAMES, FEATURES)
    lengths = torch.full((count,), FRAMES)

    def run(layer: RecurrentLayer) -> torch.Tensor:
        ragged = layout(lengths, FRAMES)
        return unpack(layer(pack(x, ragged), ragged), ragged)

    runs = {name: step(layer, lambda one=layer: run(one)) for name, layer in ours.items()}
    times = medians({**runs, "theirs": step(theirs, lambda: theirs(x)[0])}, rounds)
    which = "bidirectional" if directions == 2 else "forwards"
    what = f"LSTMP {CELLS}/{PROJECTION}, {which}, N {count}, {FRAMES} frames"
    return [
        Row(what, times["r"], "nn.LSTM(proj_size)", times["theirs"], 1.0),
        Row(
            f"{what}, half of it not recurrent", times["r and p"], "the same", times["theirs"], 1.0
        ),
    ]


def measure(rounds: int) -> list[Row]:
    """All rows."""
    return [row for n, d in ((16, 1), (4, 1), (16, 2)) for row in rows_for(n, d, rounds)]


if __name__ == "__main__":
    arguments = start("Speed of the LSTMP layers.")
    print(machine(), f"{arguments.threads} threads")
    show(measure(arguments.rounds))
