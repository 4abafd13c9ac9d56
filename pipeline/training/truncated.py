"""Training by truncated backpropagation through time: updates of subsequences with carried states.

See `subsequences`.
"""

from collections.abc import Sequence
from typing import Any

import torch

from pipeline.training.dataset import Batch, Utterance
from pipeline.training.loop import Trainer
from pipeline.training.objectives.framewise import FramewiseObjective
from pipeline.training.randomness import generator
from pipeline.training.step import Counts
from pipeline.training.subsequences import (
    Frames,
    cut,
    make_subsequences,
    with_delay,
)
from pipeline.training.train_options import FramewiseTrainOptions

LAST = 4  # utterances of each stream at the end of an epoch that are read longest first


class TruncatedTrainer(Trainer):
    """A `Trainer` whose updates read the next subsequence of each of ``--streams`` utterances."""

    objective: FramewiseObjective
    options: FramewiseTrainOptions

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.objective.carried.reset()
        self._read: dict[str, Frames] = {}  # utterances that streams are reading

    def _batches(self, epoch: int) -> list[list[Any]]:
        """The subsequences of the updates, always in the order of their streams."""
        self._read.clear()
        delay = self.objective.model.delay
        return list(cut(self._order(epoch), self.options.streams, self.options.bptt, delay))

    def _order(self, epoch: int) -> list[Utterance]:
        """The utterances as the streams of an epoch take them."""
        order = torch.randperm(
            len(self.train), generator=generator(self.options.seed, "order", epoch)
        )
        utterances = [self.train[n] for n in order.tolist()]
        # Short ones last: updates of few streams alone would bias the weights to them.
        tail = LAST * self.options.streams
        utterances[-tail:] = sorted(utterances[-tail:], key=lambda u: -u.num_frames)
        return utterances

    def _finished(self, utterances: Sequence[Any]) -> int:
        return sum(part.is_end for part in utterances if part is not None)

    def _batch(self, epoch: int, parts: Sequence[Any]) -> Batch | None:
        present = [part for part in parts if part is not None]
        if not present:
            return None

        def frames_of(utterance: Utterance) -> Frames:
            if utterance.utt_id not in self._read:
                features = torch.from_numpy(self.reader.augmented(epoch, utterance))
                labels = self.objective.targets(utterance, len(features))
                self._read[utterance.utt_id] = with_delay(
                    features, labels, self.objective.model.delay
                )
            return self._read[utterance.utt_id]

        batch = make_subsequences(present, frames_of)
        for part in present:
            if part.is_end:
                del self._read[part.utterance.utt_id]
        return batch

    def _update(self, batch: Batch | None, noise: torch.Generator) -> Counts:
        counts = super()._update(batch, noise)
        self.objective.carried.commit()
        self._share_states()
        return counts

    def _share_states(self) -> None:
        """Give all processes the states of all streams: the first one writes the checkpoints."""
        if self.world.size == 1:
            return
        carried = self.objective.carried.leaves()
        for stream, leaves in enumerate(carried):
            if stream % self.world.size != self.world.rank:  # see `World.share`
                for leaf in leaves:
                    leaf.zero_()
        self.world.add_up([leaf for leaves in carried for leaf in leaves])
