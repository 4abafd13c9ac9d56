"""Batch normalisation of rows, with sums that may be added up over several processes.

[DS2] D. Amodei et al., "Deep Speech 2: End-to-End Speech Recognition in English and Mandarin",
ICML 2016: B(x) = γ (x - E[x]) / (Var[x] + ε)^½ + β, with mean and variance over all items of
a minibatch and all of their frames. The rows of a batch (`ragged.py`) are just these frames.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

AddUp = Callable[[Tensor], Tensor]  # the sum of a float64 tensor over all processes
EPSILON = 1e-5


class Moments(NamedTuple):
    """The mean and the variance of each channel, (C,), over a minibatch."""

    mean: Tensor
    variance: Tensor


def normalise(
    rows: Tensor, gain: Tensor, offset: Tensor, add_up: AddUp | None = None
) -> tuple[Tensor, Moments]:
    """Normalise rows by their own moments, through which gradients flow.

    Args:
        rows: (R, K·C): K times C channels in each row.
        gain: γ, (C,).
        offset: β, (C,).
        add_up: adds up sums over the processes; called once here and once on the way back. None:
            there is one process, and torch's own norm computes.

    Returns:
        (R, K·C), and the moments, which have no gradient.
    """
    flat = rows.reshape(-1, len(gain))
    if add_up is None and len(flat) > 0 and flat.dtype == gain.dtype:
        y, mean, scale = torch.native_batch_norm(flat, gain, offset, None, None, True, 0.0, EPSILON)
        variance = (scale.detach().double().pow(-2.0) - EPSILON).clamp(min=0.0)
        return y.view(rows.shape), Moments(mean.detach().double(), variance)
    y, mean, variance = _Normalise.apply(flat, gain, offset, add_up or _alone)
    return y.view(rows.shape), Moments(mean, variance)


def _alone(sums: Tensor) -> Tensor:
    """The sums over one process."""
    return sums


def moments_of(sums: Tensor) -> Moments:
    """The moments from the sums of ones, of x and of x² of each channel, (1 + 2C,) in float64."""
    count = sums[0].clamp(min=1.0)
    mean, square = (sums[1:] / count).chunk(2)
    return Moments(mean, (square - mean * mean).clamp(min=0.0))


class _Normalise(Function):
    """Rows (M, C) -> rows (M, C), and the moments."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, add_up: AddUp
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide, count = x.to(torch.promote_types(x.dtype, torch.float32)), len(x)
        own_mean = wide.sum(dim=0) / max(count, 1)
        centred = wide - own_mean  # first, for the precision of the variance
        squares = centred.square().sum(dim=0).double() + count * own_mean.double().square()
        sums = add_up(torch.cat([squares.new_tensor([count]), count * own_mean.double(), squares]))
        mean, variance = moments_of(sums)
        scale = (variance + EPSILON).rsqrt()
        shift = ((own_mean.double() - mean) * scale).to(wide.dtype)
        unit = centred.mul_(scale.to(wide.dtype)).add_(shift)
        ctx.save_for_backward(unit, gain, scale)
        ctx.add_up, ctx.count = add_up, sums[0].clamp(min=1.0)
        ctx.mark_non_differentiable(mean, variance)
        return torch.addcmul(offset, unit, gain).to(x.dtype), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        unit, gain, scale = ctx.saved_tensors
        grad = grads[0].to(unit.dtype)
        of_offset, of_gain = grad.sum(dim=0), (grad * unit).sum(dim=0)
        means = ctx.add_up(torch.cat([of_offset, of_gain]).double()) / ctx.count
        mean, slope = means.to(unit.dtype).chunk(2)
        d_x = torch.addcmul(grad - mean, unit, slope, value=-1.0)
        d_x *= scale.to(unit.dtype) * gain
        return d_x.to(grads[0].dtype), of_gain, of_offset, None
