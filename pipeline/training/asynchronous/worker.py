"""A worker of an asynchronous training: pulls weights, computes gradients and pushes them."""

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.training.asynchronous.link import Link
from pipeline.training.asynchronous.messages import Item
from pipeline.training.dataset import Utterance
from pipeline.training.loop import Trainer
from pipeline.training.randomness import generator, seed_of
from pipeline.training.step import Counts
from pipeline.training.subsequences import Subsequence, parts_of
from pipeline.training.truncated import TruncatedTrainer

PAUSE = 0.02  # seconds before asking again for work


class Gradients:
    """Sums of gradients between two pushes, and the learning of a worker's own copy meanwhile."""

    def __init__(self, trainer: Trainer, link: Link) -> None:
        self.trainer, self.link = trainer, link
        options = trainer.options
        # The shards' steps cannot be made here, but plain gradient descent can (J. Dean et al.,
        # "Large Scale Distributed Deep Networks", 2012). Weights in shared memory need no copy.
        self.learns_itself = (
            options.fetch_every > 1 and options.optimizer == "sgd" and not link.shares_memory
        )
        self.steps = 0
        self.clear()

    def clear(self) -> None:
        """Forget what was not pushed."""
        self.sum: list[Tensor | None] = [None for _ in self.trainer.parameters]
        self.norm, self.utt_ids = 0.0, list[str]()

    def before(self) -> None:
        """Pull weights if it is time to."""
        if self.steps % self.trainer.options.fetch_every == 0:
            self.link.pull()
        self.steps += 1

    def add(self, rate: float, utt_ids: Sequence[str]) -> None:
        """Add the gradients that the weights have now."""
        parameters, clip = self.trainer.parameters, self.trainer.options.clip_norm
        norm = float(nn.utils.clip_grad_norm_(parameters, clip or math.inf))
        self.norm = max(self.norm, norm) if math.isfinite(norm) else norm
        self.utt_ids += utt_ids
        for n, parameter in enumerate(parameters):
            if parameter.grad is not None:
                mine = self.sum[n]
                self.sum[n] = parameter.grad if mine is None else mine + parameter.grad
        if self.learns_itself and self.steps % self.trainer.options.fetch_every:
            with torch.no_grad():
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter.sub_(parameter.grad, alpha=rate)

    def push(self, *, epoch: int, item: Item | None, rate: float) -> list[str]:
        """Push the sums; returns the names of the shards that refused them."""
        found = {id(p): g for p, g in zip(self.trainer.parameters, self.sum, strict=True)}
        return self.link.push(found, epoch=epoch, item=item, rate=rate, norm=self.norm)


class Worker(Trainer):
    """Computes the gradients of batches. An item is the batches of one push."""

    def work(self, link: Link) -> None:
        """Work until there is nothing left.

        Raises:
            Lost: a shard or the coordinator is.
            SystemExit, KeyboardInterrupt: after a signal, once the current item is done.
        """
        self.link, self.sums = link, Gradients(self, link)
        self._cut: tuple[int, list[list[Utterance]]] = 0, []
        with self.interrupts:
            while not (work := link.next(wanted=1, newest=None)).leave:
                for item in work.items:
                    self._compute(item)
                if not work.items:
                    time.sleep(PAUSE)
                if self.interrupts.signum:
                    retire(self)

    def _compute(self, item: Item) -> None:
        """Compute and push the gradients of an item."""
        epoch, options, sums = item.epoch, self.options, self.sums
        if self._cut[0] != epoch:
            self._cut = epoch, self._batches(epoch)
        batches = self._cut[1]
        first = item.number * options.push_every
        before = sum(map(len, batches[:first]))
        mine = batches[first : first + options.push_every]
        total, begun = Counts(), before
        for number, utterances in enumerate(mine, start=first):
            sums.before()
            torch.manual_seed(seed_of(options.seed, "dropout", epoch, number, 0))
            noise = generator(options.seed, "noise", epoch, number)
            counts, _ = self._gradient(self._batch(epoch, utterances), noise)
            rate = self._rate(epoch - 1, begun, len(utterances))
            sums.add(rate, [u.utt_id for u in utterances])
            total, begun = total.plus(counts), begun + len(utterances)
        rate = self._rate(epoch - 1, before, begun - before)
        refusing = sums.push(epoch=epoch, item=item, rate=rate)
        if refusing:
            self.link.refused([item], sums.utt_ids, refusing)
        else:
            self.link.count(epoch, total, steps=len(mine), finished=[item])
        sums.clear()


