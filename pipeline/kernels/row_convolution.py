"""The row convolution of Deep Speech 2: a little of the future for a layer that reads forwards.

[DS2] D. Amodei et al., "Deep Speech 2: End-to-End Speech Recognition in English and Mandarin",
ICML 2016, eq. 5: r_{t,i} = Σ_{j=1..τ+1} W_{i,j} h_{t+j-1,i}, one filter a feature.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def row_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """[DS2] eq. 5, with zeros after the last frame.

    Each element is summed in one order, whatever the batch and the number of frames.

    Args:
        x: h, (N, T, H), zero in the padding.
        weight: W, (τ + 1, H).

    Returns:
        r, (N, T, H); in the padding it is not zero.
    """
    y: Tensor = _RowConvolution.apply(x, weight)
    return y


class _RowConvolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        frames = x.shape[1]
        y = torch.zeros_like(x)
        for j, w in enumerate(weight[:frames]):
            y[:, : frames - j].addcmul_(x[:, j:], w.to(x.dtype))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        frames = x.shape[1]
        d_x, d_weight = torch.zeros_like(x), torch.zeros_like(weight)
        for j, w in enumerate(weight[:frames]):
            grad = grads[0][:, : frames - j]
            d_x[:, j:].addcmul_(grad, w.to(x.dtype))
            d_weight[j] = (grad * x[:, j:]).sum(dim=(0, 1))
        return d_x, d_weight
