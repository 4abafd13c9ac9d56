"""A convolution of frames over frequency and time, for batches of any lengths.

The reference is `reference.py`; an engine computes (`plain.py`, `cpu.py`). From a compiled engine
an output's value does not depend on its batch, nor on where in a chunk of frames it stands, to the
bit.
"""

from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.kernels.convolution.plain import Shape
from pipeline.kernels.engines import engine


def convolution(x: Tensor, weight: Tensor, counts: Tensor, shape: Shape) -> Tensor:
    """Convolve frames.

    Args:
        x: (N, T, F, C), zero in the padding.
        weight: (C', C, kernel over frequency, kernel over time).
        counts: (N,) the number of output frames of each sequence.
        shape: kernel, stride and zeros around.

    Returns:
        (N, T', F', C'); after a sequence's own frames anything may stand. Gradients flow from its
        own frames only; that of what comes after must be zero.
    """
    y: Tensor = _Convolution.apply(x, weight, counts.tolist(), shape)
    return y


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, counts: list[int], shape: Shape) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.counts, ctx.shape = counts, shape
        y: Tensor = engine("convolution", x).forward(x, weight, counts, shape)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        module, given = engine("convolution", x), (ctx.counts, ctx.shape)
        d_x = d_weight = None
        if ctx.needs_input_grad[0]:
            d_x = module.backward_input(grads[0], weight, *given, x.shape[1], x.shape[2])
        if ctx.needs_input_grad[1]:
            d_weight = module.backward_weight(grads[0], x, *given).to(weight.dtype)
        return d_x, d_weight, None, None


def shape_of(weight: Tensor, stride: tuple[int, int], *, pads_time: bool) -> Shape:
    """A convolution that zeros continue ("same") over frequency, and over time if it is said."""
    wide, long = int(weight.shape[2]), int(weight.shape[3])
    return Shape((wide, long), stride, (wide // 2, long // 2 if pads_time else 0))
