"""Random problems for every Triton program, and what the reference says of them.

A problem is solved by an engine on a device in a dtype; what comes out is a named list of tensors,
without their padding. The reference is plain torch in float64, which the tests hold to the printed
equations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.kernels.ctc import cuda as ctc_cuda
from pipeline.kernels.ctc import plain as ctc_plain
from pipeline.kernels.ragged import layout
from pipeline.kernels.recurrent import cuda as lstm_cuda
from pipeline.kernels.recurrent import gru_cuda, gru_plain
from pipeline.kernels.recurrent import plain as lstm_plain
from pipeline.kernels.recurrent.plain import Recurrence
from pipeline.kernels.transducer import cuda as transducer_cuda
from pipeline.kernels.transducer import plain as transducer_plain
from pipeline.kernels.transducer.plain import Joint

Place = Callable[[Tensor], Tensor]  # puts an input where the engine is to read it
Found = dict[str, Tensor]


class Problem(NamedTuple):
    """A problem of a family of programs."""

    family: str  # recurrent, gru, ctc, transducer or joiner
    name: str
    solve: Callable[[bool, torch.dtype, torch.device, Place], Found]  # by the Triton programs?


def half(family: str) -> bool:
    """Whether the programs of a family take half precision as a training gives it to them."""
    return family in ("recurrent", "gru", "joiner")


@dataclass(frozen=True)
class Draw:
    """Random tensors in float64, rounded to a dtype, so that the reference sees the same ones."""

    seed: int
    rounding: torch.dtype

    def __call__(self, *shape: int, scale: float = 1.0) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * self.seed + sum(shape))
        x = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        return x.to(self.rounding).double()


# ---- the recurrent layers ------------------------------------------------------------------------


def _layer(
    cell: str, lengths: list[int], size: int, width: int, *, peepholes: bool = True
) -> Problem:
    def solve(by_triton: bool, dtype: torch.dtype, device: torch.device, place: Place) -> Found:
        draw = Draw(1, dtype)
        kind = torch.float64 if not by_triton else dtype

        def put(x: Tensor) -> Tensor:
            return place(x.to(device, kind))

        columns = lstm_plain.GATES[cell] * size
        has_peepholes = cell == "lstm" and peepholes
        recurrence = Recurrence(
            cell,
            put(draw(2, columns, width, scale=width**-0.5)),
            put(draw(2, 3, size)) if has_peepholes else None,
            put(draw(2, width, size, scale=size**-0.5)) if width != size else None,
        )
        ragged = layout(torch.tensor(lengths), max(lengths))
        engine = _sweeper(recurrence.family, by_triton)
        gates, grad_h = put(draw(ragged.rows, 2, columns)), put(draw(ragged.rows, 2, width))
        hidden, sweep = engine.forward(gates.clone(), recurrence, ragged)
        d_gates, d_hidden, d_peepholes = engine.backward(grad_h, sweep, recurrence, ragged)
        found = {"h": hidden, "c": sweep.cells, "∂gates": d_gates, "∂h": d_hidden}
        found["∂peepholes"] = d_peepholes
        return {name: x for name, x in found.items() if x is not None}

    name = f"{cell}: N {len(lengths)}, T {max(lengths)}, {size} cells"
    name += f" projected to {width}" if width != size else ""
    name += ", no peepholes" if cell == "lstm" and not peepholes else ""
    return Problem("gru" if cell.startswith("gru") else "recurrent", name, solve)


def _sweeper(family: str, by_triton: bool) -> ModuleType:
    if family == "gru":
        return gru_cuda if by_triton else gru_plain
    return lstm_cuda if by_triton else lstm_plain


# ---- CTC -----------------------------------------------------------------------------------------


def _targets(labels: list[int], vocab: int) -> Tensor:
    """With one of them said twice in a row where there is room."""
    generator = torch.Generator().manual_seed(vocab)
    targets = torch.randint(1, vocab, (len(labels), max(labels)), generator=generator)
    targets[:, 1:2] = targets[:, :1]
    return targets


def _ctc(frames: list[int], labels: list[int], vocab: int) -> Problem:
    def solve(by_triton: bool, dtype: torch.dtype, device: torch.device, place: Place) -> Found:
        log_probs = Draw(2, dtype)(len(frames), max(frames), vocab, scale=2.0).log_softmax(dim=2)
        log_probs = log_probs.to(dtype if by_triton else torch.float64)
        rest = (_targets(labels, vocab), torch.tensor(frames), torch.tensor(labels))
        engine: ModuleType = ctc_cuda if by_triton else ctc_plain
        inputs = [place(x.to(device)) for x in (log_probs.to(dtype).to(log_probs.dtype), *rest)]
        sums = engine.sweep(*inputs, 0)
        return {"ln Pr": sums.log_prob, "posteriors": sums.posteriors}

    sizes = f"N {len(frames)}, T {max(frames)}, U {max(labels)}, V {vocab}"
    return Problem("ctc", f"CTC: {sizes}", solve)


# ---- the transducer ------------------------------------------------------------------------------


def _inside(x: Tensor, frames: list[int], labels: list[int], label: bool = False) -> Tensor:
    """The cells of a lattice that are not padding, one after the other."""
    pairs = enumerate(zip(frames, labels, strict=True))
    return torch.cat([x[n, :t, : u + (0 if label else 1)].flatten() for n, (t, u) in pairs])


def _transducer(frames: list[int], labels: list[int], vocab: int) -> Problem:
    def solve(by_triton: bool, dtype: torch.dtype, device: torch.device, place: Place) -> Found:
        logits = Draw(3, dtype)(len(frames), max(frames), max(labels) + 1, vocab)
        rest = (_targets(labels, vocab), torch.tensor(frames), torch.tensor(labels))
        engine: ModuleType = transducer_cuda if by_triton else transducer_plain
        logits = logits.to(dtype if by_triton else torch.float64)
        logits, *rest = (place(x.to(device)) for x in (logits, *rest))
        arrows = engine.arrows(logits, *rest, 0)
        lattice = engine.sweep(arrows.null, arrows.label, *rest[1:])
        gradient = engine.logits_gradient(logits, rest[0], arrows.log_norm, lattice, 0, *rest[1:])
        return {
            "ln Pr(∅)": _inside(arrows.null, frames, labels),
            "ln Pr(label)": _inside(arrows.label, frames, labels, label=True),
            "ln Pr(y|x)": lattice.log_prob,
            "posterior ∅": lattice.null,
            "posterior label": lattice.label,
            "∂logits": gradient,
        }

    sizes = f"N {len(frames)}, T {max(frames)}, U {max(labels)}, V {vocab}"
    return Problem("transducer", f"loss of logits: {sizes}", solve)


def _joiner(frames: list[int], labels: list[int], vocab: int, size: int) -> Problem:
    def solve(by_triton: bool, dtype: torch.dtype, device: torch.device, place: Place) -> Found:
        draw, n = Draw(4, dtype), len(frames)
        inputs = [draw(n, max(frames), size), draw(n, max(labels) + 1, size)]
        inputs += [draw(vocab, size, scale=size**-0.5), draw(vocab)]
        kind = dtype if by_triton else torch.float64
        rest = (_targets(labels, vocab), torch.tensor(frames), torch.tensor(labels))
        placed = [place(x.to(device, kind)) for x in inputs] + [place(x.to(device)) for x in rest]
        joint = Joint(*placed, 0)
        engine: ModuleType = transducer_cuda if by_triton else transducer_plain
        arrows = engine.joint_arrows(joint)
        lattice = engine.sweep(arrows.null, arrows.label, *joint[5:7])
        gradients = engine.joint_gradient(joint, arrows.log_norm, lattice)
        names = ("∂encoder", "∂predictor", "∂W", "∂b")
        return {
            "ln Pr(∅)": _inside(arrows.null, frames, labels),
            "ln Pr(label)": _inside(arrows.label, frames, labels, label=True),
            "ln Pr(y|x)": lattice.log_prob,
            **dict(zip(names, gradients, strict=True)),
        }

    sizes = f"N {len(frames)}, T {max(frames)}, U {max(labels)}, V {vocab}, {size} wide"
    return Problem("joiner", f"joint and loss: {sizes}", solve)


# ---- all of them ---------------------------------------------------------------------------------


@cache
def smallest() -> list[Problem]:
    """Every program, on sizes that no tile divides and of more than one tile where that is cheap.

    What is larger than a tile in one place is smaller than one in another.
    """
    return [
        _layer("lstm", [4, 2, 3, *[1] * 15], 18, 18),
        _layer("lstm", [3, 0, 1, 2], 17, 19),
        _layer("lstm", [2, 1], 5, 5, peepholes=False),
        _layer("tanh", [3, 1, 4], 19, 19),
        _layer("relu", [3, 1, 4], 19, 19),
        _layer("gru", [3, 0, 1, 4, *[1] * 14], 19, 19),
        _layer("gru_tanh", [2, 1], 5, 5),
        _ctc([5, 1, 9, 14], [2, 1, 0, 4], 11),
        _transducer([4, 5, 1, 9], [3, 0, 1, 4], 13),
        _transducer([5, 3], [2, 1], 1030),
        _joiner([4, 5, 11], [3, 0, 9], 37, 35),
    ]


def full_size() -> list[Problem]:
    """The networks of [G13] and GRUs on batches of utterances of 1 to 3 seconds."""
    generator = torch.Generator().manual_seed(5)

    def between(low: int, high: int, count: int) -> list[int]:
        return [high, *torch.randint(low, high + 1, (count - 1,), generator=generator).tolist()]

    return [
        _layer("lstm", between(100, 304, 64), 250, 250),
        _layer("lstm", between(100, 304, 16), 512, 256),
        _layer("tanh", between(100, 304, 16), 500, 500),
        _layer("relu", between(100, 304, 16), 500, 500),
        _layer("gru", between(100, 304, 16), 512, 512),
        _layer("gru_tanh", between(100, 304, 16), 250, 250),
        _ctc(between(100, 304, 64), between(10, 38, 64), 62),
        _transducer(between(100, 304, 8), between(10, 38, 8), 62),
        _joiner(between(100, 304, 16), between(10, 38, 16), 62, 250),
        _joiner(between(100, 400, 8), between(10, 60, 8), 500, 250),
    ]
