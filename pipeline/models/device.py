"""The device that a program computes on."""

import os

import torch

from pipeline.errors import UsageError
from pipeline.jobs.job_step import local_rank
from pipeline.options import DEVICES


def choose_device(name: str) -> torch.device:
    """The device that ``--device`` names: cpu, cuda, or auto for cuda if there is a GPU.

    If there are several processes on a machine, each takes the GPU whose number is its local rank,
    or the only one that the launcher lets it see.

    Raises:
        UsageError: the name is unknown, or it is cuda and there is no GPU.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("--device=cuda: torch sees no CUDA device; use --device=cpu")
    if name not in DEVICES:
        raise UsageError(f"--device must be one of {', '.join(DEVICES)}, not {name!r}")
    if not available or name == "cpu":
        return torch.device("cpu")
    device = torch.device("cuda", local_rank(os.environ) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
