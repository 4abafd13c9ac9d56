"""A network that names the label of every frame, trained with given alignments.

[S14] H. Sak, A. Senior, F. Beaufays, "Long Short-Term Memory Based Recurrent Neural Network
Architectures for Large Vocabulary Speech Recognition", arXiv 1402.1128, 2014.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.nn.encoders.encoder import Encoder
from pipeline.nn.layers import Linear, log_softmax
from pipeline.options import Options, option


@dataclass(frozen=True, kw_only=True)
class FramewiseConfig(Options):
    """Options of a `FramewiseModel`: keys of ``[framewise]`` in an architecture."""

    delay: int = option(
        5, "frames that the network reads before it names the label of a frame; 5 in [S14]",
        low=0, most=1000,
    )  # fmt: skip


class FramewiseModel(nn.Module):
    """An encoder with a softmax layer over K labels, without a blank: log Pr(label|frame), [S14].

    The output for a frame comes ``delay`` frames later, so that a unidirectional encoder has read
    that many frames more; after the last frame it reads this frame again.

    Attributes:
        delay: the number of frames.
        label_counts: (K,) frames of each label in the training data, for their prior.
    """

    label_counts: Tensor

    def __init__(self, encoder: Encoder, config: FramewiseConfig, *, num_tokens: int) -> None:
        super().__init__()
        if encoder.stride != 1:
            raise ConfigError(
                "a frame-wise network needs an output for each frame, but its encoder has one for "
                f"{encoder.stride} frames; set stack_frames and strides in [encoder] to 1"
            )
        self.encoder, self.delay = encoder, config.delay
        self.output = Linear(encoder.output_dim, num_tokens - 1)
        self.register_buffer("label_counts", torch.zeros(num_tokens - 1, dtype=torch.int64))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, F), (N,) -> log Pr(k|t), (N, T, K), and (N,); label k is column k - 1."""
        encoded, _ = self.encoder(lengthened(features, lengths, self.delay), lengths + self.delay)
        return log_softmax(self.output(encoded[:, self.delay :])), lengths

    def advance(
        self, states: Sequence[Any], chunks: Sequence[Tensor], ends: Sequence[bool]
    ) -> tuple[list[Any], list[Tensor]]:
        """The outputs (n, K) of the next frames (n, F) of several streams, each `delay` frames old.

        Gradients flow within the chunks. See `Encoder.advance`.
        """
        states, encoded = self.encoder.advance(states, chunks, ends)
        return states, [log_softmax(self.output(rows)) for rows in encoded]


def lengthened(features: Tensor, lengths: Tensor, count: int) -> Tensor:
    """(N, T, F) -> (N, T + count, F): each sequence's last frame is repeated ``count`` times."""
    if count == 0:
        return features
    t = torch.arange(features.shape[1] + count, device=features.device)
    last = (lengths.to(features.device) - 1).clamp(min=0)
    index = torch.minimum(t, last[:, None])
    return features.gather(1, index[:, :, None].expand(-1, -1, features.shape[2]))
