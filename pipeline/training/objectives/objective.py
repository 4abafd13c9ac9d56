"""The interface of all objectives: the loss of a batch, and the scores of a dev set.

A new objective is a file beside this one with a class that derives from `Objective`, and a
``case`` in `kinds.make_objective`.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from pipeline.errors import DataError
from pipeline.scoring.distance import edit_distance
from pipeline.text.phones import load_phone_map
from pipeline.text.tokens import UNK, Tokens
from pipeline.training.dataset import Batch, Utterance

log = logging.getLogger("pipeline")

Total = Callable[[Sequence[float]], list[float]]


@dataclass(frozen=True)
class DevScores:
    """Scores of a dev set: ``loss`` in nats per target, ``error_rate`` in percent.

    `Objective.metric` names the error rate. ``others`` are further error rates by their names.
    """

    loss: float
    error_rate: float
    others: Mapping[str, float] = field(default_factory=dict)

    @property
    def bits(self) -> float:
        """The loss in bits per target.

        This is the unit of Table 1 in A. Graves, "Sequence Transduction with Recurrent Neural
        Networks", 2012.
        """
        return self.loss / math.log(2.0)


class Objective:
    """The loss that a network is trained with, and its scores on a dev set.

    Attributes:
        metric: the name of the error rate: PER, WER, CER, …
        reads_features: whether batches have features; if not, they have only targets.
        reads_alignments: whether targets are the labels of all frames, of ali.scp, not the text.
        auxiliary: layers that are trained with the network but are not part of the model.
    """

    metric: str
    reads_features: ClassVar[bool] = True
    reads_alignments: ClassVar[bool] = False

    def __init__(self) -> None:
        self.auxiliary: nn.Module = nn.Module()

    def prepare(self, train: Sequence[Utterance]) -> None:
        """Take from the training data what the model must know of them, by default nothing."""

    def targets(self, utterance: Utterance, frames: int) -> Sequence[int]:
        """The target ids of an utterance, by default its tokens.

        Args:
            utterance: the utterance.
            frames: the number of its frames in this batch, which ``--speed`` may have changed.
        """
        return utterance.tokens

    def frames_needed(self, utterance: Utterance) -> int:
        """The minimum number of input frames for which the loss is finite."""
        return 1

    def losses(self, batch: Batch) -> Tensor:
        """The loss of each utterance, (N,), in nats; training minimises the sum."""
        raise NotImplementedError

    def evaluate(self, batches: Iterable[Batch], total: Total = list) -> DevScores:
        """Compute the scores of a dev set; the model must be in evaluation mode.

        Args:
            batches: the dev set, or this process's part of it.
            total: adds up counts over all processes.
        """
        raise NotImplementedError


# ---- error rates of token sequences --------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    """An error rate: its name, and a function from token ids to the symbols that it counts.

    ``beside`` are error rates that are told beside it.
    """

    name: str
    symbols: Callable[[Iterable[int]], list[str]]
    beside: tuple["Metric", ...] = ()


def token_metric(tokens: Tokens, phone_map: Path | None = None) -> Metric:
    """The error rate that fits the tokens: PER for phones, else WER, and CER beside it.

    Scripts without blanks between words have only the CER. It counts no blanks.

    Args:
        tokens: the tokens of the network; those that are not phones are joined to words.
        phone_map: a map that folds phones to 39 before they are compared; None: no folding.

    Raises:
        PhoneError: the map lacks a phone.
    """
    if phone_map is None and tokens.kind != "phones":
        cer = Metric("CER", lambda ids: [c for word in tokens.decode(ids) for c in word])
        return Metric("WER", tokens.decode, (cer,)) if tokens.has_words else cer
    if phone_map is None:
        return Metric("PER", tokens.decode)
    folding = load_phone_map(phone_map)
    table = {
        symbol: [symbol] if symbol == UNK else folding.fold([symbol], to=39)
        for symbol in tokens.symbols[1:]
    }
    return Metric("PER", lambda ids: [p for symbol in tokens.decode(ids) for p in table[symbol]])


class Tally:
    """Adds up the loss and the errors over a dev set."""

    def __init__(self, metric: Metric) -> None:
        self.metrics = (metric, *metric.beside)
        self.nats, self.tokens = 0.0, 0
        self.errors, self.ref_symbols = ([0] * len(self.metrics) for _ in range(2))

    def add(self, losses: Tensor, batch: Batch, hyps: list[list[int]]) -> None:
        """Add a batch, with its losses (N,) and the recognised token ids of each utterance."""
        self.nats += float(losses.double().sum())
        self.tokens += int(batch.target_lengths.sum())
        for target, length, hyp in zip(
            batch.targets.tolist(), batch.target_lengths.tolist(), hyps, strict=True
        ):
            for n, metric in enumerate(self.metrics):
                ref = metric.symbols(target[:length])
                self.errors[n] += edit_distance(ref, metric.symbols(hyp))
                self.ref_symbols[n] += len(ref)

    def scores(self, total: Total) -> DevScores:
        """The scores over all processes."""
        nats, tokens, *counts = total((self.nats, self.tokens, *self.errors, *self.ref_symbols))
        errors, ref_symbols = counts[: len(self.metrics)], counts[len(self.metrics) :]
        rate, *more = (100.0 * e / max(r, 1) for e, r in zip(errors, ref_symbols, strict=True))
        names = [metric.name for metric in self.metrics[1:]]
        return DevScores(nats / max(tokens, 1), rate, dict(zip(names, more, strict=True)))


def is_broken(values: Tensor) -> bool:
    """Whether there is a NaN: a search would fail, while the loss will show it."""
    return bool(values.isnan().any())


# ---- utterances that are too short ---------------------------------------------------------------


def fitting(
    utterances: list[Utterance], objective: Objective, *, skip_short: bool
) -> list[Utterance]:
    """The utterances that are long enough for their targets.

    Raises:
        DataError: an utterance is too short and ``skip_short`` is off, or all are too short.
    """
    short = [u for u in utterances if u.num_frames < objective.frames_needed(u)]
    shown = "\n  ".join(
        f"{u.utt_id}: {u.num_frames} frames, {objective.frames_needed(u)} needed for "
        f"{len(u.tokens)} tokens"
        for u in short[:10]
    )
    if short and not skip_short:
        raise DataError(
            f"{len(short)} utterances are too short for their tokens; remove them from the data "
            f"directory or give --skip-short=true\n  {shown}"
        )
    if short:
        log.warning("skipping %d utterances too short for their tokens\n  %s", len(short), shown)
    left = [u for u in utterances if u.num_frames >= objective.frames_needed(u)]
    if not left:
        raise DataError("no utterance is long enough for its tokens; is this the right text?")
    return left
