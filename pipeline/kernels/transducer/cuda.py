"""The transducer's lattice on a GPU: launches the Triton programs of `triton.py`.

Functions and tensors as in `plain.py`. Products of float32 matrices are computed in
float32, in TF32 where `torch.backends.cuda.matmul` allows it; those of half precision, which TF32
holds exactly, in TF32 with sums in float32. For the joiner in float64 plain torch computes.
"""

import importlib
import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pipeline.kernels.transducer import plain
from pipeline.kernels.transducer.plain import Arrows, Joint, Lattice, compute_dtype, thresholds

__all__ = ["arrows", "available", "joint_arrows", "joint_gradient", "logits_gradient", "sweep"]

ELEMENTS = 1024  # of a tile where elements are independent
LONGEST = 4096  # prefixes a sweep keeps in registers
TILE_FRAMES, TILE_PREFIXES = 8, 8  # of the joiner's programs: small tiles hug the likely paths
# Outputs and numbers of the joiner's layer a product has at a time: as many as registers hold.
FORWARD_TILE = {"ieee": (64, 32), "tf32": (128, 32)}
BACKWARD_TILE = {"ieee": (32, 16), "tf32": (64, 32)}
ITEMS = 1024  # pieces of a batch's frames, so that ragged batches keep a GPU busy
PROGRAMS = 528  # of these at a time, each with its own sum of the weights' gradients
PARTIAL = 2**26  # numbers in partial sums
FUSED = {"enable_fp_fusion": True}  # a product and a sum in one instruction; said, or Triton warns


def available() -> bool:
    """Whether there is Triton."""
    return importlib.util.find_spec("triton") is not None


@cache
def _programs() -> Any:
    return importlib.import_module("pipeline.kernels.transducer.triton")


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _power_of_two(least: int, n: int, most: int) -> int:
    """The first power of two that is not below n, between two others."""
    return min(max(least, 1 << (n - 1).bit_length()), most)


def _blocks(vocab: int) -> tuple[int, int]:
    """Cells and outputs of a tile of logits."""
    outputs = _power_of_two(16, vocab, 1024)
    return ELEMENTS // outputs, outputs


def arrows(
    logits: Tensor, targets: Tensor, logit_lengths: Tensor, target_lengths: Tensor, blank: int
) -> Arrows:
    """See `plain.arrows`."""
    n, frames, width, vocab = logits.shape
    found = _empty_arrows(logits, width)
    inputs = (x.contiguous() for x in (logits, targets, logit_lengths, target_lengths))
    cells, outputs = _blocks(vocab)
    blocks = _ceil_div(frames * width, cells)
    with torch.cuda.device_of(logits):
        _programs().arrows_kernel[(n * blocks,)](
            *inputs, *found, frames, width, vocab, blank, blocks,
            CELLS=cells, OUTPUTS=outputs, **FUSED,
        )  # fmt: skip
    return found


def _empty_arrows(like: Tensor, width: int) -> Arrows:
    shape = (like.shape[0], like.shape[1], width)
    dtypes = compute_dtype(like), compute_dtype(like), torch.float64
    return Arrows(*(like.new_empty(shape, dtype=dtype) for dtype in dtypes))


