"""Command lines in Kaldi's notations, and options files, turned into what click reads."""

from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, UsageError
from pipeline.options import BOOLEANS, Line, nearest, normal_name, read_options_file


def take_standard_options(arguments: list[str]) -> tuple[list[str], int, bool]:
    """Take out ``--verbose`` and ``--print-args``.

    Returns the other arguments, the verbosity and whether to print the arguments.
    """
    rest: list[str] = []
    verbose, print_args = 0, False
    queue = list(arguments)
    while queue:
        token = queue.pop(0)
        if token == "--":
            return [*rest, token, *queue], verbose, print_args
        name, has_value, value = _split_option(token)
        if name not in ("--verbose", "--print-args"):
            rest.append(token)
            continue
        if not has_value:
            takes_next = queue and (name == "--verbose" or queue[0] in ("true", "false"))
            value = queue.pop(0) if takes_next else "true" if name == "--print-args" else ""
        if name == "--print-args":
            print_args = _boolean(name, value)
        else:
            try:
                verbose = int(value)
            except ValueError:
                raise UsageError(f"--verbose takes a whole number, not {value!r}") from None
    return rest, verbose, print_args


def _split_option(token: str) -> tuple[str, bool, str]:
    """``--Use_Energy=true`` -> (``--use-energy``, True, ``true``); the name is empty if there is no
    option."""
    if not token.startswith("--") or token == "--":
        return "", False, ""
    name, equals, value = token.partition("=")
    return normal_name(name), bool(equals), value


def _boolean(name: str, value: str) -> bool:
    try:
        return BOOLEANS[value.lower()]
    except KeyError:
        raise UsageError(f"{name} must be true or false, not {value!r}") from None


def expand_config(command: Any, arguments: list[str], places: dict[str, str]) -> list[str]:
    """The arguments in click's notation, the options of ``--config`` files before all others.

    ``places`` gets the ``FILE:LINE`` of each option that a file decides, and the empty text for
    those that the command line decides.
    """
    from_files: list[str] = []
    typed: list[str] = []
    queue = list(arguments)
    while queue:
        token = queue.pop(0)
        if token == "--":
            typed += [token, *queue]
            break
        name, has_value, value = _split_option(token)
        if name != "--config":
            typed.append(token)
            continue
        if not has_value:
            if not queue:
                raise UsageError("--config needs a file")
            value = queue.pop(0)
        for line in _config_lines(Path(value), command):
            where = f"{value}:{line.number}"
            try:
                from_files += to_click(command, [_option_of(line)], whole=True)
            except UsageError as error:
                raise ConfigError(f"{where}: {error}") from error
            places[_main_name(command, f"--{line.name}")] = where
    rest = to_click(command, typed)
    for token in rest[: rest.index("--") if "--" in rest else None]:
        if name := _split_option(token)[0]:
            places[_main_name(command, name)] = ""
    return from_files + rest


def _main_name(command: Any, name: str) -> str:
    """``--no-use-energy`` -> ``--use-energy``; other names stay."""
    return next((str(p.opts[-1]) for p in command.params if name in p.secondary_opts), name)


def read_config_options(path: Path, command: Any = None) -> list[str]:
    """The ``--name=value`` lines of an options file, without comments and blank lines.

    Raises:
        ConfigError: the file cannot be read, or ``command`` has no such option. The message names
            the file, the line and the most similar option.
    """
    return [_option_of(line) for line in _config_lines(path, command)]


def _option_of(line: Line) -> str:
    return f"--{line.name}" if line.value is None else f"--{line.name}={line.value}"


def _config_lines(path: Path, command: Any) -> list[Line]:
    lines = read_options_file(path)
    if command is not None:
        known = [n for p in command.params for n in [*p.opts, *p.secondary_opts]]
        for number, key, _ in lines:
            name = f"--{key}"
            if name not in known:
                raise ConfigError(f"{path}:{number}: unknown option {name}{nearest(name, known)}")
    return lines


def to_click(command: Any, tokens: list[str], *, whole: bool = False) -> list[str]:
    """Options in click's notation; with ``whole`` a value must be in the token of its option."""
    flags = {n: p for p in command.params if getattr(p, "is_flag", False) for n in p.opts}
    valued = {
        n for p in command.params for n in p.opts if n.startswith("--") and n not in flags
    } - {"--help"}
    paths = {n for n in valued for p in command.params if n in p.opts and _takes_path(p)}
    switches = {
        n: str(p.metavar).split("|")
        for p in command.params
        for n in p.opts
        if n in valued and p.default == "false" and p.metavar
    }
    negated = {off: p.opts[0] for p in flags.values() for off in p.secondary_opts}
    out: list[str] = []
    queue = list(tokens)
    while queue:
        token = queue.pop(0)
        if token == "--":
            return [*out, token, *queue]
        name, has_value, value = _split_option(token)
        if not name:
            if not token.strip():
                raise UsageError("an argument is empty; give a name, or the file that is meant")
            out.append(token)
        elif name in flags:
            if not has_value:
                value = queue.pop(0) if queue and queue[0] in ("true", "false") else "true"
            off = flags[name].secondary_opts
            if _boolean(name, value):
                out.append(name)
            elif off:
                out.append(off[0])
        elif name in negated and has_value:  # --no-use-energy=false
            out.append(negated[name] if not _boolean(name, value) else name)
        elif name in switches and not has_value:
            value = queue.pop(0) if queue and queue[0] in switches[name] else "true"
            out.append(f"{name}={value}")
        else:
            out.append(f"{name}={value}" if has_value else name)
            if name in valued and not has_value and whole:
                raise UsageError(f"{name} needs a value: {name}=VALUE")
            if name in valued and not has_value and queue:
                value = queue.pop(0)
                out.append(value)
            if name in paths and not value:
                raise UsageError(f"{name} is empty; give a path, or leave out the option")
    return out


def _takes_path(parameter: Any) -> bool:
    return str(parameter.bare_type()) in ("Path", "<class 'pathlib.Path'>")
