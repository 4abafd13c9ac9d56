"""Frame-wise cross-entropy as an objective: the label of every frame is given.

[S14] H. Sak, A. Senior, F. Beaufays, "Long Short-Term Memory Based Recurrent Neural Network
Architectures for Large Vocabulary Speech Recognition", arXiv 1402.1128, 2014.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.nn.models import FramewiseModel
from pipeline.training.dataset import Batch, Utterance
from pipeline.training.objectives.objective import DevScores, Objective, Total
from pipeline.training.subsequences import Subsequences


class FramewiseObjective(Objective):
    """The loss -Σ_t ln Pr(label_t|t); errors are frames whose label is not the most probable one.

    The frame accuracy of [S14] is 100 % minus this error. With subsequences of a `streams` number
    of utterances, of which each goes on from the state that its last one left (truncated
    backpropagation through time), `losses` notes the states after them, and `commit` takes these
    over once the update is made.
    """

    metric = "frame error"
    reads_alignments: ClassVar[bool] = True

    def __init__(self, model: FramewiseModel, *, streams: int = 0) -> None:
        super().__init__()
        self.model, self.streams = model, streams
        if streams:
            if reason := model.encoder.whole_only():
                raise UsageError(
                    f"--bptt cuts utterances, but this encoder cannot read parts: {reason}, or "
                    "give --bptt=0 to train with whole utterances"
                )
            if not model.encoder.learns_in_parts:
                raise UsageError(
                    "--bptt cuts utterances, but this encoder learns from whole ones (Deep Speech "
                    "2: its batch normalisation and its convolutions read all frames of a batch); "
                    "give --bptt=0"
                )
            self.carried = CarriedStates(model, streams)
            self.auxiliary = self.carried

    def prepare(self, train: Sequence[Utterance]) -> None:
        """Count the labels of the training data, for their prior."""
        counts = self.model.label_counts
        counts.zero_()
        for utterance in train:
            labels = torch.tensor(utterance.tokens, dtype=torch.int64, device=counts.device)
            counts += torch.bincount(labels - 1, minlength=len(counts))

    def targets(self, utterance: Utterance, frames: int) -> Sequence[int]:
        """The label of each frame; of another number of frames, the label at the same place."""
        labels = utterance.tokens
        if frames == len(labels):
            return labels
        return [labels[(2 * t + 1) * len(labels) // (2 * frames)] for t in range(frames)]

    def losses(self, batch: Batch) -> Tensor:
        """See `Objective.losses`."""
        if isinstance(batch, Subsequences):
            log_probs = self._of_subsequences(batch)
        else:
            log_probs, _ = self.model(batch.features, batch.lengths)
        return -_picked(log_probs, batch.targets).sum(dim=1)

    def _of_subsequences(self, batch: Subsequences) -> Tensor:
        """(N, n, K), zero in the padding."""
        lengths = batch.lengths.tolist()
        chunks = [x[:n] for x, n in zip(batch.features, lengths, strict=True)]
        states = [
            self.model.encoder.start() if is_first else self.carried.states[stream]
            for stream, is_first in zip(batch.streams, batch.begins, strict=True)
        ]
        states, outputs = self.model.advance(states, chunks, batch.ends)
        if [len(rows) for rows in outputs] != lengths:
            raise UsageError(
                "--bptt needs an output for each frame as soon as it is read, but this encoder "
                "looks ahead; give --bptt=0 to train with whole utterances"
            )
        self.carried.note(batch.streams, states)
        return nn.utils.rnn.pad_sequence(outputs, batch_first=True)

    def evaluate(self, batches: Iterable[Batch], total: Total = list) -> DevScores:
        """See `Objective.evaluate`."""
        nats, wrong, frames = 0.0, 0, 0
        for batch in batches:
            log_probs, _ = self.model(batch.features, batch.lengths)
            nats -= float(_picked(log_probs, batch.targets).double().sum())
            known = batch.targets > 0
            wrong += int(((log_probs.argmax(dim=2) + 1 != batch.targets) & known).sum())
            frames += int(known.sum())
        nats, wrong_in_all, frames_in_all = total((nats, wrong, frames))
        return DevScores(nats / max(frames_in_all, 1), 100.0 * wrong_in_all / max(frames_in_all, 1))


def _picked(log_probs: Tensor, targets: Tensor) -> Tensor:
    """The log-probability of each target, (N, T); 0 where there is none, that is, at target 0."""
    labels = (targets - 1).clamp(min=0)[:, :, None]
    return log_probs.gather(2, labels).squeeze(2).masked_fill(targets == 0, 0.0)


class CarriedStates(nn.Module):
    """The states from which the next subsequences of the streams go on, as a checkpoint keeps them.

    Attributes:
        states: that of each stream after its last committed subsequence.
    """

    def __init__(self, model: FramewiseModel, streams: int) -> None:
        super().__init__()
        self._model = [model]  # in a list, as its weights are not this module's
        self._count, self._noted = streams, dict[int, Any]()
        self.reset()

    def reset(self) -> None:
        """Begin all streams anew, on the device where the model is now."""
        self.states = [self._model[0].encoder.start() for _ in range(self._count)]

    def note(self, streams: Sequence[int], states: Sequence[Any]) -> None:
        """Keep the states after an update that is not made yet."""
        self._noted.update(zip(streams, states, strict=True))

    def commit(self) -> None:
        """Take over what was noted."""
        for stream, state in self._noted.items():
            self.states[stream] = state
        self._noted.clear()

    def leaves(self) -> list[list[Tensor]]:
        """The tensors of each stream's state."""
        return [list(_leaves(state)) for state in self.states]

    def get_extra_state(self) -> list[list[Tensor]]:
        """For the checkpoint."""
        return [[leaf.cpu() for leaf in leaves] for leaves in self.leaves()]

    def set_extra_state(self, state: list[list[Tensor]]) -> None:
        """Of a checkpoint. Raises ValueError if it is of another model."""
        like = self._model[0].encoder.start()
        if len(state) != len(self.states):
            raise ValueError(f"it has the states of {len(state)} streams")
        for stream, leaves in enumerate(state):
            wanted = list(_leaves(like))
            if [x.shape for x in leaves] != [x.shape for x in wanted]:
                raise ValueError("the states of its streams are of other shapes")
            moved = (x.to(y.device, y.dtype) for x, y in zip(leaves, wanted, strict=True))
            self.states[stream] = _rebuilt(like, moved)


def _leaves(state: Any) -> Iterable[Tensor]:
    """The tensors of nested tuples, in order."""
    if isinstance(state, Tensor):
        yield state
    else:
        for part in state:
            yield from _leaves(part)


def _rebuilt(like: Any, leaves: Iterable[Tensor]) -> Any:
    """Nested tuples of the form of ``like`` with other tensors."""
    left = iter(leaves)

    def build(part: Any) -> Any:
        if isinstance(part, Tensor):
            return next(left)
        parts = [build(one) for one in part]
        return type(part)(*parts) if hasattr(part, "_fields") else tuple(parts)

    return build(like)
