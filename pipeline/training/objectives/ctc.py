"""Connectionist temporal classification as an objective.

A. Graves, A. Mohamed, G. Hinton, "Speech Recognition with Deep Recurrent Neural Networks", 2013,
section 3.1.
"""

import itertools
from collections.abc import Iterable

from torch import Tensor

from pipeline.kernels.ctc.loss import ctc_loss
from pipeline.kernels.search.ctc import ctc_greedy
from pipeline.nn.models import BLANK, CtcModel
from pipeline.training.dataset import Batch, Utterance
from pipeline.training.objectives.objective import (
    DevScores,
    Metric,
    Objective,
    Tally,
    Total,
    is_broken,
)


class CtcObjective(Objective):
    """The loss -ln Pr(y|x) of a CTC network; errors are those of greedy decoding."""

    def __init__(self, model: CtcModel, metric: Metric) -> None:
        super().__init__()
        self.model, self.token_metric, self.metric = model, metric, metric.name

    def frames_needed(self, utterance: Utterance) -> int:
        """The frames that give an output per token and one for the blank between equal tokens."""
        tokens = utterance.tokens
        repeats = sum(a == b for a, b in itertools.pairwise(tokens))
        return self.model.encoder.frames_for(max(1, len(tokens) + repeats))

    def losses(self, batch: Batch) -> Tensor:
        """See `Objective.losses`."""
        log_probs, lengths = self.model(batch.features, batch.lengths)
        return ctc_losses(log_probs, lengths, batch)

    def evaluate(self, batches: Iterable[Batch], total: Total = list) -> DevScores:
        """See `Objective.evaluate`."""
        tally = Tally(self.token_metric)
        for batch in batches:
            log_probs, lengths = self.model(batch.features, batch.lengths)
            hyps: list[list[int]] = [[] for _ in batch.utt_ids]
            if not is_broken(log_probs):
                hyps = ctc_greedy(log_probs, lengths)
            tally.add(ctc_losses(log_probs, lengths, batch), batch, hyps)
        return tally.scores(total)


def ctc_losses(log_probs: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
    """The loss -ln Pr(y|x) of each utterance, (N,), in nats.

    Args:
        log_probs: log Pr(k|t), (N, T', V).
        lengths: the number T' of outputs of each utterance, (N,).
        batch: the targets.
    """
    return ctc_loss(
        log_probs.transpose(0, 1),
        batch.targets,
        lengths,
        batch.target_lengths,
        blank=BLANK,
        reduction="none",
    )
