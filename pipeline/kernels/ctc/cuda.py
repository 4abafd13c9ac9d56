"""CTC's forward-backward sums on a GPU: launches the Triton programs of `triton.py`.

`sweep` as in `plain.py`. Nothing is added by atomics, so each run gives the same bytes.
"""

import importlib
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pipeline.kernels.ctc import plain
from pipeline.kernels.ctc.plain import CtcSums, states

MOST_STATES = 4096  # that a program keeps in registers
TILE_FRAMES, MOST_OUTPUTS = 16, 128
FUSED = {"enable_fp_fusion": True}


@cache
def _programs() -> Any:
    return importlib.import_module("pipeline.kernels.ctc.triton")


def sweep(
    log_probs: Tensor, targets: Tensor, lengths: Tensor, target_lengths: Tensor, blank: int
) -> CtcSums:
    """See `plain.sweep`; more than 2047 tokens are left to plain torch."""
    n, frames, vocab = log_probs.shape
    outputs, _, skips = states(targets, target_lengths, blank)
    width = outputs.shape[1]
    if width > MOST_STATES or not n:
        return plain.sweep(log_probs, targets, lengths, target_lengths, blank)
    log_probs = log_probs.contiguous()
    outputs, skips = outputs.contiguous(), skips.to(torch.int8).contiguous()
    ends = lengths.contiguous(), target_lengths.contiguous()
    alpha, beta = (log_probs.new_empty(n, frames, width, dtype=torch.float64) for _ in range(2))
    log_prob = alpha.new_empty(n)
    posteriors = torch.empty_like(log_probs)
    registers = max(32, 1 << (width - 1).bit_length())
    tile = {"FRAMES": TILE_FRAMES, "OUTPUTS": min(MOST_OUTPUTS, 1 << (vocab - 1).bit_length())}
    t_blocks, v_blocks = -(-frames // TILE_FRAMES), -(-vocab // tile["OUTPUTS"])
    with torch.cuda.device_of(log_probs):
        _programs().sweep_kernel[(2 * n,)](
            log_probs, outputs, skips, *ends, alpha, beta, log_prob, frames, vocab, width, n,
            STATES=registers, num_warps=min(max(registers // 64, 1), 16), **FUSED,
        )  # fmt: skip
        if frames:
            _programs().posteriors_kernel[(n * t_blocks * v_blocks,)](
                outputs, *ends, alpha, beta, log_prob, posteriors,
                frames, vocab, width, t_blocks, v_blocks, **tile, **FUSED,
            )  # fmt: skip
    return CtcSums(log_prob, posteriors)
