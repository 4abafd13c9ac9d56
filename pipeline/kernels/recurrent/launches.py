"""How the sweeps of `cuda.py` and `gru_cuda.py` launch their Triton programs.

One launch computes one time step of all directions and sequences, a tile of cells in one program. A
step waits for the step before by the order of launches alone; there is no barrier between programs,
so nothing can deadlock or depend on which of them run at the same time, and sums have a fixed
order.

Launches cost more than the arithmetic of a step. Hence `CHUNK` of them are captured as a CUDA graph
when a shape comes for the second time, and replayed once per `CHUNK` frames. What differs between
batches, lengths and addresses included, is read from a table on the device, so that one small graph
serves all lengths and no tensor is copied into or out of it. Where there can be no graph (Triton's
interpreter, another capture, an error) the steps are launched one by one.

Products of float32 are computed in float32, in TF32 where `torch.backends.cuda.matmul` allows it.
"""

import importlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.kernels.ragged import Ragged
from pipeline.kernels.recurrent.plain import CLIP, Recurrence

log = logging.getLogger("pipeline")

CHUNK = 32  # steps of a graph; even, because what passes by U takes turns in two places
GRAPHS = 64  # kept at a time
TABLE = 1024  # least entries of a graph's table
COLUMNS = 16  # cells of a tile
ALIGNMENT = 16  # bytes, which the programs rely on


def aligned(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The same as the programs read it: contiguous, in a dtype, at a multiple of `ALIGNMENT`."""
    x = x.detach().to(dtype).contiguous()
    return x.clone() if x.data_ptr() % ALIGNMENT else x


def weights_for(recurrence: Recurrence, dtype: torch.dtype) -> Recurrence:
    """As the programs read them: matrices in the gates' dtype, peepholes in the cells'."""
    kind, w_hidden, peepholes, projection, _ = recurrence
    return Recurrence(
        kind,
        aligned(w_hidden, dtype),
        None if peepholes is None else aligned(peepholes, torch.float32),
        None if projection is None else aligned(projection, dtype),
    )


# ---- what a step launches ------------------------------------------------------------------------


class Launch(NamedTuple):
    """A program, its grid, its constants and Triton's options."""

    programs: Callable[[], Any]  # finds the module of the program
    program: str
    grid: tuple[int, int, int]
    constants: tuple[tuple[str, Any], ...]

    def __call__(self, table: Tensor, step: int) -> None:
        getattr(self.programs(), self.program)[self.grid](table, step, **dict(self.constants))


class Launches:
    """Makes the launches of one sweep, which have most constants in common."""

    def __init__(
        self, programs: Callable[[], Any], weights: Recurrence, ragged: Ragged, gates: Tensor
    ) -> None:
        self.programs = programs
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
        self.clip = 0.0 if weights.cell.endswith("tanh") else CLIP

    def __call__(self, program: str, columns: int, inner: int, most: int, **more: Any) -> Launch:
        """For a result of so many columns, each a sum of ``inner`` products, ``most`` at a time."""
        block = min(max(16, 1 << (inner - 1).bit_length()), most)
        constants = {**self.common, **more, "INNER": block}
        grid = (-(-columns // COLUMNS), self.tiles, self.directions)
        return Launch(self.programs, program, grid, tuple(constants.items()))


def _precision(dtype: torch.dtype) -> str:
    allowed = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if allowed and dtype == torch.float32 else "ieee"


# ---- all steps -----------------------------------------------------------------------------------


def run(
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
    slots = importlib.import_module("pipeline.kernels.recurrent.triton")
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
