"""A running average of the weights, which is what is evaluated and kept.

B. T. Polyak, A. B. Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992, with
weights that decay exponentially into the past.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """ā ← d ā + (1 - d) w after every update, d smaller in the first updates."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.updates = model, decay, 0
        self.weights = [p.detach().clone() for p in model.parameters()] if decay > 0.0 else []

    def update(self) -> None:
        """Take in the model's weights as they are after an update."""
        if not self.weights:
            return
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 9.0))
        now = [p.detach() for p in self.model.parameters()]
        torch._foreach_lerp_(self.weights, now, 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model has the averages for weights; after it, its own again."""
        own = [p.detach().clone() for p in self.model.parameters()] if self.weights else []
        self._put(self.weights)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), weights, strict=False):
                parameter.copy_(value)

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps."""
        return {"weights": self.weights, "updates": self.updates}

    def load(self, state: dict[str, object]) -> None:
        """Go on from `state`. Raises ValueError for another model's."""
        weights, updates = state["weights"], state["updates"]
        if not isinstance(weights, list) or len(weights) != len(self.weights):
            raise ValueError("an average of other weights")
        for mine, theirs in zip(self.weights, weights, strict=True):
            mine.copy_(theirs)
        self.updates = int(str(updates))
