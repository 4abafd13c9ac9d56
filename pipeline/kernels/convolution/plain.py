"""The convolution of frames over frequency and time by torch: any device, any floating dtype.

All engines have the three functions of this module. Frames are (N, T, F, C): values of C channels
at F frequencies, a frequency's together.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight


class Shape(NamedTuple):
    """Of a convolution; pairs are over frequency and time. Kernels are odd and centred."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    around: tuple[int, int]  # zeros that continue each end of both axes

    def outputs(self, frequencies: int, frames: int) -> tuple[int, int]:
        """The numbers F' and T' of outputs."""
        axes = zip((frequencies, frames), self.kernel, self.stride, self.around, strict=True)
        of = [max(0, (size + 2 * more - k) // step + 1) for size, k, step, more in axes]
        return of[0], of[1]


def forward(x: Tensor, weight: Tensor, counts: list[int], shape: Shape) -> Tensor:
    """The convolution.

    Args:
        x: (N, T, F, C).
        weight: (C', C, kernel over frequency, kernel over time).
        counts: the number of frames of each sequence's output; what comes after is not defined.
        shape: of the convolution.

    Returns:
        (N, T', F', C').
    """
    y = torch.conv2d(_image(x), weight.to(x.dtype), None, shape.stride, shape.around)
    return _frames(y).contiguous()


def backward_input(
    grad: Tensor, weight: Tensor, counts: list[int], shape: Shape, frames: int, frequencies: int
) -> Tensor:
    """The gradient of x, (N, T, F, C), from that of the output, zero after each sequence's own."""
    size = (len(grad), weight.shape[1], frequencies, frames)
    gradient = conv2d_input(size, weight.to(grad.dtype), _image(grad), shape.stride, shape.around)
    return _frames(gradient)


def backward_weight(grad: Tensor, x: Tensor, counts: list[int], shape: Shape) -> Tensor:
    """The gradient of the weight, (C', C, kernel over frequency, kernel over time)."""
    size = (grad.shape[3], x.shape[3], *shape.kernel)
    gradient: Tensor = conv2d_weight(_image(x), size, _image(grad), shape.stride, shape.around)
    return gradient


def _image(frames: Tensor) -> Tensor:
    """(N, T, F, C) -> (N, C, F, T)."""
    return frames.permute(0, 3, 2, 1)


def _frames(image: Tensor) -> Tensor:
    """(N, C, F, T) -> (N, T, F, C)."""
    return image.permute(0, 3, 2, 1)
