"""Options: their bounds, and the files that they are read from."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.frontend.feature_options import FbankOptions
from pipeline.options import Line, Options, load_options, option, read_options_file


def test_option_files(tmp_path: Path) -> None:
    path = tmp_path / "fbank.conf"
    path.write_text("# comment\n\n--num_mel_bins = 40 # 40\n--Use-Energy\n--window-type=hanning\n")
    assert read_options_file(path) == [
        Line(3, "num-mel-bins", "40"),
        Line(4, "use-energy", None),
        Line(5, "window-type", "hanning"),
    ]
    wanted = FbankOptions(num_mel_bins=40, use_energy=True, window_type="hanning")
    assert load_options(FbankOptions, path) == wanted


@dataclass(frozen=True, kw_only=True)
class Toy(Options):
    """Options of every kind."""

    count: int = option(3, "how many", low=1, high=9)
    share: float = option(-1.0, "share; -1: as elsewhere", low=0, below=1)
    size: float = option(2.0, "size in mm", above=0)
    shape: str = option("round", "round or square", choices=("round", "square"))
    free: int = option(0, "any number")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "--count must be from 1 to 9, not 0"),
        ({"count": 10}, "--count must be from 1 to 9, not 10"),
        ({"share": 1.0}, "--share must be 0 or more and below 1, not 1"),
        ({"share": -0.5}, "--share must be 0 or more and below 1, not -0.5"),
        ({"share": math.nan}, "--share must be a finite number, not nan"),
        ({"size": 0.0}, "--size must be above 0, not 0"),
        ({"size": math.inf}, "--size must be a finite number, not inf"),
        ({"shape": "flat"}, "--shape must be one of round, square, not 'flat'"),
        ({"free": 2**31}, "--free must be at most 2147483647, not 2147483648"),
    ],
)
def test_a_value_outside_its_bounds_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message) + "$"):
        Toy(**values)


def test_a_default_is_valid_whatever_the_bounds() -> None:
    assert Toy(share=-1.0, count=9, size=1e-9, shape="square", free=-7).share == -1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num-mel-bins=40", r"x\.conf:1: expected --name=value, not 'num-mel-bins=40'"),
        ("\n--num-mel-bins 40", r"x\.conf:2: expected --name=value"),
        (
            "--num-mel-bin=40",
            r"x\.conf:1: unknown option --num-mel-bin; did you mean --num-mel-",
        ),
        ("--zzz=40", r"x\.conf:1: unknown option --zzz; FbankOptions has no such option"),
        ("--num-mel-bins=4.5", r"x\.conf:1: --num-mel-bins must be a whole number, not '4\.5'"),
        ("--low-freq=low", r"x\.conf:1: --low-freq must be a number, not 'low'"),
        ("--use-energy=maybe", r"x\.conf:1: --use-energy must be true or false, not 'maybe'"),
        ("--num-mel-bins=1", r"x\.conf:1: --num-mel-bins must be from 3 to 1000"),
    ],
)
def test_option_files_that_are_wrong(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_options(FbankOptions, path)


@pytest.mark.parametrize("spelling", ["", "=t", "=1", "=Yes", "=true"])
def test_booleans_as_on_the_command_line(spelling: str, tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text(f"--use_energy{spelling}\n--no-use-power{spelling}\n")
    assert load_options(FbankOptions, path) == FbankOptions(use_energy=True, use_power=False)


def test_a_wrong_combination_names_the_line_or_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text("\n--sample-frequency=30\n--frame-length=100\n--frame-shift=100\n")
    with pytest.raises(ConfigError, match=r"x\.conf: --low-freq must be 0 Hz to less than 15 Hz"):
        load_options(FbankOptions, path)
    path.write_text("\n--high-freq=12\n")
    with pytest.raises(ConfigError, match=r"x\.conf:2: --high-freq must be above --low-freq"):
        load_options(FbankOptions, path)


def test_option_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.conf: cannot read this options file"):
        read_options_file(tmp_path / "none.conf")
