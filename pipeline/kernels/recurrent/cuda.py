"""The sweep of the recurrent layers on a GPU: launches the Triton programs of `triton.py`.

Functions and tensors as in `plain.py`, for float32, bfloat16 and float16. How the programs are
launched stands in `launches.py`. One computes the recurrent product, gates, cell and hidden state
of a tile of cells for a step; a projection takes a second launch. A GRU's are in `gru_cuda.py`.
"""

import importlib
import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pipeline.kernels.ragged import Ragged
from pipeline.kernels.recurrent import plain
from pipeline.kernels.recurrent.launches import Launch, Launches, aligned, run, weights_for
from pipeline.kernels.recurrent.plain import (
    Recurrence,
    State,
    Sweep,
    peephole_gradient,
    previous,
    put_state,
)

__all__ = ["available", "backward", "forward"]


def available() -> bool:
    """Whether there is Triton."""
    return importlib.util.find_spec("triton") is not None


def forward(
    gates: Tensor, recurrence: Recurrence, ragged: Ragged, state: State | None = None
) -> tuple[Tensor, Sweep]:
    """See `plain.forward`; leaves ``gates`` as they are."""
    if ragged.rows == 0:
        return plain.forward(gates, recurrence, ragged, state)
    rows, directions, _ = gates.shape
    weights = weights_for(recurrence, gates.dtype)
    width, size = weights.w_hidden.shape[2], weights.cells
    hidden = gates.new_empty(rows, directions, width)
    activated = torch.empty_like(gates, memory_format=torch.contiguous_format)
    cells = outputs = None
    if weights.cell == "lstm":
        cells = gates.new_empty(rows, directions, size, dtype=torch.float32)
        if weights.projection is not None:
            outputs = gates.new_empty(rows, directions, size)
    if state is not None:
        put_state(state, hidden, cells)
    tensors: dict[str, Tensor | None] = {
        "GATES": aligned(gates, gates.dtype),
        "ACTIVATED": activated,
        "CELLS": cells,
        "HIDDEN": hidden,
        "OUTPUTS": outputs,
    }
    run(_forward_launches(weights, ragged, gates), tensors, weights, ragged)
    return hidden, Sweep(activated, cells, previous(hidden, ragged), outputs)


def backward(
    grad_h: Tensor,
    sweep: Sweep,
    recurrence: Recurrence,
    ragged: Ragged,
    grad_m: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """See `plain.backward`."""
    if ragged.rows == 0:
        return plain.backward(grad_h, sweep, recurrence, ragged, grad_m)
    gates, dtype = sweep.gates, sweep.gates.dtype
    weights = weights_for(recurrence, dtype)
    d_gates = torch.empty_like(gates, memory_format=torch.contiguous_format)
    d_hidden = None
    if weights.projection is not None:
        d_hidden = torch.empty_like(sweep.before, memory_format=torch.contiguous_format)
    tensors: dict[str, Tensor | None] = {
        "GATES": aligned(gates, dtype),
        "GRADIENT": aligned(grad_h, dtype),
        "GRADIENT_M": None if grad_m is None else aligned(grad_m, dtype),
        "D_GATES": d_gates,
        "D_HIDDEN": d_hidden,
    }
    if sweep.cells is not None:
        shape = (int(ragged.active[0]), gates.shape[1], weights.cells)
        tensors["CELLS"] = aligned(sweep.cells, torch.float32)
        tensors["D_CELLS"], tensors["D_CELLS_NEXT"] = (
            gates.new_empty(shape, dtype=torch.float32) for _ in range(2)
        )
    launches = _backward_launches(weights, ragged, gates, adds_m=grad_m is not None)
    run(launches, tensors, weights, ragged)
    return d_gates, d_hidden, peephole_gradient(d_gates, sweep.cells, recurrence.peepholes, ragged)


@cache
def _programs() -> Any:
    return importlib.import_module("pipeline.kernels.recurrent.triton")


def _forward_launches(weights: Recurrence, ragged: Ragged, gates: Tensor) -> list[Launch]:
    make = Launches(_programs, weights, ragged, gates)
    if weights.cell != "lstm":
        return [make("simple_step", make.size, make.size, 64, CLIP=make.clip)]
    launches = [make("lstm_step", make.size, make.width, 64, **_lstm(weights))]
    if weights.projection is not None:
        launches.append(make("projection_step", make.width, make.size, 64, P=make.width))
    return launches


def _backward_launches(
    weights: Recurrence, ragged: Ragged, gates: Tensor, *, adds_m: bool = False
) -> list[Launch]:
    make = Launches(_programs, weights, ragged, gates)
    size, width = make.size, make.width
    if weights.cell != "lstm":
        return [make("simple_step_back", size, size, 128, CLIP=make.clip)]
    constants = {**_lstm(weights), "ADDS_M": adds_m}
    if weights.projection is None:
        return [make("lstm_step_back", size, 4 * size, 128, **constants)]
    return [
        make("hidden_step_back", width, 4 * size, 128, P=width),
        make("lstm_step_back", size, width, 128, **constants),
    ]


def _lstm(weights: Recurrence) -> dict[str, Any]:
    """The constants of its programs."""
    return {
        "P": weights.w_hidden.shape[2],
        "HAS_PEEPHOLES": weights.peepholes is not None,
        "IS_PROJECTED": weights.projection is not None,
    }
