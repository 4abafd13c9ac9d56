"""The optimiser and the schedule of its learning rate."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.training.train_options import TrainOptions


def make_optimizer(parameters: Sequence[Tensor], options: TrainOptions) -> torch.optim.Optimizer:
    """The optimiser that ``--optimizer`` names."""
    make: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "sgd": lambda: torch.optim.SGD(
            parameters,
            lr=options.learning_rate,
            momentum=options.momentum,
            nesterov=options.nesterov,
            fused=True,
        ),
        "adam": lambda: torch.optim.Adam(parameters, lr=options.learning_rate, fused=True),
        "adamw": lambda: torch.optim.AdamW(
            parameters,
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
            fused=True,
        ),
        "adagrad": lambda: torch.optim.Adagrad(parameters, lr=options.learning_rate),
    }
    return make[options.optimizer]()


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next update."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def learning_rate(options: TrainOptions, *, epochs: int, done: float, share: float) -> float:
    """The learning rate of an update.

    Args:
        options: the schedule, its warm-up and the highest rate.
        epochs: the number of finished epochs.
        done: the share of the whole training before this update, 0 … 1.
        share: the share of this update.
    """
    rate = options.learning_rate
    if options.schedule == "linear":
        rising = (done + share) / options.warm_up if options.warm_up > 0.0 else 1.0
        rate *= min(rising, (1.0 - done) / (1.0 - options.warm_up), 1.0)
    if options.schedule == "annealed":
        rate /= options.anneal**epochs
    return rate
