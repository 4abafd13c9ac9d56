#!/usr/bin/env python3
"""How far asynchronous SGD scales: times measured on one machine, replayed for many workers.

Usage: bench_async.py measure [--rounds N] [--models NAME,…] [--clock wall|cpu] [--write FILE]
       bench_async.py simulate [options]
       bench_async.py real [options]

e.g.: python3 tests/bench/bench_async.py measure --write times.json
      python3 tests/bench/bench_async.py simulate --times times.json --model lstmp-large
      python3 tests/bench/bench_async.py simulate --model lstmp-16 --slow-share 0.1
      python3 tests/bench/bench_async.py real --model lstmp --workers 2 --shards 1

`measure` measures a worker's gradient steps on synthetic speech, a shard's pull and push within
one process, and calls and bytes between two processes on this machine. `simulate` draws workers'
steps from them, prints a table and draws a picture; see async_simulation.py. Bytes move at the
measured rate, or at that of the network if it is lower. `real` trains for a minute on this machine,
and compares.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from async_real import compare
from async_simulation import Cluster, Outcome, simulate
from async_times import WORKLOADS, Step, Times, measure, read, write
from measure import CLOCKS

from pipeline.kernels.compiler.memory import keep_freed_memory
from pipeline.plots.figures import COLOURS, check_picture, new_figure, save, style
from pipeline.training.asynchronous.shard import split_by_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURED = Path(__file__).with_name("async_times.json")
WORKERS = "1,2,5,10,20,50,100,200,500,1000"
SHARDS = "1,3,10,30,100"
MEGABYTES = 1000 / 8  # a second, in a Gbit/s


@dataclass(frozen=True)
class Row:
    """A simulation and its speed-up over one worker."""

    cluster: Cluster
    outcome: Outcome
    speed_up: float

    def __str__(self) -> str:
        o = self.outcome
        interfaces = {"shard": o.shard_interface_load, "worker": o.worker_interface_load}
        busiest = max(interfaces, key=lambda name: interfaces[name])
        cells = (
            f"{self.cluster.workers}", f"{len(self.cluster.shards)}", f"{o.updates:.4g}",
            f"{self.speed_up:.1f}", f"{o.mean_staleness:.1f}", f"{o.staleness_quantile(0.95)}",
            f"{100 * o.shard_load:.0f}", f"{100 * o.coordinator_load:.0f}",
            f"{100 * interfaces[busiest]:.0f} ({busiest})", f"{100 * o.waiting:.0f}",
        )  # fmt: skip
        return f"| {' | '.join(cells)} |"


HEAD = (
    *("workers", "shards", "updates/s", "speed-up", "staleness, mean", "95 %"),
    *("busiest shard, %", "coordinator, %", "busiest interface, %", "waiting, %"),
)


def parts(step: Step, shards: int, *, whole: bool) -> list[float]:
    """Millions of weights of each shard: equal, or as the trainer splits whole tensors."""
    if not whole:
        return [step.millions / shards] * shards
    tensors = {str(n): torch.empty(size, device="meta") for n, size in enumerate(step.tensors)}
    found = split_by_size(tensors, shards)
    return [sum(tensors[name].numel() for name in part) / 1e6 for part in found]


def cluster_of(times: Times, arguments: argparse.Namespace, workers: int, shards: int) -> Cluster:
    """What the options ask for."""
    step = times.steps[arguments.model]
    rate, latency = times.rate, 0.5 * times.round_trip
    if not arguments.local:
        rate = min(rate, arguments.bandwidth * MEGABYTES)
        latency += 1e-3 * arguments.latency
    return Cluster(
        workers, parts(step, shards, whole=arguments.whole_tensors), step.seconds,
        times.pull, times.push, times.question, latency, rate,
        arguments.fetch_every, arguments.push_every, arguments.slow_share, arguments.slow_factor,
    )  # fmt: skip


def rows_of(times: Times, arguments: argparse.Namespace) -> list[Row]:
    """All simulations, printed as they come."""
    rows = []
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for shards in numbers(arguments.shards):
        alone = 0.0
        for workers in sorted({1, *numbers(arguments.workers)}):
            cluster = cluster_of(times, arguments, workers, shards)
            outcome = simulate(cluster, seed=arguments.seed, updates=arguments.updates)
            alone = alone or outcome.updates
            rows.append(Row(cluster, outcome, outcome.updates / alone))
            if workers in numbers(arguments.workers):
                print(rows[-1], flush=True)
    return rows


def numbers(text: str) -> list[int]:
    """Integers between commas."""
    return [int(word) for word in text.split(",")]


# ---- a picture -----------------------------------------------------------------------------------


@style()
def draw(rows: list[Row], title: str) -> "Figure":
    """Throughput, staleness, load and waiting over the number of workers."""
    figure = new_figure(9.0, 6.8, title)
    (updates, staleness), (load, waiting) = figure.subplots(2, 2, sharex=True)
    draw_panel(updates, rows, "updates a second", lambda o: o.updates)
    draw_panel(staleness, rows, "mean staleness", lambda o: o.mean_staleness)
    name = "load of the busiest shard (%), dotted: of its network"
    draw_panel(load, rows, name, lambda o: 100 * o.shard_load)
    draw_panel(load, rows, name, lambda o: 100 * o.shard_interface_load, line=":")
    draw_panel(waiting, rows, "time that workers wait (%)", lambda o: 100 * o.waiting)
    alone = max(row.outcome.updates for row in rows if row.cluster.workers == 1)
    draw_ideal(updates, rows, "N × one worker", lambda n: n * alone)
    draw_ideal(staleness, rows, "N − 1", lambda n: n - 1.0)
    staleness.set_ylim(bottom=0.7)
    for axes in (load, waiting):
        axes.set_xlabel("workers")
        axes.set_ylim(0, 104)
    handles, labels = waiting.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    return figure


def draw_panel(
    axes: "Axes", rows: list[Row], name: str, value: "Callable[[Outcome], float]", line: str = "o-"
) -> None:
    """A curve for each number of shards."""
    counts = list(dict.fromkeys(len(row.cluster.shards) for row in rows))
    for n, shards in enumerate(counts):
        mine = [row for row in rows if len(row.cluster.shards) == shards]
        points = [(row.cluster.workers, value(row.outcome)) for row in mine]
        axes.plot(
            *zip(*points, strict=True), line, color=COLOURS[n % len(COLOURS)], linewidth=1.4,
            markersize=3.5, label=f"{shards} shard{'s' if shards > 1 else ''}",
        )  # fmt: skip
    axes.set_title(name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def draw_ideal(axes: "Axes", rows: list[Row], text: str, height: "Callable[[int], float]") -> None:
    """What many shards come near to, over the curves, and a logarithmic scale."""
    counts = sorted({row.cluster.workers for row in rows})
    points = [(n, height(n)) for n in counts if height(n) > 0]
    axes.plot(*zip(*points, strict=True), "--", color="black", linewidth=0.8, zorder=3)
    axes.annotate(
        text, points[len(points) // 2], xytext=(-8, 8), textcoords="offset points", ha="right"
    )
    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")


# ---- the program ---------------------------------------------------------------------------------


def run_measure(arguments: argparse.Namespace) -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    torch.manual_seed(0)
    times = measure(arguments.models.split(","), arguments.rounds, arguments.clock)
    print(f"{times.machine}, load {times.load:.1f}, clock {times.clock}")
    for name, step in times.steps.items():
        low, middle, high = (step.seconds[int(q * (len(step.seconds) - 1))] for q in (0, 0.5, 1))
        print(
            f"{name}: {step.millions:.2f} M weights, {step.what}, a step {1e3 * middle:.0f} ms "
            f"({1e3 * low:.0f} to {1e3 * high:.0f})"
        )
    print(f"a shard's pull {1e3 * times.pull.million:.2f} ms a million weights")
    print(f"a shard's push {1e3 * times.push.million:.2f} ms a million weights")
    print(f"a call {1e3 * times.round_trip:.2f} ms, of many {1e3 * times.question:.2f} ms each")
    print(f"between processes {times.rate:.0f} MB/s")
    if arguments.write:
        write(times, arguments.write)


def run_simulate(arguments: argparse.Namespace) -> None:
    """Simulate, print and draw."""
    if arguments.picture:
        check_picture(arguments.picture)
    times = read(arguments.times)
    step = times.steps[arguments.model]
    rows = rows_of(times, arguments)
    if arguments.picture:
        network = f"{rows[0].cluster.rate / MEGABYTES:.2g} Gbit/s"
        title = (
            f"Asynchronous SGD, simulated: {step.millions:.1f} million weights, steps of "
            f"{sum(step.seconds) / len(step.seconds):.2g} s, {network}"
        )
        save(draw(rows, title), arguments.picture)


def run_real(arguments: argparse.Namespace) -> None:
    """Train and simulate on this machine."""
    workers, shards = int(arguments.workers), int(arguments.shards)
    cluster = cluster_of(read(arguments.times), arguments, workers, shards)
    compare(cluster, arguments.model, arguments.updates, arguments.seed)


def add_simulated(parser: argparse.ArgumentParser, model: str, workers: str, shards: str) -> None:
    """Options of what is simulated."""
    parser.add_argument("--times", type=Path, default=MEASURED, help="of measure")
    parser.add_argument("--model", default=model, choices=WORKLOADS)
    parser.add_argument("--workers", default=workers)
    parser.add_argument("--shards", default=shards)
    parser.add_argument("--whole-tensors", action="store_true", help="as the trainer splits them")
    parser.add_argument("--local", action="store_true", help="without a network, on one machine")
    parser.add_argument("--seed", type=int, default=0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("measure")
    one.set_defaults(run=run_measure)
    one.add_argument("--rounds", type=int, default=25, help="steps of each model, calls")
    one.add_argument("--models", default=",".join(WORKLOADS), help="which of them")
    one.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: on a machine that others use, too"
    )
    one.add_argument("--write", type=Path, help="JSON file to write")
    two = kinds.add_parser("simulate")
    two.set_defaults(run=run_simulate)
    add_simulated(two, "lstmp-large", WORKERS, SHARDS)
    two.add_argument("--bandwidth", type=float, default=10.0, help="Gbit/s, in each direction")
    two.add_argument("--latency", type=float, default=0.05, help="ms of the network, one way")
    two.add_argument("--fetch-every", type=int, default=1)
    two.add_argument("--push-every", type=int, default=1)
    two.add_argument("--slow-share", type=float, default=0.0, help="of the workers")
    two.add_argument("--slow-factor", type=float, default=10.0, help="times longer steps")
    two.add_argument("--updates", type=int, default=2000, help="or more: four for each worker")
    two.add_argument("--picture", type=Path, help="file to draw, .png or .svg")
    three = kinds.add_parser("real")
    three.set_defaults(run=run_real, fetch_every=1, push_every=1, slow_share=0.0, slow_factor=1.0)
    add_simulated(three, "lstmp", "2", "1")
    three.set_defaults(local=True, whole_tensors=True)
    three.add_argument("--updates", type=int, default=60, help="of an epoch")
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
