"""The sweep of LSTM, tanh and clipped ReLU layers in plain torch: any device, any floating dtype.

An engine advances one layer of D directions over the rows of a ragged batch (`ragged.Ragged`),
from the input projections W_x x_t + b to the hidden vectors, and back. The matrix products over
the whole sequence, before and after the sweep, are not its business. All engines have the `forward`
and the `backward` of this module and share its `Recurrence` and `Sweep`.

Direction 0 reads a sequence from its first frame on, direction 1 from its last. Gates stand in the
order i, f, c, o; their pre-activations have G = 4H columns, 3H (z, r, candidate) for a GRU and H
for a tanh or ReLU layer. P is the width of what is fed back: the projection's where there is one,
else H. Where the gates are half precision, the cell states are kept, and everything element by
element is computed, in float32. The sweep of a GRU is in `gru_plain`.

[DS2] D. Amodei et al., "Deep Speech 2: End-to-End Speech Recognition in English and Mandarin",
2016.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.kernels.ragged import Ragged

# Columns of the pre-activations for each cell, by its name.
GATES = {"lstm": 4, "tanh": 1, "relu": 1, "gru": 3, "gru_tanh": 3}
CLIP = 20.0  # the largest output of a clipped ReLU, min(max(x, 0), 20), in [DS2]


class State(NamedTuple):
    """What N sequences go on from: hidden vectors and cell states ([G12] 2.6 keeps both)."""

    h: Tensor  # (N, P)
    c: Tensor  # (N, H), or (N, 0) for a cell without a state


class Recurrence(NamedTuple):
    """What recurs in a layer of D directions: the cell, by its name, and its weights.

    Layers and search share it: an engine sweeps it over whole sequences, and `step` advances one
    direction of it by one step.
    """

    cell: str  # a name of `GATES`
    w_hidden: Tensor  # (D, G, P), G = 4H for an LSTM, 3H for a GRU, H for a tanh or ReLU layer
    peepholes: Tensor | None = None  # (D, 3, H), from the cell to the i, f and o gates
    projection: Tensor | None = None  # (D, P, H), the recurrent projection of [S14]
    nonrecurrent: Tensor | None = None  # (D, Q, H), what goes up beside it and does not recur

    @property
    def family(self) -> str:
        """The family of `engines.ENGINES` that sweeps it."""
        return "gru" if GATES[self.cell] == 3 else "recurrent"

    @property
    def cells(self) -> int:
        """H."""
        return self.w_hidden.shape[-2] // GATES[self.cell]

    def start(self, count: int) -> State:
        """The state of ``count`` sequences before their first frame: zeros."""
        size = self.cells if self.cell == "lstm" else 0
        dtype = self.w_hidden.dtype
        return State(
            self.w_hidden.new_zeros(count, self.w_hidden.shape[2]),
            self.w_hidden.new_zeros(count, size, dtype=state_dtype(dtype)),
        )

    def to(self, dtype: torch.dtype) -> "Recurrence":
        """The same weights in another type of numbers."""
        return self._each(lambda weights: weights.to(dtype))

    def direction(self, d: int) -> "Recurrence":
        """The weights of one direction, without the axis of the directions."""
        return self._each(lambda weights: weights[d])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Recurrence":
        others = (None if w is None else change(w) for w in self[2:])
        return Recurrence(self.cell, change(self.w_hidden), *others)

    def step(self, projected: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step of a `direction`, for search, where the inputs come one at a time.

        Args:
            projected: W_x x_t + b, (N, G).
            h: what came out before, (N, P), or (N, P+Q) of which the first P recur.
            c: c_{t-1}, (N, H); only an LSTM has it, other cells return it as it is.

        Returns:
            What comes out, h_t (N, P), or r_t and p_t of [S14] beside each other, (N, P+Q), and
            c_t (N, H): [G13] eq. 3-7, or eq. 1 for a tanh layer.
        """
        h = h[:, : self.w_hidden.shape[1]]
        if self.family == "gru":
            size = self.cells
            update, reset = torch.sigmoid(
                torch.addmm(projected[:, : 2 * size], h, self.w_hidden[: 2 * size].t())
            ).chunk(2, dim=1)
            fed_back = h @ self.w_hidden[2 * size :].t()
            candidate = activated(projected[:, 2 * size :] + reset * fed_back, self.cell)
            return h + update * (candidate - h), c
        gates = torch.addmm(projected, h, self.w_hidden.t())
        if self.cell != "lstm":
            return activated(gates, self.cell), c
        x_i, x_f, x_c, x_o = gates.chunk(4, dim=1)
        if self.peepholes is not None:
            x_i, x_f = x_i + self.peepholes[0] * c, x_f + self.peepholes[1] * c
        c = torch.sigmoid(x_f) * c + torch.sigmoid(x_i) * torch.tanh(x_c)
        if self.peepholes is not None:
            x_o = x_o + self.peepholes[2] * c
        m = torch.sigmoid(x_o) * torch.tanh(c)
        return (m if self.projections is None else m @ self.projections.t()), c

    @property
    def projections(self) -> Tensor | None:
        """What leads from o tanh(c) to all that comes out, (…, P+Q, H); None: it is that."""
        if self.projection is None or self.nonrecurrent is None:
            return self.projection
        return torch.cat([self.projection, self.nonrecurrent], dim=-2)


