"""From a training command's arguments to a `Trainer` that is ready to run."""

import dataclasses
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from pipeline.config import ModelConfig, load_model_config
from pipeline.data_dir import DataDir
from pipeline.errors import ConfigError, DataError, ModelError, UsageError
from pipeline.features import CmvnStats, FrontEnd
from pipeline.kernels.memory import keep_freed_memory
from pipeline.model_dir import SPEAKER, ModelDir, is_trained, load_part, load_weights, read_cmvn
from pipeline.nn.layers import count_weights, initialise
from pipeline.nn.models import CtcModel, PredictorModel, TransducerModel, build_model
from pipeline.phones import load_phone_map
from pipeline.tokens import Tokens
from pipeline.training.augment import Streams
from pipeline.training.dataset import load_dataset, read_speaker_cmvn
from pipeline.training.loop import Trainer
from pipeline.training.options import (
    ABOVE_0,
    BELOW_1,
    CHOICES,
    RESUMABLE_CHANGES,
    TrainOptions,
)
from pipeline.training.parallel import World
from pipeline.training.tasks import CtcTask, PredictorTask, Task, TransducerTask, fitting
from pipeline.training.traces import log_file, write_provenance

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


def train(arguments: TrainArguments, options: TrainOptions) -> tuple[int, int]:
    """Train a model or go on with it.

    Under torchrun all processes train it together, and the first one writes.

    Returns:
        How many utterances it was trained on, and how many were left out as too short.

    Raises:
        PipelineError: whatever a person can mend, before anything is computed where possible.
    """
    check_options(options)
    device = choose_device(options.device)
    _set_up_torch(options)
    tokens = Tokens.from_file(arguments.tokens)
    config = _config(arguments, tokens, options)
    model = build_model(config, num_tokens=len(tokens))
    task = _task(model, phones_of(tokens, arguments.phone_map), options)
    random = torch.Generator().manual_seed(options.seed)
    for module in (model, task.auxiliary):
        initialise(module, scale=options.init_scale, generator=random)
    pipes = options.allow_pipes
    with_features = not isinstance(task, PredictorTask)
    everything, whole_dev = (
        load_dataset(
            path,
            tokens,
            with_features=with_features,
            by_speaker=arguments.cmvn == SPEAKER,
            allow_pipes=pipes,
        )
        for path in (arguments.train_dir, arguments.dev_dir)
    )
    train_set, dev_set = (fitting(found, task, options) for found in (everything, whole_dev))
    world = World(device)
    try:
        with log_file(arguments.model_dir, world):
            directory = _begun(arguments, options, config, tokens, world)
            if not directory.has_state:
                _start_from_others(model, task, arguments, tokens)
            _say_what_starts(config, model, device, world)
            trainer = Trainer(
                model.to(device), task, directory, options, train=train_set, dev=dev_set,
                device=device, streams=_streams(directory), world=world,
            )  # fmt: skip
            _run(trainer)
    finally:
        world.leave()
    return len(train_set), len(everything) - len(train_set)


def _set_up_torch(options: TrainOptions) -> None:
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("highest" if options.precision == "float32" else "high")
    keep_freed_memory()


def _begun(
    arguments: TrainArguments,
    options: TrainOptions,
    config: ModelConfig,
    tokens: Tokens,
    world: World,
) -> ModelDir:
    """The model directory, made by the first process and then opened by the others."""
    directory = None
    if world.is_first:
        directory = _directory(arguments, options, config, tokens)
        if not directory.has_state:
            write_provenance(
                directory.path,
                arguments.train_dir,
                arguments.dev_dir,
                seed=options.seed,
                world=world,
            )
    world.wait()
    return directory or ModelDir.open(arguments.model_dir)


def _say_what_starts(
    config: ModelConfig, model: torch.nn.Module, device: torch.device, world: World
) -> None:
    count = f"{count_weights(model):,}"
    together = f", {world.size} processes" if world.size > 1 else ""
    log.info("%s model, %s weights, on %s%s", config.kind, count, device, together)


def _run(trainer: Trainer) -> None:
    started = time.monotonic()
    try:
        trainer.run()
    except torch.OutOfMemoryError as error:
        raise MemoryError from error
    log.info("training took %.0f s", time.monotonic() - started)


