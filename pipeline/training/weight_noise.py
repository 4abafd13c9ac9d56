"""Gaussian weight noise, drawn once for each update and never kept in the weights.

[G13] A. Graves, A. Mohamed, G. Hinton, "Speech Recognition with Deep Recurrent Neural Networks",
2013, section 3.4.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def weight_noise(model: nn.Module, sigma: float, generator: torch.Generator) -> Iterator[None]:
    """Within the block noise from N(0, σ²) is added to every weight; after it, it is removed.

    Gradients that are computed in the block are those at the noisy weights; an update after the
    block changes the clean weights.
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
