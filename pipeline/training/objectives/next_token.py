"""Next-token prediction on transcriptions as an objective.

A. Graves, A. Mohamed, G. Hinton, "Speech Recognition with Deep Recurrent Neural Networks", 2013,
section 3.2.
"""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.nn.models import PredictorModel
from pipeline.training.dataset import Batch, Utterance
from pipeline.training.objectives.objective import DevScores, Objective, Total


class NextTokenObjective(Objective):
    """The loss -ln Pr(y) of a prediction network; errors are tokens that it does not rank first."""

    metric = "next-token error"
    reads_features: ClassVar[bool] = False

    def __init__(self, model: PredictorModel) -> None:
        super().__init__()
        self.model = model

    def frames_needed(self, utterance: Utterance) -> int:
        """Always 0, because no features are read."""
        return 0

    def losses(self, batch: Batch) -> Tensor:
        """See `Objective.losses`."""
        picked, inside = self._picked(self.model(batch.targets, batch.target_lengths), batch)
        return -(picked * inside).sum(dim=1)

    def evaluate(self, batches: Iterable[Batch], total: Total = list) -> DevScores:
        """See `Objective.evaluate`."""
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
        """The log-probability of each target, (N, U), and a mask that is false in the padding."""
        labels = (batch.targets - 1).clamp(min=0)[:, :, None]
        picked = log_probs[:, :-1].gather(2, labels).squeeze(2)
        positions = torch.arange(picked.shape[1]).to(picked.device)
        return picked, positions < batch.target_lengths[:, None]
