"""A simulation of asynchronous SGD: workers, shards, a coordinator, and the network between them.

Each worker does what `pipeline.training.asynchronous.worker` does: it asks the coordinator for
work, pulls all shards, computes, and pushes to all of them. A shard, like the coordinator, answers
one call at a time in the order in which they come. Each process has a network interface of its own,
whose two directions are independent; each direction sends one message after the other. A message is
received while it is being sent, so it takes its size / rate once, and the latency.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

BYTES = 4  # of a weight


@dataclass(frozen=True)
class Cost:
    """What a shard's answer to a call takes: seconds, and seconds for each million weights."""

    call: float
    million: float

    def of(self, millions: float) -> float:
        """Seconds for so many weights."""
        return self.call + self.million * millions


@dataclass(frozen=True)
class Cluster:
    """What is simulated.

    Attributes:
        workers: how many.
        shards: millions of weights of each shard.
        steps: seconds of a gradient step, of which any is as probable; between them it is linear.
        pull: of a shard.
        push: of a shard.
        question: seconds that any call takes the process that makes it, and the one that answers.
        latency: seconds from one process to another.
        rate: MB/s of a network interface in each direction.
        fetch_every: a worker pulls before every n-th step.
        push_every: a worker pushes after n steps.
        slow_share: the share of slow workers.
        slow_factor: how many times longer their steps are.
    """

    workers: int
    shards: Sequence[float]
    steps: Sequence[float]
    pull: Cost
    push: Cost
    question: float = 0.0
    latency: float = 0.0
    rate: float = float("inf")
    fetch_every: int = 1
    push_every: int = 1
    slow_share: float = 0.0
    slow_factor: float = 10.0

    def seconds_to_send(self) -> list[float]:
        """For the weights of each shard."""
        return [BYTES * millions / self.rate for millions in self.shards]


@dataclass(frozen=True)
class Outcome:
    """What was seen while the counted updates were made.

    Attributes:
        updates: a second.
        staleness: how often each was seen, over all shards.
        versions: of each shard at the end.
        pushes: that workers had finished at the end, from the beginning.
        shard_load: share of the time in which the busiest shard answers.
        coordinator_load: the same of the coordinator.
        shard_interface_load: the same of the busiest direction of an interface of a shard.
        worker_interface_load: the same of a worker.
        waiting: the share of their time that workers wait for others.
    """

    updates: float
    staleness: Counter[int]
    versions: list[int]
    pushes: int
    shard_load: float
    coordinator_load: float
    shard_interface_load: float
    worker_interface_load: float
    waiting: float

    @property
    def mean_staleness(self) -> float:
        """Over all pushes and shards."""
        return sum(late * n for late, n in self.staleness.items()) / self.staleness.total()

    def staleness_quantile(self, share: float) -> int:
        """The smallest staleness that so many pushes do not exceed."""
        seen = 0
        for late in sorted(self.staleness):
            seen += self.staleness[late]
            if seen >= share * self.staleness.total():
                return late
        raise ValueError(f"{share} is no share")


class Station:
    """What serves one after the other, and how long it was busy since `begin`."""

    def __init__(self) -> None:
        self.free, self.busy = 0.0, 0.0

    def serve(self, arrival: float, seconds: float) -> float:
        """When what arrives is done. Arrivals come in the order of their times."""
        self.free = max(self.free, arrival) + seconds
        self.busy += seconds
        return self.free

    def begin(self, now: float) -> None:
        """Count from now on; what waits now will be served later."""
        self.busy = max(0.0, self.free - now)

    def load(self, began: float, now: float) -> float:
        """The share of the time that it was busy; what waits now does not count."""
        return (self.busy - max(0.0, self.free - now)) / (now - began)


@dataclass
class Worker:
    """Where a worker is."""

    slowness: float
    out: Station = field(default_factory=Station)  # of its interface
    into: Station = field(default_factory=Station)
    steps: int = 0
    since: float = 0.0  # it waits, or the step began
    versions: list[int] = field(default_factory=list)  # of the shards, as pulled
    unanswered: int = 0  # pushes
    answered: float = 0.0  # when the last one was


