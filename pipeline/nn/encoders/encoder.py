"""The interface of all encoders: frames in, vectors at a known rate out.

A new encoder is a file beside this one, with a class that derives from `Encoder` and one for its
options that derives from `EncoderConfig`, and a ``case`` in `kinds.encoder_config`.

[G12] A. Graves, "Sequence Transduction with Recurrent Neural Networks", 2012.
[G13] A. Graves, A. Mohamed, G. Hinton, "Speech Recognition with Deep Recurrent Neural Networks",
2013.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pipeline.nn.layers import MOST_CELLS
from pipeline.options import REQUIRED, Options, option


class Encoder(nn.Module):
    """Base class of encoders, such as the transcription network of [G12].

    Attributes:
        output_dim: the size E of the output vectors.
        stride: the number of input frames from one output vector to the next.
        learns_in_parts: whether `advance` trains as `forward` does, with dropout and without
            statistics of the batch, and gives a vector for each frame as soon as it is read.
    """

    output_dim: int
    stride: int = 1
    learns_in_parts: ClassVar[bool] = False

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """The number of output vectors, (N,), for these numbers of input frames, (N,).

        More frames never give fewer vectors.
        """
        return lengths

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Args:
            features: (N, T, F), with any values in the padding.
            lengths: the number of frames of each utterance, (N,).

        Returns:
            The output vectors, (N, T', E), and the `output_lengths`, (N,).
        """
        raise NotImplementedError

    # ---- streams: an utterance that comes in chunks ----------------------------------------------

    def whole_only(self) -> str:
        """Why this encoder reads only whole utterances; empty for one that can read streams."""
        return f"a {type(self).__name__} reads only whole utterances"

    def start(self) -> Any:
        """The state of a stream before its first frame."""
        raise NotImplementedError

    def advance(
        self, states: Sequence[Any], chunks: Sequence[Tensor], ends: Sequence[bool]
    ) -> tuple[list[Any], list[Tensor]]:
        """Encode the next frames of several streams at once.

        However a stream is cut, in evaluation mode its output vectors are together those of
        `forward`, bit for bit. In training gradients flow within the chunks, not between them.

        Args:
            states: the state of each stream, of `start` or of the last `advance`.
            chunks: the next frames of each stream, (n, F), n ≥ 0.
            ends: whether each stream ends with its chunk, so that all of its vectors come out.

        Returns:
            The new states, and the output vectors of each stream that are final now, (m, E), m ≥ 0.
        """
        raise NotImplementedError

    def frames_for(self, outputs: int) -> int:
        """The minimum number of frames for at least ``outputs`` output vectors."""

        def enough(frames: int) -> bool:
            return int(self.output_lengths(torch.tensor([frames]))[0]) >= outputs

        high = 1
        while not enough(high):
            high *= 2
        low = high // 2  # too few frames
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(Options):
    """Options that all encoders have: keys of ``[encoder]`` in an architecture.

    Each kind of encoder derives its own class, whose ``kind`` is the name of the kind.
    """

    kind: str = option("recurrent", "kind of encoder")
    input_dim: int = option(
        REQUIRED, "number of features per frame; 26 in [G12], 123 in [G13]", low=1, most=MOST_CELLS
    )

    def build(self) -> Encoder:
        """Make the network; its weights are not initialised."""
        raise NotImplementedError
