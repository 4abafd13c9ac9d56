"""Which engine computes a kernel for a tensor: compiled for the CPU, Triton for a GPU, plain torch.

This is the only dispatch. The engines of a family have the same functions; each is imported when it
is first needed. In the environment ``PIPELINE_KERNELS=plain`` chooses plain torch everywhere, and
``PIPELINE_KERNELS=triton`` the Triton programs for tensors on the CPU too, in Triton's interpreter:
set ``TRITON_INTERPRET=1`` with it.
"""

import importlib
import importlib.util
import logging
import os
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

log = logging.getLogger("pipeline")

ENGINES = {
    "recurrent": {
        "plain": "pipeline.kernels.recurrent.plain",
        "cpu": "pipeline.kernels.recurrent.cpu",
        "cuda": "pipeline.kernels.recurrent.cuda",
    },
    "gru": {
        "plain": "pipeline.kernels.recurrent.gru_plain",
        "cpu": "pipeline.kernels.recurrent.gru_cpu",
        "cuda": "pipeline.kernels.recurrent.gru_cuda",
    },
    "convolution": {
        "plain": "pipeline.kernels.convolution.plain",
        "cpu": "pipeline.kernels.convolution.cpu",
    },
    "row_convolution": {
        "plain": "pipeline.kernels.row_convolution.plain",
        "cpu": "pipeline.kernels.row_convolution.cpu",
    },
    "ctc": {
        "plain": "pipeline.kernels.ctc.plain",
        "cpu": "pipeline.kernels.ctc.cpu",
        "cuda": "pipeline.kernels.ctc.cuda",
    },
    "transducer": {
        "plain": "pipeline.kernels.transducer.plain",
        "cpu": "pipeline.kernels.transducer.cpu",
        "cuda": "pipeline.kernels.transducer.cuda",
    },
    "ctc_search": {
        "plain": "pipeline.kernels.search.ctc_plain",
        "cpu": "pipeline.kernels.search.ctc_cpu",
    },
    "framewise_search": {
        "plain": "pipeline.kernels.search.framewise_plain",
        "cpu": "pipeline.kernels.search.framewise_cpu",
    },
    "transducer_search": {
        "plain": "pipeline.kernels.search.transducer_plain",
        "cpu": "pipeline.kernels.search.transducer_cpu",
    },
}

# What each kind of engine is compiled by, and the types of numbers that it computes with.
NEEDS = {"cpu": "numba", "cuda": "triton"}
DTYPES = {
    "cpu": {torch.float32, torch.float64},
    "cuda": {torch.float32, torch.bfloat16, torch.float16},
}


def engine(family: str, x: Tensor) -> ModuleType:
    """The module of a family of `ENGINES` that computes for the device and dtype of ``x``."""
    engines, kind = ENGINES[family], _kind(x)
    if kind not in engines or x.dtype not in DTYPES[kind] or not _has(kind):
        kind = "plain"
    return importlib.import_module(engines[kind])


def _kind(x: Tensor) -> str:
    """The kind of engine for the device of ``x``."""
    return "cuda" if os.environ.get("PIPELINE_KERNELS") == "triton" else x.device.type


@cache
def _has(kind: str) -> bool:
    if os.environ.get("PIPELINE_KERNELS") == "plain":
        return False
    needed = NEEDS[kind]
    if importlib.util.find_spec(needed) is None:
        log.warning("%s is missing: kernels on %s run in plain torch, slower", needed, kind)
        return False
    return True


def is_compiled(x: Tensor) -> bool:
    """Whether the compiled kernels of the CPU compute for this tensor."""
    return _kind(x) == "cpu" and x.dtype in DTYPES["cpu"] and _has("cpu")


def product(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product of (M, K) and (K, N)."""
    if is_compiled(a):
        from pipeline.kernels.compiler import products

        return products.product(a, b)
    return torch.mm(a, b.to(a.dtype))


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x`` (M, K) times ``weight`` (N, K) transposed, plus ``bias`` (N,): (M, N), in x's dtype."""
    if is_compiled(x):
        from pipeline.kernels.compiler import products

        return products.affine(x, weight, bias)
    return torch.addmm(bias.to(x.dtype), x, weight.t().to(x.dtype))
