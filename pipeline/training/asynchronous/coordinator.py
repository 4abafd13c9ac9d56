"""The coordinator of an asynchronous training: hands out examples, evaluates, writes the files."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.errors import ModelError, PipelineError
from pipeline.models.weights import load_weights
from pipeline.training.asynchronous.counts import Closed, Open, Share
from pipeline.training.asynchronous.engine import Answer, Engine, Lost
from pipeline.training.asynchronous.messages import Item, Report, Work
from pipeline.training.asynchronous.shards import Shards
from pipeline.training.asynchronous.work import WorkQueue
from pipeline.training.checkpoint import Position
from pipeline.training.loop import Trainer
from pipeline.training.step import Counts
from pipeline.training.weight_average import WeightAverage

log = logging.getLogger("pipeline")

TICK = 0.05  # seconds between looks at what has happened
BEAT = 1.0  # seconds between pings
VERSION = 1  # of the form of the coordinator's state


class Coordinator(Trainer):
    """Rank 0 of an asynchronous training.

    `run` raises PipelineError, besides what `Trainer.run` raises, if a shard or all workers are
    lost, and what a worker raised.

    Its own network is only evaluated: at the end of each epoch, on a copy of the weights that all
    shards took after the same pushes, while the workers go on with the next epoch.
    """

    def prepare_to_serve(
        self,
        engine: Engine,
        shards: Shards,
        *,
        workers: Sequence[str],
        items_of: Callable[[int], list[int]],
    ) -> None:
        """Get ready for the workers' calls. `run` then trains, and `leave` tells the workers.

        Args:
            engine: for calls to workers.
            shards: all shards.
            workers: the names of all workers.
            items_of: the numbers of utterances of the items of an epoch.
        """
        self.engine, self.shards = engine, shards
        self.average = WeightAverage([], 0.0)  # the shards' copies are averages already
        self._names = dict(enumerate(workers, start=1))
        self._alive = set(self._names)
        self._items_of = items_of
        self._sizes: dict[int, list[int]] = {}
        self.queue = WorkQueue(lambda epoch: len(self._of(epoch)))
        self._open: dict[int, Open] = {}
        self._closed: Closed | None = None
        self._failure: Exception | None = None
        self._refused: Counter[Item] = Counter()
        self._lost: list[str] = []
        self._leaving = self._is_writing = False
        self._begun = time.monotonic()
        self._lock = threading.RLock()
        self._ready = threading.Event()  # until the checkpoints are loaded
        threading.Thread(target=self._watch, daemon=True).start()

    def run(self) -> Position:
        """Train from the last set of checkpoints to the end; see `Trainer.run`."""
        try:
            return super().run()
        except Lost as error:
            raise self._of_lost(error) from error

    def leave(self) -> None:
        """Tell the workers that ask for items to end."""
        self._leaving = True
        self._ready.set()

    # ---- calls of the workers --------------------------------------------------------------------

    def ping(self) -> None:
        """Show that this process is there."""

    def next(self, worker: int, report: Report, wanted: int, newest: int | None) -> Work:
        """Take a worker's report, and give it items; see `Link.next`."""
        if not self._ready.is_set():
            return Work()
        with self._lock:
            if worker not in self._alive:
                return Work(leave=True)
            self._take_report(worker, report)
            if self._leaving or self._failure:
                return Work(leave=True)
            self._close_if_complete()
            # Nothing of an epoch is begun before the copy of the last but one is taken.
            ahead = 1 if self._closed is None else 0
            last = min(self.queue.epoch + ahead, self.options.epochs)
            found: list[Item] = []
            while len(found) < wanted:
                item = self.queue.take(worker, newest=last if newest is None else min(newest, last))
                if item is None or (found and item.epoch != found[0].epoch and newest is None):
                    if item is not None:
                        self.queue.give_back(worker, [item])
                        self.queue.given_back -= 1
                    break
                found.append(item)
            epoch = newest if newest is not None else found[-1].epoch if found else 0
            return Work(tuple(found), finished=self._counts(epoch).utterances if epoch else 0)

    def refused(
        self, worker: int, items: Sequence[Item], utt_ids: Sequence[str], shards: Sequence[str]
    ) -> None:
        """Note that shards refused gradients; others shall try these items once more."""
        with self._lock:
            what = (
                f"{', '.join(shards)} refused the gradient of {self._names[worker]}, of "
                f"{', '.join(utt_ids)}"
            )
            self.queue.give_back(worker, items)
            for item in items:
                self._refused[item] += 1
                self._counts(item.epoch).refused += 1
            if any(self._refused[item] > 1 for item in items):
                try:
                    self._stop_on_infinite(f"{what}, for the second time: it")
                except ModelError as error:
                    self._failure = self._failure or error
            log.warning("%s: it is not finite; these utterances are tried once more", what)

    def failed(self, worker: int, error: Exception) -> None:
        """End the training with a worker's error."""
        with self._lock:
            self._failure = self._failure or error

    def retire(self, worker: int) -> None:
        """Take back what a worker has that ends after a signal."""
        with self._lock:
            self._drop(worker, "")

    def missed(self, error: Lost) -> None:
        """Note that a worker could not reach a shard."""
        with self._lock:
            if error.who not in self._names.values():
                self._failure = self._failure or self._of_lost(error)

    def _take_report(self, worker: int, report: Report) -> None:
        if not report.epoch:
            return
        counts = self._counts(report.epoch)
        counts.counts = counts.counts.plus(report.counts)
        share = counts.shares.setdefault(worker, Share())
        share.steps += report.steps
        share.megabytes += report.megabytes
        share.waiting += report.waiting
        share.seconds += report.seconds
        for item in report.finished:
            size = self._of(item.epoch)[item.number]
            if self.queue.finish(item):
                self._counts(item.epoch).utterances += size
                self._counts(item.epoch).updates += 1
                share.utterances += size

    def _counts(self, epoch: int) -> Open:
        return self._open.setdefault(epoch, Open())

    def _of(self, epoch: int) -> list[int]:
        if epoch not in self._sizes:
            self._sizes = {e: s for e, s in self._sizes.items() if e >= epoch - 2}
            self._sizes[epoch] = self._items_of(epoch)
        return self._sizes[epoch]

    def _close_if_complete(self) -> None:
        """Take a copy of the weights when all of an epoch is done, if the last one is evaluated."""
        epoch = self.queue.epoch
        if epoch > self.options.epochs or not self.queue.is_complete:
            return
        if self._closed is not None or self._is_writing:
            return  # the shards' snapshots are still needed
        try:
            self.shards.snapshot(epoch + 1)
            staleness, applied = self.shards.seen()
            weights = self.shards.copies()
        except Lost as error:
            self._failure = self._failure or self._of_lost(error)
            return
        self.queue.close()
        self._closed = Closed(
            epoch,
            weights,
            self._open.pop(epoch, Open()),
            [seen.get(epoch, {}) for seen in staleness],
            self.queue.given_back,
            self._done(applied),
        )
        self.queue.given_back = 0

    # ---- lost processes --------------------------------------------------------------------------

    def _watch(self) -> None:
        """Notice lost processes, whoever calls them."""
        pings: dict[str, Answer] = {}
        while not self._leaving:
            for name in [*self.shards.names, *(self._names[n] for n in sorted(self._alive))]:
                if name not in pings:
                    pings[name] = self.engine.call(name, "ping")
            time.sleep(BEAT)
            for name in [name for name, ping in pings.items() if ping.done()]:
                try:
                    pings.pop(name).wait()
                except Lost as error:
                    self._note(error)
                except Exception as error:
                    self._failure = self._failure or error

    def _note(self, error: Lost) -> None:
        with self._lock:
            if self._leaving:
                return
            if error.who in self.shards.names:
                self._failure = self._failure or self._of_lost(error)
            for number, name in self._names.items():
                if name == error.who and number in self._alive:
                    self._drop(number, error.why)

    def _drop(self, worker: int, why: str) -> None:
        """Go on without a worker."""
        self._alive.discard(worker)
        items = self.queue.give_back(worker)
        left = f"{len(self._alive)} workers go on" if self._alive else "no worker is left"
        self._lost.append(self._names[worker])
        log.warning(
            "%s %s; %s, and %d utterances that it had are given to others",
            self._names[worker],
            f"is lost ({why})" if why else "ends after a signal",
            left,
            sum(self._of(item.epoch)[item.number] for item in items),
        )
        if not self._alive and why:
            self._failure = self._failure or PipelineError(f"all workers are lost; {self._kept()}")

    def _of_lost(self, error: Lost) -> PipelineError:
        return PipelineError(f"{error}; {self._kept()}")

    def _kept(self) -> str:
        if self.shards.number:
            return "the last whole set of checkpoints is kept; the same command continues from it"
        return "no checkpoint was written yet; the same command begins again"

    # ---- the training ----------------------------------------------------------------------------

    def _epoch(self, epoch: int) -> None:
        """Wait until an epoch is done, and evaluate it."""
        while self._closed is None:
            self._look(epoch)
            time.sleep(TICK)
        closed, position = self._closed, self.position
        now = time.monotonic()
        position.updates, position.utterances = closed.counts.updates, closed.counts.utterances
        position.nats, position.tokens, position.frames, position.skipped = closed.counts.counts
        position.seconds, self._begun = now - self._begun, now
        model = {
            n.removeprefix("model."): t for n, t in closed.weights.items() if n[:6] == "model."
        }
        load_weights(self.model, model, "the shards")
        auxiliary = self.objective.auxiliary.state_dict()
        self.objective.auxiliary.load_state_dict(
            {**auxiliary, **_of_auxiliary(closed.weights, auxiliary)}
        )
        self.rate = self._rate(epoch - 1, len(self.train), 0)
        scores = self._dev_scores(epoch)
        if self._failure:
            raise self._failure
        facts = closed.facts(self._names, self._lost)
        self._record(epoch, scores, asynchronous=facts)
        with self._lock:
            self._closed = None

    def _look(self, epoch: int) -> None:
        """Stop after an error or a signal, save if it is time to, show the progress."""
        if self._failure:
            raise self._failure
        if self.interrupts.signum:
            self.stopping = True
        elif not self._alive:  # each has got a signal
            self.stopping = self.interrupts.agree(0.0, 1.0)
        with self._lock:
            counts, position = self._counts(epoch), self.position
            position.updates, position.utterances = counts.updates, counts.utterances
            position.nats, position.tokens, position.frames, position.skipped = counts.counts
            position.seconds = time.monotonic() - self._begun
        self._show(epoch)
        self._stop_or_save(epoch)

    def _save(self) -> None:
        """Write a set of checkpoints: of the last closed epoch, or of now."""
        with self._lock:
            closed, counts = self._closed, dict(self._open)
            if closed is None:
                self.shards.snapshot(self.queue.epoch)
                done = self._done(self.shards.seen()[1])
            else:
                done = dict(closed.done)
                if self.position.epoch < closed.epoch:  # it is still to be evaluated
                    done[closed.epoch] = list(range(len(self._of(closed.epoch))))
                    counts[closed.epoch] = closed.counts
            position = self.position
            progress = Position(position.epoch, position.best_epoch, position.best_score)
            self._is_writing = True
        self.shards.write(
            {
                "version": VERSION,
                "progress": asdict(progress),
                "done": done,
                "counts": {e: list(c.counts) for e, c in counts.items() if e in done},
            }
        )
        self._is_writing = False
        self.saved = time.monotonic()

    def _done(self, applied: dict[int, list[int]]) -> dict[int, list[int]]:
        """The items whose gradients are in a snapshot, by open epoch."""
        if applied:
            return applied
        return {epoch: sorted(numbers) for epoch, numbers in self.queue.done.items()}

    def _kept_in(self) -> Path | None:
        return self.shards.folder if self.shards.number else None

    def _resume(self) -> None:
        state = self.shards.load()
        if state is not None:
            self.position = Position(**state["progress"])
            done = {int(epoch): list(numbers) for epoch, numbers in state["done"].items()}
            self.queue.epoch = self.position.epoch + 1
            self.queue.resume(done)
            for epoch, numbers in done.items():
                counts = self._counts(epoch)
                counts.updates = len(numbers)
                counts.utterances = sum(self._of(epoch)[n] for n in numbers)
                found = state["counts"].get(epoch)
                if found:
                    counts.counts = Counts(*found)
            more = sum(map(len, done.values()))
            log.info(
                "continuing after epoch %d%s of %s",
                self.position.epoch,
                f" and {more} updates" if more else "",
                self.directory.path,
            )
        self._begun = self.saved = time.monotonic()
        self._ready.set()


def _of_auxiliary(weights: dict[str, Tensor], own: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of the layers that are trained with the model but are no part of it."""
    found = {f"auxiliary.{name}": name for name in own}
    return {found[name]: tensor for name, tensor in weights.items() if name in found}
