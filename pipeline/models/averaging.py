"""Models whose weights are the averages of the weights of several models."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline.errors import ModelError
from pipeline.files import new_directory
from pipeline.models.model_dir import ModelDir
from pipeline.models.weights import read_weights, weights_bytes


def sources_of(directories: Sequence[ModelDir], *, last: int) -> list[Path]:
    """The files to average.

    Args:
        directories: the models.
        last: the number of last epochs of each model to average; 0: the final weights.

    Raises:
        ModelError: fewer epochs are kept, or a training has not finished.
    """
    files = []
    for directory in directories:
        kept = directory.epoch_paths()[-last:] if last else [directory.weights_path]
        if last and len(kept) < last:
            raise ModelError(
                f"{directory.path}: has the weights of {len(kept)} epochs, not of {last}; train "
                f"with --keep-epochs={last}"
            )
        if not last:
            directory.weights()  # raises ModelError if training has not finished
        files += kept
    return files


def average(directories: Sequence[ModelDir], files: Sequence[Path]) -> dict[str, torch.Tensor]:
    """The mean of each weight and buffer over the files, computed in float64.

    Integer buffers, such as counts of batches, are those of the last file.

    Raises:
        ModelError: the architectures or the tokens differ, or a file is damaged.
    """
    first = directories[0]
    for other in directories[1:]:
        if other.config != first.config:
            raise ModelError(f"{other.path}: has another architecture than {first.path}")
        if other.tokens != first.tokens:
            raise ModelError(f"{other.path}/tokens.txt: has other tokens than {first.path}")
    total: dict[str, torch.Tensor] = {}
    for file in files:
        for name, tensor in read_weights(file).items():
            if tensor.is_floating_point():
                total[name] = total.get(name, 0.0) + tensor.double()
            else:
                total[name] = tensor
    return {
        name: (tensor / len(files)).float() if tensor.is_floating_point() else tensor
        for name, tensor in total.items()
    }


def write_average(
    like: ModelDir, weights: dict[str, torch.Tensor], files: Sequence[Path], out: Path
) -> None:
    """Write a model directory atomically, with these weights and all other files of ``like``.

    Raises:
        OutputError: another process has made a folder of this name in the meantime.
    """
    with new_directory(out) as folder:
        for name in ("config.json", "tokens.txt", "cmvn.ark"):
            if (like.path / name).exists():
                shutil.copyfile(like.path / name, folder / name)
        if (like.path / "front_end").is_dir():
            shutil.copytree(like.path / "front_end", folder / "front_end")
        (folder / "averaged_from").write_text("".join(f"{file}\n" for file in files))
        (folder / "final.safetensors").write_bytes(weights_bytes(weights))
