"""Set up a `Trainer` from the arguments of a training command, and run it."""

import dataclasses
import logging
import os
import time
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ConfigError, ModelError, UsageError
from pipeline.kernels.compiler.memory import keep_freed_memory
from pipeline.models.device import choose_device
from pipeline.models.model_dir import ModelDir, load_part
from pipeline.models.normalise import SPEAKER
from pipeline.models.weights import load_weights
from pipeline.nn.config import ModelConfig, load_model_config
from pipeline.nn.framewise import FramewiseConfig
from pipeline.nn.layers import count_weights, initialise
from pipeline.nn.models import build_model, require_room
from pipeline.text.tokens import Tokens
from pipeline.training.alignments import load_aligned
from pipeline.training.asynchronous.guard import protect
from pipeline.training.asynchronous.hogwild import run as run_hogwild
from pipeline.training.asynchronous.roles import Parts, Roles
from pipeline.training.asynchronous.roles import run as run_roles
from pipeline.training.augment import Streams
from pipeline.training.dataset import Utterance, load_dataset
from pipeline.training.distributed.launcher import find_process
from pipeline.training.distributed.processes import World
from pipeline.training.loop import Trainer
from pipeline.training.objectives.kinds import make_objective
from pipeline.training.objectives.objective import Objective, fitting
from pipeline.training.provenance import log_file, write_provenance
from pipeline.training.train_directory import TrainArguments, make_directory, saved_options
from pipeline.training.train_options import (
    AcousticTrainOptions,
    FramewiseTrainOptions,
    TrainOptions,
)
from pipeline.training.truncated import TruncatedTrainer

log = logging.getLogger("pipeline")


def train(arguments: TrainArguments, options: TrainOptions) -> tuple[int, int]:
    """Train a model, or continue an interrupted training.

    Under torchrun or srun all processes train it together, and rank 0 writes the files. An error
    in one process ends all, and rank 0 reports it.

    Returns:
        The number of training utterances, and the number of those left out as too short.

    Raises:
        PipelineError: an error that the user can correct, raised before training where possible.
        SystemExit: the same error, in the processes other than rank 0.
    """
    process = find_process(os.environ)
    roles = Roles(process.rank, process.size, options.shards)
    if options.async_ == "true":
        protect(os.environ, is_worker=roles.is_worker)
    world = World(options.timeout, process)
    try:
        with world.together():
            return _train(arguments, options, world, roles)
    finally:
        world.leave()


def _train(
    arguments: TrainArguments, options: TrainOptions, world: World, roles: Roles
) -> tuple[int, int]:
    if not world.is_first:
        log.setLevel(logging.ERROR)  # all read the same files, and rank 0 logs the warnings
    options.check()
    device = _choose_device(options, world, roles)
    _set_up_torch(options)
    tokens = Tokens.from_file(arguments.tokens)
    config = _load_config(arguments, tokens, options)
    torch.manual_seed(options.seed)  # for layers that draw their weights when they are made
    require_room(config, num_tokens=len(tokens), where=arguments.config)
    model = build_model(config, num_tokens=len(tokens))
    objective = make_objective(
        arguments.kind, model, tokens, options, phone_map=arguments.phone_map
    )
    saved = saved_options(arguments, options, tokens, reads_features=objective.reads_features)
    _require_same_command(arguments, saved, config, world)
    random = torch.Generator().manual_seed(options.seed)
    for module in (model, objective.auxiliary):
        initialise(module, scale=options.init_scale, generator=random)
    total, train_set, dev_set = _load_data(arguments, options, tokens, objective)
    with log_file(arguments.model_dir, world):
        directory, is_new = world.from_first(
            lambda: _prepare_directory(arguments, options, saved, config, tokens, world)
        )
        if is_new:
            _load_pretrained(model, objective, arguments, tokens)
        objective.prepare(train_set)
        _log_start(config, model, device, options, world)
        parts = Parts(
            model=model, objective=objective, directory=directory, options=options,
            train=train_set, dev=dev_set, device=device, streams=_feature_streams(directory),
        )  # fmt: skip
        _run(parts, world, roles)
    return len(train_set), total - len(train_set)


def _choose_device(options: TrainOptions, world: World, roles: Roles) -> torch.device:
    """The device of this process. Of an asynchronous training only workers use a GPU."""
    if options.async_ == "false":
        device = choose_device(options.device)
        world.use(device)
        return device
    if options.async_ == "true":
        roles.require_enough()
    elif world.size > 1:
        raise UsageError(
            "--async=hogwild makes its own processes, --workers of them, so start it as one; "
            "several processes are for --async"
        )
    on_cpu = options.async_ == "hogwild" or not roles.is_worker
    return choose_device("cpu" if on_cpu else options.device)


def _load_data(
    arguments: TrainArguments, options: TrainOptions, tokens: Tokens, objective: Objective
) -> tuple[int, list[Utterance], list[Utterance]]:
    """The number of all training utterances; the long enough ones for training and for dev."""
    how = {
        "by_speaker": arguments.cmvn == SPEAKER,
        "allow_pipes": isinstance(options, AcousticTrainOptions) and options.allow_pipes,
    }
    all_train, all_dev = (
        load_aligned(path, tokens, **how)
        if objective.reads_alignments
        else load_dataset(path, tokens, with_features=objective.reads_features, **how)
        for path in (arguments.train_dir, arguments.dev_dir)
    )
    skip_short = isinstance(options, AcousticTrainOptions) and options.skip_short
    train_set, dev_set = (
        fitting(found, objective, skip_short=skip_short) for found in (all_train, all_dev)
    )
    return len(all_train), train_set, dev_set


