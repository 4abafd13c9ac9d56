"""The one training loop: epochs over shuffled batches, dev scores, checkpoints, early stopping."""

import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from pipeline.errors import DataError, FeatureError, ModelError
from pipeline.features import CmvnStats
from pipeline.model_dir import (
    ModelDir,
    load_state,
    load_weights,
    read_weights,
    save_state,
    save_weights,
)
from pipeline.nn.models import Model, PredictorModel
from pipeline.training.augment import augment
from pipeline.training.dataset import (
    Batch,
    Utterance,
    batches_by_length,
    load_features,
    make_batch,
    shuffled_batches,
)
from pipeline.training.options import TrainOptions
from pipeline.training.tasks import DevScores, Task
from pipeline.training.weight_noise import weight_noise

log = logging.getLogger("pipeline")

DEV_BATCH_SIZE = 16
SECONDS_BETWEEN_LINES = 30.0


@dataclass
class Progress:
    """Where training stands after an epoch."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = math.inf


class Trainer:
    """Everything that an epoch needs, and the state that a checkpoint keeps."""

    def __init__(
        self,
        model: Model,
        task: Task,
        directory: ModelDir,
        options: TrainOptions,
        *,
        train: list[Utterance],
        dev: list[Utterance],
        device: torch.device,
        feature_streams: int = 1,
    ) -> None:
        self.model, self.task, self.directory, self.options = model, task, directory, options
        self.device, self.streams = device, feature_streams
        self.cmvn: CmvnStats | None = directory.cmvn()
        self.train, self.dev = train, dev
        self.optimizer = _optimizer(model, options)
        self.progress = Progress()
        self.updates_an_epoch = math.ceil(len(self.train) / options.batch_size)

    def run(self) -> Progress:
        """Train to the end, from where the last checkpoint stands; write the final weights.

        Raises:
            ModelError: a loss is not finite, or a checkpoint is damaged.
            FeatureError: an utterance's features are not what the model reads.
        """
        self._resume()
        while self.progress.epoch < self.options.epochs and not self._out_of_patience():
            self._epoch(self.progress.epoch + 1)
        load_weights(self.model, read_weights(self.directory.best_path), self.directory.best_path)
        save_weights(self.model, self.directory.weights_path)
        log.info(
            "best epoch %d, dev %s %.3f; weights in %s",
            self.progress.best_epoch,
            self.options.stop_on,
            self.progress.best_score,
            self.directory.weights_path,
        )
        return self.progress

    # ---- one epoch -------------------------------------------------------------------------------

    def _epoch(self, epoch: int) -> None:
        started = time.monotonic()
        # All randomness of an epoch follows from the seed and its number: resuming is exact.
        generator = torch.Generator().manual_seed(self.options.seed * 100_003 + epoch)
        torch.manual_seed(self.options.seed * 100_003 + epoch)  # dropout
        nats, tokens, frames = 0.0, 0, 0
        last_line = started
        for step, batch in enumerate(self._train_batches(generator)):
            self._set_learning_rate((epoch - 1) * self.updates_an_epoch + step)
            nats += self._update(batch, generator)
            tokens += int(batch.target_lengths.sum())
            frames += int(batch.lengths.sum())
            if time.monotonic() - last_line >= SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                log.info(
                    "epoch %d: %d of %d updates, loss %.3f a token, %.0f frames/s",
                    epoch,
                    step + 1,
                    self.updates_an_epoch,
                    nats / max(tokens, 1),
                    frames / (last_line - started),
                )
        scores = self._dev_scores()
        if not math.isfinite(scores.loss):
            self._stop_on_infinite(f"the dev set after epoch {epoch}")
        self._record(epoch, nats / max(tokens, 1), scores, time.monotonic() - started)

    def _train_batches(self, generator: torch.Generator) -> Iterator[Batch]:
        for utterances in shuffled_batches(self.train, self.options.batch_size, generator):
            batch = make_batch(utterances, self._load)
            if not isinstance(self.model, PredictorModel):
                features = augment(
                    batch.features, batch.lengths, self.options, self.streams, generator
                )
                batch = Batch(
                    batch.utt_ids, features, batch.lengths, batch.targets, batch.target_lengths
                )
            yield batch.to(self.device)

    def _load(self, utterance: Utterance) -> Any:
        config = self.directory.config.encoder
        if config is None:  # a predictor reads no features
            return torch.zeros(1, 0).numpy()
        features = load_features(
            utterance.features,
            utterance.utt_id,
            config.input_dim,
            self.cmvn,
            allow_pipes=self.options.allow_pipes,
        )
        if len(features) != utterance.num_frames:
            raise FeatureError(
                f"{utterance.utt_id}: {len(features)} frames, but utt2num_frames says "
                f"{utterance.num_frames}; make it again with feat_to_len.py"
            )
        return features

    def _update(self, batch: Batch, generator: torch.Generator) -> float:
        """One step of gradient descent on the summed loss; returns that loss in nats."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        with weight_noise(self.model, self.options.weight_noise, generator):
            losses = self.task.losses(batch)
            total = losses.sum()
            total.backward()  # type: ignore[no-untyped-call]
        if not math.isfinite(float(total.detach())):
            self._stop_on_infinite(_not_finite(batch, losses))
        if self.options.clip_norm > 0.0:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        self.optimizer.step()
        return float(total.detach())

    def _stop_on_infinite(self, whose: str) -> NoReturn:
        epoch = self.progress.epoch
        kept = (
            f"epoch {epoch} is kept in {self.directory.last_path}" if epoch else "nothing is kept"
        )
        again = " in another directory" if epoch else ""
        raise ModelError(
            f"{self.directory.path}: the loss of {whose} is not finite; {kept}; look at the "
            f"features, or train{again} with a lower --learning-rate or with --clip-norm"
        )

    def _set_learning_rate(self, step: int) -> None:
        rate = self.options.learning_rate
        if self.options.schedule == "linear":
            total = self.options.epochs * self.updates_an_epoch
            warm_up = max(1, total // 20)
            rate *= min((step + 1) / warm_up, max(0.0, (total - step) / (total - warm_up + 1)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _dev_scores(self) -> DevScores:
        self.model.eval()
        with torch.no_grad():
            return self.task.evaluate(
                make_batch(utterances, self._load).to(self.device)
                for utterances in batches_by_length(self.dev, DEV_BATCH_SIZE)
            )

    # ---- what is kept ----------------------------------------------------------------------------

    def _record(self, epoch: int, train_loss: float, scores: DevScores, seconds: float) -> None:
        score = scores.per if self.options.stop_on == "per" else scores.loss
        better = score < self.progress.best_score
        if better:
            save_weights(self.model, self.directory.best_path)
            self.progress.best_epoch, self.progress.best_score = epoch, score
        self.progress.epoch = epoch
        line = {
            "epoch": epoch,
            "train_loss": train_loss,
            "dev_loss": scores.loss,
            "dev_bits": scores.bits,
            "dev_per": scores.per,
            "best": better,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(seconds, 2),
        }
        self._write_metrics(line)
        save_state(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "progress": vars(self.progress).copy(),
            },
            self.directory.last_path,
        )
        log.info(
            "epoch %d: loss %.3f a token, dev loss %.3f (%.2f bits), dev error %.2f %%, %.0f s%s",
            epoch,
            train_loss,
            scores.loss,
            scores.bits,
            scores.per,
            seconds,
            ", best" if better else "",
        )

    def _write_metrics(self, line: dict[str, Any]) -> None:
        """Append a line; of an epoch that is done again after a crash only the last stays."""
        path = self.directory.path / "metrics.jsonl"
        kept = []
        if path.exists():
            kept = [
                text
                for text in path.read_text(encoding="utf-8").splitlines()
                if _epoch_of(text) < line["epoch"]
            ]
        temporary = path.with_name(".metrics.jsonl.tmp")
        temporary.write_text("\n".join([*kept, json.dumps(line)]) + "\n", encoding="utf-8")
        temporary.replace(path)

    def _resume(self) -> None:
        if not self.directory.last_path.exists():
            return
        path = self.directory.last_path
        state = load_state(path)
        try:
            load_weights(self.model, state["model"], path)
            self.optimizer.load_state_dict(state["optimizer"])
            self.progress = Progress(**state["progress"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{path}: no state of this training ({error}); remove it to start again"
            ) from error
        log.info("going on after epoch %d of %s", self.progress.epoch, self.directory.path)

    def _out_of_patience(self) -> bool:
        waited = self.progress.epoch - self.progress.best_epoch
        return 0 < self.options.patience <= waited


def _epoch_of(line: str) -> float:
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _not_finite(batch: Batch, losses: torch.Tensor) -> str:
    pairs = zip(batch.utt_ids, losses.tolist(), strict=True)
    return ", ".join(utt for utt, loss in pairs if not math.isfinite(loss)) or "a whole batch"


def fitting(utterances: list[Utterance], task: Task, options: TrainOptions) -> list[Utterance]:
    """The utterances that are long enough for their tokens.

    Raises:
        DataError: some are not and ``skip_short`` is off, or none is.
    """
    short = [u for u in utterances if u.num_frames < task.frames_needed(u)]
    shown = "\n  ".join(
        f"{u.utt_id}: {u.num_frames} frames, {task.frames_needed(u)} needed for {len(u.tokens)} "
        "tokens"
        for u in short[:10]
    )
    if short and not options.skip_short:
        raise DataError(
            f"{len(short)} utterances are too short for their tokens; drop them from the data "
            f"directory or give --skip-short=true\n  {shown}"
        )
    if short:
        log.warning("skipping %d utterances too short for their tokens\n  %s", len(short), shown)
    left = [u for u in utterances if u.num_frames >= task.frames_needed(u)]
    if not left:
        raise DataError("no utterance is long enough for its tokens; is the text the right one?")
    return left


def _optimizer(model: Model, options: TrainOptions) -> torch.optim.Optimizer:
    if options.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=options.learning_rate, fused=True)
    return torch.optim.SGD(
        model.parameters(), lr=options.learning_rate, momentum=options.momentum, fused=True
    )
