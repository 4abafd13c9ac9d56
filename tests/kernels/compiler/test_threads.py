"""Jobs on several threads: how many at a time, failures, calls within and beside each other."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from pipeline.kernels.compiler import threads
from pipeline.kernels.compiler.threads import run_parallel, spans

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(params=[True, False], ids=["torch's threads", "own threads"])
def openmp(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Each way to run jobs: whether on torch's threads."""
    if not request.param:
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    yield request.param
    torch.set_num_threads(1)


each_way = pytest.mark.usefixtures("openmp")


@each_way
@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_more_at_a_time_than_torch_is_allowed(count: int) -> None:
    torch.set_num_threads(count)
    lock = threading.Lock()
    running, most = 0, 0

    def job() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1

    run_parallel([job] * 12)
    assert (running, most <= count) == (0, True)


@each_way
def test_one_thread_is_the_callers_and_keeps_the_order() -> None:
    torch.set_num_threads(1)
    seen: list[tuple[int, int]] = []
    run_parallel([lambda k=k: seen.append((k, threading.get_ident())) for k in range(5)])  # type: ignore[misc]
    assert seen == [(k, threading.get_ident()) for k in range(5)]


@each_way
@pytest.mark.parametrize("place", [0, 3, 7])
def test_the_other_threads_go_on_after_a_failure(place: int) -> None:
    torch.set_num_threads(2)
    done: list[int] = []

    def fail() -> None:
        raise ValueError("job")

    jobs = [fail if k == place else lambda k=k: done.append(k) for k in range(8)]  # type: ignore[misc]
    with pytest.raises(ValueError, match="job"):
        run_parallel(jobs)
    assert sorted(done) == [k for k in range(8) if k != place]


@each_way
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, StopIteration])
def test_failures_of_any_kind_arrive(kind: type[BaseException], count: int) -> None:
    """`StopIteration` too, which a loop over the jobs might take for their end."""
    torch.set_num_threads(count)

    def fail() -> None:
        raise kind

    with pytest.raises(kind):
        run_parallel([fail, fail, fail])
    done: list[int] = []
    run_parallel([lambda: done.append(1)] * 4)
    assert done == [1] * 4


@each_way
def test_jobs_may_have_jobs() -> None:
    torch.set_num_threads(2)
    done: list[tuple[int, int]] = []

    def job(k: int) -> None:
        run_parallel([lambda i=i: done.append((k, i)) for i in range(3)])  # type: ignore[misc]

    run_parallel([lambda k=k: job(k) for k in range(3)])  # type: ignore[misc]
    assert sorted(done) == [(k, i) for k in range(3) for i in range(3)]


@each_way
def test_callers_beside_each_other() -> None:
    torch.set_num_threads(2)

    def call(k: int) -> list[int]:
        done: list[int] = []
        run_parallel([lambda i=i: done.append(k * 100 + i) for i in range(20)])  # type: ignore[misc]
        return sorted(done)

    with ThreadPoolExecutor(3) as callers:
        found = list(callers.map(call, range(9)))
    assert found == [[k * 100 + i for i in range(20)] for k in range(9)]


def test_a_process_ends_after_its_jobs() -> None:
    """Threads of torch and of ours keep no process alive."""
    code = "import torch; from pipeline.kernels.compiler import threads; torch.set_num_threads(3); "
    code += "threads.run_parallel([lambda: None] * 9); threads._openmp = lambda: None; "
    code += "threads.run_parallel([lambda: None] * 9); print('end')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr


def test_spans_of_random_lengths() -> None:
    """At most as many as asked for, in order, without gap; only the last may end within a unit."""
    generator = torch.Generator().manual_seed(0)
    for length, unit, parts in torch.randint(1, 200, (300, 3), generator=generator).tolist():
        found = spans(length, unit, parts)
        assert len(found) == min(parts, -(-length // unit))
        edges = [found[0][0], *(b for _, b in found)]
        assert [a for a, _ in found] == edges[:-1]
        assert (edges[0], edges[-1]) == (0, length)
        assert all(edge % unit == 0 for edge in edges[:-1])
