"""Architectures from TOML files: they are read, and all errors are reported at once."""

import json
import re
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.nn.config import (
    JoinerConfig,
    ModelConfig,
    PredictorConfig,
    load_model_config,
    model_config_from,
    to_data,
)
from pipeline.nn.encoders.recurrent import RecurrentConfig
from pipeline.nn.models import require_room

WHOLE = """
num_tokens = 62
[encoder]
input_dim = 123
layers = 3
cells = 250
[predictor]
cells = 250
[joiner]
kind = "tanh"
dim = 250
"""


@pytest.fixture
def toml(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "model.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems(path: Path) -> list[str]:
    """The lines of the error message, without the name of the file."""
    with pytest.raises(ConfigError) as caught:
        load_model_config(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines), lines
    return [line.removeprefix(f"{path}: ") for line in lines]


def test_a_whole_architecture(toml) -> None:
    config = load_model_config(toml(WHOLE))
    assert config == ModelConfig(
        num_tokens=62,
        encoder=RecurrentConfig(input_dim=123, layers=3, cells=250),
        predictor=PredictorConfig(cells=250),
        joiner=JoinerConfig(kind="tanh", dim=250),
    )
    assert config.kind == "transducer"


def test_defaults_are_those_of_the_papers(toml) -> None:
    encoder = load_model_config(toml("[encoder]\ninput_dim=26\nlayers=1\ncells=128")).encoder
    assert encoder is not None
    assert (encoder.cell, encoder.bidirectional) == ("lstm", True)
    assert (encoder.stack_frames, encoder.dropout) == (1, 0.0)


def test_it_survives_config_json(toml) -> None:
    config = load_model_config(toml(WHOLE))
    for kind in ("ctc", "predictor", "transducer"):
        part = config.part(kind, "here")
        data = json.loads(json.dumps(to_data(part)))
        assert model_config_from(data, where="config.json") == part


def test_configs_are_frozen(toml) -> None:
    config = load_model_config(toml(WHOLE))
    with pytest.raises(AttributeError):
        config.num_tokens = 3  # type: ignore[misc]


# ---- parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        ("ctc", ["encoder"]),
        ("predictor", ["predictor"]),
        ("transducer", ["encoder", "predictor", "joiner"]),
    ],
)
def test_one_file_serves_a_whole_recipe(toml, kind: str, kept: list[str]) -> None:
    part = load_model_config(toml(WHOLE)).part(kind, "here")
    assert part.kind == kind
    assert part.num_tokens == 62
    assert [n for n in ("encoder", "predictor", "joiner") if getattr(part, n)] == kept


def test_a_missing_section_is_named(toml) -> None:
    config = load_model_config(toml("[encoder]\ninput_dim=26\nlayers=1\ncells=128"))
    assert config.kind == "ctc"
    with pytest.raises(ConfigError) as caught:
        config.part("transducer", "conf/a.toml")
    assert str(caught.value) == (
        "conf/a.toml: a transducer model needs [predictor] and [joiner]; add it"
    )


@pytest.mark.parametrize("text", ["", "num_tokens = 62\n", '[joiner]\nkind = "sum"\n'])
def test_nothing_to_build(toml, text: str) -> None:
    assert problems(toml(text)) == ["has neither an [encoder] nor a [predictor]; add one"]


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cels = 3", "encoder.cels: unknown key; did you mean cells?"),
        ("bidirectionnal = true", "encoder.bidirectionnal: unknown key; did you mean bidirec"),
        ("zzz = 3", "encoder.zzz: unknown key; known: kind, input_dim, layers, cells, cell,"),
        ("cell = 3", "encoder.cell: str expected, not 3; kind of cell: lstm"),
        ('cell = "gru"', "encoder.cell must be one of lstm, tanh, not 'gru'"),
        ("stack_frames = 0", "encoder.stack_frames must be 1 or more, not 0"),
        ("stack_frames = 2.0", "encoder.stack_frames: int expected, not 2.0"),
        ("stack_frames = true", "encoder.stack_frames: int expected, not True"),
        ("bidirectional = 1", "encoder.bidirectional: bool expected, not 1"),
        ('bidirectional = "yes"', "encoder.bidirectional: bool expected, not 'yes'"),
        ("dropout = 1.0", "encoder.dropout must be 0 or more and below 1, not 1"),
        ("dropout = -0.1", "encoder.dropout must be 0 or more and below 1, not -0.1"),
        ("dropout = nan", "encoder.dropout must be a finite number, not nan"),
        ("dropout = inf", "encoder.dropout must be a finite number, not inf"),
        ("dropout = true", "encoder.dropout: float expected, not True"),
        ("dropout = [0.1]", "encoder.dropout: float expected, not [0.1]"),
    ],
)
def test_one_wrong_line(toml, line: str, said: str) -> None:
    (problem,) = problems(toml(f"[encoder]\ninput_dim=26\nlayers=1\ncells=128\n{line}\n"))
    assert problem.startswith(said)


def test_a_whole_number_is_a_fine_fraction(toml) -> None:
    config = load_model_config(toml("[predictor]\ncells=3\ndropout=0"))
    assert config.predictor == PredictorConfig(cells=3, dropout=0.0)


