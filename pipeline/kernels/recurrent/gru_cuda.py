"""The sweep of a GRU on a GPU: launches the Triton programs of `gru_triton.py`, a step in one.

Functions and tensors as in `gru_plain.py`, for float32, bfloat16 and float16. What passes from h_t
to h_{t-1} beside U is kept in float32.
"""

import importlib
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pipeline.kernels.ragged import Ragged
from pipeline.kernels.recurrent import gru_plain
from pipeline.kernels.recurrent.launches import Launch, Launches, aligned, run, weights_for
from pipeline.kernels.recurrent.plain import Recurrence, State, Sweep, previous, put_state


def forward(
    gates: Tensor, recurrence: Recurrence, ragged: Ragged, state: State | None = None
) -> tuple[Tensor, Sweep]:
    """See `plain.forward`; leaves ``gates`` as they are."""
    if ragged.rows == 0:
        return gru_plain.forward(gates, recurrence, ragged, state)
    weights = weights_for(recurrence, gates.dtype)
    hidden, kept = (gates.new_empty(*gates.shape[:2], weights.cells) for _ in range(2))
    activated = torch.empty_like(gates, memory_format=torch.contiguous_format)
    if state is not None:
        put_state(state, hidden, None)
    tensors: dict[str, Tensor | None] = {
        "GATES": aligned(gates, gates.dtype),
        "ACTIVATED": activated,
        "CELLS": kept,
        "HIDDEN": hidden,
    }
    run(_forward_launches(weights, ragged, gates), tensors, weights, ragged)
    return hidden, Sweep(activated, kept, previous(hidden, ragged), None)


def backward(
    grad_h: Tensor, sweep: Sweep, recurrence: Recurrence, ragged: Ragged
) -> tuple[Tensor, None, None]:
    """See `plain.backward`."""
    if ragged.rows == 0:
        return gru_plain.backward(grad_h, sweep, recurrence, ragged)
    gates, dtype = sweep.gates, sweep.gates.dtype
    assert sweep.cells is not None
    weights = weights_for(recurrence, dtype)
    d_gates = torch.empty_like(gates, memory_format=torch.contiguous_format)
    shape = (int(ragged.active[0]), gates.shape[1], weights.cells)
    tensors: dict[str, Tensor | None] = {
        "GATES": aligned(gates, dtype),
        "CELLS": aligned(sweep.cells, dtype),
        "HIDDEN": aligned(sweep.before, dtype),
        "GRADIENT": aligned(grad_h, dtype),
        "D_GATES": d_gates,
        "D_HIDDEN": gates.new_empty(sweep.cells.shape),
        "D_CELLS": gates.new_empty(shape, dtype=torch.float32),
        "D_CELLS_NEXT": gates.new_empty(shape, dtype=torch.float32),
    }
    run(_backward_launches(weights, ragged, gates), tensors, weights, ragged)
    return d_gates, None, None


@cache
def _programs() -> Any:
    return importlib.import_module("pipeline.kernels.recurrent.gru_triton")


def _forward_launches(weights: Recurrence, ragged: Ragged, gates: Tensor) -> list[Launch]:
    make = Launches(_programs, weights, ragged, gates)
    return [make("gru_step", make.size, make.size, 64, CLIP=make.clip)]


def _backward_launches(weights: Recurrence, ragged: Ragged, gates: Tensor) -> list[Launch]:
    make = Launches(_programs, weights, ragged, gates)
    return [make("gru_step_back", make.size, 2 * make.size, 128, CLIP=make.clip)]
