#!/usr/bin/env python3
"""Compile the kernels for this processor ahead, so that no later command has to.

Usage: compile_kernels.py [options]

e.g.: compile_kernels.py

The kernels are compiled when a command first needs them, and kept for later processes. On a
cluster, run this once on each kind of processor before an array of jobs. What is already compiled
is not compiled again.

See also: train_ctc.py, decode_transducer.py, recognize.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import time

from pipeline.cli import Tally, log, run


def main() -> int:
    import torch

    from pipeline.kernels.compiler.compiling import cache_folder
    from pipeline.kernels.first_calls import FIRST_CALLS

    torch.set_num_threads(1)
    tally = Tally("kinds of calls")
    for name, call in FIRST_CALLS.items():
        started = time.perf_counter()
        call()
        log.info("%s: %.1f s", name, time.perf_counter() - started)
        tally.ok()
    return tally.finish(f"kept in {cache_folder()}")


if __name__ == "__main__":
    run(main)
