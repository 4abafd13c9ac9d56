"""Recurrent layers with peepholes, one or both directions, for batches of any lengths.

The reference is `lstm_reference.py`. What is done differently, for speed: frames are kept as rows
without padding (`ragged.py`), all input projections of both directions are one matrix product
before the sweep, the sweep itself is an engine's (`lstm_plain.py`, `lstm_cpu.py`, `lstm_cuda.py`),
and the weights' gradients are whole-sequence products after it.

Weights of D directions are stacked along a first axis: ``w_input`` (D, 4H, F), ``w_hidden``
(D, 4H, P), ``peepholes`` (D, 3, H), ``bias`` (D, 4H), ``projection`` (D, P, H); gates in the order
i, f, c, o; P = H without a projection. Direction 0 reads forwards, direction 1 backwards.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.kernels.engines import affine, engine, product
from pipeline.kernels.lstm.plain import Recurrence, Sweep
from pipeline.kernels.ragged import Ragged, layout, pack, unpack


def peephole_lstm(
    x: Tensor,
    lengths: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    peepholes: Tensor | None,
    bias: Tensor,
    projection: Tensor | None = None,
) -> Tensor:
    """A (bidirectional) LSTM layer, [G13] eq. 3-10, with a recurrent projection [S14] on request.

    Args:
        x: (N, T, F), padded at the end with anything.
        lengths: (N,) frames of each sequence.
        w_input: (D, 4H, F).
        w_hidden: (D, 4H, P).
        peepholes: (D, 3, H), from the cell to the i, f and o gates; None for an LSTM without.
        bias: (D, 4H).
        projection: (D, P, H): r_t = W m_t is what recurs and comes out; None: P = H, r_t = m_t.

    Returns:
        (N, T, D·P): forward and backward vectors beside each other; zero in the padding.

    Raises:
        ValueError: lengths or weights that do not fit.
    """
    ragged = layout(lengths, x.shape[1])
    rows = lstm_rows(pack(x, ragged), ragged, w_input, w_hidden, peepholes, bias, projection)
    return unpack(rows, ragged)


def tanh_rnn(x: Tensor, lengths: Tensor, w_input: Tensor, w_hidden: Tensor, bias: Tensor) -> Tensor:
    """A (bidirectional) tanh layer, [G13] eq. 1. Shapes as `peephole_lstm`, H in place of 4H."""
    ragged = layout(lengths, x.shape[1])
    return unpack(tanh_rows(pack(x, ragged), ragged, w_input, w_hidden, bias), ragged)


def lstm_rows(
    rows: Tensor,
    ragged: Ragged,
    w_input: Tensor,
    w_hidden: Tensor,
    peepholes: Tensor | None,
    bias: Tensor,
    projection: Tensor | None = None,
) -> Tensor:
    """`peephole_lstm` on rows: (R, F) -> (R, D·P)."""
    recurrence = Recurrence("lstm", w_hidden, peepholes, projection)
    return _layer(rows, ragged, w_input, bias, recurrence)


def tanh_rows(
    rows: Tensor, ragged: Ragged, w_input: Tensor, w_hidden: Tensor, bias: Tensor
) -> Tensor:
    """`tanh_rnn` on rows: (R, F) -> (R, D·H)."""
    return _layer(rows, ragged, w_input, bias, Recurrence("tanh", w_hidden))


def _layer(
    rows: Tensor, ragged: Ragged, w_input: Tensor, bias: Tensor, recurrence: Recurrence
) -> Tensor:
    _check(rows, ragged, w_input, bias, recurrence)
    hidden: Tensor = _Layer.apply(
        rows,
        w_input,
        bias,
        recurrence.w_hidden,
        recurrence.peepholes,
        recurrence.projection,
        recurrence.kind,
        ragged,
    )
    return hidden


def _check(
    rows: Tensor, ragged: Ragged, w_input: Tensor, bias: Tensor, recurrence: Recurrence
) -> None:
    """Raise ValueError, naming the shapes, where they do not fit."""
    d, gates, _ = w_input.shape
    kind, w_hidden, peepholes, projection = recurrence
    size = gates // 4 if kind == "lstm" else gates
    width = size if projection is None else projection.shape[1]
    wanted = {
        "x": (rows, (ragged.rows, w_input.shape[2])),
        "w_input": (w_input, (d, size * (4 if kind == "lstm" else 1), w_input.shape[2])),
        "w_hidden": (w_hidden, (d, gates, width)),
        "peepholes": (peepholes, (d, 3, size)),
        "bias": (bias, (d, gates)),
        "projection": (projection, (d, width, size)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, not {shape}")
    if d not in (1, 2):
        raise ValueError(f"a layer has 1 or 2 directions, not {d}")


class _Layer(Function):
    """Rows (R, F) -> hidden vectors (R, D·P)."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        w_input: Tensor,
        bias: Tensor,
        w_hidden: Tensor,
        peepholes: Tensor | None,
        projection: Tensor | None,
        kind: str,
        ragged: Ragged,
    ) -> Tensor:
        d, g, f = w_input.shape
        gates = affine(rows, w_input.reshape(d * g, f), bias.reshape(d * g)).view(-1, d, g)
        recurrence = Recurrence(kind, w_hidden, peepholes, projection)
        hidden, sweep = engine("lstm", gates).forward(gates, recurrence, ragged)
        ctx.save_for_backward(rows, w_input, w_hidden, peepholes, projection, *sweep)
        ctx.kind, ctx.ragged = kind, ragged
        flat: Tensor = hidden.reshape(len(rows), -1)
        return flat

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        rows, w_input, w_hidden, peepholes, projection, *saved = ctx.saved_tensors
        recurrence, sweep = Recurrence(ctx.kind, w_hidden, peepholes, projection), Sweep(*saved)
        d, g, f = w_input.shape
        d_gates, d_hidden, d_peepholes = engine("lstm", sweep.gates).backward(
            grads[0].reshape(sweep.before.shape), sweep, recurrence, ctx.ragged
        )
        flat = d_gates.view(len(rows), d * g)
        d_rows = product(flat, w_input.reshape(d * g, f)) if ctx.needs_input_grad[0] else None
        d_projection = None
        if d_hidden is not None and sweep.outputs is not None:
            d_projection = _by_direction(d_hidden, sweep.outputs)
        return (
            d_rows,
            product(flat.t(), rows).view(w_input.shape),
            flat.sum(dim=0).view(d, g),
            _by_direction(d_gates, sweep.before),
            d_peepholes,
            d_projection,
            None,
            None,
        )


def _by_direction(gradients: Tensor, inputs: Tensor) -> Tensor:
    """Gradient of each direction's weights: (R, D, A) and (R, D, B) -> (D, A, B)."""
    return torch.stack(
        [product(gradients[:, d].t(), inputs[:, d]) for d in range(gradients.shape[1])]
    )


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