class Sweep(NamedTuple):
    """What a forward sweep leaves for the backward sweep and for the weights' gradients."""

    gates: Tensor  # (R, D, G), activated
    cells: Tensor | None  # (R, D, H): an LSTM's c_t, a GRU's U h_{t-1} of the candidate, else none
    before: Tensor  # (R, D, P): the hidden vector of the step read before, 0 where there is none
    outputs: Tensor | None  # (R, D, H): o tanh(c), kept where a projection follows


def forward(
    gates: Tensor, recurrence: Recurrence, ragged: Ragged, state: State | None = None
) -> tuple[Tensor, Sweep]:
    """All steps of one layer: [G13] eq. 3-7, eq. 1 for a tanh layer, [S14] with a projection.

    Args:
        gates: W_x x_t + b, (R, D, G); may be overwritten.
        recurrence: the weights; cast to the dtype of ``gates``.
        ragged: where the rows stand.
        state: what the sequences, in the order of their places, go on from, for one direction and a
            layout of `ragged.after_a_state`, whose first N rows then hold it in all results;
            gates there are not read. None: zeros.

    Returns:
        The hidden vectors (R, D, P), in the dtype of ``gates``, and what `backward` needs.
    """
    rows, directions, _ = gates.shape
    size, width = recurrence.cells, recurrence.w_hidden.shape[2]
    hidden = gates.new_empty(rows, directions, width)
    cells = outputs = None
    if recurrence.cell == "lstm":
        cells = gates.new_empty(rows, directions, size, dtype=state_dtype(gates.dtype))
        if recurrence.projection is not None:
            outputs = gates.new_empty(rows, directions, size)
    for d in range(directions):
        weights = cast_direction(recurrence, d, gates.dtype)
        h = gates.new_zeros(ragged.padded[0], width)
        c = gates.new_zeros(ragged.padded[0], size, dtype=state_dtype(gates.dtype))
        if state is not None:
            put_state(state, hidden, cells)
            h, c = hidden[: len(h), 0].clone(), c if cells is None else cells[: len(h), 0].clone()
        for at, active in frames_in_order(ragged, backwards=d == 1):
            gate = gates[at, d]
            gate += h[:active] @ weights.w_hidden.t()
            if cells is None:
                h[:active] = gate.copy_(activated(gate, recurrence.cell))
            else:
                m = _lstm_step(gate, c[:active], weights.peepholes)
                cells[at, d] = c[:active]
                if outputs is not None and weights.projection is not None:
                    outputs[at, d] = m
                    m = outputs[at, d] @ weights.projection.t()
                h[:active] = m
            hidden[at, d] = h[:active]
    return hidden, Sweep(gates, cells, previous(hidden, ragged), outputs)


