"""Batches of sequences of different lengths without padding: rows, frame after frame.

Row by row a batch is laid out as the recurrent layers read it: all sequences' first frames, then
all second frames, and so on, the longest sequence first. At frame t only the first ``active[t]``
sequences still go on, so nothing is ever computed for padding, and both directions of a layer read
the same rows, one from the first frame on, the other from the last.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Ragged:
    """Where the frames of a padded batch (N, T, F) stand among its R rows.

    ``active`` and ``offsets`` stay on the CPU, whatever the device of the batch.
    """

    active: Tensor  # (T,) sequences that have a frame t, falling
    offsets: Tensor  # (T + 1,) row of the longest sequence's frame t; the last is R
    index: Tensor  # (R,) place of each row among the N·T frames of the padded batch
    padded: tuple[int, int]  # N, T of the padded batch
    given: int = 0  # leading frames, 0 or 1, that a sweep does not compute: see `after_a_state`

    @property
    def rows(self) -> int:
        """R, the number of frames of all sequences together."""
        return len(self.index)

    @property
    def is_dense(self) -> bool:
        """Whether the rows of one sequence, all frames of it, are the padded batch itself."""
        return self.padded[0] == 1 and self.rows == self.padded[1]


def layout(lengths: Tensor, num_frames: int) -> Ragged:
    """The rows of a batch.

    Args:
        lengths: (N,) frames of each sequence, 0 … T.
        num_frames: T, to which the batch is padded.

    Raises:
        ValueError: a length outside 0 … T.
    """
    on_cpu = lengths.detach().to("cpu", torch.int64)
    count = len(on_cpu)
    if count and not 0 <= int(on_cpu.min()) <= int(on_cpu.max()) <= num_frames:
        raise ValueError(f"lengths must lie in 0 … {num_frames}")
    order = torch.argsort(on_cpu, descending=True, stable=True)
    t = torch.arange(num_frames)
    inside = t[:, None] < on_cpu[order]  # (T, N)
    index = (order * num_frames + t[:, None])[inside]
    active = inside.sum(dim=1)
    offsets = torch.zeros(num_frames + 1, dtype=torch.int64)
    torch.cumsum(active, dim=0, out=offsets[1:])
    return Ragged(active, offsets, index.to(lengths.device), (count, num_frames))


def order(ragged: Ragged) -> Tensor:
    """(N,) the sequence that stands in each place of a frame; those without a frame come last."""
    count, num_frames = ragged.padded
    device = ragged.index.device
    first = int(ragged.offsets[min(1, num_frames)])  # rows of the first frame
    key = count + torch.arange(count, device=device)
    key[ragged.index[:first] // max(num_frames, 1)] = torch.arange(first, device=device)
    return key.argsort()


def after_a_state(ragged: Ragged) -> Ragged:
    """The same batch with a frame of N rows before its first, for states that are given.

    The other rows follow in the same order. A sweep does not compute this frame; it reads there
    what each sequence, also one without a frame of its own, goes on from.
    """
    count, num_frames = ragged.padded
    head = torch.tensor([count])
    index = ragged.index // max(num_frames, 1) + ragged.index + 1
    return Ragged(
        torch.cat([head, ragged.active]),
        torch.cat([head.new_zeros(1), ragged.offsets + count]),
        torch.cat([order(ragged) * (num_frames + 1), index]),
        (count, num_frames + 1),
        given=1,
    )


def pack(x: Tensor, ragged: Ragged) -> Tensor:
    """(N, T, F) -> (R, F). What stands in the padding is never read."""
    if ragged.is_dense:
        return x.reshape(x.shape[1:])
    rows: Tensor = _Pack.apply(x, ragged)
    return rows


def unpack(rows: Tensor, ragged: Ragged) -> Tensor:
    """(R, F) -> (N, T, F), zero in the padding."""
    if ragged.is_dense:
        return rows[None]
    x: Tensor = _Unpack.apply(rows, ragged)
    return x


def _gather(x: Tensor, ragged: Ragged) -> Tensor:
    return x.reshape(-1, x.shape[-1]).index_select(0, ragged.index)


def _scatter(rows: Tensor, ragged: Ragged) -> Tensor:
    n, t = ragged.padded
    x = rows.new_zeros(n * t, rows.shape[-1])
    return x.index_copy_(0, ragged.index, rows).view(n, t, rows.shape[-1])


class _Pack(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ragged: Ragged) -> Tensor:
        ctx.ragged = ragged
        return _gather(x, ragged)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _scatter(grads[0], ctx.ragged), None


class _Unpack(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, ragged: Ragged) -> Tensor:
        ctx.ragged = ragged
        return _scatter(rows, ragged)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _gather(grads[0], ctx.ragged), None
