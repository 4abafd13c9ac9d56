"""The training loop: epochs over shuffled batches, dev scores, checkpoints, early stopping.

The random numbers of an update depend only on the seed, the epoch and the number of the update, so
an interrupted training can be continued with the same result.
"""

import functools
import logging
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.models.model_dir import ModelDir
from pipeline.models.weights import load_weights, read_weights, save_weights
from pipeline.nn.models import Model
from pipeline.training import checkpoint
from pipeline.training.augment import Streams
from pipeline.training.checkpoint import Position
from pipeline.training.dataset import (
    Batch,
    Utterance,
    batches_by_length,
    by_longest,
    make_batch,
    shuffled_batches,
)
from pipeline.training.display import Display, Events
from pipeline.training.distributed.norms import NormSums
from pipeline.training.distributed.processes import World
from pipeline.training.feature_reader import FeatureReader
from pipeline.training.interrupts import Interrupts
from pipeline.training.metrics import append_metrics
from pipeline.training.objectives.objective import DevScores, Objective
from pipeline.training.optimizer import learning_rate, make_optimizer, set_learning_rate
from pipeline.training.randomness import generator, seed_of
from pipeline.training.step import Counts, GradientSum
from pipeline.training.train_options import TrainOptions
from pipeline.training.weight_average import (
    WeightAverage,
    averaged_tensors,
    floating_buffers,
)
from pipeline.training.weight_noise import weight_noise

log = logging.getLogger("pipeline")

DEV_BATCH_SIZE = 16


