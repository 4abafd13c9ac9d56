"""The encoder of both Graves papers: a stack of recurrent layers, bidirectional by default.

[G13] A. Graves, A. Mohamed, G. Hinton, "Speech Recognition with Deep Recurrent Neural Networks",
2013.
[S14] H. Sak, A. Senior, F. Beaufays, "Long Short-Term Memory Recurrent Neural Network Architectures
for Large Scale Acoustic Modeling", 2014.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.kernels.ragged import layout, pack, unpack
from pipeline.kernels.recurrent.plain import State
from pipeline.nn.encoders.encoder import Encoder, EncoderConfig
from pipeline.nn.layers import MOST_CELLS, RecurrentLayer
from pipeline.options import REQUIRED, option, require


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig(EncoderConfig):
    """Options of a `RecurrentEncoder`."""

    kind: str = option("recurrent", "kind of encoder", choices=("recurrent",))
    layers: int = option(REQUIRED, "number of recurrent layers", low=1, most=1000)
    cells: int = option(REQUIRED, "number of cells per layer and direction", low=1, most=MOST_CELLS)
    cell: str = option(
        "lstm",
        "kind of cell: lstm (with peepholes, [G13] eq. 3-7) or tanh",
        choices=("lstm", "tanh"),
    )
    bidirectional: bool = option(True, "read in both directions in every layer, [G13] eq. 8-10")
    projection: int = option(
        0,
        "size of the recurrent projection of each direction [S14]; 0: no projection",
        low=0,
        most=MOST_CELLS,
    )
    nonrecurrent_projection: int = option(
        0,
        "size of the non-recurrent projection of each direction [S14], beside the recurrent one; "
        "0: none",
        low=0,
        most=MOST_CELLS,
    )
    stack_frames: int = option(
        1, "number of frames that are joined to one input vector; 1 in the papers", low=1, most=1000
    )
    dropout: float = option(
        0.0, "probability of dropout on the output of each layer; 0 in the papers", low=0, below=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.projection or self.cell == "lstm", "projection", "0 for a cell without a state"
        )
        require(
            not self.nonrecurrent_projection or self.projection > 0,
            "nonrecurrent-projection",
            "0 without a recurrent projection",
        )

    def build(self) -> "RecurrentEncoder":
        """Make the network; its weights are not initialised."""
        return RecurrentEncoder(self)


class StreamState(NamedTuple):
    """What a stream leaves behind."""

    frames: Tensor  # (n, F), n < stack_frames, that are not joined to a vector yet
    layers: tuple[State, ...]  # of each layer, N = 1


class RecurrentEncoder(Encoder):
    """Recurrent layers over the frames, [G13] eq. 11."""

    learns_in_parts: ClassVar[bool] = True

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.stride, self.input_dim = config.stack_frames, config.input_dim
        self.is_bidirectional = config.bidirectional
        layers: list[RecurrentLayer] = []
        dim = config.input_dim * config.stack_frames
        for _ in range(config.layers):
            layer = RecurrentLayer(
                input_dim=dim,
                cells=config.cells,
                cell=config.cell,
                bidirectional=config.bidirectional,
                projection=config.projection,
                nonrecurrent=config.nonrecurrent_projection,
            )
            layers.append(layer)
            dim = layer.output_dim
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(config.dropout)
        self.output_dim = dim

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """T' = ceil(T / stack_frames)."""
        return (lengths + self.stride - 1) // self.stride

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The hidden vectors of the last layer: (N, T, F) -> (N, T', D·H); see `Encoder`."""
        x = stack_frames(features, lengths, self.stride)
        lengths = self.output_lengths(lengths)
        ragged = layout(lengths, x.shape[1])
        rows = pack(x, ragged)
        for depth, layer in enumerate(self.layers):
            rows = layer(self.dropout(rows) if depth else rows, ragged)
        return unpack(self.dropout(rows), ragged), lengths

    def _recurrent(self) -> list[RecurrentLayer]:
        return [layer for layer in self.layers if isinstance(layer, RecurrentLayer)]

    def whole_only(self) -> str:
        """Why a bidirectional encoder reads only whole utterances."""
        if not self.is_bidirectional:
            return ""
        return (
            "its layers read each utterance in both directions; train one with "
            "bidirectional = false in [encoder]"
        )

    def start(self) -> StreamState:
        """The state of a stream before its first frame."""
        states = tuple(layer.start(1) for layer in self._recurrent())
        return StreamState(states[0].h.new_zeros(0, self.input_dim), states)

    def advance(
        self, states: Sequence[StreamState], chunks: Sequence[Tensor], ends: Sequence[bool]
    ) -> tuple[list[StreamState], list[Tensor]]:
        """Encode the next frames of several streams at once; see `Encoder`."""
        kept, vectors = [], []
        for state, chunk, is_end in zip(states, chunks, ends, strict=True):
            frames = torch.cat([state.frames, chunk])
            count = len(frames) if is_end else len(frames) // self.stride * self.stride
            kept.append(frames[count:].clone())
            vectors.append(
                stack_frames(frames[None, :count], torch.tensor([count]), self.stride)[0]
            )
        lengths = torch.tensor([len(one) for one in vectors], device=vectors[0].device)
        ragged = layout(lengths, int(lengths.max()))
        rows = pack(nn.utils.rnn.pad_sequence(vectors, batch_first=True), ragged)
        layers = []
        for depth, layer in enumerate(self._recurrent()):
            h, c = zip(*(state.layers[depth] for state in states), strict=True)
            rows = self.dropout(rows) if depth else rows
            rows, after = layer.advance(rows, ragged, State(torch.cat(h), torch.cat(c)))
            layers.append([State(*one) for one in zip(*map(_each, after), strict=True)])
        encoded = unpack(self.dropout(rows), ragged)
        outputs = [encoded[n, :count] for n, count in enumerate(lengths.tolist())]
        new = zip(kept, zip(*layers, strict=True), strict=True)
        return [StreamState(*one) for one in new], outputs


def _each(x: Tensor) -> list[Tensor]:
    """(N, H) -> N tensors (1, H) with memory of their own."""
    return [x[n : n + 1].clone() for n in range(len(x))]


def stack_frames(x: Tensor, lengths: Tensor, count: int) -> Tensor:
    """Join each ``count`` frames to one vector: (N, T, F) -> (N, ceil(T/count), count·F).

    The last group is filled with zeros whatever the padding holds, so the values of an utterance
    do not depend on its batch.
    """
    if count == 1:
        return x
    n, num_frames, dim = x.shape
    missing = -num_frames % count
    inside = torch.arange(num_frames, device=lengths.device) < lengths[:, None]
    x = x.masked_fill(~inside[:, :, None], 0.0)
    x = torch.nn.functional.pad(x, (0, 0, 0, missing))
    return x.reshape(n, -1, count * dim)
