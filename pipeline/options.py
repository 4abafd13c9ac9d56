"""Options: their declaration, the check of their values, and the files they are read from.

An option is a field of a frozen dataclass that derives from `Options`. One declaration serves the
command-line option with its help, the line ``--name=value`` of an options file, the key of a TOML
file, and the check of the value::

    @dataclass(frozen=True, kw_only=True)
    class DeltaOptions(Options):
        delta_window: int = option(2, "frames on each side", low=1)
"""

import dataclasses
import difflib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pipeline.errors import ConfigError
from pipeline.plain_text import read_lines, shown

LARGEST = 2**31 - 1  # the largest whole number that an option may be
DEVICES = ("cpu", "cuda", "auto")  # the choices of an option --device

REQUIRED = dataclasses.MISSING  # the default of an option that must be given

O = TypeVar("O", bound="Options")  # noqa: E741


class Bounds(NamedTuple):
    """The values that an option may have; its default is always one of them."""

    choices: tuple[str, ...] = ()
    low: float | None = None  # at least
    above: float | None = None  # more than
    high: float | None = None  # at most
    below: float | None = None  # less than
    most: int = LARGEST  # a larger whole number is a mistake

    @property
    def text(self) -> str:
        """The bounds in words, such as "from 0 to 1", to follow "must be"."""
        ends = [
            *([f"{self.low:g} or more"] if self.low is not None and self.high is None else []),
            *([f"above {self.above:g}"] if self.above is not None else []),
            *([f"below {self.below:g}"] if self.below is not None else []),
            *([f"at most {self.high:g}"] if self.high is not None and self.low is None else []),
        ]
        if self.low is not None and self.high is not None:
            ends.insert(0, f"from {self.low:g} to {self.high:g}")
        return " and ".join(ends)

    def hold(self, value: float) -> bool:
        """Whether a number lies within the bounds; NaN never does."""
        return (
            (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
            and (self.below is None or value < self.below)
        )


def option(
    default: Any,
    help_text: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    most: int = LARGEST,
) -> Any:
    """A dataclass field that is an option.

    Args:
        default: the value if the option is not given, valid whatever the bounds; `REQUIRED` if it
            must be given.
        help_text: the meaning of the option, with its unit.
        choices: the allowed texts.
        low: the smallest allowed number.
        above: a number that the value must exceed.
        high: the largest allowed number.
        below: a number that the value must stay below.
        most: the largest whole number that is no mistake; it needs no mention before.
    """
    metadata = {"help": help_text, "bounds": Bounds(choices, low, above, high, below, most)}
    if default is REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def fault(field: "dataclasses.Field[Any]", value: Any) -> str:
    """What is wrong with the value of an option, to follow its name; empty for a valid value."""
    bounds = field.metadata["bounds"]
    if isinstance(value, tuple):
        return next(filter(None, (fault(field, item) for item in value)), "")
    if type(value) is type(field.default) and value == field.default:
        return ""
    if bounds.choices:
        wanted = ", ".join(bounds.choices)
        return "" if value in bounds.choices else f"must be one of {wanted}, not {value!r}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be a finite number, not {value}"
    if isinstance(value, int) and not -LARGEST <= value <= bounds.most:
        return f"must be at most {bounds.most}, not {value}"
    shown = value if isinstance(value, int) else f"{value:g}"
    return "" if bounds.hold(value) else f"must be {bounds.text}, not {shown}"


def flag(name: str) -> str:
    """The command-line name of a field: ``batch_size`` -> ``--batch-size``.

    A field whose name would be a word of Python ends with ``_``: ``async_`` -> ``--async``.
    """
    return "--" + name.rstrip("_").replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base class of all groups of options, which checks the values when an object is made.

    Raises:
        ConfigError: a value is invalid, see `check`.
    """

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise ConfigError, naming the option, for the first value outside its bounds."""
        for field in dataclasses.fields(self):
            if wrong := fault(field, getattr(self, field.name)):
                raise ConfigError(f"{flag(field.name)} {wrong}")


def require(holds: bool, name: str, what: str) -> None:
    """Raise ConfigError ``--name must be WHAT`` unless a condition on several options holds."""
    if not holds:
        raise ConfigError(f"{flag(name)} must be {what}")


# ---- options files -------------------------------------------------------------------------------


class Line(NamedTuple):
    """A line of an options file; ``value`` is None if the line has no ``=``."""

    number: int
    name: str  # as on the command line, without the dashes
    value: str | None


def read_options_file(path: str | Path) -> list[Line]:
    """The lines ``--name=value`` of an options file, without blank lines and ``#`` comments.

    ``_`` and capital letters in names are treated as on the command line: ``--Use_Energy`` is
    ``use-energy``.

    Raises:
        ConfigError: the file cannot be read, or a line has another form. Names the file and the
            line.
    """
    try:
        lines = read_lines(path, ConfigError)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this options file: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, equals, value = text.partition("=")
        key = normal_name(name.rstrip())
        if len(key) < 3 or not key.startswith("--") or any(c.isspace() for c in key):
            raise ConfigError(f"{path}:{number}: expected --name=value, not {shown(text)!r}")
        found.append(Line(number, key[2:], value.strip() if equals else None))
    return found


def normal_name(name: str) -> str:
    """``--Use_Energy`` -> ``--use-energy``: Kaldi accepts both notations."""
    return name.replace("_", "-").lower()


def nearest(name: str, known: list[str]) -> str:
    """``; did you mean NAME?`` if one of the known names is similar, else an empty text."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def load_options(kind: type[O], path: str | Path) -> O:
    """Read options of ``kind`` from an options file; an option without a value is ``true``.

    Booleans may have any spelling of the command line, ``--no-use-energy`` among them.

    Raises:
        ConfigError: a name is unknown (the most similar one is named), or a value is invalid. The
            message names the file and, if one line is wrong, the line.
    """
    fields = {f.name.replace("_", "-"): f for f in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for number, name, text in read_options_file(path):
        where = f"{path}:{number}"
        plain = name.removeprefix("no-")
        negated = name not in fields and plain in fields and isinstance(fields[plain].default, bool)
        if name not in fields and not negated:
            near = nearest(f"--{name}", [f"--{known}" for known in fields])
            hint = near or f"; {kind.__name__} has no such option"
            raise ConfigError(f"{where}: unknown option --{name}{hint}")
        key = plain if negated else name
        value = _parsed("true" if text is None else text, fields[key].default, where, name)
        values[fields[key].name] = (not value) if negated else value
        places[flag(key)] = where
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(placed(str(error), places, str(path))) from error


def placed(message: str, places: dict[str, str], otherwise: str = "") -> str:
    """A message that begins with an option, after the place that the option was read from.

    Args:
        message: such as ``--low-freq must be …``; another message stays as it is.
        places: ``--low-freq`` -> ``FILE:LINE``; the empty text if it was on the command line.
        otherwise: the place of all other options.
    """
    found = re.match(r"--[a-z][a-z0-9-]*", message)
    where = places.get(found[0], otherwise) if found else otherwise
    return f"{where}: {message}" if where else message


BOOLEANS = {
    **dict.fromkeys(("true", "t", "1", "yes"), True),
    **dict.fromkeys(("false", "f", "0", "no"), False),
}  # the spellings of a boolean, in small letters


def _parsed(text: str, default: Any, where: str, name: str) -> Any:
    """``text`` converted to the type of the default."""
    try:
        if isinstance(default, bool):
            return BOOLEANS[text.lower()]
        return type(default)(text)
    except (KeyError, ValueError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[type(default)]
        raise ConfigError(f"{where}: --{name} must be {wanted}, not {text!r}") from None
