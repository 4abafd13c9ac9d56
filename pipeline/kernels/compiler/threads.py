"""Run compiled jobs on the threads that torch is allowed, each job alike on every count of them."""

import ctypes
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

Job = Callable[[], object]
_Callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def run_parallel(jobs: list[Job]) -> None:
    """Run all jobs, as many at a time as ``torch.get_num_threads()``; they must not share outputs.

    They run on torch's own OpenMP threads where these can be reached: threads of ours beside them
    would compete with those for the cores, since OpenMP's wait busily for more work.

    Raises:
        BaseException: what a job raised, after all have ended.
    """
    count = min(torch.get_num_threads(), len(jobs))
    team = _Team(jobs)
    if count <= 1:
        team.work()
    elif (openmp := _openmp()) is not None:
        openmp(_Callback(team.work), None, count, 0)
    else:
        others = [_pool().submit(team.work) for _ in range(count - 1)]
        team.work()
        for other in others:
            other.result()
    for failure in team.failures:
        raise failure


class _Team:
    """Threads that take jobs from one list until there are none."""

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs: Iterator[Job] = iter(jobs)  # hands out each job once, whoever asks
        self.failures: list[BaseException] = []

    def work(self, _: object = None) -> None:
        try:
            for job in self.jobs:
                job()
        except BaseException as failure:
            self.failures.append(failure)


@cache
def _openmp() -> Callable[..., None] | None:
    """``GOMP_parallel(function, data, threads, flags)`` of the OpenMP library that torch loaded."""
    try:
        function = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError):
        return None
    function.argtypes = [_Callback, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=256, thread_name_prefix="kernel")


def spans(length: int, unit: int, parts: int) -> list[tuple[int, int]]:
    """Cut 0 … length into at most ``parts`` stretches of about the same number of units."""
    units = -(-length // unit)
    parts = max(1, min(parts, units))
    edges = [min(length, units * part // parts * unit) for part in range(parts + 1)]
    return [(a, b) for a, b in itertools.pairwise(edges) if b > a]
