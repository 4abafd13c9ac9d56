"""The model directory of a training: a new one, or that of an interrupted training."""

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
    """The positional arguments of a training command, and the sources of its initial weights."""

    kind: str  # ctc, framewise, predictor or transducer
    config: Path  # the architecture, a TOML file
    tokens: Path
    train_dir: Path
    dev_dir: Path
    model_dir: Path
    phone_map: Path | None = None
    cmvn: str = ""
    init: Path | None = None  # a model of the same architecture, for all weights
    parts: tuple[tuple[str, Path], ...] = ()  # ("encoder", exp/ctc), ("predictor", exp/predictor)


def make_directory(
    arguments: TrainArguments, saved: dict[str, Any], config: ModelConfig, tokens: Tokens
) -> ModelDir:
    """Open the model directory of an interrupted training, or make a new one.

    Args:
        arguments: the arguments of the command.
        saved: the result of `saved_options`.
        config: the architecture.
        tokens: the tokens that the network outputs.

    Raises:
        ModelError: the directory is that of another training, or has no checkpoints.
        DataError: there are no CMVN statistics.
    """
    if is_trained(arguments.model_dir):
        directory = ModelDir.open(arguments.model_dir)
        if not directory.has_state:
            raise ModelError(
                f"{directory.path}: has finished weights but no checkpoints, so its training "
                "cannot be continued; to train again remove the directory, or give another"
            )
        _require_unchanged(directory, config, saved)
        return directory
    return ModelDir.create(
        arguments.model_dir,
        config,
        tokens,
        cmvn=_find_cmvn(arguments, config.encoder.input_dim) if config.encoder else None,
        front_end=_find_front_end(arguments, config.encoder.input_dim) if config.encoder else None,
        options=saved,
    )


def saved_options(
    arguments: TrainArguments, options: TrainOptions, tokens: Tokens, *, reads_features: bool
) -> dict[str, Any]:
    """The options of a training and the hashes of its data, as ``config.json`` keeps them."""
    values = dataclasses.asdict(options)
    values["tokens_sha256"] = tokens.sha256
    targets = "ali.scp" if arguments.kind == "framewise" else "text"
    for name, path in (("train", arguments.train_dir), ("dev", arguments.dev_dir)):
        values[f"{name}_data_sha256"] = _data_hash(path, targets, arguments.cmvn, reads_features)
    values["cmvn"] = arguments.cmvn
    values["phone_map"] = str(arguments.phone_map or "")
    if arguments.phone_map is not None and arguments.phone_map.exists():
        values["phone_map_sha256"] = hashlib.sha256(arguments.phone_map.read_bytes()).hexdigest()
    values["init"] = str(arguments.init) if arguments.init else ""
    values["parts"] = {name: str(path) for name, path in arguments.parts}
    starts = [*([arguments.init] if arguments.init else []), *dict(arguments.parts).values()]
    weights = [path / "final.safetensors" for path in starts]
    if all(path.exists() for path in weights):  # a training can be continued without them
        data = b"".join(path.read_bytes() for path in weights)
        values["starts_sha256"] = hashlib.sha256(data).hexdigest()
    return values


def _data_hash(path: Path, targets: str, cmvn: str, reads_features: bool) -> str:
    """The SHA-256 of those files of a data directory that a training reads."""
    data, digest = DataDir(path), hashlib.sha256()
    names = [targets]
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


# Options that name a file or a model are compared by its hash, since its path may change.
BY_HASH = {"init": "starts_sha256", "parts": "starts_sha256", "phone_map": "phone_map_sha256"}


def _require_unchanged(directory: ModelDir, config: ModelConfig, saved: dict[str, Any]) -> None:
    # An option that did not exist when the directory was made had its default value there.
    defaults = dataclasses.asdict(TransducerTrainOptions())
    before = {**defaults, **directory.options}
    before["stop_on"] = {"per": "error-rate"}.get(before["stop_on"], before["stop_on"])
    changed = [
        f"{name}: {before[name]!r} before, {value!r} now"
        for name, value in saved.items()
        if name not in RESUMABLE_CHANGES
        and before.get(name, value) != value
        and not (BY_HASH.get(name) in saved and BY_HASH.get(name) in before)
    ]
    if config != directory.config:
        changed.append(f"architecture: {directory.config} before, {config} now")
    if changed:
        raise ModelError(
            f"{directory.path}: was trained with other options or data; give another directory, "
            "or remove this one:\n  " + "\n  ".join(changed)
        )


def _find_cmvn(arguments: TrainArguments, dim: int) -> CmvnStats | str | None:
    """Global CMVN statistics, by default ``TRAIN_DIR/cmvn.ark``; "speaker"; or None."""
    if arguments.cmvn == "none":
        return None
    if arguments.cmvn == SPEAKER:
        return SPEAKER
    path = arguments.cmvn or str(arguments.train_dir / "cmvn.ark")
    if not arguments.cmvn and not Path(path).exists():
        raise DataError(
            f"{path}: no such file; make it with compute_cmvn_stats.py "
            f"scp:{arguments.train_dir}/feats.scp {path}, or give --cmvn=none"
        )
    return read_cmvn(path, dim)


def _find_front_end(arguments: TrainArguments, dim: int) -> Path | None:
    """The directory with the options of the training features, if there is one."""
    path = arguments.train_dir / "conf"
    if not path.is_dir():
        log.warning(
            "%s is missing: the model will recognise features only, no recordings; copy it from "
            "where make_feats.sh wrote it, as programs of Kaldi that copy a directory leave it out",
            path,
        )
        return None
    computed = FrontEnd.load(path).dim  # an unusable front end is found now, not at recognition
    if computed != dim:
        raise ModelError(
            f"{path}: gives {computed} features per frame, but the architecture reads {dim}; "
            "compute the features again, or change input_dim"
        )
    return path