class Trainer:
    """Trains one model: the objects that an epoch needs, and the state that a checkpoint keeps."""

    def __init__(
        self,
        model: Model,
        objective: Objective,
        directory: ModelDir,
        options: TrainOptions,
        *,
        train: list[Utterance],
        dev: list[Utterance],
        device: torch.device,
        streams: Streams | None = None,
        world: World | None = None,
    ) -> None:
        self.model, self.objective = model, objective
        self.directory, self.options = directory, options
        self.device = device
        self.reader = FeatureReader(directory, objective, options, streams or Streams())
        self.reads_ahead = device.type != "cpu"  # in a thread, while the GPU computes
        self.world = world or World()
        self.train, self.dev = train, dev
        objective.auxiliary.to(device)
        self.parameters = [*model.parameters(), *objective.auxiliary.parameters()]
        norms = NormSums(model, self.world)
        self.gradients = GradientSum(objective, self.parameters, device, options.precision, norms)
        self.rate = options.learning_rate  # of the last update
        self.average = WeightAverage(averaged_tensors(model), options.average)
        self.position = Position()
        self.display = Display(options.epochs)
        self.interrupts, self.stopping = Interrupts(), False
        self.events: Events | None = None
        self.saved = time.monotonic()

    @functools.cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser, made when it is first used: what it imports is slow."""
        return make_optimizer(self.parameters, self.options)

    def run(self) -> Position:
        """Train from the last checkpoint to the end, and write the final weights.

        Raises:
            ModelError: a loss is not finite, or all checkpoints are damaged.
            FeatureError: the features of an utterance do not fit the model.
            KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM, once the state is saved.
        """
        self._resume()
        try:
            with self.interrupts:
                while self.position.epoch < self.options.epochs and not self._out_of_patience():
                    self._epoch(self.position.epoch + 1)
        finally:
            if self.events is not None:
                self.events.close()
        if self.world.is_first:
            best = self.directory.best_path
            load_weights(self.model, read_weights(best), best)
            save_weights(self.model, self.directory.weights_path)
        self.world.wait()
        log.info(
            "best epoch %d, dev %s %.3f; weights in %s",
            self.position.best_epoch,
            "loss" if self.options.stop_on == "loss" else self.objective.metric,
            self.position.best_score,
            self.directory.weights_path,
        )
        return self.position

    # ---- one epoch -------------------------------------------------------------------------------

    def _epoch(self, epoch: int) -> None:
        position = self.position
        batches = self._batches(epoch)
        started, before = time.monotonic(), position.seconds
        for batch in self._prepared(epoch, batches[position.updates :]):
            self._learn(epoch, batches[position.updates], batch)
            position.seconds = before + time.monotonic() - started
            self._show(epoch)
            self._stop_or_save(epoch)
        self._before_dev(epoch)
        scores = self._dev_scores(epoch)
        if not math.isfinite(scores.loss):
            self._stop_on_infinite(f"the loss of the dev set after epoch {epoch}")
        position.seconds = before + time.monotonic() - started
        self._record(epoch, scores)

    def _batches(self, epoch: int) -> list[list[Utterance]]:
        options = self.options
        order = generator(options.seed, "order", epoch)
        batches = shuffled_batches(
            self.train, options.batch_size, order, frames=options.batch_frames
        )
        return by_longest(batches) if options.sortagrad and epoch == 1 else batches

    def _prepared(self, epoch: int, batches: Sequence[list[Utterance]]) -> Iterator[Batch | None]:
        """This process's part of each batch; None if it has no utterance of the batch."""
        parts = [self.world.share(batch) for batch in batches]
        if not (parts and self.reads_ahead):
            yield from (self._batch(epoch, part) for part in parts)
            return
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._batch, epoch, parts[0])
            for part in parts[1:]:
                batch = ahead.result()
                ahead = reader.submit(self._batch, epoch, part)
                yield batch
            yield ahead.result()

    def _batch(self, epoch: int, utterances: Sequence[Utterance]) -> Batch | None:
        if not utterances:
            return None
        return make_batch(
            utterances, lambda u: self.reader.augmented(epoch, u), self.objective.targets
        )

    # ---- one update ------------------------------------------------------------------------------

    def _learn(self, epoch: int, utterances: list[Utterance], batch: Batch | None) -> None:
        """Make an update from a batch of ``utterances``; ``batch`` is this process's part."""
        position, seed = self.position, self.options.seed
        number = epoch, position.updates
        self.rate = self._rate(position.epoch, position.utterances, self._finished(utterances))
        set_learning_rate(self.optimizer, self.rate)
        torch.manual_seed(seed_of(seed, "dropout", *number, self.world.rank))
        counts = self._update(batch, generator(seed, "noise", *number))
        position.updates += 1
        position.utterances += self._finished(utterances)
        position.nats += counts.nats
        position.tokens += counts.tokens
        position.frames += counts.frames
        position.skipped += counts.skipped

    def _rate(self, epochs: int, before: int, now: int) -> float:
        """The learning rate of an update that reads ``now`` utterances to their ends.

        Args:
            epochs: the number of finished epochs.
            before: the number of utterances that earlier updates of the epoch have read.
            now: the number of this update.
        """
        return learning_rate(
            self.options,
            epochs=epochs,
            done=(epochs + before / len(self.train)) / self.options.epochs,
            share=now / len(self.train) / self.options.epochs,
        )

    def _finished(self, utterances: Sequence[Any]) -> int:
        """How many utterances an update has read to their end."""
        return len(utterances)

    def _update(self, batch: Batch | None, noise: torch.Generator) -> Counts:
        """One step of gradient descent on the loss summed over the batch."""
        counts, wrong = self._gradient(batch, noise)
        *sums, interrupted, terminated = self.world.sum([*counts, *self.interrupts.noted])
        counts = Counts(sums[0], *map(int, sums[1:]))
        self.stopping = self.interrupts.agree(interrupted, terminated)
        if not math.isfinite(counts.nats):
            utt_ids = ", ".join(filter(None, self.world.gather(wrong)))
            self._stop_on_infinite(f"the loss of {utt_ids}")
        self.world.add_gradients(self.parameters)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.options.clip_norm or math.inf)
        if not math.isfinite(norm):
            own = batch.utt_ids if batch is not None else []
            utt_ids = ", ".join(utt for part in self.world.gather(own) for utt in part)
            self._stop_on_infinite(f"the gradient of {utt_ids}")
        self.optimizer.step()
        self.world.average_buffers(floating_buffers(self.model))
        self.average.update()
        return counts

    def _gradient(self, batch: Batch | None, noise: torch.Generator) -> tuple[Counts, str]:
        """Compute the gradients of a batch; returns what `GradientSum.add` does."""
        self.model.train()
        for parameter in self.parameters:
            parameter.grad = None
        with weight_noise(self.model, self.options.weight_noise, noise):
            return self.gradients.add(batch)

    def _stop_on_infinite(self, what: str) -> NoReturn:
        epoch, path = self.position.epoch, self._kept_in()
        kept, again = "nothing is kept", ""
        if path is not None:
            kept = f"{f'epoch {epoch}' if epoch else 'the previous state'} is kept in {path}"
            again = " in another directory"
        raise ModelError(
            f"{self.directory.path}: {what} is not finite; {kept}; check the features, or "
            f"train{again} with a lower --learning-rate or --weight-noise, or with --clip-norm"
        )

    def _kept_in(self) -> Path | None:
        """Where the last state is, if there is one."""
        path = self.directory.last_path
        return path if path.exists() else None

    # ---- dev scores ------------------------------------------------------------------------------

    def _before_dev(self, epoch: int) -> None:
        """Save the state, as several processes cannot agree to stop within an evaluation."""
        if self.world.size > 1:
            self.stopping = self.interrupts.agree(*self.world.sum(self.interrupts.noted))
            self.saved = -math.inf
            self._stop_or_save(epoch)

    def _dev_scores(self, epoch: int) -> DevScores:
        self.model.eval()
        try:
            with torch.no_grad(), self.average.in_place():
                return self.objective.evaluate(self._dev_batches(), self.world.sum)
        except _Interrupted:  # the model has its own weights again here
            self.stopping = True
            self._stop_or_save(epoch)
            raise

    def _dev_batches(self) -> Iterator[Batch]:
        size = min(DEV_BATCH_SIZE, self.options.batch_size)  # fits in memory if training does
        for utterances in self.world.share([*batches_by_length(self.dev, size)]):
            if self.world.size == 1 and self.interrupts.signum:
                raise _Interrupted
            batch = make_batch(utterances, self.reader.load, self.objective.targets)
            yield batch.to(self.device)

    # ---- files -----------------------------------------------------------------------------------

    def _record(self, epoch: int, scores: DevScores, **more: Any) -> None:
        position = self.position
        score = scores.loss if self.options.stop_on == "loss" else scores.error_rate
        better = score < position.best_score
        if better:
            position.best_epoch, position.best_score = epoch, score
        line = {
            "epoch": epoch,
            "train_loss": position.loss,
            "dev_loss": scores.loss,
            "dev_bits": scores.bits,
            "dev_error_rate": scores.error_rate,
            "metric": self.objective.metric,
            **({"dev_other_error_rates": dict(scores.others)} if scores.others else {}),
            "best": better,
            "learning_rate": self.rate,
            "frames_per_second": round(position.frames / max(position.seconds, 1e-9), 1),
            "updates": position.updates,
            "skipped": position.skipped,
            "seconds": round(position.seconds, 2),
            **more,
        }
        position.next_epoch()
        if self.world.is_first:
            self._write(epoch, better, line)
        self.world.wait()
        self.display.clear()
        rates = {self.objective.metric: scores.error_rate, **scores.others}
        log.info(
            "epoch %d: loss %.3f per token, dev loss %.3f (%.2f bits), dev %s, %.0f s%s%s",
            epoch,
            line["train_loss"],
            scores.loss,
            scores.bits,
            ", ".join(f"{name} {rate:.2f} %" for name, rate in rates.items()),
            line["seconds"],
            f", {line['skipped']} utterances skipped" if line["skipped"] else "",
            ", best" if better else "",
        )

    def _write(self, epoch: int, better: bool, line: dict[str, Any]) -> None:
        """Write the weights and metrics, then the state, so that a repeated epoch replaces them."""
        with self.average.in_place():
            if better:
                save_weights(self.model, self.directory.best_path)
            checkpoint.keep_epoch(self.model, self.directory, epoch, self.options.keep_epochs)
        append_metrics(self.directory.path / "metrics.jsonl", line)
        if self.options.tensorboard:
            self.events = self.events or Events(self.directory.path / "tensorboard", epoch)
            self.events.write(epoch, line)
        self._save()

    def _save(self) -> None:
        parts = {
            "model": self.model.state_dict(),
            "auxiliary": self.objective.auxiliary.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state(),
        }
        checkpoint.save(self.directory, parts, self.position)
        self.saved = time.monotonic()

    def _stop_or_save(self, epoch: int) -> None:
        """Save the state if it is time to; after a signal, save it and end."""
        due = time.monotonic() - self.saved >= self.options.save_every
        if self.world.is_first and (due or self.stopping):
            self._save()
        if self.stopping:
            self.world.wait()  # else the launcher might stop the first process while it writes
            self.display.clear()
            log.info(
                "stopped in epoch %d after %d saved updates; the same command continues from there",
                epoch,
                self.position.updates,
            )
            self.interrupts.leave(silently=not self.world.is_first)

    def _resume(self) -> None:
        found = self.world.from_first(lambda: checkpoint.load(self.directory, self._take_over))
        if found is None:
            return
        state, self.position = found
        if not self.world.is_first:
            self._take_over(state)
        position = self.position
        more = f" and {position.updates} updates" if position.updates else ""
        log.info("continuing after epoch %d%s of %s", position.epoch, more, self.directory.path)

    def _take_over(self, state: dict[str, Any]) -> None:
        load_weights(self.model, state["model"], self.directory.last_path)
        self.objective.auxiliary.load_state_dict(state["auxiliary"])
        self.optimizer.load_state_dict(state["optimizer"])
        checkpoint.check_optimizer(self.optimizer)
        self.average.load(state["average"])

    def _out_of_patience(self) -> bool:
        waited = self.position.epoch - self.position.best_epoch
        return 0 < self.options.patience <= waited

    def _show(self, epoch: int) -> None:
        position = self.position
        share = position.utterances / len(self.train)
        an_epoch = position.seconds / max(share, 1e-9)
        if self.world.is_first:
            self.display.show(
                epoch,
                share,
                loss=position.loss,
                rate=self.rate,
                speed=position.frames / max(position.seconds, 1e-9),
                left=an_epoch * (self.options.epochs - position.epoch - share),
            )


class _Interrupted(Exception):
    """A signal arrived while the dev set was evaluated."""
