"""Sequence-wise batch normalisation as a module.

[DS2] D. Amodei et al., "Deep Speech 2: End-to-End Speech Recognition in English and Mandarin",
ICML 2016.
"""

import torch
from torch import Tensor, nn

from pipeline.kernels.batch_norm import EPSILON, AddUp, Moments, moments_of, normalise

MOMENTUM = 0.1  # weight of the newest minibatch in the running averages


class SequenceNorm(nn.Module):
    """B of [DS2] eq. 4, over the rows of a batch, which are its frames without padding.

    In training the moments are those of the whole minibatch, of all of its parts where several
    processes train; in evaluation they are running averages over the minibatches of the training,
    so that an output does not depend on the batch. The averages of the first minibatches are plain
    means.

    Attributes:
        add_up: adds up sums over the processes of a training, which sets it; None: there is one.
    """

    running_mean: Tensor  # (C,)
    running_var: Tensor  # (C,)
    num_batches_tracked: Tensor  # ()

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))  # γ
        self.bias = nn.Parameter(torch.zeros(channels))  # β
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.add_up: AddUp | None = None

    def forward(self, rows: Tensor) -> Tensor:
        """(R, K·C), K times all channels -> the same."""
        if self.training:
            y, moments = normalise(rows, self.weight, self.bias, self.add_up)
            self._track(moments)
            return y
        scale = self.weight * (self.running_var + EPSILON).rsqrt()
        shift = self.bias - self.running_mean * scale
        each = rows.shape[1] // len(scale)
        scale, shift = (v.repeat(each).to(rows.dtype) for v in (scale, shift))
        return rows * scale + shift

    def take_part(self) -> None:
        """Add the sums of no rows to those of the other processes, in their forward passes."""
        assert self.add_up is not None
        sums = self.weight.new_zeros(1 + 2 * len(self.weight), dtype=torch.float64)
        self._track(moments_of(self.add_up(sums)))

    def take_part_back(self) -> None:
        """The same in the other processes' backward passes."""
        assert self.add_up is not None
        self.add_up(self.weight.new_zeros(2 * len(self.weight), dtype=torch.float64))

    @torch.no_grad()
    def _track(self, moments: Moments) -> None:
        self.num_batches_tracked += 1
        share = max(MOMENTUM, 1.0 / int(self.num_batches_tracked))
        self.running_mean.lerp_(moments.mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(moments.variance.to(self.running_var.dtype), share)
