"""One recurrent layer of the papers as a module."""

import torch
from torch import Tensor, nn

from pipeline.kernels.linear import linear
from pipeline.kernels.lstm.layer import lstm_rows, tanh_rows
from pipeline.kernels.ragged import Ragged


class RecurrentLayer(nn.Module):
    """A (bidirectional) LSTM layer with peepholes or a tanh layer, [G13] eq. 1, 3-10.

    An LSTM layer of H cells over F inputs has 4HF + 4H² + 3H + 4H weights a direction.
    """

    def __init__(self, *, input_dim: int, cells: int, cell: str, bidirectional: bool) -> None:
        super().__init__()
        directions = 2 if bidirectional else 1
        gates = 4 * cells if cell == "lstm" else cells
        self.w_input = nn.Parameter(torch.empty(directions, gates, input_dim))
        self.w_hidden = nn.Parameter(torch.empty(directions, gates, cells))
        self.bias = nn.Parameter(torch.empty(directions, gates))
        self.peepholes = nn.Parameter(torch.empty(directions, 3, cells)) if cell == "lstm" else None
        self.output_dim = directions * cells

    def forward(self, rows: Tensor, ragged: Ragged) -> Tensor:
        """(R, F) -> (R, D·H), the frames of a batch without padding.

        Within `torch.autocast` rows and weights are taken in its dtype.
        """
        weights: list[Tensor] = [self.w_input, self.w_hidden, self.bias]
        if self.peepholes is not None:
            weights.insert(2, self.peepholes)
        if torch.is_autocast_enabled(rows.device.type):
            dtype = torch.get_autocast_dtype(rows.device.type)
            rows, *weights = (x.to(dtype) for x in (rows, *weights))
        apply = tanh_rows if self.peepholes is None else lstm_rows
        return apply(rows, ragged, *weights)


class Linear(nn.Linear):
    """A linear layer on our own matrix products."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, K) -> (…, V)."""
        if torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        return linear(x, self.weight, self.bias)


def log_softmax(logits: Tensor) -> Tensor:
    """Over the last dimension; of half precision in float32."""
    return logits.log_softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def initialise(module: nn.Module, *, scale: float, generator: torch.Generator) -> None:
    """Draw every weight uniformly from [-scale, scale]; 0.1 in both papers."""
    with torch.no_grad():
        for parameter in module.parameters():
            values = torch.rand(parameter.shape, generator=generator)
            parameter.copy_((2.0 * values - 1.0) * scale)


def count_weights(module: nn.Module) -> int:
    """Number of trainable weights, biases included."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
