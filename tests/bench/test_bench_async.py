"""The simulation of asynchronous SGD against queueing theory, and against `Shard` itself."""

import importlib
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from pipeline.training.asynchronous.messages import Push
from pipeline.training.asynchronous.shard import Shard
from pipeline.training.train_options import TrainOptions

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
simulation: ModuleType = importlib.import_module("async_simulation")
Cluster, Cost, simulate = simulation.Cluster, simulation.Cost, simulation.simulate
NOTHING = Cost(0.0, 0.0)
FREE = {"pull": NOTHING, "push": NOTHING, "question": 0.0, "latency": 0.0, "rate": 1e9}


def cluster(workers: int, shards: int, **more: object) -> object:
    """Steps of 0.2 to 0.6 s, and 8 million weights, over a network."""
    costs = {"pull": Cost(1e-3, 1e-3), "push": Cost(2e-3, 4e-3), "question": 1e-3}
    steps = {"steps": [0.2, 0.3, 0.6], "latency": 5e-3, "rate": 400.0}
    return Cluster(workers, [8 / shards] * shards, **{**steps, **costs, **more})


def test_one_worker_takes_the_sum_of_all_times() -> None:
    steps = [0.25, 0.25]
    found = simulate(cluster(1, 1, steps=steps), updates=50)
    asking, calls = 1e-3 + 2 * 5e-3, 2 * 1e-3 + 4 * 5e-3
    pull, push, moving = 1e-3 + 8e-3, 2e-3 + 32e-3, 2 * 8 * 4 / 400
    cycle = asking + calls + pull + push + moving + 0.25
    assert found.updates == pytest.approx(1 / cycle)
    assert found.staleness == Counter({0: 50})
    assert found.waiting == pytest.approx(1 - 0.25 / cycle)
    assert found.shard_load == pytest.approx((pull + push + 2e-3) / cycle)
    assert found.shard_interface_load == pytest.approx(0.5 * moving / cycle)


def test_a_network_moves_the_weights_of_all_shards_through_the_worker() -> None:
    """With ten shards, a worker's own interface still has as much to move."""
    costs = {"pull": NOTHING, "push": NOTHING, "question": 0.0, "latency": 0.0}
    found = simulate(cluster(1, 10, steps=[0.25], **costs), updates=50)
    assert found.updates == pytest.approx(1 / (0.25 + 2 * 8 * 4 / 400))
    assert found.worker_interface_load > 9 * found.shard_interface_load


def test_each_call_costs_the_worker_time() -> None:
    found = simulate(cluster(1, 10, **{**FREE, "question": 0.01}, steps=[0.25]), updates=50)
    assert found.updates == pytest.approx(1 / (0.25 + 21 * 0.01), rel=1e-6)  # asks, pulls, pushes


@pytest.mark.parametrize("shards", [1, 4])
def test_a_saturated_shard_is_busy_without_a_pause(shards: int) -> None:
    found = simulate(cluster(200, shards, rate=float("inf")))
    handling = 2 * 1e-3 + 3e-3 + 5e-3 * 8 / shards
    assert found.shard_load == pytest.approx(1.0, abs=1e-6)
    assert found.updates == pytest.approx(1 / handling, rel=0.01)


@pytest.mark.parametrize("shards", [1, 4])
def test_a_saturated_interface_moves_what_it_can(shards: int) -> None:
    found = simulate(cluster(200, shards, pull=NOTHING, push=NOTHING))
    assert found.shard_interface_load == pytest.approx(1.0, abs=1e-6)
    assert found.updates == pytest.approx(shards * 400 / (4 * 8), rel=0.01)


@pytest.mark.parametrize(("workers", "shards"), [(2, 1), (10, 3), (60, 1)])
def test_staleness_without_load_is_the_number_of_other_workers(workers: int, shards: int) -> None:
    found = simulate(cluster(workers, shards, **FREE), updates=4000)
    assert found.mean_staleness == pytest.approx(workers - 1, rel=0.01)
    alone = simulate(cluster(1, shards, **FREE), updates=4000)
    assert found.updates == pytest.approx(workers * alone.updates, rel=0.02)


def test_staleness_is_the_share_of_a_cycle_between_pull_and_push() -> None:
    """A pull is as old as the updates that others make until the push, by Little's law."""
    more = {**FREE, "latency": 0.1}
    found = simulate(cluster(40, 1, steps=[0.1, 0.5], **more), updates=8000)
    share = (0.3 + 2 * 0.1) / (0.3 + 6 * 0.1)  # asks, pulls, computes, pushes: six ways
    assert found.mean_staleness == pytest.approx(39 * share, rel=0.03)


@pytest.mark.parametrize(("fetch", "push", "expected"), [(1, 1, 0), (4, 1, 1.5), (1, 4, 0)])
def test_own_pushes_make_weights_older(fetch: int, push: int, expected: float) -> None:
    """One worker that pulls before every fourth step pushes at a staleness of 0, 1, 2, 3."""
    found = simulate(cluster(1, 2, fetch_every=fetch, push_every=push), updates=400)
    assert found.mean_staleness == expected
    assert found.staleness_quantile(1.0) == fetch - 1


