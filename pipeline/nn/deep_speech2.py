"""The layers of Deep Speech 2: convolutions, recurrent layers, row convolution, fully connected.

Every layer takes and gives rows or padded frames with the values of C channels at F frequencies
(F·C values, a frequency's together), and ends in batch normalisation, if it has it, and a clipped
ReLU min(max(x, 0), 20). In evaluation a frame's values do not depend on the batch, to the bit.

[DS2] D. Amodei et al., "Deep Speech 2: End-to-End Speech Recognition in English and Mandarin",
ICML 2016 (numbers of equations), and arXiv 1512.02595.
"""

import math

import torch
from torch import Tensor, nn

from pipeline.kernels.convolution.layer import convolution, shape_of
from pipeline.kernels.linear import linear_rows
from pipeline.kernels.ragged import Ragged, layout
from pipeline.kernels.recurrent.layer import advance_sweep, sweep_rows
from pipeline.kernels.recurrent.plain import CLIP, GATES, Recurrence, State
from pipeline.kernels.row_convolution.layer import row_convolution
from pipeline.nn.layers import draw_uniform
from pipeline.nn.sequence_norm import SequenceNorm

DEFAULT_SCALE = 0.1  # of --init-scale, for which the layers here draw the limits that they state


def clipped_relu(x: Tensor) -> Tensor:
    """min(max(x, 0), 20)."""
    return nn.functional.hardtanh(x, 0.0, CLIP)


def draw_by_inputs(
    weight: nn.Parameter, inputs: int, gain: float, scale: float, generator: torch.Generator
) -> None:
    """Draw uniformly from ±√(gain / inputs), for the default scale.

    With gain = 6 the values keep their size through a ReLU: K. He et al., "Delving Deep into
    Rectifiers", 2015.
    """
    draw_uniform([weight], scale / DEFAULT_SCALE * math.sqrt(gain / inputs), generator)


