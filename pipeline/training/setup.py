"""From a training command's arguments to a `Trainer` that is ready to run, and provenance."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import torch

from pipeline.config import ModelConfig, load_model_config
from pipeline.data_dir import DataDir, atomic_write_text
from pipeline.errors import ConfigError, DataError, ModelError, UsageError
from pipeline.features import CmvnStats, FrontEnd
from pipeline.kernels.memory import keep_freed_memory
from pipeline.model_dir import ModelDir, is_trained, load_part, load_weights, read_cmvn
from pipeline.nn.layers import count_weights, initialise
from pipeline.nn.models import CtcModel, PredictorModel, TransducerModel, build_model
from pipeline.phones import load_phone_map
from pipeline.tokens import Tokens
from pipeline.training.dataset import Utterance, load_dataset
from pipeline.training.loop import Trainer, fitting
from pipeline.training.options import RESUMABLE_CHANGES, TrainOptions
from pipeline.training.tasks import CtcTask, PredictorTask, Task, TransducerTask

log = logging.getLogger("pipeline")

CHOICES = {
    "stop_on": ("loss", "per"),
    "optimizer": ("sgd", "adam"),
    "schedule": ("constant", "linear"),
    "device": ("cpu", "cuda", "auto"),
}
ABOVE_0 = ("epochs", "batch_size", "learning_rate", "threads")


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
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    tokens = Tokens.from_file(arguments.tokens)
    config = _config(arguments, tokens)
    model = build_model(config, num_tokens=len(tokens))
    initialise(
        model, scale=options.init_scale, generator=torch.Generator().manual_seed(options.seed)
    )
    task = _task(model, phones_of(tokens, arguments.phone_map))
    train_set, dev_set = (
        _utterances(path, tokens, task, options)
        for path in (arguments.train_dir, arguments.dev_dir)
    )
    with _log_file(arguments.model_dir):
        directory = _directory(arguments, options, config, tokens)
        if not directory.last_path.exists():
            _start_from_others(model, arguments, tokens)
            write_provenance(directory.path, arguments, options)
        log.info("%s model, %s weights, on %s", config.kind, f"{count_weights(model):,}", device)
        trainer = Trainer(
            model.to(device),
            task,
            directory,
            options,
            train=train_set,
            dev=dev_set,
            device=device,
            feature_streams=_streams(directory),
        )
        started = time.monotonic()
        try:
            trainer.run()
        except torch.OutOfMemoryError as error:
            raise MemoryError from error
        log.info("training took %.0f s", time.monotonic() - started)
    return len(train_set)


def check_options(options: TrainOptions) -> None:
    """Raise UsageError, naming the option, for a value outside its range."""
    for name, choices in CHOICES.items():
        if getattr(options, name) not in choices:
            raise UsageError(f"{_flag(name)} is one of {', '.join(choices)}")
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if isinstance(value, (int, float)) and not 0 <= value < 2**31:
            raise UsageError(f"{_flag(field.name)} must be from 0 to 2147483647, not {value}")
        if field.name in ABOVE_0 and value == 0:
            raise UsageError(f"{_flag(field.name)} must be above 0")


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


def _utterances(path: Path, tokens: Tokens, task: Task, options: TrainOptions) -> list[Utterance]:
    with_features = not isinstance(task, PredictorTask)
    pipes = options.allow_pipes
    found = load_dataset(path, tokens, with_features=with_features, allow_pipes=pipes)
    return fitting(found, task, options)


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
) -> ModelDir:
    """The model directory: that of the training to go on with, or a new one."""
    saved = _saved_options(arguments, options, tokens)
    if is_trained(arguments.model_dir):
        directory = ModelDir.open(arguments.model_dir)
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
    values["train_data_sha256"] = DataDir(arguments.train_dir).content_hash()
    values["dev_data_sha256"] = DataDir(arguments.dev_dir).content_hash()
    values["cmvn"] = arguments.cmvn
    values["phone_map"] = str(arguments.phone_map or "")
    values["init"] = str(arguments.init) if arguments.init else ""
    values["parts"] = {name: str(path) for name, path in arguments.parts}
    starts = [*([arguments.init] if arguments.init else []), *dict(arguments.parts).values()]
    weights = [path / "final.safetensors" for path in starts]
    if all(path.exists() for path in weights):  # a training that goes on can do without them
        data = b"".join(path.read_bytes() for path in weights)
        values["starts_sha256"] = hashlib.sha256(data).hexdigest()
    return values


def _refuse_changes(directory: ModelDir, config: ModelConfig, saved: dict[str, Any]) -> None:
    there = directory.options
    changed = [
        f"{name}: {there[name]!r} there, {value!r} now"
        for name, value in saved.items()
        if name not in RESUMABLE_CHANGES and there.get(name, value) != value
    ]
    if config != directory.config:
        changed.append(f"architecture: {directory.config} there, {config} now")
    if changed:
        raise ModelError(
            f"{directory.path}: was trained with other options or data; give another directory, "
            "or remove this one:\n  " + "\n  ".join(changed)
        )


def _cmvn(arguments: TrainArguments, dim: int) -> CmvnStats | None:
    """Global statistics of the training features; by default ``TRAIN_DIR/cmvn.ark``."""
    if arguments.cmvn == "none":
        return None
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


def _start_from_others(model: torch.nn.Module, arguments: TrainArguments, tokens: Tokens) -> None:
    """Weights of pretrained networks, by layer name; all else stays random."""
    if arguments.init is not None:
        source = _source(arguments.init, tokens)
        load_weights(model, source.weights(), source.weights_path)
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


@contextlib.contextmanager
def _log_file(directory: Path) -> Iterator[None]:
    """Make the directory, if need be, and log to its ``train.log``, too.

    At most one training at a time may be here. A directory that was made for one that failed
    before it had a ``config.json`` is removed again.
    """
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "train.log"
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        with path.open("rb") as lock:
            _lock(lock, directory)
            yield
    finally:
        log.removeHandler(handler)
        handler.close()
        if is_new and not (directory / "config.json").exists():
            shutil.rmtree(directory, ignore_errors=True)


def _lock(file: BinaryIO, directory: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ModelError(
            f"{directory}: another training writes here; wait for it, or give another directory"
        ) from error
    except OSError:  # some file systems cannot lock
        log.debug("%s: no locks here", directory)


def write_provenance(directory: Path, arguments: TrainArguments, options: TrainOptions) -> None:
    """Write ``provenance.json``: how this model came about."""
    facts = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": _git_commit(),
        "seed": options.seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: version(name) for name in ("numpy", "kaldi-native-fbank", "soundfile")},
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
