"""From a training command's arguments to a `Trainer` that is ready to run, and provenance."""

import dataclasses
import json
import logging
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy
import torch

from pipeline.config import ModelConfig, load_model_config
from pipeline.data_dir import DataDir, atomic_write_text
from pipeline.errors import ConfigError, DataError, ModelError, UsageError
from pipeline.features import CmvnStats
from pipeline.model_dir import ModelDir, load_part, load_weights, read_weights
from pipeline.nn.layers import count_weights, initialise
from pipeline.nn.models import CtcModel, PredictorModel, TransducerModel, build_model
from pipeline.phones import load_phone_map
from pipeline.tables import read_matrix
from pipeline.tokens import Tokens
from pipeline.training.dataset import load_dataset
from pipeline.training.loop import Trainer
from pipeline.training.options import RESUMABLE_CHANGES, TrainOptions
from pipeline.training.tasks import CtcTask, PredictorTask, Task, TransducerTask

log = logging.getLogger("pipeline")

CHOICES = {
    "stop_on": ("loss", "per"),
    "optimizer": ("sgd", "adam"),
    "schedule": ("constant", "linear"),
    "device": ("cpu", "cuda", "auto"),
}


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


def train(arguments: TrainArguments, options: TrainOptions) -> int:
    """Train a model or go on with it; returns the number of utterances that it was trained on.

    Raises:
        PipelineError: whatever a person can mend, before anything is computed where possible.
    """
    check_options(options)
    device = choose_device(options.device)
    torch.set_num_threads(max(1, options.threads))
    torch.set_flush_denormal(True)
    tokens = Tokens.from_file(arguments.tokens)
    config = _config(arguments, tokens)
    reads_features = arguments.kind != "predictor"
    train_set = load_dataset(arguments.train_dir, tokens, with_features=reads_features)
    dev_set = load_dataset(arguments.dev_dir, tokens, with_features=reads_features)
    to_phones = phones_of(tokens, arguments.phone_map)

    model = build_model(config, num_tokens=len(tokens))
    initialise(
        model, scale=options.init_scale, generator=torch.Generator().manual_seed(options.seed)
    )
    directory, is_new = _directory(arguments, options, config, tokens)
    if is_new:
        _start_from_others(model, arguments, tokens)
    _add_log_file(directory.path)
    log.info("%s model, %s weights, on %s", config.kind, f"{count_weights(model):,}", device)
    model.to(device)
    trainer = Trainer(
        model,
        _task(model, to_phones),
        directory,
        options,
        train=train_set,
        dev=dev_set,
        device=device,
        feature_streams=_streams(directory),
    )
    started = time.time()
    if not directory.last_path.exists():
        write_provenance(directory.path, arguments, options)
    trainer.run()
    log.info("training took %.0f s", time.time() - started)
    return len(trainer.train)


