#!/usr/bin/env python3
"""Speed of Deep Speech 2: a recurrent layer against torch.nn.RNN, a training step against sgemm.

Usage: bench_deep_speech2.py [--threads N] [--rounds N]

e.g.: python3 tests/bench/bench_deep_speech2.py

The layer is a bidirectional one of 512 clipped ReLUs with batch normalisation, forward and backward
on a padded batch. torch's has neither the clip nor the norm, but a W of its own for each direction.
The step is counted as in `bench_training.py`, and is made without dropout. The row convolution is
compared with the loop over the frames of its look-ahead in plain torch.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
from bench_lstm import ragged_lengths, step
from bench_training import sgemm_rate
from measure import Row, machine, medians, show, start
from torch import Tensor, nn

from pipeline.kernels.ragged import layout, pack, unpack
from pipeline.kernels.row_convolution import cpu, plain
from pipeline.nn.config import load_model_config
from pipeline.nn.deep_speech2 import SummedRecurrentLayer
from pipeline.nn.encoders.deep_speech2 import DeepSpeech2Encoder
from pipeline.nn.layers import initialise
from pipeline.nn.models import CtcModel, build_model
from pipeline.training.dataset import Batch
from pipeline.training.distributed.norms import NormSums
from pipeline.training.distributed.processes import World
from pipeline.training.objectives.ctc import CtcObjective
from pipeline.training.objectives.objective import Metric
from pipeline.training.step import GradientSum

FRAMES, LABELS, TOKENS, CELLS = 304, 38, 62, 512
LOOKAHEAD = 80
CONF = Path(__file__).resolve().parents[2] / "egs" / "speechocean762" / "conf"
CELLS_OF = {"relu": "clipped ReLU", "gru": "GRU"}


def layer_rows(cell: str, lengths: Tensor, rounds: int, floor: float) -> Row:
    """A layer on a padded batch of these lengths."""
    ours = SummedRecurrentLayer(
        input_dim=CELLS, cells=CELLS, cell=cell, bidirectional=True, batch_norm=True
    )
    initialise(ours, scale=0.1, generator=torch.Generator().manual_seed(0))
    kind = nn.GRU if cell == "gru" else lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k)
    theirs = kind(CELLS, CELLS, batch_first=True, bidirectional=True)
    x = torch.randn(len(lengths), FRAMES, CELLS)

    def run() -> Tensor:
        ragged = layout(lengths, FRAMES)
        return unpack(ours(pack(x, ragged), ragged), ragged)

    runs = {"ours": step(ours, run), "theirs": step(theirs, lambda: theirs(x)[0])}
    times = medians(runs, rounds)
    name = f"bidirectional {CELLS_OF[cell]}, {CELLS} units, batch norm"
    peer = "nn.GRU, padded" if cell == "gru" else "nn.RNN(relu), padded"
    low, high = int(lengths.min()), int(lengths.max())
    frames = f"N {len(lengths)}, {low if low == high else f'{low}-{high}'} frames"
    return Row(f"{name}, {frames}", times["ours"], peer, times["theirs"], floor)


def look_ahead_row(cells: int, rounds: int, floor: float) -> Row:
    """A row convolution with the paper's look-ahead, forward and both gradients."""
    ragged = layout(torch.full((16,), 150), 150)
    x, grad = torch.randn(2, ragged.rows, cells)
    weight = torch.randn(LOOKAHEAD + 1, cells)

    def run(engine: ModuleType) -> None:
        engine.forward(x, weight, ragged)
        engine.backward_input(grad, weight, ragged)
        engine.backward_weight(grad, x, len(weight), ragged)

    times = medians({"ours": lambda: run(cpu), "loop": lambda: run(plain)}, rounds)
    name = f"row convolution, τ {LOOKAHEAD}, {cells} units, N 16, 150 frames"
    return Row(name, times["ours"], "the loop over τ in torch", times["loop"], floor)


def multiply_adds(encoder: DeepSpeech2Encoder) -> int:
    """Of one utterance's forward pass, and of a linear output layer."""
    frames, total = FRAMES, 0
    for convolution in encoder.convolutions:
        frames = -(-frames // convolution.stride[1])
        total += frames * convolution.output_frequencies * convolution.weight.numel()
    for layer in encoder.layers:
        total += frames * (layer.w_input.numel() + layer.w_hidden.numel())
    for layer in encoder.fully_connected:
        total += frames * layer.weight.numel()
    return total + frames * encoder.output_dim * TOKENS


def step_row(config: str, count: int, rounds: int, floor: float) -> Row:
    """A whole update of a CTC network."""
    found = load_model_config(CONF / config).part("ctc", "")
    assert found.encoder is not None
    found = replace(found, encoder=replace(found.encoder, dropout=0.0))
    model = build_model(found, num_tokens=TOKENS)
    assert isinstance(model, CtcModel)
    encoder = model.encoder
    assert isinstance(encoder, DeepSpeech2Encoder)
    generator = torch.Generator().manual_seed(0)
    initialise(model, scale=0.1, generator=generator)
    objective = CtcObjective(model, Metric("PER", lambda ids: [str(k) for k in ids]))
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-4, momentum=0.9, nesterov=True, fused=True
    )
    batch = Batch(
        [str(n) for n in range(count)],
        torch.randn(count, FRAMES, encoder.convolutions[0].input_dim, generator=generator),
        torch.full((count,), FRAMES),
        torch.randint(1, TOKENS, (count, LABELS), generator=generator),
        torch.full((count,), LABELS),
    )
    norms, weights = NormSums(model, World()), list(model.parameters())
    gradient = GradientSum(objective, weights, torch.device("cpu"), "float32", norms)

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        gradient.add(batch)
        optimizer.step()

    ours = medians({"ours": update}, rounds)["ours"]
    theirs = count * 3 * 2 * multiply_adds(encoder) / sgemm_rate(rounds)
    what = f"a training step of {config}, N {count}"
    return Row(what, ours, "arithmetic at sgemm's rate", theirs, 1 / floor)


def measure(rounds: int) -> list[Row]:
    """All rows."""
    rows: list[Callable[[], Row]] = [
        lambda: layer_rows("relu", ragged_lengths(16), rounds, 1.0),
        lambda: layer_rows("relu", torch.full((16,), FRAMES), rounds, 1.0),
        lambda: layer_rows("gru", ragged_lengths(16), rounds, 1.0),
        lambda: look_ahead_row(512, rounds, 1.0),
        lambda: look_ahead_row(2560, rounds, 1.0),
        lambda: step_row("deep_speech2/small.toml", 16, rounds, 1.6),
        lambda: step_row("encoders/deep_speech2.toml", 16, rounds, 1.6),
    ]
    return [row() for row in rows]


if __name__ == "__main__":
    arguments = start("Speed of Deep Speech 2.")
    print(machine(), f"{arguments.threads} threads")
    show(measure(arguments.rounds))
