"""A running average of the weights, which is evaluated and saved in place of the weights.

The method is that of B. T. Polyak, A. B. Juditsky, "Acceleration of Stochastic Approximation by
Averaging", 1992, with exponentially decaying averages.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """ā ← d ā + (1 - d) w after every update, with a smaller decay d in the first updates.

    Floating-point buffers, such as the running means of a norm, are averaged like weights.
    """

    def __init__(self, tensors: Sequence[Tensor], decay: float) -> None:
        self.tensors, self.decay, self.updates = list(tensors), decay, 0
        self.weights = [w.detach().clone() for w in self.tensors] if decay > 0.0 else []

    def update(self) -> None:
        """Update the average with the weights after an update of the training."""
        if not self.weights:
            return
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 9.0))
        now = [w.detach() for w in self.tensors]
        torch._foreach_lerp_(self.weights, now, 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model has the averaged weights; after it, its own again."""
        own = [w.detach().clone() for w in self.tensors] if self.weights else []
        self._put(self.weights)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            for mine, value in zip(self.tensors, weights, strict=False):
                mine.copy_(value)

    def state(self) -> dict[str, object]:
        """The averages as a checkpoint keeps them."""
        return {"weights": self.weights, "updates": self.updates}

    def load(self, state: dict[str, object]) -> None:
        """Restore what `state` gave. Raises ValueError if it is of another model."""
        weights, updates = state["weights"], state["updates"]
        if not isinstance(weights, list) or len(weights) != len(self.weights):
            raise ValueError("the average has other weights")
        for mine, theirs in zip(self.weights, weights, strict=True):
            mine.copy_(theirs)
        self.updates = int(str(updates))


def averaged_tensors(model: nn.Module) -> list[Tensor]:
    """What is averaged of a network: its weights and its floating-point buffers."""
    return [*model.parameters(), *floating_buffers(model)]


def floating_buffers(model: nn.Module) -> list[Tensor]:
    """The buffers of a network that can be averaged: those of floating-point numbers."""
    return [b for b in model.buffers() if b.is_floating_point()]
