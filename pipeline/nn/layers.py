"""Recurrent and linear layers as modules, and the initialisation of weights.

[G13] A. Graves, A. Mohamed, G. Hinton, "Speech Recognition with Deep Recurrent Neural Networks",
2013.
[S14] H. Sak, A. Senior, F. Beaufays, "Long Short-Term Memory Recurrent Neural Network Architectures
for Large Scale Acoustic Modeling", 2014.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pipeline.kernels.linear import linear
from pipeline.kernels.ragged import Ragged
from pipeline.kernels.recurrent.layer import advance_rows, recurrent_rows
from pipeline.kernels.recurrent.plain import Recurrence, State

MOST_CELLS = 65536  # in a layer; a larger number in an architecture is a mistake


class RecurrentLayer(nn.Module):
    """A layer of LSTM cells with peepholes or of tanh units, in one or both directions.

    See [G13] eq. 1 and 3-10. An LSTM layer of H cells with F inputs has 4HF + 4H² + 3H + 4H weights
    in each direction; with a recurrent projection to P values and a non-recurrent one to Q [S14],
    4HF + 4HP + (P+Q)H + 3H + 4H.

    Args:
        input_dim: the number F of inputs.
        cells: the number H of cells in each direction.
        cell: ``lstm`` or ``tanh``.
        bidirectional: whether the layer has D = 2 directions; else D = 1.
        projection: the size P of the recurrent projection, which is also the output of each
            direction; 0: no projection, the output has H values.
        nonrecurrent: the size Q of the non-recurrent projection beside it, which adds Q values to
            the output of each direction; 0: none.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        cells: int,
        cell: str,
        bidirectional: bool,
        projection: int = 0,
        nonrecurrent: int = 0,
    ) -> None:
        super().__init__()
        directions = 2 if bidirectional else 1
        gates = 4 * cells if cell == "lstm" else cells
        width = projection or cells
        self.w_input = nn.Parameter(torch.empty(directions, gates, input_dim))
        self.w_hidden = nn.Parameter(torch.empty(directions, gates, width))
        self.bias = nn.Parameter(torch.empty(directions, gates))
        self.peepholes = nn.Parameter(torch.empty(directions, 3, cells)) if cell == "lstm" else None
        self.projection = (
            nn.Parameter(torch.empty(directions, width, cells)) if projection else None
        )
        self.nonrecurrent = (
            nn.Parameter(torch.empty(directions, nonrecurrent, cells)) if nonrecurrent else None
        )
        self.cell, self.output_dim = cell, directions * (width + nonrecurrent)

    def initialise(self, scale: float, generator: torch.Generator) -> None:
        """See `initialise`."""
        draw_uniform(self.parameters(), scale, generator)

    def forward(self, rows: Tensor, ragged: Ragged) -> Tensor:
        """(R, F) -> (R, D·H), or (R, D·(P+Q)) with projections.

        The rows are the frames of a batch without padding, as ``ragged`` lays them out. Within
        `torch.autocast` rows and weights are converted to its dtype.
        """
        rows, w_input, bias, recurrence = self._cast(rows)
        return recurrent_rows(rows, ragged, w_input, bias, recurrence)

    def start(self, count: int) -> State:
        """The state of ``count`` sequences before their first frame."""
        return self.recurrence.start(count)

    def advance(self, rows: Tensor, ragged: Ragged, state: State) -> tuple[Tensor, State]:
        """`forward` of the next frames of sequences that come in chunks, and the state after them.

        The state, of `start` at first, holds the sequences in the order of the batch; one without a
        new frame keeps its own. Gradients flow within the chunk, not from one to another.

        Raises:
            ValueError: the layer is bidirectional.
        """
        rows, w_input, bias, recurrence = self._cast(rows)
        return advance_rows(rows, ragged, w_input, bias, recurrence, state)

    def _cast(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Recurrence]:
        """The rows and the weights, in the dtype of `torch.autocast` within it."""
        w_input, bias, recurrence = self.w_input, self.bias, self.recurrence
        if not torch.is_autocast_enabled(rows.device.type):
            return rows, w_input, bias, recurrence
        dtype = torch.get_autocast_dtype(rows.device.type)
        return rows.to(dtype), w_input.to(dtype), bias.to(dtype), recurrence.to(dtype)

    @property
    def recurrence(self) -> Recurrence:
        """The cell and the weights that recur; a search advances one direction of it by steps."""
        weights = self.w_hidden, self.peepholes, self.projection, self.nonrecurrent
        return Recurrence(self.cell, *weights)


class Linear(nn.Linear):
    """A linear layer that computes its products with `pipeline.kernels.linear`."""

    def initialise(self, scale: float, generator: torch.Generator) -> None:
        """See `initialise`."""
        draw_uniform(self.parameters(), scale, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(…, K) -> (…, V)."""
        if torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        return linear(x, self.weight, self.bias)


def log_softmax(logits: Tensor) -> Tensor:
    """The log-softmax over the last dimension; float32 for logits of half precision."""
    return logits.log_softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def initialise(module: nn.Module, *, scale: float, generator: torch.Generator) -> None:
    """Draw the initial weights, layer by layer.

    A module calls its method ``initialise(scale, generator)``; the layers of the papers draw
    uniformly from [-scale, scale]. A module without this method, such as torch's norms with γ = 1,
    keeps the weights that it was made with.
    """
    for part in module.modules():
        draw = getattr(part, "initialise", None)
        if draw is not None:
            draw(scale, generator)


def draw_uniform(
    parameters: Iterable[nn.Parameter], scale: float, generator: torch.Generator
) -> None:
    """Draw every weight uniformly from [-scale, scale]; the scale is 0.1 in both Graves papers."""
    with torch.no_grad():
        for parameter in parameters:
            values = torch.rand(parameter.shape, generator=generator)
            parameter.copy_((2.0 * values - 1.0) * scale)


def count_weights(module: nn.Module) -> int:
    """The number of trainable weights, biases included."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