def test_fewer_pushes_and_pulls_relieve_the_shard() -> None:
    often = simulate(cluster(100, 1, rate=float("inf")))
    seldom = simulate(cluster(100, 1, rate=float("inf"), push_every=4, fetch_every=4))
    assert often.shard_load == pytest.approx(1.0, abs=1e-6)
    assert 4 * seldom.updates > 3 * often.updates  # steps


@pytest.mark.parametrize(("workers", "shards"), [(1, 1), (7, 3), (100, 2)])
def test_no_push_is_lost(workers: int, shards: int) -> None:
    found = simulate(cluster(workers, shards), updates=300)
    assert all(0 <= version - found.pushes <= workers for version in found.versions)
    count = max(300, 4 * workers)
    assert found.pushes == count + count // 2
    assert abs(found.staleness.total() - shards * count) <= shards * workers


def test_the_same_seed_gives_the_same_result() -> None:
    first, second = (simulate(cluster(20, 2), seed=3, updates=300) for _ in range(2))
    assert first == second
    assert simulate(cluster(20, 2), seed=4, updates=300) != first


def test_slow_workers_do_not_hold_the_others() -> None:
    equal = simulate(cluster(20, 2, **FREE))
    slow = simulate(cluster(20, 2, slow_share=0.25, slow_factor=10.0, **FREE))
    assert slow.updates == pytest.approx((0.75 + 0.25 / 10) * equal.updates, rel=0.03)
    assert slow.staleness_quantile(0.99) > 3 * equal.staleness_quantile(0.99)


def test_steps_are_drawn_as_they_were_measured() -> None:
    draws = simulation.Simulation(cluster(1, 1), 0)._draws()
    drawn = np.array([next(draws) for _ in range(20000)])
    assert drawn.min() >= 0.2
    assert drawn.max() <= 0.6
    assert np.median(drawn) == pytest.approx(0.3, rel=0.02)
    assert drawn.mean() == pytest.approx(0.35, rel=0.02)


def test_staleness_is_counted_as_a_shard_counts_it() -> None:
    """The order of pulls and pushes that was simulated, given to a real shard."""
    real = Shard(1, {"model.w": torch.zeros(2, requires_grad=True)}, {}, TrainOptions())
    calls = simulation.Simulation(cluster(5, 1, fetch_every=3, push_every=2), 0)
    pull, arrive, pulled = calls._pull, calls._arrive, {}

    def also_pull(now: float, n: int) -> None:
        pulled[n] = real.pull().version
        pull(now, n)

    def also_push(now: float, n: int, s: int) -> None:
        real.push(Push(n + 1, 0, 1, None, 0.1, 1.0, pulled[n], [torch.ones(2)]))
        arrive(now, n, s)

    calls._pull, calls._arrive = also_pull, also_push
    seen: Counter[int] = Counter()
    calls._begin = lambda now: None  # counts from the first update on
    calls.began = -1.0
    seen.update(calls.run(warm_up=0, count=200).staleness)
    assert seen == real.staleness[1]
    assert len(seen) > 3


# ---- the program ---------------------------------------------------------------------------------


def test_the_program_simulates_with_the_measured_times_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = importlib.import_module("bench_async")
    picture = tmp_path / "a.png"
    words = ["--workers=1,4", "--shards=1,2", "--updates=40", f"--picture={picture}"]
    monkeypatch.setattr(sys, "argv", ["bench_async.py", "simulate", "--model=lstmp", *words])
    program.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 4
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[:2] for row in cells] == [["1", "1"], ["4", "1"], ["1", "2"], ["4", "2"]]
    assert [row[4] == "0.0" for row in cells] == [True, False, True, False]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("shards", "largest"), [(1, 10.0), (2, 6.0), (4, 6.0)])
def test_whole_tensors_cannot_be_split(shards: int, largest: float) -> None:
    program, times = (importlib.import_module(name) for name in ("bench_async", "async_times"))
    step = times.Step("", [6_000_000, 2_000_000, 1_000_000, 1_000_000], [0.1])
    assert max(program.parts(step, shards, whole=True)) == largest
    assert program.parts(step, shards, whole=False) == [10.0 / shards] * shards


def test_measured_times_come_back_from_the_file(tmp_path: Path) -> None:
    times = importlib.import_module("async_times")
    found = times.read(HERE / "async_times.json")
    times.write(found, tmp_path / "again.json")
    assert times.read(tmp_path / "again.json") == found
    assert set(found.steps) == set(times.WORKLOADS)


def test_a_shard_is_measured() -> None:
    times = importlib.import_module("async_times")
    shard = times.make_shard(1)
    push = times.push_for(list(shard.weights.values()))
    assert shard.push(push) == "applied"
    assert shard.version == 1
    assert sum(w.numel() for w in shard.pull().weights) == 1_000_000
    assert times.line({1: 0.5, 4: 0.8, 16: 2.0}) == times.Cost(0.4, 0.1)
