#!/usr/bin/env python3
"""Second part of the GPU script: speeds as ratios against peers in the same run, and peak memory.

Usage: fast.py FOLDER

Times are medians of rounds in which all runs take turns, each from an idle GPU to an idle GPU, with
what the host does in between.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from part import DEVICE, IS_INTERPRETED, OURS, Part, chosen, run_part, settle
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))
from bench_search import PeakyModel
from bench_training import CELLS, FEATURES, make_step, operations
from measure import medians, seconds

from pipeline.kernels.ctc.loss import ctc_loss
from pipeline.kernels.search.model import SearchModel
from pipeline.kernels.search.transducer import transducer_beam_search, transducer_greedy
from pipeline.kernels.transducer.joint_loss import joint_transducer_loss
from pipeline.kernels.transducer.loss import transducer_loss
from pipeline.nn.encoders.recurrent import RecurrentConfig, RecurrentEncoder
from pipeline.nn.layers import initialise

Run = Callable[[], object]
ROUNDS = chosen(7, 1)
PRECISIONS = chosen(("float32", "tf32", "bf16"), ("float32",))


# ---- measuring -----------------------------------------------------------------------------------


def whole(run: Run) -> Run:
    """The same from idle to idle."""

    def both() -> None:
        run()
        settle()

    return both


def peak_bytes(run: Run) -> int:
    """Most memory of the device that a run holds beyond what was held before it."""
    if DEVICE.type != "cuda":
        run()
        return 0
    settle()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    settle()
    return torch.cuda.max_memory_allocated() - before


def megabytes(count: int) -> str:
    """For a table; the interpreter's memory is none of a GPU's."""
    return f"{count / 1e6:.0f} MB" if DEVICE.type == "cuda" else "-"


def compare(part: Part, what: str, runs: dict[str, Run]) -> None:
    """Rows of a table: the first run's time beside each other one's, with the memory of both.

    A peer that fails, for lack of memory say, is reported as such and left out.
    """
    usable = {}
    for name, run in runs.items():
        try:
            whole(run)()
            usable[name] = whole(run)
        except Exception as error:
            if not usable:
                raise
            part.row(what, name, "failed", str(error).splitlines()[0][:80], "", "")
            part.record(f"{what}, {name}", str(error))
    times = medians(usable, ROUNDS)
    memory = {name: peak_bytes(run) for name, run in usable.items()}
    (mine, ours), *others = times.items()
    for name, theirs in others:
        ratio = f"{theirs / ours:.2f} ×"
        row = (f"{1e3 * ours:.2f} ms", name, f"{1e3 * theirs:.2f} ms", ratio)
        part.row(what, *row, f"{megabytes(memory[mine])}, {megabytes(memory[name])}")
    part.record(what, {"seconds": times, "peak_bytes": memory})


@contextmanager
def precision_of(name: str) -> Iterator[None]:
    """Products of float32 matrices in TF32 or not, of cuDNN's too; autocast for bf16."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.rnn)
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "tf32" if name == "tf32" else "ieee"
    try:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=name == "bf16"):
            yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


# ---- the layers ----------------------------------------------------------------------------------


def recurrent(part: Part) -> None:
    """Three bidirectional layers with peepholes against cuDNN's without, forward and backward."""
    part.say("\nPeephole BLSTM 3 × 250, forward and backward; cuDNN's has no peepholes.")
    part.head("batch", OURS, "against", "theirs", "ratio", "peak memory, ours, theirs")
    frames, cells = chosen(304, 3), chosen(CELLS, 6)
    layers, features = chosen(3, 1), chosen(FEATURES, 5)
    for count in chosen((64, 16), (2,)):
        config = RecurrentConfig(input_dim=features, layers=layers, cells=cells)
        ours = RecurrentEncoder(config)
        initialise(ours, scale=0.1, generator=torch.Generator().manual_seed(0))
        ours = ours.to(DEVICE)
        theirs = nn.LSTM(features, cells, layers, batch_first=True, bidirectional=True).to(DEVICE)
        x = torch.randn(count, frames, features, device=DEVICE)
        lengths = torch.full((count,), frames, device=DEVICE)

        def step(network: nn.Module, run: Callable[[], Tensor]) -> Run:
            def both() -> None:
                network.zero_grad(set_to_none=True)
                hidden = run()
                hidden.backward(torch.full_like(hidden, 0.01))

            return both

        runs = {
            OURS: step(ours, lambda n=ours, x=x, k=lengths: n(x, k)[0]),
            "nn.LSTM": step(theirs, lambda n=theirs, x=x: n(x)[0]),
        }
        for precision in PRECISIONS:
            what = f"N {count}, T {frames}, {precision}"
            with part.attempt(what), precision_of(precision):
                compare(part, what, runs)


