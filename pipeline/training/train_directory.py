"""The model directory of a training: a new one, or that of the training to go on with."""

import dataclasses
import hashlib
import logging
from pathlib import Path
from typing import Any

from pipeline.data.data_dir import DataDir
from pipeline.errors import DataError, ModelError
from pipeline.frontend.cmvn import CmvnStats
from pipeline.frontend.front_end import FrontEnd
from pipeline.models.model_dir import ModelDir, is_trained
from pipeline.models.normalise import SPEAKER, read_cmvn, read_speaker_cmvn
from pipeline.nn.config import ModelConfig
from pipeline.text.tokens import Tokens
from pipeline.training.train_options import (
    RESUMABLE_CHANGES,
    TrainOptions,
    TransducerTrainOptions,
)

log = logging.getLogger("pipeline")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """What is positional on a training command's line, and where its model starts from."""

    kind: str
    config: Path
    tokens: Path
    train_dir: Path
    dev_dir: Path
    model_dir: Path
    phone_map: Path | None = None
    cmvn: str = ""
    init: Path | None = None  # all weights, from a model of the same architecture
    parts: tuple[tuple[str, Path], ...] = ()  # ("encoder", exp/ctc), ("predictor", exp/predictor)


def make_directory(
    arguments: TrainArguments, saved: dict[str, Any], config: ModelConfig, tokens: Tokens
) -> ModelDir:
    """The model directory: that of the training to go on with, or a new one.

    Args:
        arguments: the command's.
        saved: what `saved_options` gave.
        config: the architecture.
        tokens: what the network gives.

    Raises:
        ModelError: it is of another training, or cannot go on.
        DataError: there are no statistics to normalise features by.
    """
    if is_trained(arguments.model_dir):
        directory = ModelDir.open(arguments.model_dir)
        if not directory.has_state:
            raise ModelError(
                f"{directory.path}: has finished weights, but its checkpoints are gone, so it "
                "cannot go on; to train again remove the directory, or give another"
            )
        _refuse_changes(directory, config, saved)
        return directory
    return ModelDir.create(
        arguments.model_dir,
        config,
        tokens,
        cmvn=_cmvn(arguments, config.encoder.input_dim) if config.encoder else None,
        front_end=_front_end(arguments, config.encoder.input_dim) if config.encoder else None,
        options=saved,
    )


def saved_options(
    arguments: TrainArguments, options: TrainOptions, tokens: Tokens, *, reads_features: bool
) -> dict[str, Any]:
    """What a training was told and has read, as ``config.json`` keeps it: options and hashes."""
    values = dataclasses.asdict(options)
    values["tokens_sha256"] = tokens.sha256
    values["train_data_sha256"] = _data_hash(arguments.train_dir, arguments.cmvn, reads_features)
    values["dev_data_sha256"] = _data_hash(arguments.dev_dir, arguments.cmvn, reads_features)
    values["cmvn"] = arguments.cmvn
    values["phone_map"] = str(arguments.phone_map or "")
    if arguments.phone_map is not None and arguments.phone_map.exists():
        values["phone_map_sha256"] = hashlib.sha256(arguments.phone_map.read_bytes()).hexdigest()
    values["init"] = str(arguments.init) if arguments.init else ""
    values["parts"] = {name: str(path) for name, path in arguments.parts}
    starts = [*([arguments.init] if arguments.init else []), *dict(arguments.parts).values()]
    weights = [path / "final.safetensors" for path in starts]
    if all(path.exists() for path in weights):  # a training that goes on can do without them
        data = b"".join(path.read_bytes() for path in weights)
        values["starts_sha256"] = hashlib.sha256(data).hexdigest()
    return values


def _data_hash(path: Path, cmvn: str, reads_features: bool) -> str:
    """Of what a training reads of a data directory; other files may come and go."""
    data, digest = DataDir(path), hashlib.sha256()
    names = ["text"]
    if reads_features:
        names += ["feats.scp", "utt2num_frames"]
        names += {"": ["cmvn.ark"], SPEAKER: ["utt2spk"]}.get(cmvn, [])
    for file in [*(path / name for name in names), *sorted(path.glob("conf/*"))]:
        if file.is_file():
            digest.update(f"{file.relative_to(path)}\0".encode() + file.read_bytes())
    if reads_features and cmvn == SPEAKER and data.has("cmvn.scp"):
        for speaker, stats in sorted(read_speaker_cmvn(data).items()):
            digest.update(f"{speaker}\0".encode() + stats.matrix.tobytes())
    return digest.hexdigest()


# Known better by the hash of what is there: the same may be given by another path.
BY_HASH = {"init": "starts_sha256", "parts": "starts_sha256", "phone_map": "phone_map_sha256"}


def _refuse_changes(directory: ModelDir, config: ModelConfig, saved: dict[str, Any]) -> None:
    # Options that are younger than the directory had their default there.
    defaults = dataclasses.asdict(TransducerTrainOptions())
    there = {**defaults, **directory.options}
    there["stop_on"] = {"per": "error-rate"}.get(there["stop_on"], there["stop_on"])
    changed = [
        f"{name}: {there[name]!r} there, {value!r} now"
        for name, value in saved.items()
        if name not in RESUMABLE_CHANGES
        and there.get(name, value) != value
        and not (BY_HASH.get(name) in saved and BY_HASH.get(name) in there)
    ]
    if config != directory.config:
        changed.append(f"architecture: {directory.config} there, {config} now")
    if changed:
        raise ModelError(
            f"{directory.path}: was trained with other options or data; give another directory, "
            "or remove this one:\n  " + "\n  ".join(changed)
        )


def _cmvn(arguments: TrainArguments, dim: int) -> CmvnStats | str | None:
    """Global statistics of the training features; by default ``TRAIN_DIR/cmvn.ark``."""
    if arguments.cmvn == "none":
        return None
    if arguments.cmvn == SPEAKER:
        return SPEAKER
    path = arguments.cmvn or str(arguments.train_dir / "cmvn.ark")
    if not arguments.cmvn and not Path(path).exists():
        raise DataError(
            f"{path}: missing; make it with compute_cmvn_stats.py "
            f"scp:{arguments.train_dir}/feats.scp {path}, or give --cmvn=none"
        )
    return read_cmvn(path, dim)


def _front_end(arguments: TrainArguments, dim: int) -> Path | None:
    """Where it is said how the training features were made, if it is."""
    path = arguments.train_dir / "conf"
    if not path.is_dir():
        log.warning("%s is missing: the model will read features only, no recordings", path)
        return None
    made = FrontEnd.load(path).dim  # an unusable one is found now, not at recognition
    if made != dim:
        raise ModelError(
            f"{path}: makes {made} features a frame, but the architecture reads {dim}; make the "
            "features again, or change input_dim"
        )
    return path
