#!/usr/bin/env python3
"""Processor time of first calls, which compile their kernels, and of later processes' first calls.

Usage: bench_first_use.py [--rounds N]

e.g.: python3 tests/bench/bench_first_use.py

Every call is the first one of a process of its own with one thread. It is measured with an empty
cache of compiled kernels, and again with the cache that it has left. For the last rows all calls
share one cache: one process after the other, and all of them in one process. Processor time (user
and system) is what a call takes on an idle core; the time that passed is given beside it. Importing
is not a part of it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST, MOST_TOGETHER = 10.0, 15.0  # processor seconds aimed at


def call(names: Sequence[str]) -> None:
    """In a process of its own: print the processor seconds and the seconds that calls take."""
    import torch

    from pipeline.kernels.first_calls import FIRST_CALLS

    torch.set_num_threads(1)
    busy, passed = time.process_time(), time.perf_counter()
    for name in names:
        FIRST_CALLS[name]()
    print(time.process_time() - busy, time.perf_counter() - passed)


def first_call(cache: str, *names: str) -> tuple[float, float]:
    """Processor seconds and seconds of the first calls of a process, with a cache folder."""
    command = [sys.executable, __file__, *(f"--call={name}" for name in names)]
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    busy, passed = done.stdout.split()
    return float(busy), float(passed)


def medians(times: Sequence[tuple[float, float]]) -> tuple[float, float]:
    busy, passed = zip(*times, strict=True)
    return statistics.median(busy), statistics.median(passed)


def measure(names: Sequence[str], *, apart: bool) -> tuple[float, ...]:
    """Of calls with an empty cache and then with theirs: each processor seconds and seconds."""
    with tempfile.TemporaryDirectory() as cache:
        found: list[float] = []
        for _ in ("empty", "left"):
            groups = [(name,) for name in names] if apart else [names]
            times = [first_call(cache, *group) for group in groups]
            found += [sum(part) for part in zip(*times, strict=True)]
    return tuple(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="of each measurement")
    parser.add_argument("--call", action="append", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        call(arguments.call)
        return
    sys.path.insert(0, str(ROOT))
    from pipeline.kernels.first_calls import FIRST_CALLS

    names = [*FIRST_CALLS]
    rows = {name: ([name], False) for name in names}
    rows["all, one process after the other"] = (names, True)
    rows["all in one process"] = (names, False)
    print("| first call | processor s | s | at most | met | compiled before: processor s | s |")
    print("|---|---|---|---|---|---|---|")
    for what, (calls, apart) in rows.items():
        times = [measure(calls, apart=apart) for _ in range(arguments.rounds)]
        busy, passed, later, later_passed = map(statistics.median, zip(*times, strict=True))
        most = MOST if len(calls) == 1 else MOST_TOGETHER
        print(
            f"| {what} | {busy:.1f} | {passed:.1f} | {most:g} | {'yes' if busy <= most else 'no'} "
            f"| {later:.2f} | {later_passed:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
