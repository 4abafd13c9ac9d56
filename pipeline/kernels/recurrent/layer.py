"""Recurrent layers with peepholes, one or both directions, for batches of any lengths.

The reference is `reference.py`. What is done differently, for speed: frames are kept as rows
without padding (`ragged.py`), all input projections of both directions are one matrix product
before the sweep, the sweep itself is an engine's (`plain.py`, `cpu.py`, `cuda.py`),
and the weights' gradients are whole-sequence products after it.

Weights of D directions are stacked along a first axis: ``w_input`` (D, 4H, F), ``w_hidden``
(D, 4H, P), ``peepholes`` (D, 3, H), ``bias`` (D, 4H), ``projection`` (D, P, H), ``nonrecurrent``
(D, Q, H); gates in the order i, f, c, o, or z, r, candidate for a GRU; P = H without a projection.
Direction 0 reads forwards, direction 1 backwards. What comes out of a direction has P + Q values:
r_t and p_t of [S14], where Q is 0 without a non-recurrent projection, which costs one product over
all rows after the sweep.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.kernels.engines import affine, engine, product
from pipeline.kernels.linear import linear_rows
from pipeline.kernels.ragged import Ragged, after_a_state, layout, order, pack, unpack
from pipeline.kernels.recurrent.plain import GATES, Recurrence, State, Sweep, fed_back_gradient


def peephole_lstm(
    x: Tensor,
    lengths: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    peepholes: Tensor | None,
    bias: Tensor,
    projection: Tensor | None = None,
    nonrecurrent: Tensor | None = None,
) -> Tensor:
    """A (bidirectional) LSTM layer, [G13] eq. 3-10, with the projections of [S14] on request.

    Args:
        x: (N, T, F), padded at the end with anything.
        lengths: (N,) frames of each sequence.
        w_input: (D, 4H, F).
        w_hidden: (D, 4H, P).
        peepholes: (D, 3, H), from the cell to the i, f and o gates; None for an LSTM without.
        bias: (D, 4H).
        projection: (D, P, H): r_t = W m_t is what recurs and comes out; None: P = H, r_t = m_t.
        nonrecurrent: (D, Q, H): p_t = W m_t comes out beside r_t; None: Q = 0.

    Returns:
        (N, T, D·(P+Q)): forward and backward vectors beside each other; zero in the padding.

    Raises:
        ValueError: lengths or weights that do not fit.
    """
    ragged = layout(lengths, x.shape[1])
    recurrence = Recurrence("lstm", w_hidden, peepholes, projection, nonrecurrent)
    return unpack(recurrent_rows(pack(x, ragged), ragged, w_input, bias, recurrence), ragged)


def tanh_rnn(x: Tensor, lengths: Tensor, w_input: Tensor, w_hidden: Tensor, bias: Tensor) -> Tensor:
    """A (bidirectional) tanh layer, [G13] eq. 1. Shapes as `peephole_lstm`, H in place of 4H."""
    ragged = layout(lengths, x.shape[1])
    recurrence = Recurrence("tanh", w_hidden)
    return unpack(recurrent_rows(pack(x, ragged), ragged, w_input, bias, recurrence), ragged)


def recurrent_rows(
    rows: Tensor, ragged: Ragged, w_input: Tensor, bias: Tensor, recurrence: Recurrence
) -> Tensor:
    """A layer over the rows of a batch: input projection and sweep as one function.

    Args:
        rows: (R, F).
        ragged: where the rows stand.
        w_input: (D, G, F), G gates of the cell.
        bias: (D, G).
        recurrence: the cell and its weights.

    Returns:
        (R, D·(P+Q)).

    Raises:
        ValueError: shapes that do not fit.
    """
    _check_layer(rows, ragged, w_input, bias, recurrence)
    hidden: Tensor = _Layer.apply(rows, w_input, bias, *recurrence[1:], recurrence.cell, ragged)
    return hidden


def sweep_rows(gates: Tensor, ragged: Ragged, recurrence: Recurrence) -> Tensor:
    """A layer from its gates, for one whose input projection is normalised before it recurs.

    Args:
        gates: pre-activations W_x x_t + b after any normalisation, (R, D, G).
        ragged: where the rows stand.
        recurrence: the cell and its weights.

    Returns:
        (R, D·(P+Q)).

    Raises:
        ValueError: shapes that do not fit.
    """
    d = gates.shape[1]
    wanted = (ragged.rows, d, recurrence.cells * GATES[recurrence.cell])
    _check(recurrence, {"gates": (gates, wanted)}, d)
    hidden: Tensor = _Sweep.apply(gates, *recurrence[1:], recurrence.cell, ragged)
    return hidden


def advance_rows(
    rows: Tensor,
    ragged: Ragged,
    w_input: Tensor,
    bias: Tensor,
    recurrence: Recurrence,
    state: State,
) -> tuple[Tensor, State]:
    """`recurrent_rows` of the next frames of sequences that come in chunks; of one direction.

    However sequences are cut and batched, they get the same vectors from compiled kernels, bit for
    bit. Gradients flow within the chunk; none flows into ``state``, nor from the state returned.

    Args:
        rows: (R, F).
        ragged: where the rows stand; a sequence may have no new frame.
        w_input: (1, G, F).
        bias: (1, G).
        recurrence: the cell and its weights.
        state: of the N sequences before these frames, in their order in the batch; at first
            `Recurrence.start`.

    Returns:
        (R, P+Q), and the state after the last frame of each sequence.

    Raises:
        ValueError: shapes that do not fit, or two directions.
    """
    _check_layer(rows, ragged, w_input, bias, recurrence)
    gates = linear_rows(rows, w_input.flatten(0, 1), bias.flatten())
    return advance_sweep(gates.view(len(rows), *bias.shape), ragged, recurrence, state)


def advance_sweep(
    gates: Tensor, ragged: Ragged, recurrence: Recurrence, state: State
) -> tuple[Tensor, State]:
    """`sweep_rows` of the next frames of sequences: see `advance_rows`."""
    d, count = gates.shape[1], ragged.padded[0]
    if d != 1:
        raise ValueError("a layer of two directions reads whole sequences, not chunks of them")
    start = recurrence.start(0)
    given = {
        "gates": (gates, (ragged.rows, d, recurrence.cells * GATES[recurrence.cell])),
        "state.h": (state.h, (count, start.h.shape[1])),
        "state.c": (state.c, (count, start.c.shape[1])),
    }
    _check(recurrence, given, d)
    hidden, *after = _Advance.apply(gates, *recurrence[1:], recurrence.cell, ragged, state)
    return hidden, State(*after)


def _check_layer(
    rows: Tensor, ragged: Ragged, w_input: Tensor, bias: Tensor, recurrence: Recurrence
) -> None:
    d, gates, features = w_input.shape
    _check(
        recurrence,
        {
            "x": (rows, (ragged.rows, features)),
            "w_input": (w_input, (d, recurrence.cells * GATES[recurrence.cell], features)),
            "bias": (bias, (d, gates)),
        },
        d,
    )


def _check(
    recurrence: Recurrence, inputs: dict[str, tuple[Tensor, tuple[int, ...]]], d: int
) -> None:
    """Raise ValueError, naming the shapes, where they do not fit."""
    cell, w_hidden, peepholes, projection, nonrecurrent = recurrence
    size, gates = recurrence.cells, recurrence.cells * GATES[cell]
    width = size if projection is None else projection.shape[1]
    beside = 0 if nonrecurrent is None else nonrecurrent.shape[1]
    if projection is None and nonrecurrent is not None:
        raise ValueError("a non-recurrent projection stands beside a recurrent one, and needs it")
    wanted: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        **inputs,
        "w_hidden": (w_hidden, (d, gates, width)),
        "peepholes": (peepholes, (d, 3, size)),
        "projection": (projection, (d, width, size)),
        "nonrecurrent": (nonrecurrent, (d, beside, size)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, not {shape}")
    if d not in (1, 2):
        raise ValueError(f"a layer has 1 or 2 directions, not {d}")


def _swept(
    ctx: Any, gates: Tensor, recurrence: Recurrence, ragged: Ragged, *inputs: Tensor
) -> Tensor:
    """What comes out (R, D·(P+Q)) from gates (R, D, G), which the sweep writes over.

    ``ctx`` keeps ``inputs``, the recurrence's weights and what the sweep back needs, in this order.
    """
    hidden, sweep = engine(recurrence.family, gates).forward(gates, recurrence, ragged)
    ctx.cell, *weights = recurrence
    ctx.save_for_backward(*inputs, *weights, *sweep)
    ctx.ragged = ragged
    return _with_nonrecurrent(hidden, sweep, recurrence).flatten(1)


def _saved(cell: str, *saved: Any) -> tuple[Recurrence, Sweep]:
    """What `_swept` has kept: weights and sweep."""
    count = len(Recurrence._fields) - 1
    return Recurrence(cell, *saved[:count]), Sweep(*saved[count:])


def _with_nonrecurrent(hidden: Tensor, sweep: Sweep, recurrence: Recurrence) -> Tensor:
    """(R, D, P) -> (R, D, P+Q): r_t, and p_t beside it where there is such a projection."""
    beside, outputs = recurrence.nonrecurrent, sweep.outputs
    if beside is None or outputs is None:
        return hidden
    weights = enumerate(beside.to(outputs.dtype))
    p = torch.stack([product(outputs[:, d], w.t()) for d, w in weights], dim=1)
    return torch.cat([hidden, p], dim=2)


class _Sweep(Function):
    """Gates (R, D, G) -> what comes out (R, D·(P+Q))."""

    @staticmethod
    def forward(
        ctx: Any,
        gates: Tensor,
        w_hidden: Tensor,
        peepholes: Tensor | None,
        projection: Tensor | None,
        nonrecurrent: Tensor | None,
        cell: str,
        ragged: Ragged,
    ) -> Tensor:
        own = gates.clone(memory_format=torch.contiguous_format)
        recurrence = Recurrence(cell, w_hidden, peepholes, projection, nonrecurrent)
        return _swept(ctx, own, recurrence, ragged)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        recurrence, sweep = _saved(ctx.cell, *ctx.saved_tensors)
        return (*_sweep_back(grads[0], sweep, recurrence, ctx.ragged), None, None)


class _Advance(Function):
    """Gates (R, 1, G) -> what comes out (R, P+Q) and the state after it, (N, P) and (N, H)."""

    @staticmethod
    def forward(
        ctx: Any,
        gates: Tensor,
        w_hidden: Tensor,
        peepholes: Tensor | None,
        projection: Tensor | None,
        nonrecurrent: Tensor | None,
        cell: str,
        ragged: Ragged,
        state: State,
    ) -> tuple[Tensor, Tensor, Tensor]:
        count, places, ragged = ragged.padded[0], order(ragged), after_a_state(ragged)
        own = torch.cat([gates.new_zeros(count, *gates.shape[1:]), gates])
        recurrence = Recurrence(cell, w_hidden, peepholes, projection, nonrecurrent)
        given = State(*(x.detach().index_select(0, places) for x in state))
        hidden, sweep = engine(recurrence.family, own).forward(own, recurrence, ragged, given)
        ctx.cell, ctx.ragged, ctx.count = cell, ragged, count
        ctx.save_for_backward(*recurrence[1:], *sweep)
        last = _last_rows(ragged).to(hidden.device)
        after = [hidden[:, 0].index_select(0, last), given.c]
        if cell == "lstm":
            assert sweep.cells is not None
            after[1] = sweep.cells[:, 0].index_select(0, last)
        h, c = (torch.empty_like(x).index_copy_(0, places, x) for x in after)
        ctx.mark_non_differentiable(h, c)
        return _with_nonrecurrent(hidden, sweep, recurrence)[count:].flatten(1), h, c

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        recurrence, sweep = _saved(ctx.cell, *ctx.saved_tensors)
        grad = torch.cat([grads[0].new_zeros(ctx.count, grads[0].shape[1]), grads[0]])
        d_gates, *others = _sweep_back(grad, sweep, recurrence, ctx.ragged)
        return (d_gates[ctx.count :], *others, None, None, None)


def _last_rows(ragged: Ragged) -> Tensor:
    """(N,) row of the last frame of the sequence in each place, which all have one."""
    places = torch.arange(ragged.padded[0])
    frames = (ragged.active[:, None] > places).sum(dim=0)
    return ragged.offsets[frames - 1] + places


def _sweep_back(
    grad: Tensor, sweep: Sweep, recurrence: Recurrence, ragged: Ragged
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of the gates (R, D, G) and the weights, in their order, from that of the output."""
    computed, d_nonrecurrent = int(ragged.offsets[ragged.given]), None
    directions, width = sweep.before.shape[1:]
    grads = [grad.reshape(len(grad), directions, grad.shape[1] // directions)]
    if recurrence.nonrecurrent is not None and sweep.outputs is not None:
        of_r, of_p = grads[0].split([width, recurrence.nonrecurrent.shape[1]], dim=2)
        weights = enumerate(recurrence.nonrecurrent.to(of_p.dtype))
        grads = [of_r, torch.stack([product(of_p[:, d], w) for d, w in weights], dim=1)]
        d_nonrecurrent = _by_direction(of_p[computed:], sweep.outputs[computed:])
    d_gates, d_hidden, d_peepholes = engine(recurrence.family, sweep.gates).backward(
        grads[0], sweep, recurrence, ragged, *grads[1:]
    )
    d_projection = None
    if d_hidden is not None and sweep.outputs is not None:
        d_projection = _by_direction(d_hidden[computed:], sweep.outputs[computed:])
    fed_back = fed_back_gradient(d_gates, sweep, recurrence)
    d_w_hidden = _by_direction(fed_back[computed:], sweep.before[computed:])
    return d_gates, d_w_hidden, d_peepholes, d_projection, d_nonrecurrent


class _Layer(Function):
    """Rows (R, F) -> what comes out (R, D·(P+Q))."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        w_input: Tensor,
        bias: Tensor,
        w_hidden: Tensor,
        peepholes: Tensor | None,
        projection: Tensor | None,
        nonrecurrent: Tensor | None,
        cell: str,
        ragged: Ragged,
    ) -> Tensor:
        d, g, f = w_input.shape
        gates = affine(rows, w_input.reshape(d * g, f), bias.reshape(d * g)).view(-1, d, g)
        recurrence = Recurrence(cell, w_hidden, peepholes, projection, nonrecurrent)
        return _swept(ctx, gates, recurrence, ragged, rows, w_input)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        rows, w_input, *saved = ctx.saved_tensors
        recurrence, sweep = _saved(ctx.cell, *saved)
        d, g, f = w_input.shape
        d_gates, *of_weights = _sweep_back(grads[0], sweep, recurrence, ctx.ragged)
        flat = d_gates.view(len(rows), d * g)
        return (
            product(flat, w_input.reshape(d * g, f)) if ctx.needs_input_grad[0] else None,
            product(flat.t(), rows).view(w_input.shape),
            flat.sum(dim=0).view(d, g),
            *of_weights,
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
    """One step of an LSTM of one direction: see `Recurrence.step`.

    Args:
        projected: W_x x_t + b, (N, 4H).
        h: h_{t-1}, (N, H).
        c: c_{t-1}, (N, H).
        w_hidden: (4H, H).
        peepholes: (3, H).

    Returns:
        (h_t, c_t), each (N, H).
    """
    return Recurrence("lstm", w_hidden, peepholes).step(projected, h, c)