@pytest.mark.parametrize("key", ["input_dim", "layers", "cells"])
@pytest.mark.parametrize("value", ["0", "-5"])
def test_sizes_are_positive(toml, key: str, value: str) -> None:
    sizes = {"input_dim": "26", "layers": "1", "cells": "128", key: value}
    text = "[encoder]\n" + "".join(f"{k} = {v}\n" for k, v in sizes.items())
    assert problems(toml(text)) == [f"encoder.{key} must be 1 or more, not {value}"]


@pytest.mark.parametrize("tokens", ["0", "1", "-4"])
def test_there_is_a_token_beside_the_blank(toml, tokens: str) -> None:
    (problem,) = problems(toml(f"num_tokens = {tokens}\n[predictor]\ncells = 3"))
    assert problem == f"num_tokens must be 2 or more, not {tokens}"


@pytest.mark.parametrize("joiner", ['kind = "tanh"', "", 'kind = "tanh"\ndim = 0'])
def test_a_tanh_joiner_needs_a_size(toml, joiner: str) -> None:
    text = f"[encoder]\ninput_dim=1\nlayers=1\ncells=1\n[predictor]\ncells=1\n[joiner]\n{joiner}"
    assert problems(toml(text)) == ["joiner.dim must be given for a tanh joiner, such as 250"]


def test_a_section_that_is_a_value(toml) -> None:
    assert problems(toml("encoder = 3")) == ["encoder: must be a section [encoder], not 3"]


def test_an_unknown_section(toml) -> None:
    (problem,) = problems(toml("[predictor]\ncells = 3\n[encodr]\ncells = 3"))
    assert problem == "encodr: unknown key; did you mean encoder?"


def test_all_errors_are_reported_at_once(toml) -> None:
    text = 'num_token = 3\n[encoder]\nlayers = 0\ncells = "many"\n[predictor]\n[joiner]\nkind="sun"'
    said = problems(toml(text))
    assert [re.split(":| must", problem)[0] for problem in said] == [
        "num_token",
        "encoder.layers",
        "encoder.cells",
        "encoder.input_dim",
        "predictor.cells",
        "joiner.kind",
    ]
    assert said[3].startswith("encoder.input_dim: missing; number of features per frame")


# ---- files ---------------------------------------------------------------------------------------


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.toml") == [
        "cannot read this architecture: No such file or directory"
    ]


def test_a_directory(tmp_path: Path) -> None:
    assert problems(tmp_path) == ["cannot read this architecture: Is a directory"]


@pytest.mark.parametrize("text", ["[encoder", "cells = ", "a = 1\na = 2"])
def test_no_toml(toml, text: str) -> None:
    (problem,) = problems(toml(text))
    assert problem.startswith("not a TOML file: ")


def test_no_text(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_bytes(b"\xff\xfe\x00")
    (problem,) = problems(path)
    assert problem.startswith("is UTF-16; convert it")


def test_errors_of_config_json_name_it() -> None:
    with pytest.raises(ConfigError, match=r"^exp/ctc/config\.json: encoder\.layer: unknown key"):
        model_config_from({"encoder": {"layer": 3}}, where="exp/ctc/config.json")


# ---- sizes, and files that are no architectures --------------------------------------------------

CTC = "[encoder]\ninput_dim = 6\nlayers = 1\ncells = 3\n"


@pytest.mark.parametrize("key", ["input_dim", "layers", "cells", "projection", "stack_frames"])
@pytest.mark.parametrize(
    "value",
    ["2147483647", "99999999999", str(2**63), "9" * 4000, "nan", "inf", "-inf", "1e400", "true"],
)
def test_a_number_that_no_network_has_names_its_key(tmp_path: Path, key: str, value: str) -> None:
    lines = [line for line in CTC.splitlines() if not line.startswith(f"{key} ")]
    path = tmp_path / "huge.toml"
    path.write_text("\n".join([*lines, f"{key} = {value}"]))
    with pytest.raises(ConfigError, match=rf"huge\.toml: encoder\.{key}(:| must be at most )"):
        load_model_config(path)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 10_000 + "]" * 10_000,
        "a = " + "{b = " * 10_000 + "1" + "}" * 10_000,
        "encoder" + ".a" * 10_000 + " = 1",
        "[encoder]\ncells = " + "9" * 10_000,
        "[encoder]\ncells = " + "[" * 400 + "]" * 400,
        "x" * (2 << 20),
        "\0",
    ],
)
def test_a_file_that_is_no_architecture(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"odd\.toml: ") as caught:
        load_model_config(path)
    assert len(str(caught.value)) < 1000


def test_a_network_larger_than_the_memory_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "large.toml"
    path.write_text("[encoder]\ninput_dim = 6\nlayers = 1000\ncells = 65536\n")
    with pytest.raises(ConfigError, match=r"large\.toml: encoder\.cells = 65536: .* lower it"):
        require_room(load_model_config(path), num_tokens=4, where=path)
    path.write_text(CTC)
    require_room(load_model_config(path), num_tokens=4, where=path)