class Shifted(nn.Module):
    """B(x) of [DS2] eq. 4 where a layer has batch normalisation, else x + b."""

    def __init__(self, channels: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.norm = SequenceNorm(channels) if batch_norm else None
        self.bias = None if batch_norm else nn.Parameter(torch.zeros(channels))

    def forward(self, rows: Tensor) -> Tensor:
        """(R, K·C) -> (R, K·C)."""
        if self.norm is not None:
            y: Tensor = self.norm(rows)
            return y
        assert self.bias is not None
        return rows + self.bias.repeat(rows.shape[1] // len(self.bias)).to(rows.dtype)


class ConvolutionLayer(nn.Module):
    """A convolution over time, or over frequency and time, of C_in channels into C_out.

    Kernels are odd and centred, and zeros continue both axes ("same"): F' = ceil(F / stride)
    and T' = ceil(T / stride).

    Args:
        channels: C_in and C_out.
        frequencies: the number F of frequencies; 1 for a convolution over time only.
        kernel: frequencies and frames that an output reads.
        stride: steps in frequency and time from one output to the next.
        batch_norm: whether it has batch normalisation.
    """

    def __init__(
        self,
        *,
        channels: tuple[int, int],
        frequencies: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        batch_norm: bool,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels[1], channels[0], *kernel))
        self.after = Shifted(channels[1], batch_norm=batch_norm)
        self.frequencies, self.kernel, self.stride = frequencies, kernel, stride
        self.output_frequencies = -(-frequencies // stride[0])
        self.input_dim = channels[0] * frequencies
        self.output_dim = channels[1] * self.output_frequencies

    def initialise(self, scale: float, generator: torch.Generator) -> None:
        """See `pipeline.nn.layers.initialise`."""
        draw_by_inputs(self.weight, self.weight[0].numel(), 6.0, scale, generator)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """T' = ceil(T / stride)."""
        return (lengths + self.stride[1] - 1) // self.stride[1]

    def convolve(self, x: Tensor, counts: Tensor, *, pads: bool) -> Tensor:
        """The convolution alone.

        Args:
            x: (N, T, F·C), zero in the padding.
            counts: (N,) the number of outputs of each sequence.
            pads: whether zeros continue the frames; else only whole kernels are read.

        Returns:
            (N, T', F'·C').
        """
        channels = self.input_dim // self.frequencies
        frames = x.view(*x.shape[:2], self.frequencies, channels)
        weight, frames = _cast(self.weight, frames)
        shape = shape_of(weight, self.stride, pads_time=pads)
        return convolution(frames, weight, counts, shape).flatten(2)

    def finish(self, rows: Tensor) -> Tensor:
        """What follows on the rows of the valid frames: (R, F'·C') -> (R, F'·C')."""
        return clipped_relu(self.after(rows))

    # ---- streams ---------------------------------------------------------------------------------

    def start(self) -> Tensor:
        """The frames before the first that the first output reads: zeros, (kernel // 2, F·C)."""
        return self.weight.new_zeros(self.kernel[1] // 2, self.input_dim)

    def advance(self, pending: Tensor, chunk: Tensor, *, ends: bool) -> tuple[Tensor, Tensor]:
        """The frames that later outputs read, and the outputs (m, F'·C') that are known now."""
        parts = [pending, chunk]
        if ends:
            parts.append(chunk.new_zeros(self.kernel[1] // 2, self.input_dim))
        frames = torch.cat(parts)
        size, step = self.kernel[1], self.stride[1]
        count = max(0, (len(frames) - size) // step + 1)
        if count == 0:
            return frames, chunk.new_zeros(0, self.output_dim)
        read = frames[: (count - 1) * step + size]
        rows = self.convolve(read[None], torch.tensor([count]), pads=False)[0]
        return frames[count * step :], self.finish(rows)


class SummedRecurrentLayer(nn.Module):
    """A recurrent layer of H units: f(B(W x_t) + U h_{t-1}), [DS2] eq. 4, or gated units.

    The two directions of a bidirectional layer share W and their outputs are added, so that it has
    GF + D·GH weights without those of B, G = H or 3H for gated units: the only reading that gives
    the numbers of weights that are published for clipped ReLUs.

    Args:
        input_dim: the number F of inputs.
        cells: the number H of units.
        cell: ``relu``, ``gru`` or ``gru_tanh``.
        bidirectional: whether the layer has D = 2 directions; else D = 1.
        batch_norm: whether it has batch normalisation.
    """

    def __init__(
        self, *, input_dim: int, cells: int, cell: str, bidirectional: bool, batch_norm: bool
    ) -> None:
        super().__init__()
        self.directions, gates = 2 if bidirectional else 1, GATES[cell] * cells
        self.w_input = nn.Parameter(torch.empty(gates, input_dim))
        self.w_hidden = nn.Parameter(torch.empty(self.directions, gates, cells))
        self.before = Shifted(gates, batch_norm=batch_norm)
        self.cell, self.output_dim = cell, cells

    def initialise(self, scale: float, generator: torch.Generator) -> None:
        """See `pipeline.nn.layers.initialise`."""
        gain = 3.0 / self.directions**2  # for the sum of the directions
        draw_by_inputs(self.w_input, self.w_input.shape[1], gain, scale, generator)
        draw_by_inputs(self.w_hidden, self.output_dim, 3.0, scale, generator)

    def forward(self, rows: Tensor, ragged: Ragged) -> Tensor:
        """(R, F) -> (R, H)."""
        gates = self._gates(rows)
        recurrence = self.recurrence(gates.dtype)
        hidden = sweep_rows(gates.expand(-1, self.directions, -1), ragged, recurrence)
        return hidden.view(len(rows), self.directions, self.output_dim).sum(dim=1)

    def advance(self, rows: Tensor, ragged: Ragged, state: State) -> tuple[Tensor, State]:
        """`forward` of the next frames of sequences that come in chunks, and the state after."""
        gates = self._gates(rows)
        return advance_sweep(gates, ragged, self.recurrence(gates.dtype), state)

    def _gates(self, rows: Tensor) -> Tensor:
        """B(W x), (R, 1, G)."""
        weight, rows = _cast(self.w_input, rows)
        projected = linear_rows(rows, weight, weight.new_zeros(len(weight)))
        gates: Tensor = self.before(projected)
        return gates[:, None]

    def recurrence(self, dtype: torch.dtype) -> Recurrence:
        """The cell and the weights that recur."""
        return Recurrence(self.cell, self.w_hidden.to(dtype))


class RowConvolution(nn.Module):
    """[DS2] eq. 5: each feature sees itself in the next τ frames."""

    def __init__(self, dim: int, *, lookahead: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(lookahead + 1, dim))

    def initialise(self, scale: float, generator: torch.Generator) -> None:
        """A mean over the frames, about which it is drawn; see `pipeline.nn.layers.initialise`."""
        draw_uniform([self.weight], scale / len(self.weight), generator)
        with torch.no_grad():
            self.weight.add_(1.0 / len(self.weight))

    def forward(self, rows: Tensor, ragged: Ragged) -> Tensor:
        """(R, H) -> (R, H)."""
        return row_convolution(rows, self.weight, ragged)

    def start(self) -> Tensor:
        """The frames that wait for those after them: none yet, (0, H)."""
        return self.weight.new_zeros(0, self.weight.shape[1])

    def advance(self, pending: Tensor, chunk: Tensor, *, ends: bool) -> tuple[Tensor, Tensor]:
        """The frames that still wait, and the outputs (m, H) that are known now."""
        frames = torch.cat([pending, chunk])
        count = len(frames) if ends else max(0, len(frames) - len(self.weight) + 1)
        ragged = layout(torch.tensor([len(frames)]), len(frames))
        return frames[count:], self(frames, ragged)[:count]


class FullyConnectedLayer(nn.Module):
    """f(B(W x)) of each frame."""

    def __init__(self, *, input_dim: int, output_dim: int, batch_norm: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(output_dim, input_dim))
        self.after = Shifted(output_dim, batch_norm=batch_norm)
        self.output_dim = output_dim

    def initialise(self, scale: float, generator: torch.Generator) -> None:
        """See `pipeline.nn.layers.initialise`."""
        draw_by_inputs(self.weight, self.weight[0].numel(), 6.0, scale, generator)

    def forward(self, rows: Tensor) -> Tensor:
        """(R, F) -> (R, E)."""
        weight, rows = _cast(self.weight, rows)
        return clipped_relu(self.after(linear_rows(rows, weight, weight.new_zeros(len(weight)))))


def _cast(weight: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """A weight and rows in the dtype of `torch.autocast` within it, else in the weight's."""
    dtype = weight.dtype
    if torch.is_autocast_enabled(rows.device.type):
        dtype = torch.get_autocast_dtype(rows.device.type)
    return weight.to(dtype), rows.to(dtype)
