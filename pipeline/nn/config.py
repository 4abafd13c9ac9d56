"""Model architectures: a TOML file that is read into frozen dataclasses.

::

    num_tokens = 62            # with the blank; optional, checked against tokens.txt

    [encoder]                  # the transcription network of Graves (2012)
    kind = "recurrent"         # the default
    input_dim = 123
    layers = 3
    cells = 250

    [predictor]                # the prediction network
    cells = 250

    [joiner]
    kind = "tanh"
    dim = 250

``train_ctc.py`` and ``train_framewise.py`` build the encoder and an output layer,
``train_predictor.py`` the predictor and an output layer, and ``train_transducer.py`` all three
parts, so that one file serves a whole recipe. A section ``[framewise]`` has options of the
frame-wise network alone. The keys of a section are the options of the configuration class in the
file of the network.
"""

import dataclasses
import reprlib
import tomllib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import ConfigError
from pipeline.nn.encoders.encoder import EncoderConfig
from pipeline.nn.encoders.kinds import encoder_config
from pipeline.nn.framewise import FramewiseConfig
from pipeline.nn.joiner import JoinerConfig
from pipeline.nn.predictor import PredictorConfig
from pipeline.options import LARGEST, REQUIRED, Options, fault, nearest, option
from pipeline.plain_text import check_end, decode_text

FORMAT_VERSION = 1
LARGEST_FILE = 1 << 20  # bytes of an architecture

C = TypeVar("C", bound=Options)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Options):
    """A whole architecture; a part that is None is not in the model."""

    num_tokens: int | None = option(
        None, "number of tokens with the blank; default: that of tokens.txt", low=2
    )
    encoder: EncoderConfig | None = option(None, "transcription network")
    predictor: PredictorConfig | None = option(None, "prediction network")
    joiner: JoinerConfig | None = option(None, "output network")
    framewise: FramewiseConfig | None = option(None, "output for each frame, without a blank")

    @property
    def kind(self) -> str:
        """``ctc``, ``framewise``, ``predictor`` or ``transducer``, by the parts that there are."""
        if self.encoder and self.predictor:
            return "transducer"
        of_encoder = "framewise" if self.framewise else "ctc"
        return of_encoder if self.encoder else "predictor"

    def part(self, kind: str, where: str) -> "ModelConfig":
        """The part of this architecture that a model of this `kind` needs.

        Raises:
            ConfigError: a section is missing.
        """
        alone = {"ctc": ["encoder"], "framewise": ["encoder"], "predictor": ["predictor"]}
        needs = alone.get(kind, ["encoder", "predictor", "joiner"])
        missing = [f"[{name}]" for name in needs if getattr(self, name) is None]
        if missing:
            raise ConfigError(f"{where}: a {kind} model needs {' and '.join(missing)}; add it")
        kept = {name: getattr(self, name) for name in needs}
        if kind == "framewise":
            kept["framewise"] = self.framewise or FramewiseConfig()
        return ModelConfig(num_tokens=self.num_tokens, **kept)


def load_model_config(path: Path) -> ModelConfig:
    """Read an architecture from a TOML file.

    Raises:
        ConfigError: the file cannot be read, or has errors; all of them are named with their keys.
    """
    check_end(path, ConfigError)
    try:
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise ConfigError(f"{path}: not an architecture: it has {size} bytes")
        data = tomllib.loads(decode_text(path.read_bytes(), str(path), ConfigError))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this architecture: {error.strerror}") from error
    except RecursionError:
        raise ConfigError(f"{path}: not an architecture: nested too deeply") from None
    except ValueError as error:  # not TOML, or a number of thousands of digits
        reason = str(error).partition("; use sys.")[0]
        raise ConfigError(f"{path}: not a TOML file: {reason}; correct it") from error
    config = model_config_from(data, where=str(path))
    if not (config.encoder or config.predictor):
        raise ConfigError(f"{path}: has neither an [encoder] nor a [predictor]; add one")
    return config


def model_config_from(data: dict[str, Any], *, where: str) -> ModelConfig:
    """An architecture from plain data. Raises ConfigError that names all errors."""
    problems: list[str] = []
    try:
        config = _build(ModelConfig, data, "", problems)
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply; correct the file") from None
    if problems or config is None:
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in problems))
    return config


def to_data(config: ModelConfig) -> dict[str, Any]:
    """An architecture as plain data for ``config.json``, which `model_config_from` reads."""
    return dataclasses.asdict(config)


def shown(value: Any) -> str:
    """A value for a message, cut if it is long."""
    try:
        return reprlib.repr(value)
    except (RecursionError, ValueError):  # ValueError: a whole number of thousands of digits
        return "something too long to show"


def _build(cls: type[C], data: dict[str, Any], prefix: str, problems: list[str]) -> C | None:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    before = len(problems)
    for key, value in data.items():
        if key not in fields:
            hint = nearest(key, list(fields)) or f"; known: {', '.join(fields)}"
            problems.append(f"{prefix}{key}: unknown key{hint}")
            continue
        values[key] = _value(value, hints[key], fields[key], f"{prefix}{key}", problems)
    for name, f in fields.items():
        if name not in data and f.default is REQUIRED:
            problems.append(f"{prefix}{name}: missing; {f.metadata['help']}")
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except ConfigError as error:  # a combination of options that is not allowed
        problems.append(f"{prefix}{str(error).removeprefix('--').replace('-', '_', 1)}")
        return None


def _value(
    value: Any, hint: Any, f: "dataclasses.Field[Any]", key: str, problems: list[str]
) -> Any:
    """The value of a key in the type ``hint``; errors are added to ``problems``."""
    if isinstance(hint, types.UnionType):  # a type or None
        if value is None:
            return None
        hint = next(h for h in typing.get_args(hint) if h is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        return _values(value, typing.get_args(hint)[0], f, key, problems)
    wanted = hint
    if dataclasses.is_dataclass(wanted):
        return _section(value, wanted, key, problems)
    if wanted is float and type(value) is int and abs(value) <= LARGEST:
        value = float(value)
    if type(value) is not wanted:
        what = f"{wanted.__name__} expected, not {shown(value)}"
        problems.append(f"{key}: {what}; {f.metadata['help']}")
    elif wrong := fault(f, value):
        problems.append(f"{key} {wrong}")
    return value


def _values(
    value: Any, wanted: Any, f: "dataclasses.Field[Any]", key: str, problems: list[str]
) -> tuple[Any, ...]:
    """The items of a list as a tuple, each checked like a single value."""
    if not isinstance(value, list | tuple):
        name = f"list of {wanted.__name__}"
        problems.append(f"{key}: {name} expected, not {shown(value)}; {f.metadata['help']}")
        return ()
    items = enumerate(value)
    return tuple(_value(item, wanted, f, f"{key}[{index}]", problems) for index, item in items)


def _section(value: Any, wanted: Any, key: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{key}: must be a section [{key}], not {shown(value)}")
        return None
    if wanted is EncoderConfig:
        try:
            wanted = encoder_config(value.get("kind", "recurrent"))
        except ConfigError as error:
            problems.append(f"{key}.kind: {error}")
            return None
    return _build(wanted, value, f"{key}.", problems)
