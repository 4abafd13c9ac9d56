"""The state of a training on disk: written whole or not at all, the one before it kept as well."""

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
    """Where a training stands: whole epochs, and what of the next one is done."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = float("inf")
    updates: int = 0  # of the epoch under way
    utterances: int = 0
    nats: float = 0.0
    tokens: int = 0
    frames: int = 0
    skipped: int = 0  # utterances of it that no memory was left for
    seconds: float = 0.0  # that it took so far

    @property
    def loss(self) -> float:
        """Nats a token in the epoch under way."""
        return self.nats / max(self.tokens, 1)

    def next_epoch(self) -> None:
        """Count an epoch and start the next."""
        self.epoch += 1
        self.updates, self.utterances, self.nats, self.tokens = 0, 0, 0.0, 0
        self.frames, self.skipped, self.seconds = 0, 0, 0.0


def save(directory: ModelDir, parts: dict[str, Any], position: Position) -> None:
    """Write ``checkpoints/last.pt``; what stood there becomes ``previous.pt``."""
    following = directory.last_path.with_name(".next.pt")
    save_state({**parts, "progress": asdict(position)}, following)
    if directory.last_path.exists():
        os.replace(directory.last_path, directory.previous_path)
    os.replace(following, directory.last_path)


def load(directory: ModelDir) -> tuple[dict[str, Any], Position] | None:
    """The last state that is whole, or None where there is none yet.

    Raises:
        ModelError: there are states, and all of them are damaged.
    """
    failure: ModelError | None = None
    for path in (directory.last_path, directory.previous_path):
        if not path.exists():
            continue
        try:
            state = load_state(path)
            position = Position(**state["progress"])
        except (KeyError, TypeError, ValueError) as error:
            failure = failure or no_state(directory, error)
        except ModelError as error:
            failure = failure or error
        else:
            if failure is not None:
                log.warning("%s; going on from %s", failure, path)
            return state, position
    if failure is not None:
        raise failure
    return None


def no_state(directory: ModelDir, error: Exception) -> ModelError:
    """That a file is a state, but not of this training."""
    return ModelError(
        f"{directory.last_path}: no state of this training ({error}); remove it to start again"
    )


def keep_epoch(model: Model, directory: ModelDir, epoch: int, count: int) -> None:
    """Write the weights of an epoch, and remove those of all but the last ``count``."""
    if count > 0:
        save_weights(model, directory.epoch_path(epoch))
        for path in directory.epoch_paths()[:-count]:
            path.unlink()
