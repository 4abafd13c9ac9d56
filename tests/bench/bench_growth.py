#!/usr/bin/env python3
"""How the time of the kernels grows as one dimension doubles, beside how the arithmetic grows.

Usage: bench_growth.py [--threads N] [--rounds N]

e.g.: python3 tests/bench/bench_growth.py
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from measure import machine, medians, start

from pipeline.kernels.recurrent.layer import peephole_lstm
from pipeline.kernels.transducer.joint_loss import joint_transducer_loss


@dataclass(frozen=True)
class Size:
    """Of one problem; all even, so that halving is exact."""

    T: int = 304
    U: int = 38
    N: int = 8
    V: int = 62
    H: int = 250


def joint(size: Size) -> tuple[Callable[[], None], float]:
    """Joint and loss, forward and backward, and its multiply-adds."""
    tensors = [
        torch.rand(size.N, size.T, size.H) / 5 - 0.1,
        torch.rand(size.N, size.U + 1, size.H) / 5 - 0.1,
        torch.rand(size.V, size.H) / 5 - 0.1,
        torch.zeros(size.V),
    ]
    inputs = [x.requires_grad_() for x in tensors]
    targets = torch.randint(1, size.V, (size.N, size.U))
    lengths = torch.full((size.N,), size.T), torch.full((size.N,), size.U)

    def run() -> None:
        joint_transducer_loss(*inputs, targets, *lengths, blank=0, reduction="sum").backward()

    return run, 3.0 * size.N * size.T * (size.U + 1) * size.H * size.V


def lstm(size: Size) -> tuple[Callable[[], None], float]:
    """A bidirectional layer over 2H inputs, forward and backward, and its multiply-adds."""
    h = size.H
    weights = [
        (torch.rand(2, *shape) / 5 - 0.1).requires_grad_()
        for shape in ((4 * h, 2 * h), (4 * h, h), (3, h), (4 * h,))
    ]
    x = torch.randn(size.N, size.T, 2 * h).requires_grad_()
    lengths = torch.full((size.N,), size.T)

    def run() -> None:
        peephole_lstm(x, lengths, *weights).sum().backward()

    return run, 3.0 * size.N * size.T * 2 * 4 * h * 3 * h


def doublings(
    name: str, problem: Callable[[Size], tuple[Callable[[], None], float]], dims: str, rounds: int
) -> list[tuple[str, float, float]]:
    """What doubled, how many times the time grew, and how many times the arithmetic."""
    base = Size()
    rows = []
    for dim in dims:
        larger = replace(base, **{dim: 2 * getattr(base, dim)})
        (small, few), (large, many) = problem(base), problem(larger)
        times = medians({"small": small, "large": large}, rounds)
        what = f"{name}, {dim} {getattr(base, dim)} → {getattr(larger, dim)}"
        rows.append((what, times["large"] / times["small"], many / few))
    return rows


def measure(rounds: int) -> list[tuple[str, float, float]]:
    """All rows."""
    return [
        *doublings("joint + loss", joint, "TUNVH", rounds),
        *doublings("LSTM layer", lstm, "TNH", rounds),
    ]


if __name__ == "__main__":
    arguments = start("How time grows with size.")
    print(machine(), f"{arguments.threads} threads")
    print("| what doubles | time | arithmetic |\n|---|---|---|")
    for what, time, arithmetic in measure(arguments.rounds):
        print(f"| {what} | {time:.2f} × | {arithmetic:.2f} × |", flush=True)
