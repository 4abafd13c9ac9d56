"""The state of a training on disk, written atomically; the previous state is kept as well."""

import logging
import os
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import ModelError
from pipeline.models.model_dir import ModelDir
from pipeline.models.weights import load_state, save_state, save_weights
from pipeline.nn.models import Model

log = logging.getLogger("pipeline")


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
    following = directory.last_path.with_name(".next.pt")
    save_state({**parts, "progress": asdict(position)}, following)
    if directory.last_path.exists():
        os.replace(directory.last_path, directory.previous_path)
    os.replace(following, directory.last_path)


def load(directory: ModelDir) -> tuple[dict[str, Any], Position] | None:
    """The last intact state, or None if nothing has been saved yet.

    Raises:
        ModelError: states have been saved, but all of them are damaged.
    """
    failure: ModelError | None = None
    for path in (directory.last_path, directory.previous_path):
        if not path.exists():
            continue
        try:
            state = load_state(path)
            position = Position(**state["progress"])
        except (KeyError, TypeError, ValueError) as error:
            failure = failure or wrong_state(directory, error)
        except ModelError as error:
            failure = failure or error
        else:
            if failure is not None:
                log.warning("%s; continuing from %s", failure, path)
            return state, position
    if failure is not None:
        raise failure
    return None


def wrong_state(directory: ModelDir, error: Exception) -> ModelError:
    """The error for a state that belongs to another training."""
    return ModelError(
        f"{directory.last_path}: not a state of this training ({error}); remove it to start again"
    )


def keep_epoch(model: Model, directory: ModelDir, epoch: int, count: int) -> None:
    """Write the weights of an epoch, and remove all but those of the last ``count`` epochs."""
    if count > 0:
        save_weights(model, directory.epoch_path(epoch))
        for path in directory.epoch_paths()[:-count]:
            path.unlink()
