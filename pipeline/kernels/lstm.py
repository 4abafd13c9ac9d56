"""Recurrent layers with peepholes, one or both directions in one sweep, for padded batches.

The reference is `lstm_reference.py`. What is done differently, for speed: all input projections
are one matrix product before the sweep; both directions advance together in batched products;
the backward sweep is written by hand and leaves all weight gradients to whole-sequence products
after it. Lengths are handled by reversing each sequence within its own length and by masking,
never by packing.

Weights of D directions are stacked along a first axis: ``w_input`` (D, 4H, F), ``w_hidden``
(D, 4H, H), ``peepholes`` (D, 3, H), ``bias`` (D, 4H); gates in the order i, f, c, o. Direction 0
reads forwards, direction 1 backwards.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def peephole_lstm(
    x: Tensor, lengths: Tensor, w_input: Tensor, w_hidden: Tensor, peepholes: Tensor, bias: Tensor
) -> Tensor:
    """A (bidirectional) LSTM layer with peepholes, [G13] eq. 3-10.

    Args:
        x: (N, T, F), padded at the end with anything.
        lengths: (N,) frames of each sequence.
        w_input: (D, 4H, F).
        w_hidden: (D, 4H, H).
        peepholes: (D, 3, H), from the cell to the i, f and o gates.
        bias: (D, 4H).

    Returns:
        (N, T, D·H): forward and backward hidden vectors beside each other; zero in the padding.
    """
    hidden = _PeepholeLSTM.apply(
        _by_direction(x, lengths, w_input.shape[0]), w_input, w_hidden, peepholes, bias
    )
    return _beside_each_other(hidden, lengths)


def tanh_rnn(x: Tensor, lengths: Tensor, w_input: Tensor, w_hidden: Tensor, bias: Tensor) -> Tensor:
    """A (bidirectional) tanh layer, [G13] eq. 1. Shapes as `peephole_lstm`, H in place of 4H."""
    hidden = _TanhRNN.apply(_by_direction(x, lengths, w_input.shape[0]), w_input, w_hidden, bias)
    return _beside_each_other(hidden, lengths)


# ---- directions and padding ----------------------------------------------------------------------


def reversal_index(lengths: Tensor, num_frames: int) -> Tensor:
    """(N, T) indices that reverse each sequence within its length and leave its padding."""
    t = torch.arange(num_frames, device=lengths.device)
    last = lengths[:, None] - 1
    return torch.where(t <= last, last - t, t)


def _inside(lengths: Tensor, num_frames: int) -> Tensor:
    """(N, T, 1), true where a sequence still goes on."""
    t = torch.arange(num_frames, device=lengths.device)
    return (t < lengths[:, None])[:, :, None]


class _Reverse(Function):
    """Reverse (N, T, F) along time by an index that is its own inverse, so backward is the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        return x.gather(1, index[:, :, None].expand_as(x))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        (grad,) = grads
        return grad.gather(1, index[:, :, None].expand_as(grad)), None


def _by_direction(x: Tensor, lengths: Tensor, directions: int) -> Tensor:
    """(N, T, F) -> (D, T, N, F), each direction in the order in which it is read."""
    views = [x.masked_fill(~_inside(lengths, x.shape[1]), 0.0)]
    if directions == 2:
        views.append(_Reverse.apply(views[0], reversal_index(lengths, x.shape[1])))
    return torch.stack([view.transpose(0, 1) for view in views])


def _beside_each_other(hidden: Tensor, lengths: Tensor) -> Tensor:
    """(D, T, N, H) in reading order -> (N, T, D·H) in time order, zero in the padding."""
    num_frames = hidden.shape[1]
    views = [direction.transpose(0, 1) for direction in hidden]
    if len(views) == 2:
        views[1] = _Reverse.apply(views[1], reversal_index(lengths, num_frames))
    return torch.cat(views, dim=-1) * _inside(lengths, num_frames)


def _project(x: Tensor, w_input: Tensor, bias: Tensor) -> Tensor:
    """W_x x_t + b for all steps at once: (D, T, N, F) -> (D, T, N, G)."""
    d, t, n, f = x.shape
    flat = torch.baddbmm(bias[:, None, :], x.reshape(d, t * n, f), w_input.transpose(1, 2))
    return flat.view(d, t, n, -1)


