"""The state of a training on disk, written atomically; the previous state is kept as well."""

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ModelError
from pipeline.models.model_dir import ModelDir
from pipeline.models.weights import load_state, save_state, save_weights
from pipeline.nn.models import Model

log = logging.getLogger("pipeline")

VERSION = 1  # of the form of a state


@dataclass
class Position:
    """How far a training has come: finished epochs, and counts within the current epoch."""

    epoch: int = 0  # the number of finished epochs
    best_epoch: int = 0
    best_score: float = float("inf")
    updates: int = 0  # from here on: of the current epoch
    utterances: int = 0
    nats: float = 0.0
    tokens: int = 0
    frames: int = 0
    skipped: int = 0  # utterances that needed more memory than there is
    seconds: float = 0.0

    @property
    def loss(self) -> float:
        """The loss of the current epoch, in nats per token."""
        return self.nats / max(self.tokens, 1)

    def next_epoch(self) -> None:
        """Count a finished epoch and reset the counts within an epoch."""
        self.epoch += 1
        self.updates, self.utterances, self.nats, self.tokens = 0, 0, 0.0, 0
        self.frames, self.skipped, self.seconds = 0, 0, 0.0


def save(directory: ModelDir, parts: dict[str, Any], position: Position) -> None:
    """Write ``checkpoints/last.pt``; the file that it replaces becomes ``previous.pt``."""
    count = len(parts["optimizer"]["state"])
    state = {"version": VERSION, **parts, "states": count, "progress": asdict(position)}
    save_state(state, directory.last_path, previous=directory.previous_path)


def load(
    directory: ModelDir, use: Callable[[dict[str, Any]], None]
) -> tuple[dict[str, Any], Position] | None:
    """Continue from the last state that is intact; None if nothing has been saved yet.

    Args:
        directory: the model directory.
        use: takes a state over, and raises an error if it does not fit.

    Raises:
        ModelError: states have been saved, but none of them can be used.
    """
    failure: ModelError | None = None
    for path in (directory.last_path, directory.previous_path):
        if not path.exists():
            continue
        try:
            state = load_state(path)
            if not isinstance(state, dict):
                raise TypeError(f"it is of type {type(state).__name__}")
            if (version := state.get("version", VERSION)) != VERSION:
                raise ModelError(
                    f"{path}: a state of version {version!r}, but this program reads version "
                    f"{VERSION}; use the program that wrote it, or remove it to start again"
                )
            position = _position(state)
            if (count := len(state["optimizer"]["state"])) != state.get("states", count):
                raise ValueError("the optimiser lacks the values of some weights")
            use(state)
        except ModelError as error:
            remedy = "" if "remove it" in str(error) else f"\nremove {path} to start again"
            failure = failure or ModelError(f"{error}{remedy}")
        except Exception as error:  # what torch raises for a state of another form is not listed
            failure = failure or _wrong_state(path, error)
        else:
            if failure is not None:
                log.warning("%s; continuing from %s", failure, path)
            return state, position
    if failure is not None:
        raise failure
    return None


def _position(state: dict[str, Any]) -> Position:
    progress = dict(state["progress"])
    if unknown := progress.keys() - {field.name for field in fields(Position)}:
        raise ValueError(f"{min(map(str, unknown))} is no part of its progress")
    position = Position(**progress)
    for field in fields(Position):
        value = getattr(position, field.name)
        wanted = int if field.type in (int, "int") else float
        right = type(value) is int or type(value) is wanted
        sound = right and math.isfinite(value) and value >= 0
        if not sound and not (field.name == "best_score" and value == math.inf):
            raise ValueError(f"{field.name} is {value!r}")
    return position


def _wrong_state(path: Path, error: Exception) -> ModelError:
    """The error for a state that belongs to another training."""
    reason = str(error).partition("\n")[0]
    if isinstance(error, KeyError):
        reason = f'it lacks "{error.args[0]}"'
    return ModelError(f"{path}: not a state of this training ({reason}); remove it to start again")


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError unless what an optimiser has taken over fits its parameters."""
    for group in optimizer.param_groups:
        for name, value in optimizer.defaults.items():
            if name not in group or (name != "lr" and group[name] != value):
                raise ValueError(f"the optimiser has no valid {name}")
    names = {frozenset(found) for found in optimizer.state.values()}
    if len(names) > 1 or len(optimizer.state) > len(parameters_of(optimizer)):
        raise ValueError("the optimiser has other values for some weights than for others")
    for parameter in parameters_of(optimizer):
        for name, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(value, torch.Tensor) or value.shape not in (parameter.shape, ()):
                raise ValueError(f"the optimiser's {name} is of another shape")


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The parameters that an optimiser changes."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def keep_epoch(model: Model, directory: ModelDir, epoch: int, count: int) -> None:
    """Write the weights of an epoch, and remove all but those of the last ``count`` epochs."""
    if count > 0:
        save_weights(model, directory.epoch_path(epoch))
        for path in directory.epoch_paths()[:-count]:
            path.unlink()
