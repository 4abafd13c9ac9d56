"""The sweep of the recurrent layers on a GPU: launches the Triton programs of `triton.py`.

Functions and tensors as in `plain.py`, for float32, bfloat16 and float16. One launch computes
one time step of all directions and sequences: recurrent product, gates, cell and hidden state of a
tile of cells in one program (a projection takes a second launch). A step waits for the step before
by the order of launches alone; there is no barrier between programs, so nothing can deadlock or
depend on which of them run at the same time, and sums have a fixed order.

Launches cost more than the arithmetic of a step. Hence `CHUNK` of them are captured as a CUDA graph
when a shape comes for the second time, and replayed once per `CHUNK` frames. What differs between
batches, lengths and addresses included, is read from a table on the device, so that one small graph
serves all lengths and no tensor is copied into or out of it. Where there can be no graph (Triton's
interpreter, another capture, an error) the steps are launched one by one.

Products of float32 are computed in float32, in TF32 where `torch.backends.cuda.matmul` allows it.
"""

import importlib
import importlib.util
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.kernels.ragged import Ragged
from pipeline.kernels.recurrent import plain
from pipeline.kernels.recurrent.plain import (
    Recurrence,
    State,
    Sweep,
    peephole_gradient,
    previous,
    put_state,
)

__all__ = ["available", "backward", "forward"]

log = logging.getLogger("pipeline")

CHUNK = 32  # steps of a graph; even, because the gradient of the cells takes turns in two places
GRAPHS = 64  # kept at a time
TABLE = 1024  # least entries of a graph's table
COLUMNS = 16  # cells of a tile
ALIGNMENT = 16  # bytes, which the programs rely on


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
    weights = _weights(recurrence, gates.dtype)
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
        "GATES": _aligned(gates, gates.dtype),
        "ACTIVATED": activated,
        "CELLS": cells,
        "HIDDEN": hidden,
        "OUTPUTS": outputs,
    }
    _run(_forward_launches(weights, ragged, gates), tensors, weights, ragged)
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
    weights = _weights(recurrence, dtype)
    d_gates = torch.empty_like(gates, memory_format=torch.contiguous_format)
    d_hidden = None
    if weights.projection is not None:
        d_hidden = torch.empty_like(sweep.before, memory_format=torch.contiguous_format)
    tensors: dict[str, Tensor | None] = {
        "GATES": _aligned(gates, dtype),
        "GRADIENT": _aligned(grad_h, dtype),
        "GRADIENT_M": None if grad_m is None else _aligned(grad_m, dtype),
        "D_GATES": d_gates,
        "D_HIDDEN": d_hidden,
    }
    if sweep.cells is not None:
        shape = (int(ragged.active[0]), gates.shape[1], weights.cells)
        tensors["CELLS"] = _aligned(sweep.cells, torch.float32)
        tensors["D_CELLS"], tensors["D_CELLS_NEXT"] = (
            gates.new_empty(shape, dtype=torch.float32) for _ in range(2)
        )
    launches = _backward_launches(weights, ragged, gates, adds_m=grad_m is not None)
    _run(launches, tensors, weights, ragged)
    return d_gates, d_hidden, peephole_gradient(d_gates, sweep.cells, recurrence.peepholes, ragged)


def _aligned(x: Tensor, dtype: torch.dtype) -> Tensor:
    x = x.detach().to(dtype).contiguous()
    return x.clone() if x.data_ptr() % ALIGNMENT else x


def _weights(recurrence: Recurrence, dtype: torch.dtype) -> Recurrence:
    """As the programs read them: matrices in the gates' dtype, peepholes in the cells'."""
    kind, w_hidden, peepholes, projection, _ = recurrence
    return Recurrence(
        kind,
        _aligned(w_hidden, dtype),
        None if peepholes is None else _aligned(peepholes, torch.float32),
        None if projection is None else _aligned(projection, dtype),
    )


# ---- what a step launches ------------------------------------------------------------------------


