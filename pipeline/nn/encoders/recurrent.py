"""The encoder: Graves 2012's transcription network, deep and bidirectional as in 2013."""

import torch
from torch import Tensor, nn

from pipeline.kernels.ragged import layout, pack, unpack
from pipeline.nn.config import EncoderConfig
from pipeline.nn.layers import RecurrentLayer


class Encoder(nn.Module):
    """Recurrent layers over the frames, each over both directions of the one below [G13] eq. 11."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.stack_frames = config.stack_frames
        layers = []
        dim = config.input_dim * config.stack_frames
        for _ in range(config.layers):
            layer = RecurrentLayer(
                input_dim=dim,
                cells=config.cells,
                cell=config.cell,
                bidirectional=config.bidirectional,
            )
            layers.append(layer)
            dim = layer.output_dim
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(config.dropout)
        self.output_dim = dim

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden vectors of the uppermost layer.

        Args:
            features: (N, T, F), anything in the padding.
            lengths: (N,) frames.

        Returns:
            (N, T', D·H) and (N,) lengths, T' = ceil(T / stack_frames).
        """
        x, lengths = stack_frames(features, lengths, self.stack_frames)
        ragged = layout(lengths, x.shape[1])
        rows = pack(x, ragged)
        for depth, layer in enumerate(self.layers):
            rows = layer(self.dropout(rows) if depth else rows, ragged)
        return unpack(self.dropout(rows), ragged), lengths


def stack_frames(x: Tensor, lengths: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Put ``count`` frames beside each other: (N, T, F) -> (N, ceil(T/count), count·F).

    What the last group lacks is zero, whatever the padding holds, so an utterance's values do not
    depend on its batch.
    """
    if count == 1:
        return x, lengths
    n, num_frames, dim = x.shape
    missing = -num_frames % count
    inside = torch.arange(num_frames, device=lengths.device) < lengths[:, None]
    x = x.masked_fill(~inside[:, :, None], 0.0)
    x = torch.nn.functional.pad(x, (0, 0, 0, missing))
    return x.reshape(n, -1, count * dim), (lengths + count - 1) // count
