"""The sweep of a gated recurrent unit (GRU) in plain torch: any device, any floating dtype.

Of D. Amodei et al., "Deep Speech 2: End-to-End Speech Recognition in English and Mandarin", arXiv
1512.02595, after K. Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder
for Statistical Machine Translation", 2014. Gates stand in the order z (update), r (reset),
candidate. The reset gate acts on U h_{t-1}, so one product with U serves all three, and the sweep
keeps the candidate's share of it, as ``Sweep.cells``, for the way back.
"""

import torch
from torch import Tensor

from pipeline.kernels.ragged import Ragged
from pipeline.kernels.recurrent.plain import (
    Recurrence,
    State,
    Sweep,
    activated,
    cast_direction,
    frames_in_order,
    previous,
    put_state,
    slope,
    state_dtype,
)


def forward(
    gates: Tensor, recurrence: Recurrence, ragged: Ragged, state: State | None = None
) -> tuple[Tensor, Sweep]:
    """See `plain.forward`."""
    rows, directions, _ = gates.shape
    size = recurrence.cells
    hidden, fed_back = (gates.new_empty(rows, directions, size) for _ in range(2))
    for d in range(directions):
        w_hidden = cast_direction(recurrence, d, gates.dtype).w_hidden
        h = gates.new_zeros(ragged.padded[0], size)
        if state is not None:
            put_state(state, hidden, None)
            h = hidden[: len(h), 0].clone()
        for at, active in frames_in_order(ragged, backwards=d == 1):
            recurrent = h[:active] @ w_hidden.t()
            fed_back[at, d] = recurrent[:, 2 * size :]
            h[:active] = _step(gates[at, d], recurrent, h[:active], recurrence.cell)
            hidden[at, d] = h[:active]
    return hidden, Sweep(gates, fed_back, previous(hidden, ragged), None)


def backward(
    grad_h: Tensor, sweep: Sweep, recurrence: Recurrence, ragged: Ragged
) -> tuple[Tensor, None, None]:
    """See `plain.backward`; a GRU has neither a projection nor peepholes."""
    d_gates = torch.empty_like(sweep.gates)
    assert sweep.cells is not None
    for d in range(sweep.gates.shape[1]):
        w_hidden = cast_direction(recurrence, d, sweep.gates.dtype).w_hidden
        d_h = grad_h.new_zeros(ragged.padded[0], recurrence.cells, dtype=sweep.gates.dtype)
        for at, active in frames_in_order(ragged, backwards=d == 0):
            d_h[:active] += grad_h[at, d]
            states = (sweep.before[at, d], sweep.cells[at, d])
            d_gate, d_recurrent, carried = _step_back(
                d_h[:active], sweep.gates[at, d], states, recurrence.cell
            )
            d_gates[at, d] = d_gate
            d_h[:active] = carried + d_recurrent @ w_hidden
    return d_gates, None, None


def _step(gate: Tensor, recurrent: Tensor, h: Tensor, cell: str) -> Tensor:
    """h_t (A, H) from h_{t-1} and U h_{t-1} (A, 3H); ``gate`` (A, 3H) is activated in place."""
    wide = state_dtype(gate.dtype)
    x_z, x_r, x_c = gate.to(wide).chunk(3, dim=1)
    u_z, u_r, u_c = recurrent.to(wide).chunk(3, dim=1)
    z, r = torch.sigmoid(x_z + u_z), torch.sigmoid(x_r + u_r)
    candidate = activated(x_c + r * u_c, cell)
    gate.copy_(torch.cat([z, r, candidate], dim=1))
    return h + z * (candidate - h)


def _step_back(
    d_h: Tensor, gate: Tensor, states: tuple[Tensor, Tensor], cell: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of W x_t + b and U h_{t-1}, (A, 3H), and of h_{t-1} past both, from that of h_t.

    ``states`` are h_{t-1} and the candidate's share of U h_{t-1}.
    """
    wide = state_dtype(gate.dtype)
    h_before, fed_back = states[0].to(wide), states[1].to(wide)
    z, r, candidate = gate.to(wide).chunk(3, dim=1)
    d_z = d_h * (candidate - h_before) * z * (1 - z)
    d_c = d_h * z * slope(candidate, cell)
    d_r = d_c * fed_back * r * (1 - r)
    of_input = torch.cat([d_z, d_r, d_c], dim=1).to(gate.dtype)
    of_recurrent = torch.cat([d_z, d_r, d_c * r], dim=1).to(gate.dtype)
    return of_input, of_recurrent, (d_h * (1 - z)).to(gate.dtype)