class Launch(NamedTuple):
    """A program of `triton.py`, its grid, its constants and Triton's options."""

    program: str
    grid: tuple[int, int, int]
    constants: tuple[tuple[str, Any], ...]

    def __call__(self, table: Tensor, step: int) -> None:
        getattr(_programs(), self.program)[self.grid](table, step, **dict(self.constants))


@cache
def _programs() -> Any:
    return importlib.import_module("pipeline.kernels.recurrent.triton")


class _Launches:
    """Makes the launches of one sweep, which have most constants in common."""

    def __init__(self, weights: Recurrence, ragged: Ragged, gates: Tensor) -> None:
        sequences = int(ragged.active[0])
        self.directions, _, self.width = weights.w_hidden.shape
        self.size = weights.cells
        self.tile = 16 if sequences <= 64 else 32
        self.tiles = -(-sequences // self.tile)
        language = importlib.import_module("triton.language")
        self.common: dict[str, Any] = {
            "D": self.directions,
            "H": self.size,
            "DTYPE": getattr(language, str(gates.dtype).removeprefix("torch.")),
            "PRECISION": _precision(gates.dtype),
            "SEQUENCES": self.tile,
            "COLUMNS": COLUMNS,
            "enable_fp_fusion": True,  # a Triton option: products and sums in one instruction
        }
        self.lstm: dict[str, Any] = {
            "P": self.width,
            "HAS_PEEPHOLES": weights.peepholes is not None,
            "IS_PROJECTED": weights.projection is not None,
        }

    def __call__(self, program: str, columns: int, inner: int, most: int, **more: Any) -> Launch:
        """For a result of so many columns, each a sum of ``inner`` products, ``most`` at a time."""
        block = min(max(16, 1 << (inner - 1).bit_length()), most)
        constants = {**self.common, **more, "INNER": block}
        grid = (-(-columns // COLUMNS), self.tiles, self.directions)
        return Launch(program, grid, tuple(constants.items()))


def _precision(dtype: torch.dtype) -> str:
    allowed = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if allowed and dtype == torch.float32 else "ieee"


def _clip(weights: Recurrence) -> float:
    return plain.CLIP if weights.cell == "relu" else 0.0


def _forward_launches(weights: Recurrence, ragged: Ragged, gates: Tensor) -> list[Launch]:
    make = _Launches(weights, ragged, gates)
    if weights.cell != "lstm":
        return [make("simple_step", make.size, make.size, 64, CLIP=_clip(weights))]
    launches = [make("lstm_step", make.size, make.width, 64, **make.lstm)]
    if weights.projection is not None:
        launches.append(make("projection_step", make.width, make.size, 64, P=make.width))
    return launches


def _backward_launches(
    weights: Recurrence, ragged: Ragged, gates: Tensor, *, adds_m: bool = False
) -> list[Launch]:
    make = _Launches(weights, ragged, gates)
    make.lstm["ADDS_M"] = adds_m
    size, width = make.size, make.width
    if weights.cell != "lstm":
        return [make("simple_step_back", size, size, 128, CLIP=_clip(weights))]
    if weights.projection is None:
        return [make("lstm_step_back", size, 4 * size, 128, **make.lstm)]
    return [
        make("hidden_step_back", width, 4 * size, 128, P=width),
        make("lstm_step_back", size, width, 128, **make.lstm),
    ]


# ---- all steps -----------------------------------------------------------------------------------


def _run(
    launches: list[Launch],
    tensors: Mapping[str, Tensor | None],
    weights: Recurrence,
    ragged: Ragged,
) -> None:
    """Launch every step, in order, on the current stream.

    The tensors must only live until this returns: the caching allocator hands their memory on in
    the order of the same stream.
    """
    named = {
        **tensors,
        "W_HIDDEN": weights.w_hidden,
        "PEEPHOLES": weights.peepholes,
        "PROJECTION": weights.projection,
    }
    device = weights.w_hidden.device
    frames = int((ragged.active > 0).sum())
    table = _table(named, ragged, frames)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        if _replay(launches, table, frames, device):
            return
        on_device = _moved(table, device)
        for step in range(frames):
            for launch in launches:
                launch(on_device, step)


def _table(tensors: Mapping[str, Tensor | None], ragged: Ragged, frames: int) -> Tensor:
    """The table of `triton.py`, on the CPU."""
    slots = _programs()
    head = torch.zeros(slots.OFFSETS.value, dtype=torch.int64)
    head[slots.FRAMES.value], head[slots.GIVEN.value] = frames, ragged.given
    for name, tensor in tensors.items():
        if tensor is not None:
            head[getattr(slots, name).value] = tensor.data_ptr()
    return torch.cat([head, ragged.offsets[: frames + 1]])


def _moved(table: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
        return table.to(device)
    on_device = torch.empty_like(table, device=device)
    for k, value in enumerate(table.tolist()):  # a capture keeps numbers, but not host memory
        on_device[k].fill_(value)
    return on_device


# ---- graphs --------------------------------------------------------------------------------------


class _Chunk(NamedTuple):
    """`CHUNK` steps from the one on that stands first in the table."""

    graph: Any  # torch.cuda.CUDAGraph
    table: Tensor


class _Graphs:
    """The chunks of the shapes seen lately; None for a shape seen only once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.chunks: OrderedDict[object, _Chunk | None] = OrderedDict()
        self.is_usable = True


_graphs = _Graphs()


def _replay(launches: list[Launch], table: Tensor, frames: int, device: torch.device) -> bool:
    """Run the steps by graphs where that can be done; False, and nothing done, where it cannot."""
    if not _can_replay(device):
        return False
    with _graphs.lock:
        chunk = _chunk(launches, max(TABLE, 1 << (len(table) - 1).bit_length()), device)
        if chunk is None:
            return False
        chunk.table[: len(table)].copy_(table, non_blocking=True)  # pageable: staged at once
        for start in range(0, frames, CHUNK):
            if start:
                chunk.table[0].add_(CHUNK)
            chunk.graph.replay()
    return True


def _can_replay(device: torch.device) -> bool:
    on_gpu = device.type == "cuda" and _graphs.is_usable
    return on_gpu and not torch.cuda.is_current_stream_capturing()


def _stream(device: torch.device) -> int:
    """The current stream: a graph's table must not be filled by one stream while another reads."""
    return int(torch.cuda.current_stream(device).cuda_stream)


def _chunk(launches: list[Launch], entries: int, device: torch.device) -> _Chunk | None:
    """The chunk of a shape, captured if need be; None the first time, which compiles programs."""
    chunks = _graphs.chunks
    key = (device, _stream(device), entries, tuple(launches))
    if key not in chunks:
        chunks[key] = None
        if len(chunks) > GRAPHS:
            torch.cuda.synchronize(device)  # what is dropped must not be running
            chunks.popitem(last=False)
        return None
    chunks.move_to_end(key)
    if chunks[key] is None:
        try:
            chunks[key] = _capture(launches, entries, device)
        except RuntimeError as error:
            _graphs.is_usable = False
            log.warning("no CUDA graph of a recurrent layer, each step is launched: %s", error)
    return chunks[key]


def _empty_table(entries: int, device: torch.device) -> Tensor:
    """Made in inference mode it could not be filled for a training afterwards."""
    with torch.inference_mode(False):
        return torch.zeros(entries, dtype=torch.int64, device=device)


def _capture(launches: list[Launch], entries: int, device: torch.device) -> _Chunk:
    table = _empty_table(entries, device)
    graph = torch.cuda.CUDAGraph()
    with (
        torch.cuda.stream(torch.cuda.current_stream(device)),  # restored even if the capture fails
        torch.cuda.graph(graph, capture_error_mode="thread_local"),
    ):
        for step in range(CHUNK):
            for launch in launches:
                launch(table, step)
    return _Chunk(graph, table)
