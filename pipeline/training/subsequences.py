"""Utterances cut into subsequences, which several streams read side by side.

In H. Sak, A. Senior, F. Beaufays, "Long Short-Term Memory Based Recurrent Neural Network
Architectures for Large Vocabulary Speech Recognition", arXiv 1402.1128, 2014, an update reads the
next 20 frames of 4 or 8 utterances; the state is carried from one subsequence to the next, and
reset where an utterance begins.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pipeline.training.dataset import Batch, Utterance

Frames = tuple[Tensor, Tensor]  # all frames of an utterance, (T, F), and their targets, (T,)


@dataclass(frozen=True)
class Subsequence:
    """The frames ``first`` … ``last`` - 1 of what a stream reads of an utterance."""

    utterance: Utterance
    stream: int
    first: int
    last: int
    is_end: bool  # of the utterance


@dataclass(frozen=True)
class Subsequences(Batch):
    """A batch of subsequences: those of an update, or a process's part of them."""

    streams: tuple[int, ...]  # that each is read by
    begins: tuple[bool, ...]  # whether each begins an utterance
    ends: tuple[bool, ...]

    def each(self) -> Iterator["Subsequences"]:
        """Split the batch into batches of one subsequence."""
        for n, utt_id in enumerate(self.utt_ids):
            frames, one = int(self.lengths[n]), slice(n, n + 1)
            yield Subsequences(
                [utt_id],
                self.features[one, :frames],
                self.lengths[one],
                self.targets[one, :frames],
                self.target_lengths[one],
                self.streams[one],
                self.begins[one],
                self.ends[one],
            )


def cut(
    utterances: Sequence[Utterance], streams: int, size: int, delay: int
) -> list[list[Subsequence | None]]:
    """The subsequences of an epoch, a list of ``streams`` of them for each update.

    A stream that has read an utterance takes the next one of the list. At the end some streams have
    nothing left to read: None.

    Args:
        utterances: in the order in which they are taken.
        streams: the number of streams.
        size: the greatest number of frames of a subsequence.
        delay: frames that are read after an utterance's last, for outputs that come later.
    """
    left = iter(utterances)

    def read(stream: int) -> Iterator[Subsequence]:
        for utterance in left:
            yield from parts_of(utterance, stream, size, delay)

    readers = [read(stream) for stream in range(streams)]
    updates = []
    while any(update := [next(reader, None) for reader in readers]):
        updates.append(update)
    return updates


def parts_of(utterance: Utterance, stream: int, size: int, delay: int) -> Iterator[Subsequence]:
    """The subsequences of an utterance that a stream reads; see `cut`."""
    frames = utterance.num_frames + delay
    for first in range(0, frames, size):
        last = min(first + size, frames)
        yield Subsequence(utterance, stream, first, last, last == frames)


def make_subsequences(
    parts: Sequence[Subsequence], frames_of: Callable[[Utterance], Frames]
) -> Subsequences:
    """A batch of some subsequences, with 0 where a frame has no target."""
    features, targets = [], []
    for part in parts:
        frames, labels = frames_of(part.utterance)
        features.append(frames[part.first : part.last])
        targets.append(labels[part.first : part.last])
    return Subsequences(
        [part.utterance.utt_id for part in parts],
        pad_sequence(features, batch_first=True),
        torch.tensor([len(x) for x in features]),
        pad_sequence(targets, batch_first=True),
        torch.tensor([int((y > 0).sum()) for y in targets]),
        tuple(part.stream for part in parts),
        tuple(part.first == 0 for part in parts),
        tuple(part.is_end for part in parts),
    )


def with_delay(features: Tensor, labels: Sequence[int], delay: int) -> Frames:
    """What a stream reads of an utterance: its last frame comes ``delay`` more times.

    The target of frame t, of 0 … T - 1, stands at frame t + ``delay``.
    """
    frames = torch.cat([features, features[-1:].expand(delay, -1)])
    nothing = torch.zeros(delay, dtype=torch.int64)
    return frames, torch.cat([nothing, torch.tensor(labels, dtype=torch.int64)])
