"""The encoder of Deep Speech 2: convolutions, recurrent layers, fully connected layers.

[DS2] D. Amodei et al., "Deep Speech 2: End-to-End Speech Recognition in English and Mandarin",
ICML 2016 (numbers of tables and equations), and arXiv 1512.02595.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.kernels.ragged import layout, pack, unpack
from pipeline.kernels.recurrent.plain import State
from pipeline.nn.deep_speech2 import (
    ConvolutionLayer,
    FullyConnectedLayer,
    RowConvolution,
    SummedRecurrentLayer,
)
from pipeline.nn.encoders.encoder import Encoder, EncoderConfig
from pipeline.nn.layers import MOST_CELLS
from pipeline.options import REQUIRED, option, require


@dataclass(frozen=True, kw_only=True)
class DeepSpeech2Config(EncoderConfig):
    """Options of a `DeepSpeech2Encoder`; lists have one item for each convolution."""

    kind: str = option("deep_speech2", "kind of encoder", choices=("deep_speech2",))
    channels: tuple[int, ...] = option(
        REQUIRED, "channels of each convolution, 1-3 of them in [DS2]", low=1, most=MOST_CELLS
    )
    time_kernels: tuple[int, ...] = option(
        REQUIRED, "frames that each convolution reads, an odd number", low=1, most=1000
    )
    time_strides: tuple[int, ...] = option(
        REQUIRED, "frames from one output of each convolution to the next", low=1, most=1000
    )
    freq_kernels: tuple[int, ...] = option(
        (),
        "frequencies that each convolution reads, an odd number; none: it reads all, as 1-D "
        "convolutions of [DS2] do",
        low=1,
        most=1000,
    )
    freq_strides: tuple[int, ...] = option(
        (), "frequencies from one output of each 2-D convolution to the next", low=1, most=1000
    )
    layers: int = option(REQUIRED, "number of recurrent layers; 1-7 in [DS2]", low=1, most=1000)
    cells: int = option(REQUIRED, "number of units of each recurrent layer", low=1, most=MOST_CELLS)
    cell: str = option(
        "relu",
        "kind of recurrent unit: relu (clipped, [DS2] eq. 4), gru (its candidate a clipped ReLU) "
        "or gru_tanh",
        choices=("relu", "gru", "gru_tanh"),
    )
    bidirectional: bool = option(True, "read in both directions in every recurrent layer")
    batch_norm: bool = option(True, "sequence-wise batch normalisation in every layer")
    lookahead: int = option(
        0,
        "frames τ after each that the row convolution above the recurrent layers reads, [DS2] "
        "eq. 5; 80 there; 0: no row convolution",
        low=0,
        most=10000,
    )
    fully_connected: int = option(
        1, "number of fully connected layers before the output layer", low=0, most=1000
    )
    fully_connected_cells: int = option(
        0, "units of each fully connected layer; 0: as the recurrent ones", low=0, most=MOST_CELLS
    )
    dropout: float = option(
        0.0, "probability of dropout between the layers; 0 in [DS2]", low=0, below=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.channels)
        require(1 <= count <= 100, "channels", "a list of at least one number")
        for name in ("time_kernels", "time_strides"):
            require(len(getattr(self, name)) == count, name, f"a list of {count}, as of channels")
        for name in ("freq_kernels", "freq_strides"):
            several = 0 if not self.freq_kernels else count
            what = f"a list of {count}, as of channels, or none for 1-D convolutions"
            require(len(getattr(self, name)) in (several, count), name, what)
            require(bool(getattr(self, name)) == bool(self.freq_kernels), name, what)
        for name in ("time_kernels", "freq_kernels"):
            require(all(k % 2 == 1 for k in getattr(self, name)), name, "odd numbers")
        pairs = zip(self.time_strides, self.time_kernels, strict=True)
        require(all(s <= k for s, k in pairs), "time_strides", "at most the time_kernels")
        require(
            not (self.bidirectional and self.lookahead),
            "lookahead",
            "0 for bidirectional layers, which see all that follows",
        )

    def build(self) -> "DeepSpeech2Encoder":
        """Make the network; its weights are not initialised."""
        return DeepSpeech2Encoder(self)


class StreamState(NamedTuple):
    """What the next frames of a stream need of those before."""

    convolutions: list[Tensor]  # frames that the next outputs of each read, (k, F·C)
    hidden: list[Tensor]  # h of each recurrent layer, (H,)
    rows: Tensor | None  # hidden vectors that wait for those after them, (≤ τ, H)


class DeepSpeech2Encoder(Encoder):
    """Convolutions, recurrent layers, perhaps a row convolution, fully connected layers."""

    convolutions: Iterable[ConvolutionLayer]
    layers: Iterable[SummedRecurrentLayer]
    fully_connected: Iterable[FullyConnectedLayer]

    def __init__(self, config: DeepSpeech2Config) -> None:
        super().__init__()
        self.stride = math.prod(config.time_strides)
        self.bidirectional = config.bidirectional
        convolutions = _convolutions(config)
        dim = convolutions[-1].output_dim
        layers, fully_connected = [], []
        for _ in range(config.layers):
            layer = SummedRecurrentLayer(
                input_dim=dim,
                cells=config.cells,
                cell=config.cell,
                bidirectional=config.bidirectional,
                batch_norm=config.batch_norm,
            )
            layers.append(layer)
            dim = layer.output_dim
        self.rows = RowConvolution(dim, lookahead=config.lookahead) if config.lookahead else None
        for _ in range(config.fully_connected):
            width = config.fully_connected_cells or config.cells
            fully_connected.append(
                FullyConnectedLayer(input_dim=dim, output_dim=width, batch_norm=config.batch_norm)
            )
            dim = width
        self.convolutions = nn.ModuleList(convolutions)  # type: ignore[assignment]
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]
        self.fully_connected = nn.ModuleList(fully_connected)  # type: ignore[assignment]
        self.dropout = nn.Dropout(config.dropout)
        self.output_dim = dim

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """T' = ceil(T / stride) for the stride of each convolution in turn."""
        for convolution in self.convolutions:
            lengths = convolution.output_lengths(lengths)
        return lengths

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, F) -> (N, T', E); see `Encoder`."""
        ragged = layout(lengths, features.shape[1])
        rows = pack(features, ragged)
        for convolution in self.convolutions:
            lengths = convolution.output_lengths(lengths)
            x = convolution.convolve(unpack(rows, ragged), lengths, pads=True)
            ragged = layout(lengths, x.shape[1])
            rows = convolution.finish(pack(x, ragged))  # so that padding never matters
        for layer in self.layers:
            rows = layer(self.dropout(rows), ragged)
        if self.rows is not None:
            rows = self.rows(rows, ragged)
        for fully_connected in self.fully_connected:
            rows = fully_connected(self.dropout(rows))
        return unpack(self.dropout(rows), ragged), lengths

    # ---- streams ---------------------------------------------------------------------------------

    def whole_only(self) -> str:
        """See `Encoder`."""
        if not self.bidirectional:
            return ""
        return (
            "its recurrent layers read an utterance in both directions; a Deep Speech 2 encoder "
            "with bidirectional = false, and lookahead for a row convolution, reads streams"
        )

    def start(self) -> StreamState:
        """See `Encoder`."""
        return StreamState(
            [convolution.start() for convolution in self.convolutions],
            [layer.w_hidden.new_zeros(layer.output_dim) for layer in self.layers],
            None if self.rows is None else self.rows.start(),
        )

    def advance(
        self, states: Sequence[StreamState], chunks: Sequence[Tensor], ends: Sequence[bool]
    ) -> tuple[list[StreamState], list[Tensor]]:
        """See `Encoder`."""
        pending: list[list[Tensor]] = []
        encoded: list[Tensor] = []
        for state, chunk, end in zip(states, chunks, ends, strict=True):
            pending.append([])
            for convolution, before in zip(self.convolutions, state.convolutions, strict=True):
                after, chunk = convolution.advance(before, chunk, ends=end)
                pending[-1].append(after)
            encoded.append(chunk)
        encoded, hidden = self._recur(encoded, [state.hidden for state in states])
        waiting: list[Tensor | None] = [None] * len(states)
        if self.rows is not None:
            for n, (state, end) in enumerate(zip(states, ends, strict=True)):
                assert state.rows is not None
                waiting[n], encoded[n] = self.rows.advance(state.rows, encoded[n], ends=end)
        for layer in self.fully_connected:
            encoded = [layer(rows) for rows in encoded]
        return [
            StreamState(*parts) for parts in zip(pending, hidden, waiting, strict=True)
        ], encoded

    def _recur(
        self, chunks: list[Tensor], hidden: list[list[Tensor]]
    ) -> tuple[list[Tensor], list[list[Tensor]]]:
        """The recurrent layers of all streams at once."""
        lengths = torch.tensor([len(chunk) for chunk in chunks])
        x = nn.utils.rnn.pad_sequence(chunks, batch_first=True)
        ragged = layout(lengths.to(x.device), x.shape[1])
        rows, after = pack(x, ragged), []
        for depth, layer in enumerate(self.layers):
            h = torch.stack([layers[depth] for layers in hidden])
            rows, state = layer.advance(rows, ragged, State(h, h.new_zeros(len(h), 0)))
            after.append(state.h)
        padded = unpack(rows, ragged)
        out = [vectors[:length] for vectors, length in zip(padded, lengths.tolist(), strict=True)]
        return out, [list(layers) for layers in zip(*after, strict=True)]


def _convolutions(config: DeepSpeech2Config) -> list[ConvolutionLayer]:
    """The convolutions, each of which reads what the one before gives."""
    is_2d = bool(config.freq_kernels)
    count = len(config.channels)
    channels, frequencies = (1, config.input_dim) if is_2d else (config.input_dim, 1)
    kernels = zip(config.freq_kernels or (1,) * count, config.time_kernels, strict=True)
    strides = zip(config.freq_strides or (1,) * count, config.time_strides, strict=True)
    layers = []
    for width, kernel, stride in zip(config.channels, kernels, strides, strict=True):
        layer = ConvolutionLayer(
            channels=(channels, width),
            frequencies=frequencies,
            kernel=kernel,
            stride=stride,
            batch_norm=config.batch_norm,
        )
        layers.append(layer)
        channels, frequencies = width, layer.output_frequencies
    return layers
