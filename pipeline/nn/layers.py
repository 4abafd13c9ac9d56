"""One recurrent layer of the papers as a module."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pipeline.kernels.linear import linear
from pipeline.kernels.lstm.layer import lstm_rows, tanh_rows
from pipeline.kernels.ragged import Ragged


class RecurrentLayer(nn.Module):
    """A (bidirectional) LSTM layer with peepholes or a tanh layer, [G13] eq. 1, 3-10.

    An LSTM layer of H cells over F inputs has 4HF + 4H² + 3H + 4H weights a direction; with a
    recurrent projection to P values [S14], 4HF + 4HP + PH + 3H + 4H.

    Args:
        input_dim: F.
        cells: H, of each direction.
        cell: ``lstm`` or ``tanh``.
        bidirectional: D = 2 directions, else 1.
        projection: P, what recurs and comes out of each direction; 0: the H values themselves.
    """

    def __init__(
        self, *, input_dim: int, cells: int, cell: str, bidirectional: bool, projection: int = 0
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
        self.output_dim = directions * width

    def initialise(self, scale: float, generator: torch.Generator) -> None:
        """See `initialise`."""
        draw_uniform(self.parameters(), scale, generator)

    def forward(self, rows: Tensor, ragged: Ragged) -> Tensor:
        """(R, F) -> (R, D·H), the frames of a batch without padding; D·P with a projection.

        Within `torch.autocast` rows and weights are taken in its dtype.
        """
        weights: list[Tensor] = [self.w_input, self.w_hidden, self.bias]
        if self.peepholes is not None:
            weights.insert(2, self.peepholes)
        if self.projection is not None:
            weights.append(self.projection)
        if torch.is_autocast_enabled(rows.device.type):
            dtype = torch.get_autocast_dtype(rows.device.type)
            rows, *weights = (x.to(dtype) for x in (rows, *weights))
        apply = tanh_rows if self.peepholes is None else lstm_rows
        return apply(rows, ragged, *weights)


class Linear(nn.Linear):
    """A linear layer on our own matrix products."""

    def initialise(self, scale: float, generator: torch.Generator) -> None:
        """See `initialise`."""
        draw_uniform(self.parameters(), scale, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(…, K) -> (…, V)."""
        if torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        return linear(x, self.weight, self.bias)


def log_softmax(logits: Tensor) -> Tensor:
    """Over the last dimension; of half precision in float32."""
    return logits.log_softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def initialise(module: nn.Module, *, scale: float, generator: torch.Generator) -> None:
    """Draw the first weights: every layer its own way, in the order of the layers.

    A module with weights of its own has a method ``initialise(scale, generator)``; the papers'
    layers draw uniformly from [-scale, scale]. A module without one, such as torch's norms, whose
    γ is 1, keeps what it was made with.
    """
    for part in module.modules():
        draw = getattr(part, "initialise", None)
        if draw is not None:
            draw(scale, generator)


def draw_uniform(
    parameters: Iterable[nn.Parameter], scale: float, generator: torch.Generator
) -> None:
    """Every weight uniformly from [-scale, scale]; 0.1 in both papers."""
    with torch.no_grad():
        for parameter in parameters:
            values = torch.rand(parameter.shape, generator=generator)
            parameter.copy_((2.0 * values - 1.0) * scale)


def count_weights(module: nn.Module) -> int:
    """Number of trainable weights, biases included."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