class StreamWorker(TruncatedTrainer):
    """Computes the gradients of subsequences of ``--streams`` utterances, see `subsequences`.

    An item is an utterance. A stream that has read one asks for the next; utterances of the next
    epoch begin when all streams of this worker have read those of the last one.
    """

    def work(self, link: Link, *, workers: int) -> None:
        """Work until there is nothing left; see `Worker.work`.

        Args:
            link: to the others.
            workers: how many there are, for different random numbers in each.
        """
        self.link, self.sums = link, Gradients(self, link)
        self._workers, self._epoch_now, self._number = workers, 0, 0
        self._finished_before = 0  # utterances of the epoch that all workers have read
        self._parts: list[list[Subsequence]] = [[] for _ in range(self.options.streams)]
        self._items: dict[int, Item] = {}  # that the streams are reading
        self._ended: list[Item] = []  # read, but not pushed
        self._orders: dict[int, list[Utterance]] = {}
        with self.interrupts:
            while self._fill():
                if any(self._parts):
                    self._step()
                else:
                    time.sleep(PAUSE)
                if self.interrupts.signum:
                    retire(self)

    def _fill(self) -> bool:
        """Give each empty stream an utterance; False if the training is over."""
        empty = [n for n, parts in enumerate(self._parts) if not parts]
        if not empty:
            return True
        newest = self._epoch_now if len(empty) < len(self._parts) else None
        work = self.link.next(wanted=len(empty), newest=newest)
        if work.items and work.items[-1].epoch != self._epoch_now and newest is None:
            self._epoch_now, self._number = work.items[-1].epoch, 0
        self._finished_before = work.finished
        for stream, item in zip(empty, work.items, strict=False):
            self._items[stream] = item
            self._parts[stream] = self._cut_up(item, stream)
        return not work.leave

    def _cut_up(self, item: Item, stream: int) -> list[Subsequence]:
        if item.epoch not in self._orders:
            self._orders = {item.epoch: self._order(item.epoch)}
        utterance = self._orders[item.epoch][item.number]
        return list(parts_of(utterance, stream, self.options.bptt, self.objective.model.delay))

    def _step(self) -> None:
        """Compute the gradients of the next subsequence of each stream; push them if it is time."""
        options, sums, epoch = self.options, self.sums, self._epoch_now
        parts = [parts.pop(0) if parts else None for parts in self._parts]
        ended = [part.stream for part in parts if part is not None and part.is_end]
        sums.before()
        number = self._number * self._workers + self.link.worker - 1
        torch.manual_seed(seed_of(options.seed, "dropout", epoch, number, 0))
        noise = generator(options.seed, "noise", epoch, number)
        batch = self._batch(epoch, parts)
        counts, _ = self._gradient(batch, noise)
        rate = self._rate(epoch - 1, min(self._finished_before, len(self.train)), len(ended))
        sums.add(rate, [part.utterance.utt_id for part in parts if part is not None])
        self._number += 1
        self._ended += [self._items.pop(stream) for stream in ended]
        if any(self._parts) and sums.steps % options.push_every:
            self.objective.carried.commit()
            self.link.count(epoch, counts, steps=1)
            return
        if refusing := sums.push(epoch=epoch, item=None, rate=rate):
            self._give_up(refusing)
            return
        self.objective.carried.commit()
        self.link.count(epoch, counts, steps=1, finished=self._ended)
        self._ended = []
        sums.clear()

    def _give_up(self, refusing: Sequence[str]) -> None:
        """Leave the utterances that are being read to others, after a refused push."""
        self.link.refused([*self._items.values(), *self._ended], self.sums.utt_ids, refusing)
        self.sums.clear()
        self._items.clear()
        self._ended = []
        self._read.clear()
        self._parts = [[] for _ in self._parts]


def retire(worker: Any) -> None:
    """End after a signal, and leave to others what this worker has not done."""
    worker.link.engine.call("coordinator", "retire", worker.link.worker).wait()
    worker.interrupts.leave(silently=True)
