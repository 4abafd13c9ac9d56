#!/usr/bin/env python3
"""Speed and memory of the transducer losses and of CTC against torchaudio, fast_rnnt and torch.

Usage: bench_loss.py [--threads N] [--rounds N] [--dense-memory]

e.g.: tests/bench/install_peers.sh DIR && . DIR/activate.sh && python3 tests/bench/bench_loss.py

A peer that is not installed is left out. Inputs are random; the joint is measured with the weights
of an untrained network (uniform in ±0.1) and with peaky ones, which make most of the lattice
improbable.
"""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from measure import Row, machine, medians, peak_extra_bytes, show, start
from torch import Tensor

from pipeline.kernels.ctc.loss import ctc_loss
from pipeline.kernels.transducer.joint_loss import joint_transducer_loss
from pipeline.kernels.transducer.loss import transducer_loss

T, U, V, H = 304, 38, 62, 250


@dataclass(frozen=True)
class Lattice:
    """Targets and lengths of a batch without padding."""

    count: int
    frames: int = T
    labels: int = U
    vocab: int = V

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        shape = (self.count, self.labels)
        object.__setattr__(
            self, "targets", torch.randint(1, self.vocab, shape, generator=generator)
        )

    @property
    def lengths(self) -> tuple[Tensor, Tensor]:
        """Frames and labels, (N,) each."""
        return torch.full((self.count,), self.frames), torch.full((self.count,), self.labels)

    def __str__(self) -> str:
        return f"N {self.count}, T {self.frames}, U {self.labels}, V {self.vocab}"


def ours(logits: Tensor, lattice: Lattice) -> Tensor:
    return transducer_loss(logits, lattice.targets, *lattice.lengths, blank=0, reduction="sum")


def by_torchaudio(logits: Tensor, lattice: Lattice) -> Tensor:
    from torchaudio.functional import rnnt_loss

    lengths = [x.int() for x in lattice.lengths]
    return rnnt_loss(logits, lattice.targets.int(), *lengths, blank=0, reduction="sum")


def by_fast_rnnt(logits: Tensor, lattice: Lattice) -> Tensor:
    import fast_rnnt

    boundary = torch.zeros(lattice.count, 4, dtype=torch.int64)
    boundary[:, 2], boundary[:, 3] = lattice.labels, lattice.frames
    return fast_rnnt.rnnt_loss(
        logits, lattice.targets, termination_symbol=0, boundary=boundary, reduction="sum"
    )


PEERS: dict[str, tuple[Callable[[Tensor, Lattice], Tensor], float]] = {
    "torchaudio": (by_torchaudio, 20.0),
    "fast_rnnt": (by_fast_rnnt, 4.0),
}


def installed() -> dict[str, tuple[Callable[[Tensor, Lattice], Tensor], float]]:
    there = {name: peer for name, peer in PEERS.items() if importlib.util.find_spec(name)}
    for name in PEERS.keys() - there.keys():
        print(f"{name} is not installed (see install_peers.sh) and left out", file=sys.stderr)
    return there


def step(loss: Callable[[], Tensor], leaves: list[Tensor]) -> Callable[[], None]:
    """One forward and backward pass."""

    def run() -> None:
        for leaf in leaves:
            leaf.grad = None
        loss().backward()

    return run


def from_logits(rounds: int) -> list[Row]:
    rows = []
    for lattice in (Lattice(1), Lattice(8), Lattice(8, 400, 60, 500)):
        logits = torch.randn(lattice.count, lattice.frames, lattice.labels + 1, lattice.vocab)
        logits.requires_grad_()
        runs = {"ours": step(lambda x=logits, a=lattice: ours(x, a), [logits])}
        floors = {}
        for name, (loss, floor) in installed().items():
            assert torch.allclose(loss(logits, lattice), ours(logits, lattice), rtol=1e-4), name
            runs[name] = step(lambda f=loss, x=logits, a=lattice: f(x, a), [logits])
            floors[name] = floor
        times = medians(runs, min(rounds, 1) if lattice.vocab == 500 else rounds)
        rows += [
            Row(f"loss from logits, {lattice}", times["ours"], name, times[name], floor)
            for name, floor in floors.items()
        ]
    return rows