class Simulation:
    """Events in the order of their times."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = c = cluster
        self.random = np.random.default_rng(seed)
        self.draws = self._draws()
        self.sizes = c.seconds_to_send()
        self.pulls = [c.question + c.pull.of(millions) for millions in c.shards]
        self.pushes = [c.question + c.push.of(millions) for millions in c.shards]
        self.coordinator = Station()
        self.servers, self.out, self.into = ([Station() for _ in c.shards] for _ in range(3))
        slow = round(c.slow_share * c.workers)
        self.workers = [Worker(c.slow_factor if n < slow else 1.0) for n in range(c.workers)]
        self.versions = [0] * len(c.shards)
        self.staleness: Counter[int] = Counter()
        self.finished, self.waiting, self.computing = 0, 0.0, 0.0
        self.began = 0.0
        self.events: list[tuple[float, int, Callable[..., None], tuple[int, ...]]] = []
        self.number = 0

    def run(self, *, warm_up: int, count: int) -> Outcome:
        """Simulate some updates without counting them, then those that count."""
        for n, offset in enumerate(self.random.random(len(self.workers))):
            self._at(float(offset * np.mean(self.cluster.steps)), self._ask, n)
        now = 0.0
        while self.finished < warm_up + count:
            before = self.finished
            now, _, act, arguments = heapq.heappop(self.events)
            act(now, *arguments)
            if self.finished == warm_up != before:
                self._begin(now)
        return self._outcome(now, count)

    def _at(self, time: float, act: Callable[..., None], *arguments: int) -> None:
        self.number += 1  # events at the same time happen in the order in which they were made
        heapq.heappush(self.events, (time, self.number, act, arguments))

    def _draws(self) -> Iterator[float]:
        steps = np.sort(self.cluster.steps)
        places = np.linspace(0.0, 1.0, len(steps))
        while True:
            yield from np.interp(self.random.random(4096), places, steps).tolist()

    # ---- a worker --------------------------------------------------------------------------------

    def _ask(self, now: float, n: int) -> None:
        """The worker asks for work. All questions travel equally long, and so come in order."""
        latency = self.cluster.latency
        self.workers[n].since = now
        answered = self.coordinator.serve(now + latency, self.cluster.question)
        self._at(answered + latency, self._next, n)

    def _next(self, now: float, n: int) -> None:
        """The worker pulls, if it is time to, and computes."""
        if self.workers[n].steps % self.cluster.fetch_every == 0:
            self._at(now + self.cluster.latency, self._pull, n)
        else:
            self._compute(now, n)

    def _pull(self, now: float, n: int) -> None:
        """The calls of a worker have come to the shards."""
        worker = self.workers[n]
        worker.versions = self.versions.copy()
        comes = []  # when the first byte comes, and the seconds until the last one
        for s, seconds in enumerate(self.sizes):
            ready = self.servers[s].serve(now, self.pulls[s])
            sent = self.out[s].serve(ready, seconds)
            comes.append((sent - seconds + self.cluster.latency, seconds))
        for first, seconds in sorted(comes):
            worker.into.serve(first, seconds)
        called = now + self.cluster.question * len(self.sizes)
        self._at(max(worker.into.free, called), self._compute, n)

    def _compute(self, now: float, n: int) -> None:
        """The worker begins a step."""
        worker = self.workers[n]
        seconds = next(self.draws) * worker.slowness
        self.waiting += now - worker.since
        self.computing += seconds
        worker.steps += 1
        worker.since = now + seconds
        pushes = worker.steps % self.cluster.push_every == 0
        self._at(worker.since, self._push if pushes else self._next, n)

    def _push(self, now: float, n: int) -> None:
        """The worker sends gradients, to the first shard first.

        All workers send in the same order, so what one began to send before another one comes to
        each shard before it.
        """
        worker = self.workers[n]
        worker.unanswered = len(self.sizes)
        for s, seconds in enumerate(self.sizes):
            sent = worker.out.serve(now + s * self.cluster.question, seconds)
            came = self.into[s].serve(sent - seconds + self.cluster.latency, seconds)
            self._at(came, self._arrive, n, s)

    def _arrive(self, now: float, n: int, s: int) -> None:
        """A shard has gradients."""
        worker = self.workers[n]
        done = self.servers[s].serve(now, self.pushes[s])
        self.staleness[self.versions[s] - worker.versions[s]] += 1
        self.versions[s] += 1
        worker.answered = max(worker.answered, done)
        worker.unanswered -= 1
        if worker.unanswered == 0:
            self._at(worker.answered + self.cluster.latency, self._finish, n)

    def _finish(self, now: float, n: int) -> None:
        """All shards have answered a worker."""
        self.finished += 1
        self.waiting += now - self.workers[n].since
        self._ask(now, n)

    # ---- what is counted -------------------------------------------------------------------------

    def _begin(self, now: float) -> None:
        self.began, self.waiting, self.computing = now, 0.0, 0.0
        self.staleness.clear()
        ways = [way for worker in self.workers for way in (worker.out, worker.into)]
        for station in (self.coordinator, *self.servers, *self.out, *self.into, *ways):
            station.begin(now)

    def _outcome(self, now: float, count: int) -> Outcome:
        def busiest(stations: Sequence[Station]) -> float:
            return max(station.load(self.began, now) for station in stations)

        return Outcome(
            updates=count / (now - self.began),
            staleness=self.staleness,
            versions=self.versions,
            pushes=self.finished,
            shard_load=busiest(self.servers),
            coordinator_load=busiest([self.coordinator]),
            shard_interface_load=busiest([*self.out, *self.into]),
            worker_interface_load=busiest([way for w in self.workers for way in (w.out, w.into)]),
            waiting=self.waiting / (self.waiting + self.computing),
        )


def simulate(cluster: Cluster, *, seed: int = 0, updates: int = 2000) -> Outcome:
    """Simulate so many updates, or four for each worker if that is more, after a warm-up."""
    enough = max(updates, 4 * cluster.workers)
    return Simulation(cluster, seed).run(warm_up=enough // 2, count=enough)