def check_options(options: TrainOptions) -> None:
    """Raise UsageError, naming the option, for a value outside its range."""
    for name, choices in CHOICES.items():
        if getattr(options, name) not in choices:
            raise UsageError(f"{_flag(name)} is one of {', '.join(choices)}")
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.name == "dropout" and value == -1.0:
            continue
        if isinstance(value, (int, float)) and not 0 <= value < 2**31:
            raise UsageError(f"{_flag(field.name)} must be from 0 to 2147483647, not {value}")
        if field.name in ABOVE_0 and value == 0:
            raise UsageError(f"{_flag(field.name)} must be above 0")
        if field.name in BELOW_1 and value >= 1:
            raise UsageError(f"{_flag(field.name)} must be below 1, not {value}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def choose_device(name: str) -> torch.device:
    """``auto`` is cuda where there is one. Raises UsageError for a cuda that is not there."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("--device=cuda: torch sees no CUDA device; use --device=cpu")
    if name not in CHOICES["device"]:
        raise UsageError(f"--device is one of {', '.join(CHOICES['device'])}, not {name!r}")
    if not available or name == "cpu":
        return torch.device("cpu")
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _config(arguments: TrainArguments, tokens: Tokens, options: TrainOptions) -> ModelConfig:
    config = load_model_config(arguments.config).part(arguments.kind, str(arguments.config))
    if config.num_tokens not in (None, len(tokens)):
        raise ConfigError(
            f"{arguments.config}: num_tokens = {config.num_tokens}, but {arguments.tokens} has "
            f"{len(tokens)}; they belong to different experiments"
        )
    config = dataclasses.replace(config, num_tokens=len(tokens))
    if options.dropout < 0.0:
        return config
    parts = {name: getattr(config, name) for name in ("encoder", "predictor")}
    changed = {
        name: dataclasses.replace(part, dropout=options.dropout)
        for name, part in parts.items()
        if part is not None
    }
    return dataclasses.replace(config, **changed)


def phones_of(tokens: Tokens, phone_map: Path | None) -> Callable[[Iterable[int]], list[str]]:
    """From token ids to what PER counts: symbols, folded to 39 phones where a map is given."""
    if phone_map is None:
        return tokens.decode
    folding = load_phone_map(phone_map)
    table = {symbol: folding.fold([symbol], to=39) for symbol in tokens.symbols[1:]}
    return lambda ids: [phone for symbol in tokens.decode(ids) for phone in table[symbol]]


def _task(
    model: torch.nn.Module,
    to_phones: Callable[[Iterable[int]], list[str]],
    options: TrainOptions,
) -> Task:
    match model:
        case CtcModel():
            return CtcTask(model, to_phones)
        case PredictorModel():
            return PredictorTask(model)
        case TransducerModel():
            return TransducerTask(model, to_phones, ctc_weight=options.ctc_weight)
    raise TypeError(type(model))


def _streams(directory: ModelDir) -> Streams:
    """What a feature vector's columns are: static, Δ, ΔΔ; the energy, then mel filters."""
    if not (directory.path / "front_end").is_dir():
        return Streams()
    front_end = directory.front_end()
    count = 1 if front_end.delta is None else front_end.delta.delta_order + 1
    return Streams(count, front_end.mel_from)


# ---- the model directory -------------------------------------------------------------------------


def _directory(
    arguments: TrainArguments, options: TrainOptions, config: ModelConfig, tokens: Tokens
) -> ModelDir:
    """The model directory: that of the training to go on with, or a new one."""
    saved = _saved_options(arguments, options, tokens)
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


def _saved_options(
    arguments: TrainArguments, options: TrainOptions, tokens: Tokens
) -> dict[str, Any]:
    values = dataclasses.asdict(options)
    values["tokens_sha256"] = tokens.sha256
    values["train_data_sha256"] = _data_hash(arguments.train_dir, arguments)
    values["dev_data_sha256"] = _data_hash(arguments.dev_dir, arguments)
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


def _data_hash(path: Path, arguments: TrainArguments) -> str:
    """Of what a training reads of a data directory; other files may come and go."""
    data, digest = DataDir(path), hashlib.sha256()
    names = ["text"]
    if arguments.kind != "predictor":
        names += ["feats.scp", "utt2num_frames"]
        names += {"": ["cmvn.ark"], SPEAKER: ["utt2spk"]}.get(arguments.cmvn, [])
    for file in [*(path / name for name in names), *sorted(path.glob("conf/*"))]:
        if file.is_file():
            digest.update(f"{file.relative_to(path)}\0".encode() + file.read_bytes())
    if arguments.kind != "predictor" and arguments.cmvn == SPEAKER and data.has("cmvn.scp"):
        for speaker, stats in sorted(read_speaker_cmvn(data).items()):
            digest.update(f"{speaker}\0".encode() + stats.matrix.tobytes())
    return digest.hexdigest()


# Known better by the hash of what is there: the same may be given by another path.
BY_HASH = {"init": "starts_sha256", "parts": "starts_sha256", "phone_map": "phone_map_sha256"}


def _refuse_changes(directory: ModelDir, config: ModelConfig, saved: dict[str, Any]) -> None:
    defaults = dataclasses.asdict(TrainOptions())  # of options that are younger than the directory
    there = {**defaults, **directory.options}
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


def _start_from_others(
    model: torch.nn.Module, task: Task, arguments: TrainArguments, tokens: Tokens
) -> None:
    """Weights of pretrained networks, by layer name; all else stays random."""
    if arguments.init is not None:
        source = _source(arguments.init, tokens)
        load_weights(model, source.weights(), source.weights_path)
        log.info("all weights from %s", source.weights_path)
    for part, path in arguments.parts:
        source = _source(path, tokens)
        dropped = load_part(model, source, part)
        auxiliary = task.auxiliary.state_dict()
        if source.kind == "ctc" and auxiliary:  # the loss beside the transducer's: its own layer
            task.auxiliary.load_state_dict({name: source.weights()[name] for name in auxiliary})
            dropped = [name for name in dropped if name not in auxiliary]
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