def sweep(null: Tensor, label: Tensor, logit_lengths: Tensor, target_lengths: Tensor) -> Lattice:
    """See `plain.sweep`."""
    n, frames, width = null.shape
    if width > LONGEST:
        return plain.sweep(null, label, logit_lengths, target_lengths)
    inputs = [x.contiguous() for x in (null, label, logit_lengths, target_lengths)]
    alpha, beta = (torch.empty_like(inputs[0], dtype=torch.float64) for _ in range(2))
    log_prob = alpha.new_empty(n)
    posteriors = [torch.empty_like(inputs[0]) for _ in range(2)]
    prefixes = _power_of_two(32, width, LONGEST)
    blocks = _ceil_div(frames * width, ELEMENTS)
    with torch.cuda.device_of(null):
        _programs().sweep_kernel[(2 * n,)](
            *inputs, alpha, beta, log_prob, frames, width, n,
            PREFIXES=prefixes, num_warps=min(max(prefixes // 64, 1), 16), **FUSED,
        )  # fmt: skip
        _programs().posteriors_kernel[(n * blocks,)](
            *inputs, alpha, beta, log_prob, *posteriors, frames, width, blocks,
            CELLS=ELEMENTS, **FUSED,
        )  # fmt: skip
    return Lattice(log_prob, *posteriors)


def logits_gradient(
    logits: Tensor,
    targets: Tensor,
    log_norm: Tensor,
    lattice: Lattice,
    blank: int,
    logit_lengths: Tensor,
    target_lengths: Tensor,
) -> Tensor:
    """See `plain.logits_gradient`."""
    n, frames, width, vocab = logits.shape
    out = torch.empty_like(logits, memory_format=torch.contiguous_format)
    cells, outputs = _blocks(vocab)
    blocks, v_blocks = _ceil_div(frames * width, cells), _ceil_div(vocab, outputs)
    inputs = (logits, targets, logit_lengths, target_lengths, log_norm, *lattice[1:])
    with torch.cuda.device_of(logits):
        _programs().logits_gradient_kernel[(n * blocks * v_blocks,)](
            *(x.contiguous() for x in inputs), out, frames, width, vocab, blank, blocks, v_blocks,
            CELLS=cells, OUTPUTS=outputs, **FUSED,
        )  # fmt: skip
    return out


# ---- the joiner of [G13] -------------------------------------------------------------------------


def _tile(sizes: dict[str, tuple[int, int]], vocab: int, dtype: torch.dtype) -> dict[str, Any]:
    """Block shapes and the precision of products in the joiner's programs."""
    allowed = torch.backends.cuda.matmul.fp32_precision == "tf32"
    precision = "ieee" if dtype == torch.float32 and not allowed else "tf32"
    outputs, hidden = sizes[precision]
    return {
        "FRAMES": TILE_FRAMES,
        "PREFIXES": TILE_PREFIXES,
        "OUTPUTS": _power_of_two(16, vocab, outputs),
        "HIDDEN": hidden,
        "PRECISION": precision,
        "num_warps": 8,
        "num_stages": 1,  # no load ahead of time: sums that are added to are loaded again
        **FUSED,
    }


def joint_arrows(joint: Joint) -> Arrows:
    """See `plain.joint_arrows`."""
    encoder, predictor, bias, blank = joint.encoder, joint.predictor, joint.bias, joint.blank
    inputs = joint[:-1]
    if encoder.dtype == torch.float64:
        return plain.joint_arrows(joint)
    n, frames, size = encoder.shape
    width, vocab = predictor.shape[1], len(bias)
    found = _empty_arrows(encoder, width)
    t_blocks, u_blocks = _ceil_div(frames, TILE_FRAMES), _ceil_div(width, TILE_PREFIXES)
    with torch.cuda.device_of(encoder):
        _programs().joint_arrows_kernel[(n * t_blocks * u_blocks,)](
            *(x.contiguous() for x in inputs), *found,
            frames, width, size, vocab, blank, t_blocks, u_blocks,
            **_tile(FORWARD_TILE, vocab, encoder.dtype),
        )  # fmt: skip
    return found


def joint_gradient(
    joint: Joint, log_norm: Tensor, lattice: Lattice
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `plain.joint_gradient`."""
    encoder, predictor, bias, blank = joint.encoder, joint.predictor, joint.bias, joint.blank
    inputs = joint[:-1]
    if encoder.dtype == torch.float64:
        return plain.joint_gradient(joint, log_norm, lattice)
    n, frames, size = encoder.shape
    width, vocab = predictor.shape[1], len(bias)
    span = _span(n, frames, width * size)
    chunks = _ceil_div(frames, span)
    programs = min(n * chunks, PROGRAMS, max(1, PARTIAL // (vocab * size)))
    least = thresholds(lattice, joint.logit_lengths, joint.target_lengths)
    of_cells = [x.contiguous() for x in (log_norm, lattice.null, lattice.label, least)]
    d_encoder = encoder.new_zeros(encoder.shape, dtype=torch.float32)
    d_predictor = d_encoder.new_zeros(n, chunks, width, size)
    d_weight = d_encoder.new_zeros(programs, vocab, size)
    d_bias = d_encoder.new_zeros(programs, vocab)
    with torch.cuda.device_of(encoder):
        _programs().joint_gradient_kernel[(programs,)](
            *(x.contiguous() for x in inputs), *of_cells, d_encoder, d_predictor, d_weight, d_bias,
            frames, width, size, vocab, blank, chunks, span, n * chunks,
            **_tile(BACKWARD_TILE, vocab, encoder.dtype),
        )  # fmt: skip
    return d_encoder, d_predictor.sum(dim=1), d_weight.sum(dim=0), d_bias.sum(dim=0)


def _span(batch: int, frames: int, column_numbers: int) -> int:
    """Frames of an item: tiles so that there are `ITEMS`, and partial sums do not grow beyond."""
    items = min(ITEMS, max(1, PARTIAL // column_numbers))
    chunks = min(max(1, items // max(batch, 1)), _ceil_div(frames, TILE_FRAMES))
    return _ceil_div(_ceil_div(frames, chunks), TILE_FRAMES) * TILE_FRAMES
