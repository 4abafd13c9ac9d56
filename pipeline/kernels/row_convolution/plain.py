"""The row convolution in plain torch, a pass over the batch for each frame of the look-ahead."""

import torch
from torch import Tensor

from pipeline.kernels.ragged import Ragged, pack, unpack


def forward(rows: Tensor, weight: Tensor, ragged: Ragged) -> Tensor:
    """r (R, H) from h (R, H) and W (τ + 1, H), [DS2] eq. 5."""
    x = unpack(rows, ragged)
    y, frames = torch.zeros_like(x), x.shape[1]
    for j, w in enumerate(weight[:frames].to(x.dtype)):
        y[:, : frames - j].addcmul_(x[:, j:], w)
    return pack(y, ragged)


def backward_input(grad: Tensor, weight: Tensor, ragged: Ragged) -> Tensor:
    """The gradient of h from that of r, (R, H) both."""
    d_y = unpack(grad, ragged)
    d_x, frames = torch.zeros_like(d_y), d_y.shape[1]
    for j, w in enumerate(weight[:frames].to(d_y.dtype)):
        d_x[:, j:].addcmul_(d_y[:, : frames - j], w)
    return pack(d_x, ragged)


def backward_weight(grad: Tensor, rows: Tensor, count: int, ragged: Ragged) -> Tensor:
    """The gradient of W (``count``, H) from that of r, and h, (R, H) both."""
    d_y, x = unpack(grad, ragged), unpack(rows, ragged)
    d_weight, frames = rows.new_zeros(count, rows.shape[1]), x.shape[1]
    for j in range(min(count, frames)):
        d_weight[j] = (d_y[:, : frames - j] * x[:, j:]).sum(dim=(0, 1))
    return d_weight
