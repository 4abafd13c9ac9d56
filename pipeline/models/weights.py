"""Weights (safetensors) and training states (torch files, read without running code) on disk."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from pipeline.errors import ModelError
from pipeline.files import write_bytes, written


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write all weights atomically as a safetensors file."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    data = save(tensors)  # save_file would write files that only their owner can read
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
        reason = str(error).partition("\n")[0]  # the rest is advice on pickles that run code
        raise ModelError(
            f"{path}: damaged checkpoint ({reason}); remove it to start again"
        ) from error
    return state


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read tensors by name. Raises ModelError if the file is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path}: cannot read these weights ({error}); copy the file or train the model again"
        ) from error


def load_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor], where: object) -> None:
    """Load weights into ``model``; every name and shape must match.

    Args:
        model: the model, whose weights are replaced.
        weights: tensors by name.
        where: the source of the weights, for error messages.

    Raises:
        ModelError: some weights do not fit; all of them are listed.
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
