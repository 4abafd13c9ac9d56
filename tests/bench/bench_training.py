#!/usr/bin/env python3
"""One training step of PreTrans-3l-250h against its arithmetic at the speed of torch's sgemm.

Usage: bench_training.py [--threads N] [--rounds N]

e.g.: python3 tests/bench/bench_training.py

Operations are two for each multiply-add of the model's matrix products, and those of the forward
pass times three for a whole step. What is computed element by element or twice does not count; the
gradient in the features, which a training does not need, counts and is not computed.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from measure import Row, machine, medians, seconds, show, start

from pipeline.nn.config import load_model_config
from pipeline.nn.layers import initialise
from pipeline.nn.models import TransducerModel, build_model
from pipeline.training.dataset import Batch
from pipeline.training.distributed.norms import NormSums
from pipeline.training.distributed.processes import World
from pipeline.training.objectives.objective import Metric
from pipeline.training.objectives.transducer import TransducerObjective
from pipeline.training.step import GradientSum
from pipeline.training.weight_noise import weight_noise

FRAMES, LABELS, TOKENS, FEATURES, CELLS = 304, 38, 62, 123, 250
CONFIG = Path(__file__).resolve().parents[2] / "egs" / "timit" / "conf" / "trans_3l_250h.toml"


def multiply_adds() -> dict[str, int]:
    """Multiply-adds of one utterance's forward pass, by part."""
    gates, both = 4 * CELLS, 2
    return {
        "encoder, input": FRAMES * both * gates * (FEATURES + 2 * 2 * CELLS),
        "encoder, recurrent": FRAMES * both * 3 * gates * CELLS,
        "l_t and W_lh": FRAMES * (2 * CELLS * CELLS + CELLS * CELLS),
        "predictor": (LABELS + 1) * (gates * CELLS + CELLS * CELLS),
        "joiner": FRAMES * (LABELS + 1) * CELLS * TOKENS,
    }


def operations() -> int:
    """Floating-point operations of one utterance, forward and backward."""
    return 3 * 2 * sum(multiply_adds().values())


def sgemm_rate(rounds: int) -> float:
    """Best floating-point operations a second of torch's matrix product, over some shapes."""
    best = 0.0
    for m, k, n in ((512, 512, 512), (304, 123, 1000), (4864, 500, 2000), (2000, 4864, 500)):
        a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
        times = [seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out)) for _ in range(rounds)]
        best = max(best, 2 * m * k * n / min(times))
    return best


def make_step(
    count: int, noise: float, device: str = "cpu", precision: str = "float32"
) -> Callable[[], None]:
    """An update as `pipeline.training.loop` does it, on ``count`` utterances."""
    model = build_model(load_model_config(CONFIG), num_tokens=TOKENS)
    assert isinstance(model, TransducerModel)
    generator = torch.Generator().manual_seed(0)
    initialise(model, scale=0.1, generator=generator)
    objective = TransducerObjective(
        model.to(device), Metric("PER", lambda ids: [str(k) for k in ids])
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, fused=True)
    batch = Batch(
        [str(n) for n in range(count)],
        torch.randn(count, FRAMES, FEATURES, generator=generator),
        torch.full((count,), FRAMES),
        torch.randint(1, TOKENS, (count, LABELS), generator=generator),
        torch.full((count,), LABELS),
    ).to(torch.device(device))
    norms, weights = NormSums(model, World()), list(model.parameters())
    gradient = GradientSum(objective, weights, torch.device(device), precision, norms)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with weight_noise(model, noise, generator):
            gradient.add(batch)
        optimizer.step()

    return step


def measure(rounds: int) -> list[Row]:
    """All rows."""
    rows = []
    for count, floor in ((16, 1.6), (1, 3.0)):
        for noise in (0.0, 0.075):
            times = medians({"ours": make_step(count, noise)}, rounds)
            theirs = count * operations() / sgemm_rate(rounds)
            name = "weight noise" if noise else "no noise"
            what = f"a training step, N {count}, {name}"
            rows.append(Row(what, times["ours"], "arithmetic at sgemm's rate", theirs, 1 / floor))
    return rows


if __name__ == "__main__":
    arguments = start("Speed of a training step.")
    print(machine(), f"{arguments.threads} threads")
    for part, count in multiply_adds().items():
        print(f"{part}: {2e-9 * count:.3f} GFLOP forward")
    print(f"sgemm: {1e-9 * sgemm_rate(arguments.rounds):.0f} GFLOP/s")
    show(measure(arguments.rounds))
