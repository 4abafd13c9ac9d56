"""Gaussian weight noise, [G13] section 3.4: drawn once an update, never kept in the weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def weight_noise(model: nn.Module, sigma: float, generator: torch.Generator) -> Iterator[None]:
    """Within the block every weight has N(0, σ²) noise added; after it, its clean value again.

    Gradients computed in the block are those at the noisy weights; an update after it changes
    the clean ones.
    """
    if sigma == 0.0:
        yield
        return
    clean = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter.device), alpha=sigma)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), clean, strict=True):
                parameter.copy_(value)
