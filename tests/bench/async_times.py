"""What the simulation of asynchronous SGD replays: steps, calls and bytes, measured here."""

import json
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import measure as clocks
import torch
from async_simulation import BYTES, Cost
from measure import machine, seconds

from pipeline.nn.config import load_model_config
from pipeline.nn.layers import initialise
from pipeline.nn.models import CtcModel, FramewiseModel, Model, build_model
from pipeline.training.asynchronous.engine import RpcEngine
from pipeline.training.asynchronous.messages import Push
from pipeline.training.asynchronous.shard import Shard
from pipeline.training.dataset import Batch
from pipeline.training.distributed.norms import NormSums
from pipeline.training.distributed.processes import World
from pipeline.training.objectives.ctc import CtcObjective
from pipeline.training.objectives.framewise import FramewiseObjective
from pipeline.training.objectives.objective import Metric, Objective
from pipeline.training.step import GradientSum
from pipeline.training.train_options import TrainOptions

CONF = Path(__file__).resolve().parents[2] / "egs" / "speechocean762" / "conf"
TOKENS, TENSORS = 62, 10
MILLIONS = (1, 4, 16)  # weights of the measured shards
CALLS = 300
SHORTEST, MEAN_LOG, SPREAD_LOG, LONGEST = 100, 5.87, 0.35, 1000  # frames: 3.7 s in the mean
FRAMES_A_TOKEN = 8
MOST_SECONDS = 60.0  # of the steps of a network


@dataclass(frozen=True)
class Workload:
    """A network, and what one gradient step reads.

    Attributes:
        config: of the network, in the recipe's folder of configurations.
        utterances: of a batch.
        frames: of each utterance; 0: as speech of 3.7 s in the mean, drawn.
        changes: of the network's size.
    """

    config: str
    utterances: int
    frames: int = 0
    changes: tuple[tuple[str, int], ...] = ()


WORKLOADS = {
    "lstmp-20-frames": Workload("framewise/lstmp.toml", 4, 20),
    "lstmp": Workload("encoders/lstmp.toml", 4),
    "lstmp-16": Workload("encoders/lstmp.toml", 16),
    "lstmp-large": Workload(
        "encoders/lstmp.toml", 4, changes=(("cells", 1024), ("projection", 330))
    ),
    "deep-speech-2": Workload(
        "encoders/deep_speech2.toml", 4, changes=(("cells", 2560), ("layers", 5))
    ),
}


@dataclass(frozen=True)
class Step:
    """Measured steps of a network.

    Attributes:
        what: a step reads.
        tensors: the numbers of weights of the network's tensors.
        seconds: of the steps, in increasing order.
    """

    what: str
    tensors: list[int]
    seconds: list[float]

    @property
    def millions(self) -> float:
        """All weights."""
        return sum(self.tensors) / 1e6


@dataclass(frozen=True)
class Times:
    """Measured times.

    Attributes:
        machine: in words.
        date: of the measurement.
        load: processes that wanted to run, in the mean of the last minute, when it ended.
        clock: of steps and shards: wall, or cpu for the seconds of one processor.
        pull: of a shard, within its process.
        push: the same.
        round_trip: seconds of a call without arguments, between two processes.
        question: seconds for each of many such calls at once.
        rate: MB/s between two processes, beyond the above.
        steps: of the workloads.
    """

    machine: str
    date: str
    load: float
    clock: str
    pull: Cost
    push: Cost
    round_trip: float
    question: float
    rate: float
    steps: dict[str, Step]


def read(path: Path) -> Times:
    """What `write` wrote."""
    found = json.loads(path.read_text())
    steps = {name: Step(**step) for name, step in found.pop("steps").items()}
    pull, push = Cost(**found.pop("pull")), Cost(**found.pop("push"))
    return Times(**found, pull=pull, push=push, steps=steps)


