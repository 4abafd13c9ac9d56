"""The row convolution of Deep Speech 2: a little of the future for a layer that reads forwards.

[DS2] D. Amodei et al., "Deep Speech 2: End-to-End Speech Recognition in English and Mandarin",
ICML 2016, eq. 5: r_{t,i} = Σ_{j=1..τ+1} W_{i,j} h_{t+j-1,i}, one filter a feature. The reference is
`reference.py`; an engine computes (`plain.py`, `cpu.py`).
"""

from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.kernels.engines import engine
from pipeline.kernels.ragged import Ragged


def row_convolution(rows: Tensor, weight: Tensor, ragged: Ragged) -> Tensor:
    """[DS2] eq. 5, with zeros after the last frame of each sequence.

    Each element is summed in one order, whatever the batch and the number of frames.

    Args:
        rows: h, (R, H).
        weight: W, (τ + 1, H).
        ragged: where the rows of each frame stand.

    Returns:
        r, (R, H).
    """
    y: Tensor = _RowConvolution.apply(rows, weight, ragged)
    return y


class _RowConvolution(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, ragged: Ragged) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.ragged = ragged
        y: Tensor = engine("row_convolution", rows).forward(rows, weight, ragged)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        rows, weight = ctx.saved_tensors
        module = engine("row_convolution", rows)
        d_rows = d_weight = None
        if ctx.needs_input_grad[0]:
            d_rows = module.backward_input(grads[0], weight, ctx.ragged)
        if ctx.needs_input_grad[1]:
            d_weight = module.backward_weight(grads[0], rows, len(weight), ctx.ragged)
            d_weight = d_weight.to(weight.dtype)
        return d_rows, d_weight, None