def joint_inputs(lattice: Lattice, scale: float) -> list[Tensor]:
    """Rows, columns, weight and bias."""
    n = lattice.count
    shapes = [(n, lattice.frames, H), (n, lattice.labels + 1, H), (lattice.vocab, H)]
    tensors = [scale * (torch.rand(shape) - 0.5) for shape in [*shapes, (lattice.vocab,)]]
    return [x.requires_grad_() for x in tensors]


def dense_logits(rows: Tensor, columns: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    hidden = torch.tanh(rows[:, :, None] + columns[:, None])
    return torch.nn.functional.linear(hidden, weight, bias)


def our_joint(inputs: list[Tensor], lattice: Lattice) -> Tensor:
    return joint_transducer_loss(
        *inputs, lattice.targets, *lattice.lengths, blank=0, reduction="sum"
    )


def joint_and_loss(rounds: int) -> list[Row]:
    rows = []
    for name, scale in (("untrained", 0.2), ("peaky", 2.0)):
        for lattice in (Lattice(1), Lattice(8)):
            x = joint_inputs(lattice, scale)
            runs = {
                "ours": step(lambda x=x, a=lattice: our_joint(x, a), x),
                "dense": step(lambda x=x, a=lattice: ours(dense_logits(*x), a), x),
            }
            peers = [("dense", "torch joint + our loss", 3.0)]
            if "torchaudio" in installed():
                runs["torchaudio"] = step(
                    lambda x=x, a=lattice: by_torchaudio(dense_logits(*x), a), x
                )
                peers.append(("torchaudio", "torch joint + torchaudio", 15.0))
            times = medians(runs, rounds)
            rows += [
                Row(f"joint + loss, {name}, {lattice}", times["ours"], what, times[key], floor)
                for key, what, floor in peers
            ]
    return rows


LARGE = Lattice(16, 600, 80, 500)


def memory(dense: bool) -> int:
    """Peak extra memory of one forward and backward pass of the large joint and loss."""
    x = joint_inputs(LARGE, 0.2)
    small = joint_inputs(Lattice(1, 4, 2, 500), 0.2)
    our_joint(small, Lattice(1, 4, 2, 500)).backward()  # compiled before
    return peak_extra_bytes(
        step(lambda: ours(dense_logits(*x), LARGE) if dense else our_joint(x, LARGE), x)
    )


def memory_row() -> Row:
    found = {}
    for way in ("dense", "fused"):
        done = subprocess.run(
            [sys.executable, __file__, f"--memory={way}"], stdout=subprocess.PIPE, check=True
        )
        found[way] = float(done.stdout)
    return Row(
        f"joint + loss, peak extra memory, {LARGE}", found["fused"], "dense", found["dense"], 20.0,
        "MB",
    )  # fmt: skip


def ctc_rows(rounds: int) -> list[Row]:
    rows = []
    for lattice in (Lattice(1), Lattice(16)):
        log_probs = torch.randn(T, lattice.count, V).log_softmax(dim=-1).requires_grad_()
        losses = {"ours": ctc_loss, "torch": torch.nn.functional.ctc_loss}
        runs = {
            name: step(
                lambda f=f, a=lattice, x=log_probs: f(x, a.targets, *a.lengths, reduction="sum"),
                [log_probs],
            )
            for name, f in losses.items()
        }
        times = medians(runs, rounds)
        rows.append(Row(f"CTC loss, {lattice}", times["ours"], "torch", times["torch"], 1.0))
    return rows


def measure(rounds: int) -> list[Row]:
    """All rows."""
    return [*from_logits(rounds), *joint_and_loss(rounds), memory_row(), *ctc_rows(rounds)]


if __name__ == "__main__":
    for way in ("dense", "fused"):
        if f"--memory={way}" in sys.argv:
            torch.set_num_threads(2)
            print(memory(way == "dense"))
            sys.exit()
    arguments = start("Speed and memory of the losses.")
    print(machine(), f"{arguments.threads} threads")
    show(measure(arguments.rounds))
