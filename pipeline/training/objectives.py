"""What each of the three networks is trained on: its loss and its dev scores."""

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.errors import DataError
from pipeline.kernels.ctc.loss import ctc_loss
from pipeline.kernels.search.ctc import ctc_greedy
from pipeline.kernels.search.transducer import transducer_greedy
from pipeline.nn.layers import Linear, log_softmax
from pipeline.nn.models import BLANK, CtcModel, PredictorModel, TransducerModel
from pipeline.scoring.distance import edit_distance
from pipeline.training.dataset import Batch, Utterance
from pipeline.training.train_options import TrainOptions

log = logging.getLogger("pipeline")

ToPhones = Callable[[Iterable[int]], list[str]]
Total = Callable[[Sequence[float]], list[float]]


@dataclass(frozen=True)
class DevScores:
    """Dev scores: ``loss`` in nats a token, ``bits`` the same in bits, ``per`` in percent.

    For a predictor ``per`` is the share of next tokens that it does not rank first.
    """

    loss: float
    per: float

    @property
    def bits(self) -> float:
        """Log-loss in bits a token, as [G12] Table 1 gives it."""
        return self.loss / math.log(2.0)


class Task(Protocol):
    """One kind of training."""

    auxiliary: nn.Module  # layers that only training needs

    def losses(self, batch: Batch) -> Tensor:
        """-ln Pr(y|x) of each utterance, (N,), in nats."""

    def evaluate(self, batches: Iterable[Batch], total: Total = list) -> DevScores:
        """Scores over a dev set; the model must be in evaluation mode.

        ``total`` makes sums over all processes from this one's.
        """

    def frames_needed(self, utterance: Utterance) -> int:
        """Input frames without which no alignment exists."""


class CtcTask:
    """CTC, [G13] section 3.1."""

    def __init__(self, model: CtcModel, to_phones: ToPhones) -> None:
        self.model, self.to_phones = model, to_phones
        self.auxiliary = nn.Module()

    def losses(self, batch: Batch) -> Tensor:
        """See `Task.losses`."""
        log_probs, lengths = self.model(batch.features, batch.lengths)
        return _ctc_losses(log_probs, lengths, batch)

    def frames_needed(self, utterance: Utterance) -> int:
        """A frame a token, and one between equal neighbours; stacked frames count once."""
        tokens = utterance.tokens
        repeats = sum(a == b for a, b in itertools.pairwise(tokens))
        groups = max(1, len(tokens) + repeats)
        return (groups - 1) * self.model.encoder.stack_frames + 1

    def evaluate(self, batches: Iterable[Batch], total: Total = list) -> DevScores:
        """See `Task.evaluate`; PER by the most probable token of each frame."""
        tally = _Tally(self.to_phones)
        for batch in batches:
            log_probs, lengths = self.model(batch.features, batch.lengths)
            hyps: list[list[int]] = [[] for _ in batch.utt_ids]
            if not _broken(log_probs):
                hyps = ctc_greedy(log_probs, lengths)
            tally.add(_ctc_losses(log_probs, lengths, batch), batch, hyps)
        return tally.scores(total)


def _broken(values: Tensor) -> bool:
    """Whether the weights have come to NaN, which no search takes and the loss will show."""
    return bool(values.isnan().any())