def write(times: Times, path: Path) -> None:
    """As JSON."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(one) for key, one in value.items()}
        if isinstance(value, list):
            return [rounded(one) for one in value]
        return float(f"{value:.4g}") if isinstance(value, float) else value

    path.write_text(json.dumps(rounded(asdict(times)), indent=1) + "\n")


def measure(names: Sequence[str], rounds: int, clock: str) -> Times:
    """Everything, with the steps of some workloads."""
    clocks.clock = clocks.CLOCKS[clock]
    steps = {name: steps_of(WORKLOADS[name], rounds) for name in names}
    pull, push = shard_costs(rounds)
    clocks.clock = clocks.CLOCKS["wall"]
    round_trip, question, rate = between_processes(pull, push, rounds)
    date, load = time.strftime("%Y-%m-%d"), os.getloadavg()[0]
    return Times(machine(), date, load, clock, pull, push, round_trip, question, rate, steps)


# ---- a worker's steps ----------------------------------------------------------------------------


def steps_of(workload: Workload, rounds: int) -> Step:
    """Gradient steps on batches of drawn lengths, each another one."""
    model, features = network(workload)
    if isinstance(model, CtcModel):
        objective: Objective = CtcObjective(model, Metric("PER", lambda ids: [str(k) for k in ids]))
    else:
        assert isinstance(model, FramewiseModel)
        objective = FramewiseObjective(model)
    weights = list(model.parameters())
    sums = GradientSum(objective, weights, torch.device("cpu"), "float32", NormSums(model, World()))
    generator = torch.Generator().manual_seed(0)

    def step() -> float:
        batch = synthetic(workload, features, generator)
        for weight in weights:
            weight.grad = None
        return seconds(lambda: sums.add(batch))

    step()  # compiles, fills caches
    taken: list[float] = []
    while len(taken) < rounds and sum(taken) < MOST_SECONDS:
        taken.append(step())
    length = f"{workload.frames} frames" if workload.frames else "about 3.7 s"
    what = f"{workload.utterances} utterances of {length}"
    return Step(what, [w.numel() for w in weights], sorted(taken))


def network(workload: Workload) -> tuple[Model, int]:
    """A model with initial weights, and the number of features that it reads."""
    part = "ctc" if workload.config.startswith("encoders") else "framewise"
    found = load_model_config(CONF / workload.config).part(part, "")
    assert found.encoder is not None
    changes: dict[str, Any] = dict(workload.changes)
    encoder = replace(found.encoder, **changes)
    model = build_model(replace(found, encoder=encoder), num_tokens=TOKENS)
    initialise(model, scale=0.1, generator=torch.Generator().manual_seed(0))
    return model, encoder.input_dim


def synthetic(workload: Workload, features: int, generator: torch.Generator) -> Batch:
    """Noise with random tokens: for CTC fewer than frames, else one for each frame."""
    count = workload.utterances
    if workload.frames:
        lengths = torch.full((count,), workload.frames)
        labels = lengths
    else:
        drawn = torch.empty(count).log_normal_(MEAN_LOG, SPREAD_LOG, generator=generator)
        lengths = drawn.clamp(SHORTEST, LONGEST).long()
        labels = lengths // FRAMES_A_TOKEN
    most = int(lengths.max())
    return Batch(
        [str(n) for n in range(count)],
        torch.randn(count, most, features, generator=generator),
        lengths,
        torch.randint(1, TOKENS, (count, int(labels.max())), generator=generator),
        labels,
    )


# ---- a shard -------------------------------------------------------------------------------------


def make_shard(millions: int) -> Shard:
    """A shard of equal tensors, updated with momentum."""
    size = millions * 1_000_000 // TENSORS
    weights = {f"model.{n}": torch.zeros(size).requires_grad_() for n in range(TENSORS)}
    return Shard(1, weights, {}, TrainOptions())


def push_for(weights: Sequence[torch.Tensor]) -> Push:
    """A push with small gradients."""
    gradients = [torch.full_like(w, 1e-6, requires_grad=False) for w in weights]
    return Push(1, 1, 1, None, 1e-4, 1.0, 0, gradients)


def median(run: Callable[[], object], rounds: int) -> float:
    """Seconds, after one call that does not count."""
    run()
    return statistics.median(seconds(run) for _ in range(rounds))


def quick(run: Callable[[], object], rounds: int) -> float:
    """Seconds that a tenth of the calls do not exceed: other programs disturb most of them."""
    run()
    return sorted(seconds(run) for _ in range(rounds))[rounds // 10]


def line(values: dict[int, float]) -> Cost:
    """The straight line through the smallest and the largest, which is not below 0."""
    low, high = min(values), max(values)
    million = (values[high] - values[low]) / (high - low)
    return Cost(max(0.0, values[low] - low * million), million)


def shard_costs(rounds: int) -> tuple[Cost, Cost]:
    """Of pull and push within one process, as if the calls cost nothing."""
    pulls, pushes = {}, {}
    for millions in MILLIONS:
        shard = make_shard(millions)
        push = push_for(list(shard.weights.values()))
        pulls[millions] = median(shard.pull, rounds)
        pushes[millions] = median(partial(shard.push, push), rounds)
    return line(pulls), line(pushes)


# ---- two processes -------------------------------------------------------------------------------


def between_processes(pull: Cost, push: Cost, rounds: int) -> tuple[float, float, float]:
    """Seconds of a call, seconds for each of many calls at once, and MB/s; the quickest tenth."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=_serve, args=(its, port), daemon=True)
    process.start()
    engine = RpcEngine("worker1", None, threads=1, minutes=1.0)
    engine.connect(rank=0, size=2, address="127.0.0.1", port=port)
    try:
        return _calls(engine, pull, push, rounds)
    finally:
        mine.send("end")
        engine.leave()
        process.join(10.0)


def _calls(engine: RpcEngine, pull: Cost, push: Cost, rounds: int) -> tuple[float, float, float]:
    def ping() -> None:
        engine.call("shard1", "ping").wait()

    def pings() -> None:
        for answer in [engine.call("shard1", "ping") for _ in range(CALLS)]:
            answer.wait()

    round_trip, question = quick(ping, CALLS), quick(pings, rounds) / CALLS
    millions = MILLIONS[-1]
    found = engine.call("shard1", "pull").wait()
    update = push_for(found.weights)
    pulled = quick(lambda: engine.call("shard1", "pull").wait(), rounds) - pull.of(millions)
    pushed = quick(lambda: engine.call("shard1", "push", update).wait(), rounds)
    moving = 0.5 * (pulled + pushed - push.of(millions)) - round_trip
    return round_trip, question, BYTES * millions / moving


def _serve(connection: Connection, port: int) -> None:
    """Be a shard, until told to end."""
    torch.set_num_threads(1)
    engine = RpcEngine("shard1", make_shard(MILLIONS[-1]), threads=1, minutes=1.0)
    engine.connect(rank=1, size=2, address="127.0.0.1", port=port)
    connection.recv()
    engine.leave()
