"""Weights (safetensors) and training states (torch files, read without running code) on disk.

Both carry a digest of their content, which is checked when they are read: weights in the metadata
of the file, states in the comment that ends a zip file. Files without it, made by an older version
or by other programs, are read unchecked.
"""

import hashlib
import io
import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from pipeline.errors import ModelError
from pipeline.files import write_bytes, written
from pipeline.seals import DAMAGED, KEY, digest_of

_END_OF_ZIP = struct.Struct("<4s4H2LH")  # the last record of a zip file without a comment
_COMMENT = b"sha256 "
_SEALED = len(_COMMENT) + 64


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write all weights atomically as a safetensors file."""
    write_bytes(path, weights_bytes(model.state_dict()))


def weights_bytes(tensors: dict[str, torch.Tensor]) -> bytes:
    """A safetensors file with a digest of the tensors in its metadata."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # save_file would write files that only their owner can read
    return save(plain, metadata={KEY: _digest_of_tensors(plain)})


def _digest_of_tensors(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        head = json.dumps([name, str(tensor.dtype), list(tensor.shape)])
        digest.update(head.encode() + b"\n")
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read tensors by name. Raises ModelError if the file is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
        tensors = load_file(path)
        if _is_sealed(metadata) and metadata.get(KEY) != _digest_of_tensors(tensors):
            raise ValueError(DAMAGED)
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"{path}: cannot read these weights ({error}); copy the file or train the model again"
        ) from error
    return tensors


def _is_sealed(metadata: dict[str, str]) -> bool:
    """Whether the metadata hold our digest, be its name or its value damaged."""
    ours = len(metadata) == 1 and {len(KEY): 64} == {len(k): len(v) for k, v in metadata.items()}
    return ours or KEY in metadata


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


# ---- training states -----------------------------------------------------------------------------


def save_state(state: dict[str, Any], path: Path, *, previous: Path | None = None) -> None:
    """Write a training state atomically; `load_state` reads it without running code.

    Args:
        state: tensors, numbers and texts in dictionaries and lists.
        path: the file.
        previous: the name that an older state gets; None: it is replaced.
    """
    stream = io.BytesIO()
    torch.save(state, stream)
    with written(path, previous=previous) as file:
        file.write(_sealed(stream.getvalue()))


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote. Raises ModelError if it is damaged."""
    try:
        data = io.BytesIO(_unsealed(path))
        state: dict[str, Any] = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]  # the rest is advice on pickles that run code
        raise ModelError(
            f"{path}: damaged checkpoint ({reason}); remove it to start again"
        ) from error
    return state


def _sealed(data: bytes) -> bytes:
    """A zip file with its digest as its comment; the digest covers all bytes before the comment."""
    *record, comment = _END_OF_ZIP.unpack(data[-_END_OF_ZIP.size :])
    assert record[0] == b"PK\5\6"
    assert comment == 0
    data = data[: -_END_OF_ZIP.size] + _END_OF_ZIP.pack(*record, _SEALED)
    return data + _COMMENT + digest_of(data).encode()


def _unsealed(path: Path) -> bytes:
    """The bytes of a zip file, after its digest, if there is one, has been checked.

    Raises:
        ValueError: the digest is wrong, or the file is no zip file from beginning to end.
    """
    size = path.stat().st_size
    with open(path, "rb") as stream:
        stream.seek(max(0, size - _SEALED - _END_OF_ZIP.size))
        tail = stream.read()  # a huge file of something else is not read
        record = tail[: _END_OF_ZIP.size] if tail[-_SEALED:].startswith(_COMMENT) else b""
        if size == 0:
            raise ValueError("it is empty")
        if not record and tail[-_END_OF_ZIP.size :][:4] != b"PK\5\6":
            raise ValueError("its end is missing or damaged")
        stream.seek(0)
        data = stream.read()
    if record and digest_of(data[:-_SEALED]) != data[-64:].decode(errors="replace"):
        raise ValueError(DAMAGED)
    return data