# ---- the losses ----------------------------------------------------------------------------------


def joint(part: Part) -> None:
    """The joiner of [G13] and its loss against logits in memory, with gradients."""
    part.say("\nJoint 250 wide and loss, with gradients.")
    part.head("batch", OURS, "against", "theirs", "ratio", "peak memory, ours, theirs")
    sizes = chosen(((304, 38, 62), (400, 60, 500)), ((3, 2, 5),))
    for frames, labels, vocab in sizes:
        for count in chosen((16, 64), (2,)):
            what = f"N {count}, T {frames}, U {labels}, V {vocab}"
            with part.attempt(what):
                compare(part, what, joint_runs(count, frames, labels, vocab))


def joint_runs(count: int, frames: int, labels: int, vocab: int) -> dict[str, Run]:
    """Ours, torch's joint with our loss, and with torchaudio's where that is installed."""
    size = chosen(CELLS, 7)
    generator = torch.Generator().manual_seed(0)
    shapes = [(count, frames, size), (count, labels + 1, size), (vocab, size), (vocab,)]
    x = [(torch.rand(shape, generator=generator) / 5 - 0.1).to(DEVICE) for shape in shapes]
    x = [y.requires_grad_() for y in x]
    targets = torch.randint(1, vocab, (count, labels), generator=generator).to(DEVICE)
    lengths = [torch.full((count,), n, device=DEVICE) for n in (frames, labels)]

    def dense() -> Tensor:
        hidden = torch.tanh(x[0][:, :, None] + x[1][:, None])
        return nn.functional.linear(hidden, x[2], x[3])

    def by_torchaudio() -> None:
        from torchaudio.functional import rnnt_loss

        ints = [y.int() for y in (targets, *lengths)]
        torch.autograd.grad(rnnt_loss(dense(), *ints, blank=0, reduction="sum"), x)

    def ours() -> None:
        loss = joint_transducer_loss(*x, targets, *lengths, blank=0, reduction="sum")
        torch.autograd.grad(loss, x)

    def from_logits() -> None:
        loss = transducer_loss(dense(), targets, *lengths, blank=0, reduction="sum")
        torch.autograd.grad(loss, x)

    runs: dict[str, Run] = {OURS: ours, "torch joint, our loss": from_logits}
    if importlib.util.find_spec("torchaudio") and DEVICE.type == "cuda":
        runs["torch joint, torchaudio's loss"] = by_torchaudio
    return runs


def ctc(part: Part) -> None:
    """CTC's loss with its gradient against torch's two."""
    part.say("\nCTC's loss and gradient, of log-probabilities; cuDNN's is not the same twice.")
    part.head("batch", OURS, "against", "theirs", "ratio", "peak memory, ours, theirs")
    frames, labels, vocab = chosen((304, 38, 62), (4, 2, 5))
    for count in chosen((16, 64), (2,)):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(frames, count, vocab, generator=generator).to(DEVICE)
        x = x.log_softmax(dim=2).requires_grad_()
        targets = torch.randint(1, vocab, (count, labels), generator=generator)
        lengths = [torch.full((count,), n) for n in (frames, labels)]
        on_device = [y.to(DEVICE) for y in (targets, *lengths)]
        flat = (targets.flatten().int(), *(y.int() for y in lengths))  # as cuDNN takes them

        def run(loss: Callable[..., Tensor], x: Tensor = x, rest: object = on_device) -> Run:
            return lambda: torch.autograd.grad(loss(x, *rest, blank=0, reduction="sum"), x)

        runs = {OURS: run(ctc_loss), "torch": run(nn.functional.ctc_loss)}
        if DEVICE.type == "cuda":
            runs["cuDNN"] = run(nn.functional.ctc_loss, rest=flat)
        what = f"N {count}, T {frames}, U {labels}, V {vocab}"
        with part.attempt(what):
            compare(part, what, runs)


# ---- the whole step ------------------------------------------------------------------------------


