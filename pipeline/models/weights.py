"""Weights and the states of trainings on disk: safetensors, and torch files that run no code."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from pipeline.errors import ModelError
from pipeline.files import write_bytes, written


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write all weights atomically as safetensors."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    data = save(tensors)  # not save_file: that makes files only their owner can read
    write_bytes(path, data)


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write a training state atomically; `load_state` reads it without running code."""
    with written(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote. Raises ModelError if it is damaged."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]  # torch goes on about pickles that run code
        raise ModelError(
            f"{path}: damaged checkpoint ({reason}); remove it to start again"
        ) from error
    return state


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name. Raises ModelError if the file is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path}: cannot read these weights ({error}); copy them again, or train again"
        ) from error


def load_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor], where: object) -> None:
    """Put weights into ``model``; every name and shape must match.

    Raises:
        ModelError: the list of what does not fit.
    """
    own = model.state_dict()
    problems = [f"{name}: not in the file" for name in own if name not in weights]
    for name, tensor in weights.items():
        if name not in own:
            problems.append(f"{name}: not in the model")
        elif own[name].shape != tensor.shape:
            problems.append(f"{name}: {tuple(tensor.shape)}, model has {tuple(own[name].shape)}")
    if problems:
        raise ModelError(f"{where}: weights do not fit the model:\n  " + "\n  ".join(problems))
    model.load_state_dict(weights)
