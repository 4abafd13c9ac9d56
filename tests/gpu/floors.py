"""The least that a time step of a recurrent layer can cost on a GPU, in two ways of waiting.

A step needs what every multiprocessor has computed in the step before. Either the next step is
another launch, or the programs stay and wait for each other at a barrier of the whole grid.
"""

import torch
import triton
import triton.language as tl
from part import DEVICE, IS_INTERPRETED, mean_seconds


@triton.jit
def _nothing(out):
    tl.store(out + tl.program_id(0), tl.program_id(0))


@triton.jit
def _barriers(counter, rounds, PROGRAMS: tl.constexpr):
    """All programs are on the device at once, one on each multiprocessor, or they wait for ever."""
    for k in range(rounds):
        tl.atomic_add(counter, 1, sem="release")
        wanted = (k + 1) * PROGRAMS
        while tl.atomic_add(counter, 0, sem="acquire") < wanted:
            pass


def launch_seconds(launches: int) -> float:
    """Time from one small kernel to the next in a CUDA graph."""
    programs = torch.cuda.get_device_properties(0).multi_processor_count
    out = torch.zeros(programs, dtype=torch.int32, device=DEVICE)
    _nothing[(programs,)](out)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(32):
            _nothing[(programs,)](out)
    return mean_seconds(graph.replay, launches // 32) / 32


def barrier_seconds(rounds: int) -> float:
    """Time of one barrier of a grid with a program on each multiprocessor."""
    programs = 1
    if not IS_INTERPRETED:
        programs = torch.cuda.get_device_properties(0).multi_processor_count

    def run() -> None:
        counter = torch.zeros(1, dtype=torch.int32, device=DEVICE)
        options = {} if IS_INTERPRETED else {"launch_cooperative_grid": True}
        _barriers[(programs,)](counter, rounds, PROGRAMS=programs, **options)

    run()
    return mean_seconds(run, 3) / rounds
