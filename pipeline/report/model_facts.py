"""What a model directory says of itself: its weights, how it came about, its curves."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from pipeline.scoring.results import fault
from pipeline.seals import read_text, unsealed

# What is told, and under which name; what else there is follows in one line.
FACTS = {
    "command": "command",
    "commit": "commit",
    "seed": "seed",
    "started": "started",
    "train_data_sha256": "training data, SHA-256",
    "dev_data_sha256": "development data, SHA-256",
    "tokens_sha256": "tokens, SHA-256",
}


@dataclass(frozen=True)
class ModelFacts:
    """One model.

    Attributes:
        kind: ``ctc``, ``transducer`` …; empty if its ``config.json`` does not say.
        weights: their count; None where training has not finished, or the file is damaged.
        provenance: (what, value), in the order in which to tell it; empty without the file.
        note: what is wrong with the weights, a sentence; empty: nothing.
    """

    path: Path
    kind: str
    weights: int | None
    provenance: list[tuple[str, str]]
    note: str = ""

    def fact(self, name: str) -> str:
        """One fact of the provenance, or nothing."""
        return dict(self.provenance).get(name, "")


def read_model(path: Path) -> ModelFacts:
    """What is known of a model directory; what it lacks is left out, damaged weights are noted.

    Raises:
        DataError: ``config.json`` or ``provenance.json`` is there, but damaged.
    """
    config = _read_json(path / "config.json")
    facts = _read_json(path / "provenance.json")
    told = [(FACTS[name], _text(facts[name])) for name in FACTS if name in facts]
    rest = [f"{name.replace('_', ' ')} {_text(facts[name])}" for name in facts if name not in FACTS]
    told += [("made with", ", ".join(rest))] if rest else []
    kind = str(config.get("kind", ""))
    try:
        return ModelFacts(path, kind, _count_weights(path), told)
    except DataError as error:
        return ModelFacts(path, kind, None, told, note=f"{error}.")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return unsealed(read_text(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: damaged, {fault(error)}; put a copy back or remove it") from error


def _text(value: object) -> str:
    if isinstance(value, list):
        return shlex.join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _count_weights(path: Path) -> int | None:
    """From the head of the file alone: no network is built, no torch imported."""
    file = path / "final.safetensors"
    if not file.is_file():
        return None
    import numpy as np
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as tensors:
            shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{file.name} is damaged, so its weights are not counted; copy it again"
        ) from error
    return int(sum(np.prod(shape, dtype=np.int64) for shape in shapes))
