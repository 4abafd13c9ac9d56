"""Model architectures as data: a TOML file, read into frozen dataclasses.

::

    num_tokens = 62            # with the blank; optional, checked against tokens.txt

    [encoder]                  # Graves 2012 calls it the transcription network
    input_dim = 123
    layers = 3
    cells = 250

    [predictor]                # the prediction network
    cells = 250

    [joiner]
    kind = "tanh"
    dim = 250

``train_ctc.py`` builds the encoder and an output layer, ``train_predictor.py`` the predictor and
an output layer, ``train_transducer.py`` all three; so one file serves a whole recipe.
"""

import dataclasses
import difflib
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import ConfigError

FORMAT_VERSION = 1

C = TypeVar("C")


def _setting(default: Any, text: str, *, choices: tuple[str, ...] = (), low: float = 0.0) -> Any:
    metadata = {"help": text, "choices": choices, "low": low}
    if default is dataclasses.MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The recurrent network over the frames."""

    input_dim: int = _setting(dataclasses.MISSING, "features a frame: 123 [G13], 26 [G12]", low=1)
    layers: int = _setting(dataclasses.MISSING, "recurrent layers", low=1)
    cells: int = _setting(dataclasses.MISSING, "cells a layer and direction", low=1)
    cell: str = _setting(
        "lstm", "lstm with peepholes [G13] eq. 3-7, or tanh", choices=("lstm", "tanh")
    )
    bidirectional: bool = _setting(True, "every layer reads both directions [G13] eq. 8-10")
    stack_frames: int = _setting(
        1, "frames put beside each other and read as one; 1 in the papers", low=1
    )
    dropout: float = _setting(
        0.0, "share of each layer's input dropped in training; 0 in the papers"
    )


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """The recurrent network over the tokens so far; one layer, one direction, one-hot input."""

    cells: int = _setting(dataclasses.MISSING, "cells: 128 [G12], 250 [G13]", low=1)
    dropout: float = _setting(0.0, "share of its output dropped in training; 0 in the papers")


@dataclass(frozen=True, kw_only=True)
class JoinerConfig:
    """How encoder and predictor make one distribution."""

    kind: str = _setting(
        "tanh",
        "tanh: output network of [G13] eq. 15-18; sum: f + g of [G12] eq. 12",
        choices=("tanh", "sum"),
    )
    dim: int = _setting(0, "size of l_t and h_t,u for kind tanh: 250 [G13]")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A whole architecture. What is None is not part of the model."""

    num_tokens: int | None = _setting(
        None, "outputs with the blank; None: as many as tokens.txt has", low=2
    )
    encoder: EncoderConfig | None = _setting(None, "transcription network")
    predictor: PredictorConfig | None = _setting(None, "prediction network")
    joiner: JoinerConfig | None = _setting(None, "output network")

    @property
    def kind(self) -> str:
        """``ctc``, ``predictor`` or ``transducer``, by what is there."""
        if self.encoder and self.predictor:
            return "transducer"
        return "ctc" if self.encoder else "predictor"

    def part(self, kind: str, where: str) -> "ModelConfig":
        """The part of this architecture that a ``ctc``, ``predictor`` or ``transducer`` needs.

        Raises:
            ConfigError: a section is missing.
        """
        needs = {"ctc": ["encoder"], "predictor": ["predictor"]}.get(
            kind, ["encoder", "predictor", "joiner"]
        )
        missing = [f"[{name}]" for name in needs if getattr(self, name) is None]
        if missing:
            raise ConfigError(f"{where}: a {kind} model needs {' and '.join(missing)}; add it")
        kept = {name: getattr(self, name) for name in needs}
        return ModelConfig(num_tokens=self.num_tokens, **kept)


def load_model_config(path: Path) -> ModelConfig:
    """Read an architecture.

    Raises:
        ConfigError: everything that is wrong with it, in one message, each with its key.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this architecture: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    config = model_config_from(data, where=str(path))
    if not (config.encoder or config.predictor):
        raise ConfigError(f"{path}: no [encoder] and no [predictor]: nothing to build")
    return config


def model_config_from(data: dict[str, Any], *, where: str) -> ModelConfig:
    """An architecture from plain data. Raises ConfigError with all that is wrong."""
    problems: list[str] = []
    config = _build(ModelConfig, data, "", problems)
    if (
        config is not None
        and config.joiner
        and config.joiner.kind == "tanh"
        and config.joiner.dim < 1
    ):
        problems.append("joiner.dim: a tanh joiner needs a size, e.g. 250")
    if problems or config is None:
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in problems))
    return config


def _build(cls: type[C], data: dict[str, Any], prefix: str, problems: list[str]) -> C | None:
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    before = len(problems)
    for key, value in data.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(fields)}"
            problems.append(f"{prefix}{key}: unknown key{hint}")
            continue
        values[key] = _check(value, hints[key], fields[key], f"{prefix}{key}", problems)
    for name, f in fields.items():
        if name not in data and f.default is dataclasses.MISSING:
            problems.append(f"{prefix}{name}: missing; {f.metadata['help']}")
    return cls(**values) if len(problems) == before else None


def _check(value: Any, hint: Any, f: Any, key: str, problems: list[str]) -> Any:
    wanted = next(h for h in typing.get_args(hint) or (hint,) if h is not types.NoneType)
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        if isinstance(value, dict):
            return _build(wanted, value, f"{key}.", problems)
        if value is None and types.NoneType in typing.get_args(hint):
            return None
        problems.append(f"{key}: a section [{key}] is expected, not {value!r}")
        return None
    if value is None and types.NoneType in typing.get_args(hint):
        return None
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        problems.append(f"{key}: {wanted.__name__} expected, not {value!r}; {f.metadata['help']}")
    elif f.metadata["choices"] and value not in f.metadata["choices"]:
        problems.append(f"{key}: one of {', '.join(f.metadata['choices'])} expected, not {value!r}")
    elif wanted in (int, float) and not value >= f.metadata["low"]:  # NaN is too low as well
        problems.append(f"{key}: at least {f.metadata['low']:g} expected, not {value!r}")
    elif key.endswith("dropout") and value >= 1.0:
        problems.append(f"{key}: below 1 expected, not {value!r}")
    return value


def to_data(config: Any) -> dict[str, Any]:
    """A dataclass as plain data for ``config.json``."""
    return dataclasses.asdict(config)
