#!/usr/bin/env python3
"""Speeds on a GPU: layers against cuDNN, joint and loss against the dense way, whole steps.

Usage: bench_gpu.py [--rounds N]

e.g.: python3 tests/bench/bench_gpu.py
"""

import importlib.util
import sys
from collections.abc import Callable

import torch
from bench_lstm import CELLS, FEATURES, FRAMES, LAYERS, encoder
from bench_training import make_step
from measure import Row, medians, show, start
from torch import nn

from pipeline.kernels.transducer.joint_loss import joint_transducer_loss
from pipeline.kernels.transducer.loss import transducer_loss


def synchronised(run: Callable[[], object]) -> Callable[[], None]:
    def whole() -> None:
        run()
        torch.cuda.synchronize()

    return whole


def recurrent(rounds: int) -> list[Row]:
    ours = encoder().cuda()
    theirs = nn.LSTM(FEATURES, CELLS, LAYERS, batch_first=True, bidirectional=True).cuda()
    x, lengths = torch.randn(64, FRAMES, FEATURES).cuda(), torch.full((64,), FRAMES)
    runs = {
        "ours": synchronised(lambda: ours(x, lengths.cuda())[0].sum().backward()),
        "cudnn": synchronised(lambda: theirs(x)[0].sum().backward()),
    }
    times = medians(runs, rounds)
    return [Row("3 × 250 BLSTM, N 64", times["ours"], "nn.LSTM (cuDNN)", times["cudnn"], 0.7)]


def joint(rounds: int) -> list[Row]:
    shapes = [(16, 304, 250), (16, 39, 250), (62, 250), (62,)]
    x = [(torch.rand(shape) / 5 - 0.1).cuda().requires_grad_() for shape in shapes]
    targets = torch.randint(1, 62, (16, 38)).cuda()
    lengths = torch.full((16,), 304).cuda(), torch.full((16,), 38).cuda()

    def dense() -> torch.Tensor:
        hidden = torch.tanh(x[0][:, :, None] + x[1][:, None])
        return nn.functional.linear(hidden, x[2], x[3])

    def by_torchaudio() -> None:
        from torchaudio.functional import rnnt_loss

        ints = [y.int() for y in (targets, *lengths)]
        rnnt_loss(dense(), *ints, blank=0, reduction="sum").backward()

    def ours() -> None:
        joint_transducer_loss(*x, targets, *lengths, blank=0, reduction="sum").backward()

    def from_logits() -> None:
        transducer_loss(dense(), targets, *lengths, blank=0, reduction="sum").backward()

    runs = {"ours": synchronised(ours), "torch joint + our loss": synchronised(from_logits)}
    if importlib.util.find_spec("torchaudio"):
        runs["torch joint + torchaudio"] = synchronised(by_torchaudio)
    times = medians(runs, rounds)
    mine = times.pop("ours")
    return [Row("joint + loss, N 16", mine, peer, time, 3.0) for peer, time in times.items()]


def whole_step(rounds: int) -> None:
    times = medians({"ours": make_step(64, 0.0, "cuda")}, rounds)
    print(f"a training step, N 64: {1e3 * times['ours']:.1f} ms, {64 / times['ours']:.0f} utt/s")


if __name__ == "__main__":
    arguments = start("Speeds on a GPU.")
    if not torch.cuda.is_available():
        print("no CUDA device here", file=sys.stderr)
        sys.exit(1)
    show([*recurrent(arguments.rounds), *joint(arguments.rounds)])
    whole_step(arguments.rounds)
