#!/usr/bin/env python3
"""Third part of the GPU script: where the time of a training step goes.

Usage: why.py FOLDER
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from part import DEVICE, IS_INTERPRETED, Part, chosen, mean_seconds, run_part, settle
from torch.profiler import ProfilerActivity, profile

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))
from bench_training import make_step

from pipeline.kernels.ragged import layout
from pipeline.kernels.recurrent import cuda as lstm_cuda
from pipeline.kernels.recurrent.plain import Recurrence

MOST = 10  # kernels in a table


def seconds_of(run: Callable[[], object], times: int) -> float:
    """`mean_seconds` after two runs to warm up."""
    run()
    run()
    return mean_seconds(run, times)


# ---- the step's kernels --------------------------------------------------------------------------


def tiny_step() -> Callable[[], object]:
    """A recurrent layer, forward and backward, in place of a step: for the interpreter."""
    given = sweep_inputs(2, 2, 3)
    return lambda: lstm_cuda.backward(given[3], lstm_cuda.forward(*given[:3])[1], *given[1:3])


def profiled(part: Part) -> None:
    """The ten kernels that take most of a step, and how long the GPU waits for the host."""
    for count in chosen((16, 1), (2,)):
        name = f"N {count}, float32" if not IS_INTERPRETED else "a layer in the interpreter"
        with part.attempt(name):
            step = tiny_step() if IS_INTERPRETED else make_step(count, 0.0, DEVICE.type)
            wall = seconds_of(step, chosen(5, 1))
            activities = [ProfilerActivity.CPU]
            activities += [ProfilerActivity.CUDA] if DEVICE.type == "cuda" else []
            with profile(activities=activities) as found:
                for _ in range(chosen(3, 1)):
                    step()
                settle()
            show_kernels(part, name, found, wall, chosen(3, 1))


def show_kernels(part: Part, name: str, found: profile, wall: float, steps: int) -> None:
    """The table of a profile."""
    on_gpu = DEVICE.type == "cuda"
    kind = torch.autograd.DeviceType.CUDA if on_gpu else torch.autograd.DeviceType.CPU
    rows = [event for event in found.key_averages() if event.device_type == kind]

    def microseconds(event: object) -> float:
        own = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        return float(getattr(event, own)) / steps

    rows.sort(key=microseconds, reverse=True)
    busy = sum(map(microseconds, rows))
    part.say(f"\nA step, {name}: {1e3 * wall:.2f} ms; kernels {1e-3 * busy:.2f} ms of it, "
             f"{100e-6 * busy / wall:.0f} %.")  # fmt: skip
    part.head("kernel", "a step", "calls a step", "share of the kernels")
    table = []
    for event in rows[:MOST]:
        us, calls = microseconds(event), event.count / steps
        part.row(f"`{event.key[:70]}`", f"{us:.0f} µs", f"{calls:.0f}", f"{100 * us / busy:.1f} %")
        table.append({"kernel": event.key, "microseconds": us, "calls": calls})
    part.record(name, {"step_seconds": wall, "kernel_microseconds": busy, "kernels": table})


# ---- the sweep's floor ---------------------------------------------------------------------------


def sweep_inputs(count: int, frames: int, cells: int) -> tuple:
    """Gates, weights, rows and a gradient of two directions."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return (0.1 * torch.randn(*shape, generator=generator)).to(DEVICE)

    recurrence = Recurrence("lstm", draw(2, 4 * cells, cells), draw(2, 3, cells))
    ragged = layout(torch.full((count,), frames), frames)
    return draw(ragged.rows, 2, 4 * cells), recurrence, ragged, draw(ragged.rows, 2, cells)


def floor(part: Part) -> None:
    """Time a frame of a sweep beside the least that a frame can cost, launched or waited for."""
    import floors

    frames, cells = chosen(304, 2), chosen(250, 3)
    part.say(
        f"\nA frame of a sweep over two directions of {cells} cells, and the least it could be."
    )
    part.head("what", "a frame", "of the floor by launches", "of the floor by barriers")
    launch = floors.launch_seconds(3200) if DEVICE.type == "cuda" else math.nan
    barrier = floors.barrier_seconds(chosen(20000, 2))
    part.record("floors", {"launch_seconds": launch, "barrier_seconds": barrier})
    for count in chosen((64, 16, 1), (2,)):
        gates, recurrence, ragged, grad_h = sweep_inputs(count, frames, cells)

        def forward(given: tuple = (gates, recurrence, ragged)) -> tuple:
            return lstm_cuda.forward(*given)

        sweep = forward()[1]
        runs = {
            "forward": forward,
            "backward": lambda g=grad_h, s=sweep, r=recurrence, k=ragged: lstm_cuda.backward(
                g, s, r, k
            ),
        }
        for name, run in runs.items():
            a_frame = seconds_of(run, chosen(10, 1)) / frames
            ratios = [f"{a_frame / least:.1f} ×" for least in (launch, barrier)]
            part.row(f"{name}, N {count}", f"{1e6 * a_frame:.2f} µs", *ratios)
            part.record(f"{name}, N {count}, seconds a frame", a_frame)
    part.row("a kernel that does nothing, in a graph", f"{1e6 * launch:.2f} µs", "1", "")
    part.row("a barrier of all multiprocessors", f"{1e6 * barrier:.2f} µs", "", "1")


if __name__ == "__main__":
    torch.manual_seed(0)
    run_part("why", "Why", [("floor of a frame", floor), ("kernels of a step", profiled)])