def backward(
    grad_h: Tensor,
    sweep: Sweep,
    recurrence: Recurrence,
    ragged: Ragged,
    grad_m: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The gradients that need the sweep's order; those of the weight matrices follow from them.

    Args:
        grad_h: gradient of the hidden vectors, (R, D, P).
        sweep: of `forward`; left as it is.
        recurrence: as given to `forward`.
        ragged: as given to `forward`.
        grad_m: gradient of o tanh(c), (R, D, H), that came from elsewhere than the recurrent
            projection; only for a layer with one. None: none did.

    Returns:
        The gradient of W_x x_t + b, (R, D, G); with a projection the whole gradient that reached
        its output, (R, D, P), else None; the gradient of the peepholes, (D, 3, H), or None.
        Nothing stands in the rows of a state that was given: no gradient flows into it.
    """
    d_gates = torch.empty_like(sweep.gates)
    d_hidden = torch.empty_like(sweep.before) if sweep.outputs is not None else None
    for d in range(sweep.gates.shape[1]):
        weights = cast_direction(recurrence, d, sweep.gates.dtype)
        d_h = grad_h.new_zeros(ragged.padded[0], grad_h.shape[2], dtype=sweep.gates.dtype)
        d_c = d_h.new_zeros(len(d_h), recurrence.cells, dtype=state_dtype(sweep.gates.dtype))
        c_before = None if sweep.cells is None else previous(sweep.cells, ragged)[:, d]
        for at, active in frames_in_order(ragged, backwards=d == 0):
            gate, d_m = sweep.gates[at, d], d_h[:active]
            d_m += grad_h[at, d]
            if sweep.cells is None or c_before is None:
                d_gate = d_m * slope(gate, recurrence.cell)
            else:
                if d_hidden is not None and weights.projection is not None:
                    d_hidden[at, d] = d_m
                    d_m = d_m @ weights.projection
                    d_m = d_m if grad_m is None else d_m + grad_m[at, d]
                states = (sweep.cells[at, d], c_before[at])
                d_gate = _lstm_step_back(d_m, d_c[:active], gate, states, weights.peepholes)
            d_gates[at, d] = d_gate
            torch.mm(d_gates[at, d], weights.w_hidden, out=d_h[:active])
    return d_gates, d_hidden, peephole_gradient(d_gates, sweep.cells, recurrence.peepholes, ragged)


# ---- shared by the engines -----------------------------------------------------------------------


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the cell states: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def put_state(state: State, hidden: Tensor, cells: Tensor | None) -> None:
    """Write what is given into the rows of the frame before the first."""
    hidden[: len(state.h), 0] = state.h
    if cells is not None:
        cells[: len(state.c), 0] = state.c


def previous(x: Tensor, ragged: Ragged) -> Tensor:
    """(R, D, K) -> the same of the step that each direction read before, 0 where there is none."""
    out = torch.zeros_like(x)
    if ragged.rows == 0:
        return out
    first = int(ragged.active[0])  # rows of frame 0; each later row has its sequence's earlier one
    frame = ragged.index[first:] % ragged.padded[1]
    active = ragged.active.to(x.device, non_blocking=True)
    earlier = torch.arange(first, ragged.rows, device=x.device) - active[frame - 1]
    out[first:, 0] = x[:, 0].index_select(0, earlier)
    if x.shape[1] == 2:
        out[:, 1].index_copy_(0, earlier, x[first:, 1])
    return out


def peephole_gradient(
    d_gates: Tensor, cells: Tensor | None, peepholes: Tensor | None, ragged: Ragged
) -> Tensor | None:
    """The gradient (D, 3, H) of the peepholes by sums over all rows; None where there are none."""
    if peepholes is None or cells is None:
        return None
    d_i, d_f, _, d_o = d_gates.to(cells.dtype).chunk(4, dim=2)
    c_before, computed = previous(cells, ragged), int(ragged.offsets[ragged.given])
    products = (d_i * c_before, d_f * c_before, d_o * cells)
    return torch.stack([p[computed:].sum(dim=0) for p in products], dim=1).to(peepholes.dtype)


def activated(x: Tensor, cell: str) -> Tensor:
    """The nonlinearity of a layer without cell states, or of a GRU's candidate."""
    return torch.tanh(x) if cell.endswith("tanh") else x.clamp(0.0, CLIP)


def slope(value: Tensor, cell: str) -> Tensor:
    """The derivative of `activated`, from its value; 0 at both ends of a clipped ReLU."""
    if cell.endswith("tanh"):
        return 1 - value * value
    return ((value > 0.0) & (value < CLIP)).to(value.dtype)


def fed_back_gradient(d_gates: Tensor, sweep: Sweep, recurrence: Recurrence) -> Tensor:
    """The gradient (R, D, G) of U h_{t-1}, from that of W_x x_t + b; see `gru_plain` for a GRU."""
    if recurrence.family != "gru":
        return d_gates
    size = recurrence.cells
    reset = sweep.gates[..., size : 2 * size]
    return torch.cat([d_gates[..., : 2 * size], d_gates[..., 2 * size :] * reset], dim=2)


def frames_in_order(ragged: Ragged, *, backwards: bool) -> Iterator[tuple[slice, int]]:
    """The rows of each frame in the order of reading, and how many sequences have that frame."""
    active, offsets = ragged.active.tolist(), ragged.offsets.tolist()
    frames = range(ragged.given, len(active))
    for t in reversed(frames) if backwards else frames:
        if active[t]:
            yield slice(offsets[t], offsets[t] + active[t]), active[t]


def cast_direction(recurrence: Recurrence, d: int, dtype: torch.dtype) -> Recurrence:
    """The weights of one direction; the peepholes, which meet the cell states, in their dtype."""
    weights = recurrence._replace(nonrecurrent=None).direction(d)
    peepholes = None if weights.peepholes is None else weights.peepholes.to(state_dtype(dtype))
    return weights.to(dtype)._replace(peepholes=peepholes)


# ---- one step ------------------------------------------------------------------------------------


def _lstm_step(gate: Tensor, c: Tensor, peepholes: Tensor | None) -> Tensor:
    """o tanh(c_t); ``gate`` (A, 4H) is activated and ``c`` (A, H) advanced in place."""
    i, f, g, o = gate.to(c.dtype).chunk(4, dim=1)
    if peepholes is not None:
        i, f = i + peepholes[0] * c, f + peepholes[1] * c
    i, f, g = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g)  # [G13] eq. 3, 4
    c.mul_(f).addcmul_(i, g)  # eq. 5
    o = torch.sigmoid(o if peepholes is None else o + peepholes[2] * c)  # eq. 6
    gate.copy_(torch.cat([i, f, g, o], dim=1))
    return o * torch.tanh(c)  # eq. 7


def _lstm_step_back(
    d_m: Tensor,
    d_c: Tensor,
    gate: Tensor,
    states: tuple[Tensor, Tensor],
    peepholes: Tensor | None,
) -> Tensor:
    """The gradient (A, 4H) of a step's pre-activations from that of o tanh(c), ``d_m`` (A, H).

    ``d_c`` (A, H), the gradient of c_t by what was read later, becomes that of c_{t-1}; ``states``
    are c_t and c_{t-1}.
    """
    c, c_before = states
    i, f, g, o = gate.to(c.dtype).chunk(4, dim=1)
    tanh_c = torch.tanh(c)
    d_o = d_m * tanh_c * o * (1 - o)
    d_c += d_m * o * (1 - tanh_c * tanh_c)
    if peepholes is not None:
        d_c.addcmul_(d_o, peepholes[2])
    d_i, d_f, d_g = d_c * g * i * (1 - i), d_c * c_before * f * (1 - f), d_c * i * (1 - g * g)
    d_c.mul_(f)
    if peepholes is not None:
        d_c.addcmul_(d_i, peepholes[0]).addcmul_(d_f, peepholes[1])
    return torch.cat([d_i, d_f, d_g, d_o], dim=1)
