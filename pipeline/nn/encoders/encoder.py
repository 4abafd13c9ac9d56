"""What every encoder is, whatever is inside: frames in, vectors at a known rate out.

A new encoder is a file beside this one, with a class that derives from `Encoder` and its options in
one that derives from `EncoderConfig`, and a ``case`` in `kinds.encoder_config`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.options import REQUIRED, Options, option


class Encoder(nn.Module):
    """Graves 2012's transcription network, deep and bidirectional as in 2013, or another one.

    Attributes:
        output_dim: E, size of a vector that comes out.
        stride: frames of the input from one output to the next.
    """

    output_dim: int
    stride: int = 1

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Vectors that come out of sequences of so many frames, (N,) -> (N,); never falling."""
        return lengths

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Args:
            features: (N, T, F), anything in the padding.
            lengths: (N,) frames.

        Returns:
            (N, T', E) and (N,) lengths, those of `output_lengths`.
        """
        raise NotImplementedError

    def frames_for(self, outputs: int) -> int:
        """The fewest frames of which at least ``outputs`` vectors come out."""

        def enough(frames: int) -> bool:
            return int(self.output_lengths(torch.tensor([frames]))[0]) >= outputs

        high = 1
        while not enough(high):
            high *= 2
        low = high // 2  # too few, or 0
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(Options):
    """Options that all encoders have: the keys of ``[encoder]`` in an architecture.

    Each kind of encoder has a class of its own, whose ``kind`` is its name.
    """

    kind: str = option("recurrent", "kind of encoder")
    input_dim: int = option(REQUIRED, "features a frame: 123 [G13], 26 [G12]", low=1)

    def build(self) -> Encoder:
        """The network, its weights not yet drawn."""
        raise NotImplementedError
