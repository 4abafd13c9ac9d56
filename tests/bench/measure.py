"""What the measuring programs share: medians of interleaved rounds, and a table of ratios."""

import argparse
import ctypes
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.kernels.compiler.memory import keep_freed_memory

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}  # cpu: of all threads together
clock = time.perf_counter


@dataclass(frozen=True)
class Row:
    """One comparison; seconds, or bytes where ``unit`` says so."""

    what: str
    ours: float
    peer: str
    theirs: float
    at_least: float
    unit: str = "ms"

    @property
    def ratio(self) -> float:
        """How many times less ours is."""
        return self.theirs / self.ours

    @property
    def is_met(self) -> bool:
        """Whether the ratio is what was aimed at."""
        return self.ratio >= self.at_least


def start(description: str) -> argparse.Namespace:
    """Read --threads and --rounds, and set the process up as a training does."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9, help="of each measurement")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: on a machine that others use, too"
    )
    arguments = parser.parse_args()
    global clock
    clock = CLOCKS[arguments.clock]
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    torch.manual_seed(0)
    return arguments


def seconds(run: Callable[[], object]) -> float:
    """How long one call takes."""
    started = clock()
    run()
    return clock() - started


def medians(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, measured in turn so that load on the machine meets all alike."""
    for run in runs.values():
        run()  # compiles, fills caches
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run))
    return {name: statistics.median(values) for name, values in times.items()}


def show(rows: list[Row]) -> None:
    """Print a Markdown table."""
    print("| what | ours | against | theirs | ratio | at least | met |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        scale = {"ms": 1e3, "MB": 1e-6}[row.unit]
        print(
            f"| {row.what} | {row.ours * scale:.2f} {row.unit} | {row.peer} "
            f"| {row.theirs * scale:.2f} {row.unit} | {row.ratio:.2f} × | {row.at_least:g} × "
            f"| {'yes' if row.is_met else 'no'} |",
            flush=True,
        )


def peak_extra_bytes(run: Callable[[], object]) -> int:
    """Most memory that ``run`` held beyond what the process had before. Linux only."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def machine() -> str:
    """Processor and torch, in words."""
    cpu = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return f"{cpu}, {os.cpu_count()} cores, torch {torch.__version__}"