def check_options(options: TrainOptions) -> None:
    """Raise UsageError, naming the option, for a value outside its range."""
    for name, choices in CHOICES.items():
        if getattr(options, name) not in choices:
            raise UsageError(f"{_flag(name)} is one of {', '.join(choices)}")
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if isinstance(value, (int, float)) and not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{_flag(field.name)} must be finite and not below 0, not {value}")
    if options.batch_size < 1 or options.learning_rate == 0.0:
        raise UsageError("--batch-size and --learning-rate must be above 0")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def choose_device(name: str) -> torch.device:
    """``auto`` is cuda where there is one. Raises UsageError for a cuda that is not there."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("--device=cuda: torch sees no CUDA device; use --device=cpu")
    if name not in CHOICES["device"]:
        raise UsageError(f"--device is one of {', '.join(CHOICES['device'])}, not {name!r}")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def _config(arguments: TrainArguments, tokens: Tokens) -> ModelConfig:
    config = load_model_config(arguments.config).part(arguments.kind, str(arguments.config))
    if config.num_tokens not in (None, len(tokens)):
        raise ConfigError(
            f"{arguments.config}: num_tokens = {config.num_tokens}, but {arguments.tokens} has "
            f"{len(tokens)}; they belong to different experiments"
        )
    return dataclasses.replace(config, num_tokens=len(tokens))


def phones_of(tokens: Tokens, phone_map: Path | None) -> Callable[[Iterable[int]], list[str]]:
    """From token ids to what PER counts: symbols, folded to 39 phones where a map is given."""
    if phone_map is None:
        return tokens.decode
    folding = load_phone_map(phone_map)
    table = {symbol: folding.fold([symbol], to=39) for symbol in tokens.symbols[1:]}
    return lambda ids: [phone for symbol in tokens.decode(ids) for phone in table[symbol]]


def _task(model: torch.nn.Module, to_phones: Callable[[Iterable[int]], list[str]]) -> Task:
    match model:
        case CtcModel():
            return CtcTask(model, to_phones)
        case PredictorModel():
            return PredictorTask(model)
        case TransducerModel():
            return TransducerTask(model, to_phones)
    raise TypeError(type(model))


def _streams(directory: ModelDir) -> int:
    """Static, Δ, ΔΔ: how many equal parts a feature vector has."""
    if not (directory.path / "front_end").is_dir():
        return 1
    delta = directory.front_end().delta
    return 1 if delta is None else delta.delta_order + 1


# ---- the model directory -------------------------------------------------------------------------


def _directory(
    arguments: TrainArguments, options: TrainOptions, config: ModelConfig, tokens: Tokens
) -> tuple[ModelDir, bool]:
    """The model directory, and whether it was made now."""
    saved = _saved_options(arguments, options, tokens)
    if (arguments.model_dir / "config.json").exists():
        directory = ModelDir.open(arguments.model_dir)
        _refuse_changes(directory, config, saved)
        return directory, not directory.last_path.exists()
    cmvn = _cmvn(arguments)
    front_end = arguments.train_dir / "conf"
    has_front_end = arguments.kind != "predictor" and front_end.is_dir()
    if arguments.kind != "predictor" and not has_front_end:
        log.warning("%s is missing: the model will read features only, no recordings", front_end)
    return ModelDir.create(
        arguments.model_dir,
        config,
        tokens,
        cmvn=cmvn,
        front_end=front_end if has_front_end else None,
        options=saved,
    ), True


def _saved_options(
    arguments: TrainArguments, options: TrainOptions, tokens: Tokens
) -> dict[str, Any]:
    values = dataclasses.asdict(options)
    values["tokens_sha256"] = tokens.sha256
    values["train_data_sha256"] = DataDir(arguments.train_dir).content_hash()
    values["init"] = str(arguments.init) if arguments.init else ""
    values["parts"] = {name: str(path) for name, path in arguments.parts}
    return values


def _refuse_changes(directory: ModelDir, config: ModelConfig, saved: dict[str, Any]) -> None:
    changed = [
        f"{name}: {directory.options.get(name)!r} there, {value!r} now"
        for name, value in saved.items()
        if name not in RESUMABLE_CHANGES and directory.options.get(name) != value
    ]
    if config != directory.config:
        changed.append(f"architecture: {directory.config} there, {config} now")
    if changed:
        raise ModelError(
            f"{directory.path}: was trained with other options or data; give another directory, "
            "or remove this one:\n  " + "\n  ".join(changed)
        )


def _cmvn(arguments: TrainArguments) -> CmvnStats | None:
    """Global statistics of the training features; by default ``TRAIN_DIR/cmvn.ark``."""
    if arguments.kind == "predictor" or arguments.cmvn == "none":
        return None
    path = arguments.cmvn or str(arguments.train_dir / "cmvn.ark")
    if not arguments.cmvn and not Path(path).exists():
        raise DataError(
            f"{path}: missing; make it with compute_cmvn_stats.py "
            f"scp:{arguments.train_dir}/feats.scp {path}, or give --cmvn=none"
        )
    return CmvnStats(read_matrix(path))


def _start_from_others(model: torch.nn.Module, arguments: TrainArguments, tokens: Tokens) -> None:
    """Weights of pretrained networks, by layer name; all else stays random."""
    if arguments.init is not None:
        source = _source(arguments.init, tokens)
        load_weights(model, read_weights(source.weights_path), source.weights_path)
        log.info("all weights from %s", source.weights_path)
    for part, path in arguments.parts:
        dropped = load_part(model, _source(path, tokens), part)
        log.info("%s from %s; dropped: %s", part, path, ", ".join(dropped) or "nothing")
    if arguments.parts:
        taken = tuple(f"{part}." for part, _ in arguments.parts)
        random = [n for n, _ in model.named_parameters() if not n.startswith(taken)]
        log.info("starts random: %s", ", ".join(random) or "nothing")


def _source(path: Path, tokens: Tokens) -> ModelDir:
    source = ModelDir.open(path)
    if source.tokens != tokens:
        raise ModelError(f"{path}/tokens.txt: not the tokens of this training; use the same file")
    return source


# ---- traces --------------------------------------------------------------------------------------


def _add_log_file(directory: Path) -> None:
    handler = logging.FileHandler(directory / "train.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)


def write_provenance(directory: Path, arguments: TrainArguments, options: TrainOptions) -> None:
    """Write ``provenance.json``: how this model came about."""
    facts = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": _git_commit(),
        "seed": options.seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "train_data_sha256": DataDir(arguments.train_dir).content_hash(),
        "dev_data_sha256": DataDir(arguments.dev_dir).content_hash(),
    }
    atomic_write_text(directory / "provenance.json", json.dumps(facts, indent=2) + "\n")


def _git_commit() -> str:
    """The commit of this program, with ``-dirty`` for changes, or ``unknown``."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