def _ctc_losses(log_probs: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
    return ctc_loss(
        log_probs.transpose(0, 1),
        batch.targets,
        lengths,
        batch.target_lengths,
        blank=BLANK,
        reduction="none",
    )


class TransducerTask:
    """The RNN transducer, [G12] section 2 and [G13] section 3.2."""

    def __init__(
        self, model: TransducerModel, to_phones: ToPhones, *, ctc_weight: float = 0.0
    ) -> None:
        """With a ``ctc_weight`` w the loss is (1 - w) transducer + w CTC, the latter by an output
        layer on the encoder that is not part of the model."""
        self.model, self.to_phones, self.ctc_weight = model, to_phones, ctc_weight
        self.auxiliary: nn.Module = nn.Module()
        if ctc_weight > 0.0:
            self.ctc_output = Linear(model.encoder.output_dim, model.num_tokens)
            self.auxiliary = nn.ModuleDict({"output": self.ctc_output})

    def losses(self, batch: Batch) -> Tensor:
        """See `Task.losses`."""
        encoded, lengths = self.model.encoder(batch.features, batch.lengths)
        losses = self._losses(encoded, lengths, batch)
        if self.ctc_weight == 0.0:
            return losses
        log_probs = log_softmax(self.ctc_output(encoded))
        of_ctc = _ctc_losses(log_probs, lengths, batch)
        possible = torch.isfinite(of_ctc)  # a transducer may have more tokens than frames
        return losses + self.ctc_weight * torch.where(possible, of_ctc - losses, 0.0)

    def _losses(self, encoded: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
        return self.model.losses(encoded, lengths, batch.targets, batch.target_lengths)

    def frames_needed(self, utterance: Utterance) -> int:
        """One: a transducer may emit any number of tokens at a frame."""
        return 1

    def evaluate(self, batches: Iterable[Batch], total: Total = list) -> DevScores:
        """See `Task.evaluate`; PER by the greedy path."""
        tally = _Tally(self.to_phones)
        for batch in batches:
            encoded, lengths = self.model.encoder(batch.features, batch.lengths)
            frames = self.model.joiner.project_encoder(encoded)
            hyps: list[list[int]] = [[] for _ in batch.utt_ids]
            if not _broken(frames):
                hyps = transducer_greedy(frames, lengths, self.model)
            tally.add(self._losses(encoded, lengths, batch), batch, hyps)
        return tally.scores(total)


class PredictorTask:
    """Next-token prediction on the transcriptions, [G13] section 3.2."""

    def __init__(self, model: PredictorModel) -> None:
        self.model = model
        self.auxiliary = nn.Module()

    def losses(self, batch: Batch) -> Tensor:
        """See `Task.losses`."""
        picked, inside = self._picked(self.model(batch.targets, batch.target_lengths), batch)
        return -(picked * inside).sum(dim=1)

    def frames_needed(self, utterance: Utterance) -> int:
        """None: no features are read."""
        return 0

    def evaluate(self, batches: Iterable[Batch], total: Total = list) -> DevScores:
        """See `Task.evaluate`; ``per`` is the next-token misclassification rate."""
        nats, wrong, tokens = 0.0, 0, 0
        for batch in batches:
            log_probs = self.model(batch.targets, batch.target_lengths)
            picked, inside = self._picked(log_probs, batch)
            best = log_probs[:, :-1].argmax(dim=-1) + 1
            nats -= float((picked * inside).sum())
            wrong += int(((best != batch.targets) & inside).sum())
            tokens += int(inside.sum())
        nats, wrong_in_all, tokens_in_all = total((nats, wrong, tokens))
        return DevScores(nats / max(tokens_in_all, 1), 100.0 * wrong_in_all / max(tokens_in_all, 1))

    @staticmethod
    def _picked(log_probs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """log Pr of each target (N, U), and which of them are no padding."""
        columns = (batch.targets - 1).clamp(min=0)[:, :, None]
        picked = log_probs[:, :-1].gather(2, columns).squeeze(2)
        return picked, torch.arange(picked.shape[1]).to(picked.device) < batch.target_lengths[
            :, None
        ]


class _Tally:
    """Sums of losses and errors over a dev set."""

    def __init__(self, to_phones: ToPhones) -> None:
        self.to_phones = to_phones
        self.nats, self.tokens = 0.0, 0
        self.errors, self.ref_phones = 0, 0

    def add(self, losses: Tensor, batch: Batch, hyps: list[list[int]]) -> None:
        self.nats += float(losses.double().sum())
        self.tokens += int(batch.target_lengths.sum())
        for target, length, hyp in zip(
            batch.targets.tolist(), batch.target_lengths.tolist(), hyps, strict=True
        ):
            ref = self.to_phones(target[:length])
            self.errors += edit_distance(ref, self.to_phones(hyp))
            self.ref_phones += len(ref)

    def scores(self, total: Total) -> DevScores:
        own = (self.nats, self.tokens, self.errors, self.ref_phones)
        nats, tokens, errors, ref_phones = total(own)
        return DevScores(nats / max(tokens, 1), 100.0 * errors / max(ref_phones, 1))


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
