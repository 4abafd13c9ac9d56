"""The RNN transducer as an objective.

A. Graves, "Sequence Transduction with Recurrent Neural Networks", 2012, section 2; A. Graves,
A. Mohamed, G. Hinton, "Speech Recognition with Deep Recurrent Neural Networks", 2013, section 3.2.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pipeline.kernels.search.transducer import transducer_greedy
from pipeline.nn.layers import Linear, log_softmax
from pipeline.nn.models import TransducerModel
from pipeline.training.dataset import Batch
from pipeline.training.objectives.ctc import ctc_losses
from pipeline.training.objectives.objective import (
    DevScores,
    Metric,
    Objective,
    Tally,
    Total,
    is_broken,
)


class TransducerObjective(Objective):
    """The loss -ln Pr(y|x) of a transducer; errors are those of greedy decoding.

    With a ``ctc_weight`` w the loss is (1 - w) times the transducer loss plus w times a CTC loss,
    whose output layer on the encoder is not part of the model.
    """

    def __init__(self, model: TransducerModel, metric: Metric, *, ctc_weight: float = 0.0) -> None:
        super().__init__()
        self.model, self.token_metric, self.metric = model, metric, metric.name
        self.ctc_weight = ctc_weight
        if ctc_weight > 0.0:
            self.ctc_output = Linear(model.encoder.output_dim, model.num_tokens)
            self.auxiliary = nn.ModuleDict({"output": self.ctc_output})

    def losses(self, batch: Batch) -> Tensor:
        """See `Objective.losses`."""
        encoded, lengths = self.model.encoder(batch.features, batch.lengths)
        losses = self._losses(encoded, lengths, batch)
        if self.ctc_weight == 0.0:
            return losses
        log_probs = log_softmax(self.ctc_output(encoded))
        ctc = ctc_losses(log_probs, lengths, batch)
        possible = torch.isfinite(ctc)  # unlike a transducer, CTC needs a frame for each token
        return losses + self.ctc_weight * torch.where(possible, ctc - losses, 0.0)

    def _losses(self, encoded: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
        return self.model.losses(encoded, lengths, batch.targets, batch.target_lengths)

    def evaluate(self, batches: Iterable[Batch], total: Total = list) -> DevScores:
        """See `Objective.evaluate`."""
        tally = Tally(self.token_metric)
        for batch in batches:
            encoded, lengths = self.model.encoder(batch.features, batch.lengths)
            frames = self.model.joiner.project_encoder(encoded)
            hyps: list[list[int]] = [[] for _ in batch.utt_ids]
            if not is_broken(frames):
                hyps = transducer_greedy(frames, lengths, self.model)
            tally.add(self._losses(encoded, lengths, batch), batch, hyps)
        return tally.scores(total)