def _require_same_command(
    arguments: TrainArguments, saved: dict[str, Any], config: ModelConfig, world: World
) -> None:
    """Raise UsageError unless all processes have the same arguments, options and data."""
    if world.size == 1:
        return
    facts = {
        **saved,
        "model directory": str(arguments.model_dir),
        "kind": arguments.kind,
        "architecture": str(config),
        "torch": torch.__version__,
    }
    for name in ("device", "threads"):  # may differ
        del facts[name]
    world.require_same(facts)


def _set_up_torch(options: TrainOptions) -> None:
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("highest" if options.precision == "float32" else "high")
    keep_freed_memory()


def _prepare_directory(
    arguments: TrainArguments,
    options: TrainOptions,
    saved: dict[str, Any],
    config: ModelConfig,
    tokens: Tokens,
    world: World,
) -> tuple[ModelDir, bool]:
    """The model directory, and whether a new training starts in it."""
    directory = make_directory(arguments, saved, config, tokens)
    is_new = not directory.has_state
    if is_new:
        write_provenance(
            directory.path,
            arguments.train_dir,
            arguments.dev_dir,
            seed=options.seed,
            world=world,
        )
    return directory, is_new


def _log_start(
    config: ModelConfig,
    model: torch.nn.Module,
    device: torch.device,
    options: TrainOptions,
    world: World,
) -> None:
    count = f"{count_weights(model):,}"
    together = f", {world.size} processes" if world.size > 1 else ""
    log.info("%s model, %s weights, on %s%s", config.kind, count, device, together)
    name, size = "batch-size", options.batch_size
    if streams := _streams(options):
        name, size = "streams", streams
    if size < world.size and world.is_first and options.async_ == "false":
        log.warning(
            "batches of at most %d utterances leave some of %d processes idle; raise --%s",
            size,
            world.size,
            name,
        )


def _streams(options: TrainOptions) -> int:
    """The streams of truncated backpropagation; 0: it is not used."""
    return options.used_streams if isinstance(options, FramewiseTrainOptions) else 0


def _run(parts: Parts, world: World, roles: Roles) -> None:
    started = time.monotonic()
    try:
        match parts.options.async_:
            case "true":
                run_roles(parts, roles, world)
            case "hogwild":
                run_hogwild(parts)
            case _:
                parts.make(TruncatedTrainer if parts.by_streams else Trainer, world).run()
    except torch.OutOfMemoryError as error:
        raise MemoryError from error
    log.info("training took %.0f s", time.monotonic() - started)


def _load_config(arguments: TrainArguments, tokens: Tokens, options: TrainOptions) -> ModelConfig:
    config = load_model_config(arguments.config).part(arguments.kind, str(arguments.config))
    if config.num_tokens not in (None, len(tokens)):
        raise ConfigError(
            f"{arguments.config}: num_tokens = {config.num_tokens}, but {arguments.tokens} has "
            f"{len(tokens)} tokens; the files belong to different experiments"
        )
    config = dataclasses.replace(config, num_tokens=len(tokens))
    if isinstance(options, FramewiseTrainOptions) and options.delay >= 0:
        config = dataclasses.replace(config, framewise=FramewiseConfig(delay=options.delay))
    if options.dropout < 0.0:
        return config
    parts = {name: getattr(config, name) for name in ("encoder", "predictor")}
    changed = {
        name: dataclasses.replace(part, dropout=options.dropout)
        for name, part in parts.items()
        if part is not None
    }
    return dataclasses.replace(config, **changed)


def _feature_streams(directory: ModelDir) -> Streams:
    """The layout of the features: static, Δ and ΔΔ, in each the energy before the bands."""
    if not (directory.path / "front_end").is_dir():
        return Streams()
    front_end = directory.front_end()
    count = 1 if front_end.delta is None else front_end.delta.delta_order + 1
    return Streams(count, front_end.bands_from, linear=front_end.is_linear)


def _load_pretrained(
    model: torch.nn.Module, objective: Objective, arguments: TrainArguments, tokens: Tokens
) -> None:
    """Load the weights of pretrained networks by layer name; all other weights stay random."""
    if arguments.init is not None:
        source = _open_source(arguments.init, tokens)
        load_weights(model, source.weights(), source.weights_path)
        log.info("all weights from %s", source.weights_path)
    for part, path in arguments.parts:
        source = _open_source(path, tokens)
        dropped = load_part(model, source, part)
        auxiliary = objective.auxiliary.state_dict()
        if source.kind == "ctc" and auxiliary:  # the output layer of the additional CTC loss
            objective.auxiliary.load_state_dict(
                {name: source.weights()[name] for name in auxiliary}
            )
            dropped = [name for name in dropped if name not in auxiliary]
        log.info("%s from %s; dropped: %s", part, path, ", ".join(dropped) or "nothing")
    if arguments.parts:
        taken = tuple(f"{part}." for part, _ in arguments.parts)
        random = [n for n, _ in model.named_parameters() if not n.startswith(taken)]
        log.info("random initial weights: %s", ", ".join(random) or "none")


def _open_source(path: Path, tokens: Tokens) -> ModelDir:
    source = ModelDir.open(path)
    if source.tokens != tokens:
        raise ModelError(f"{path}/tokens.txt: not the tokens of this training; use the same file")
    return source