def _weight_gradients(
    d_gates: Tensor, x: Tensor, h_before: Tensor, w_input: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Whole-sequence products after a backward sweep: gradients of x, w_input, w_hidden, bias."""
    d, t, n, g = d_gates.shape
    flat = d_gates.reshape(d, t * n, g)
    d_x = torch.bmm(flat, w_input).view(x.shape)
    d_w_input = torch.bmm(flat.transpose(1, 2), x.reshape(d, t * n, -1))
    d_w_hidden = torch.bmm(flat.transpose(1, 2), h_before.reshape(d, t * n, -1))
    return d_x, d_w_input, d_w_hidden, flat.sum(dim=1)


# ---- the sweeps ----------------------------------------------------------------------------------


class _PeepholeLSTM(Function):
    """x (D, T, N, F) in reading order -> h (D, T, N, H)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_input: Tensor, w_hidden: Tensor, peepholes: Tensor, bias: Tensor
    ) -> Tensor:
        gates = _project(x, w_input, bias)
        d, t_max, n, _ = gates.shape
        size = w_hidden.shape[2]
        h_all = gates.new_zeros(d, t_max + 1, n, size)
        c_all = gates.new_zeros(d, t_max + 1, n, size)
        recurrent = w_hidden.transpose(1, 2).contiguous()
        w_if = peepholes[:, None, :2, :]  # (D, 1, 2, H)
        w_o = peepholes[:, None, 2, :]
        tanh_c = gates.new_empty(d, n, size)
        for t in range(t_max):
            gate = gates[:, t]  # activated in place
            gate.baddbmm_(h_all[:, t], recurrent)
            c_before, c = c_all[:, t], c_all[:, t + 1]
            i_f = gate[:, :, : 2 * size]
            i_f.view(d, n, 2, size).addcmul_(c_before[:, :, None, :], w_if)
            i_f.sigmoid_()  # eq. 3, 4
            candidate = gate[:, :, 2 * size : 3 * size].tanh_()
            torch.mul(gate[:, :, size : 2 * size], c_before, out=c)
            c.addcmul_(gate[:, :, :size], candidate)  # eq. 5
            o = gate[:, :, 3 * size :].addcmul_(c, w_o).sigmoid_()  # eq. 6
            torch.tanh(c, out=tanh_c)
            torch.mul(o, tanh_c, out=h_all[:, t + 1])  # eq. 7
        ctx.save_for_backward(x, w_input, w_hidden, peepholes, gates, h_all, c_all)
        return h_all[:, 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, w_input, w_hidden, peepholes, gates, h_all, c_all = ctx.saved_tensors
        size = w_hidden.shape[2]
        i, f, g, o = gates.split(size, dim=-1)
        c_before, tanh_c = c_all[:, :-1], torch.tanh(c_all[:, 1:])
        # Everything that does not depend on the sweep, for all steps at once.
        slope_o = tanh_c * o * (1 - o)
        slope_c = o * (1 - tanh_c * tanh_c)
        slopes = torch.cat([g * i * (1 - i), c_before * f * (1 - f), i * (1 - g * g)], dim=-1)
        d_gates = torch.empty_like(gates)
        d, t_max, n, _ = gates.shape
        w_i, w_f, w_o = (peepholes[:, None, k, :] for k in range(3))
        d_h = grads[0].new_zeros(d, n, size)
        d_c = grads[0].new_zeros(d, n, size)
        for t in reversed(range(t_max)):
            d_gate = d_gates[:, t]
            d_h += grads[0][:, t]
            d_o = torch.mul(d_h, slope_o[:, t], out=d_gate[:, :, 3 * size :])
            d_c.addcmul_(d_h, slope_c[:, t]).addcmul_(d_o, w_o)
            torch.mul(
                d_c[:, :, None, :],
                slopes[:, t].view(d, n, 3, size),
                out=d_gate[:, :, : 3 * size].view(d, n, 3, size),
            )
            d_c.mul_(f[:, t])
            d_c.addcmul_(d_gate[:, :, :size], w_i)
            d_c.addcmul_(d_gate[:, :, size : 2 * size], w_f)
            torch.bmm(d_gate, w_hidden, out=d_h)
        d_x, d_w_input, d_w_hidden, d_bias = _weight_gradients(d_gates, x, h_all[:, :-1], w_input)
        d_peepholes = torch.stack(
            [
                (d_gates[..., :size] * c_before).sum(dim=(1, 2)),
                (d_gates[..., size : 2 * size] * c_before).sum(dim=(1, 2)),
                (d_gates[..., 3 * size :] * c_all[:, 1:]).sum(dim=(1, 2)),
            ],
            dim=1,
        )
        return d_x, d_w_input, d_w_hidden, d_peepholes, d_bias


class _TanhRNN(Function):
    """x (D, T, N, F) in reading order -> h (D, T, N, H)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_input: Tensor, w_hidden: Tensor, bias: Tensor) -> Tensor:
        sums = _project(x, w_input, bias)
        d, t_max, n, size = sums.shape
        h_all = sums.new_zeros(d, t_max + 1, n, size)
        recurrent = w_hidden.transpose(1, 2).contiguous()
        for t in range(t_max):
            torch.tanh(sums[:, t].baddbmm_(h_all[:, t], recurrent), out=h_all[:, t + 1])
        ctx.save_for_backward(x, w_input, w_hidden, h_all)
        return h_all[:, 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, w_input, w_hidden, h_all = ctx.saved_tensors
        slope = 1 - h_all[:, 1:] ** 2
        d_sums = torch.empty_like(slope)
        d_h = torch.zeros_like(slope[:, 0])
        for t in reversed(range(slope.shape[1])):
            d_h += grads[0][:, t]
            torch.mul(d_h, slope[:, t], out=d_sums[:, t])
            torch.bmm(d_sums[:, t], w_hidden, out=d_h)
        return _weight_gradients(d_sums, x, h_all[:, :-1], w_input)


def peephole_lstm_step(
    projected: Tensor, h: Tensor, c: Tensor, w_hidden: Tensor, peepholes: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of one direction, for search, where the inputs come one at a time.

    Args:
        projected: W_x x_t + b, (N, 4H).
        h: h_{t-1}, (N, H).
        c: c_{t-1}, (N, H).
        w_hidden: (4H, H).
        peepholes: (3, H).

    Returns:
        (h_t, c_t), each (N, H).
    """
    x_i, x_f, x_c, x_o = torch.addmm(projected, h, w_hidden.t()).chunk(4, dim=1)
    i = torch.sigmoid(x_i + peepholes[0] * c)
    f = torch.sigmoid(x_f + peepholes[1] * c)
    c = f * c + i * torch.tanh(x_c)
    o = torch.sigmoid(x_o + peepholes[2] * c)
    return o * torch.tanh(c), c
