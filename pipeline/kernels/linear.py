"""Linear layers on the products of `products.py`, where these compute for the tensor's device."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.kernels.engines import affine, is_compiled, product

SMALL = 2**18  # multiply-adds for which starting our own product costs more than it saves


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x`` (…, K) times ``weight`` (V, K) transposed, plus ``bias`` (V,): (…, V).

    Without gradients a row gets the same bits whatever other rows there are, if `is_compiled`.
    """
    is_small = torch.is_grad_enabled() and x.numel() * len(weight) < SMALL
    if is_small or weight.dtype != x.dtype or not is_compiled(x):
        return torch.nn.functional.linear(x, weight, bias)
    offset = weight.new_zeros(len(weight)) if bias is None else bias
    rows: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), weight, offset)
    return rows.view(*x.shape[:-1], len(weight))


def linear_rows(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(R, K), (V, K), (V,) -> (R, V), by the same product for any R: a row never depends on R."""
    product: Tensor = _Linear.apply(rows, weight, bias)
    return product


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return affine(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        grad, needed = grads[0], ctx.needs_input_grad
        return (
            product(grad, weight) if needed[0] else None,
            product(grad.t(), x) if needed[1] else None,
            grad.sum(dim=0) if needed[2] else None,
        )