def product_rate(precision: str) -> float:
    """Floating-point operations a second of a large matrix product here."""
    size = chosen(8192, 64)
    a, b = (torch.randn(size, size, device=DEVICE) for _ in range(2))
    with precision_of(precision):
        if precision == "bf16":
            a, b = a.bfloat16(), b.bfloat16()
        return 2 * size**3 / medians({"mm": whole(lambda: a @ b)}, ROUNDS)["mm"]


def steps(part: Part) -> None:
    """An update of PreTrans-3l-250h, of utterances of 304 frames and 38 phones."""
    part.say(
        "\nA training step of PreTrans-3l-250h; share of what a large matrix product reaches here."
    )
    part.head("N", "precision", "a step", "utterances/s", "rate", "share of", "peak memory")
    if IS_INTERPRETED:
        part.say("(too long for the interpreter: the last part trains a small network)")
        return
    rates = {precision: product_rate(precision) for precision in PRECISIONS}
    part.record("matrix products, operations a second", rates)
    for count in (64, 16, 1):
        for precision in PRECISIONS:
            what = f"a step, N {count}, {precision}"
            with part.attempt(what):
                with precision_of("tf32" if precision == "tf32" else "float32"):
                    step = make_step(count, 0.0, DEVICE.type, precision)  # bf16 is its own affair
                    time = medians({"ours": whole(step)}, ROUNDS)["ours"]
                    memory, rate = peak_bytes(step), count * operations() / time
                peak = rates[precision]
                share = f"{100 * rate / peak:.1f} % of {peak * 1e-12:.0f} TFLOP/s"
                part.row(str(count), precision, f"{1e3 * time:.1f} ms", f"{count / time:.0f}",
                         f"{rate * 1e-12:.2f} TFLOP/s", share, megabytes(memory))  # fmt: skip
                part.record(what, {"seconds": time, "peak_bytes": memory, "rate": rate})


# ---- search --------------------------------------------------------------------------------------


def search(part: Part) -> None:
    """Greedy and beam search over a batch, the GPU beside the compiled search of this CPU.

    A beam that would take too long for the whole batch is measured on its first utterances.
    """
    part.say("\nSearch with PreTrans-3l-250h after its encoder, utterances/s.")
    part.head("search", "utterances", OURS, "the CPU's", "ratio", "peak memory")
    peaky = PeakyModel()
    count, frames = chosen(256, 2), chosen(304, 4)
    inputs, model = peaky.frames(count)[:, :frames], peaky.model
    beams = chosen((0, 10, 100), (0, 2))
    on_cpu: dict[int, float] = {}
    with torch.inference_mode():
        for beam in beams:
            with part.attempt(f"beam {beam} on the CPU"):
                done, time, _ = timed_search(model, inputs, beam, few=chosen(16, 1))
                on_cpu[beam] = done / time
        model, inputs = model.to(DEVICE), inputs.to(DEVICE)
        for beam in beams:
            name = f"beam {beam}" if beam else "greedy"
            with part.attempt(name):
                done, time, memory = timed_search(model, inputs, beam, few=chosen(8, 1))
                ours, theirs = done / time, on_cpu[beam]
                part.row(name, str(done), f"{ours:.1f}", f"{theirs:.1f}", f"{ours / theirs:.2f} ×",
                         megabytes(memory))  # fmt: skip
                part.record(name, {"utterances/s": ours, "of the CPU": theirs, "utterances": done})


def searching(model: SearchModel, inputs: Tensor, beam: int) -> Run:
    """A call that searches a batch."""
    lengths = torch.full((len(inputs),), inputs.shape[1])
    if beam:
        return whole(lambda: transducer_beam_search(inputs, lengths, model, beam=beam))
    return whole(lambda: transducer_greedy(inputs, lengths, model))


def timed_search(model: SearchModel, inputs: Tensor, beam: int, few: int) -> tuple[int, float, int]:
    """How many utterances were searched, in what time and memory: all if that takes seconds."""
    searching(model, inputs[:1, :8], beam)()  # compiles
    timed: list[float] = []

    def run(count: int) -> int:
        return peak_bytes(lambda: timed.append(seconds(searching(model, inputs[:count], beam))))

    memory = run(few)
    if timed[0] * len(inputs) / few > 8.0:
        return few, timed[0], memory
    memory = run(len(inputs))
    return len(inputs), timed[1], memory


if __name__ == "__main__":
    torch.manual_seed(0)
    run_part(
        "fast",
        "Fast",
        [
            ("recurrent layers", recurrent),
            ("joint and loss", joint),
            ("CTC", ctc),
            ("training step", steps),
            ("search", search),
        ],
    )
