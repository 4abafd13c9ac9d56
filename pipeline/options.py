"""Options: what one is, the files of ``--name=value`` lines they are read from, and their check.

An option is a field of a frozen dataclass that derives from `Options`. The same declaration makes
the command-line option with its help, the line that an options file may have, the key of a TOML
file, and the check of its value::

    @dataclass(frozen=True, kw_only=True)
    class DeltaOptions(Options):
        delta_window: int = option(2, "frames on each side", low=1)
"""

import dataclasses
import difflib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pipeline.errors import ConfigError

LARGEST = 2**31 - 1  # that a whole number may be

REQUIRED = dataclasses.MISSING  # as default: the option must be given

O = TypeVar("O", bound="Options")  # noqa: E741


class Bounds(NamedTuple):
    """Which values an option may have; its default is always one of them."""

    choices: tuple[str, ...] = ()
    low: float | None = None  # at least
    above: float | None = None  # more than
    high: float | None = None  # at most
    below: float | None = None  # less than

    @property
    def text(self) -> str:
        """Such as "from 0 to 1", to stand behind "must be"."""
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
        """Whether a number lies within; NaN never does."""
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
) -> Any:
    """A dataclass field that is an option.

    Args:
        default: its value where nothing is said, which is valid whatever the bounds; `REQUIRED`
            for none.
        help_text: what it is, with its unit.
        choices: the texts it may be.
        low: the least number it may be.
        above: a number it must exceed.
        high: the greatest number it may be.
        below: a number it must stay below.
    """
    metadata = {"help": help_text, "bounds": Bounds(choices, low, above, high, below)}
    if default is REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def fault(field: "dataclasses.Field[Any]", value: Any) -> str:
    """What is wrong with an option's value, to stand behind its name; empty if nothing is."""
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
    if abs(value) > LARGEST and isinstance(value, int):
        return f"must be at most {LARGEST}, not {value}"
    shown = value if isinstance(value, int) else f"{value:g}"
    return "" if bounds.hold(value) else f"must be {bounds.text}, not {shown}"


def flag(name: str) -> str:
    """The name of a field on a command line: ``batch_size`` -> ``--batch-size``."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of all groups of options: their values are checked when one is made.

    Raises:
        ConfigError: see `check`.
    """

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise ConfigError, naming the option, for the first value outside its bounds."""
        for field in dataclasses.fields(self):
            if wrong := fault(field, getattr(self, field.name)):
                raise ConfigError(f"{flag(field.name)} {wrong}")


def require(holds: bool, name: str, what: str) -> None:
    """Raise ConfigError ``--name must be …`` unless a condition on several options holds."""
    if not holds:
        raise ConfigError(f"{flag(name)} must be {what}")


# ---- options files -------------------------------------------------------------------------------


class Line(NamedTuple):
    """A line of an options file; ``value`` is None where there is no ``=``."""

    number: int
    name: str  # as on the command line, without the dashes
    value: str | None


def read_options_file(path: str | Path) -> list[Line]:
    """The lines ``--name=value`` of an options file, blank lines and ``#`` comments left out.

    ``_`` and capitals in names are those of the command line: ``--Use_Energy`` is ``use-energy``.

    Raises:
        ConfigError: the file cannot be read, or a line is something else. Names file and line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this options file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not text (UTF-8); an options file has --name=value") from error
    found = []
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, equals, value = text.partition("=")
        key = normal_name(name.rstrip())
        if len(key) < 3 or not key.startswith("--") or any(c.isspace() for c in key):
            raise ConfigError(f"{path}:{number}: expected --name=value, not {text!r}")
        found.append(Line(number, key[2:], value.strip() if equals else None))
    return found


def normal_name(name: str) -> str:
    """``--Use_Energy`` -> ``--use-energy``, as both of Kaldi's dialects are understood."""
    return name.replace("_", "-").lower()


def nearest(name: str, known: list[str]) -> str:
    """``; did you mean …?`` where one of the known names is near, else nothing."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def load_options(kind: type[O], path: str | Path) -> O:
    """Options of ``kind`` from an options file; an option without a value is ``true``.

    Raises:
        ConfigError: an unknown name (the nearest is named) or a value that does not fit.
    """
    fields = {f.name.replace("_", "-"): f for f in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for number, name, text in read_options_file(path):
        where = f"{path}:{number}"
        if name not in fields:
            near = nearest(f"--{name}", [f"--{known}" for known in fields])
            hint = near or f"; not an option of {kind.__name__}"
            raise ConfigError(f"{where}: unknown option --{name}{hint}")
        default = fields[name].default
        values[fields[name].name] = _parsed("true" if text is None else text, default, where, name)
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _parsed(text: str, default: Any, where: str, name: str) -> Any:
    """``text`` as a value of the default's type."""
    try:
        if isinstance(default, bool):
            return {"true": True, "t": True, "false": False, "f": False}[text.lower()]
        return type(default)(text)
    except (KeyError, ValueError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[type(default)]
        raise ConfigError(f"{where}: --{name} is {wanted}, not {text!r}") from None
