"""What all commands share: option dialects, exit status, log lines, progress, the final count.

A command is a typed function in a file of ``bin/``; its module docstring is its help::

    if __name__ == "__main__":
        run(main)

Both of Kaldi's dialects are understood: ``--use-energy=true`` (its programs) and ``--use-energy
true`` (its scripts), with ``_`` for ``-``; ``--config=FILE`` holds one ``--name=value`` a line,
and the command line wins. This is the only module that imports typer.
"""

import errno
import inspect
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_type_hints

os.environ.setdefault("TYPER_USE_RICH", "0")  # plain help, and 0.2 s less of it
import typer

from pipeline.errors import ConfigError, DataError, PipelineError, UsageError
from pipeline.options import nearest, normal_name, read_options_file

log = logging.getLogger("pipeline")

STANDARD_OPTIONS = """\
Standard options: --config=FILE (lines of --name=value; the command line wins),
--verbose=N (-1 warnings only, 0 normal, 1 debug), --print-args=true|false, --help."""

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_READER_CLOSED = 141
EXIT_TERMINATED = 143

T = TypeVar("T")


def run(main: Callable[..., int | None]) -> NoReturn:
    """Run ``main`` with the process's arguments and exit.

    Exit status: 0 all done; 1 data or run failure; 2 usage or config; 130 interrupted;
    141 the reader of our pipe closed it; 143 terminated.
    """
    signal.signal(signal.SIGTERM, _raise_terminated)
    _replace_closed_streams()
    sys.exit(execute(main, sys.argv[1:], Path(sys.argv[0]).name))


def execute(main: Callable[..., int | None], arguments: list[str], program: str) -> int:
    """Run ``main`` on ``arguments`` and return the exit status; never raises a user's error."""
    try:
        command = _typer_command(main)
        arguments, verbose, print_args = _take_standard_options(arguments)
        arguments = _expand_config(command, arguments)
        _set_up_logging(program, verbose)
        if print_args:
            print(program, *arguments, file=sys.stderr)
        # Not command.main(): it turns a closed pipe into a silent exit status 1.
        with command.make_context(program, arguments) as context:
            status = command.invoke(context)
        sys.stdout.flush()
        return status or 0
    except typer.Exit as leave:  # --help
        return int(leave.exit_code)
    except typer.TyperException as error:
        error.show()  # type: ignore[attr-defined]  # usage, a hint, the message
        return int(getattr(error, "exit_code", 2))
    except BrokenPipeError:
        _discard_stdout()
        return EXIT_READER_CLOSED
    except PipelineError as error:
        _report(program, str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _report(program, "interrupted")
        return EXIT_INTERRUPTED
    except MemoryError:
        _report(program, "out of memory; try fewer jobs, a smaller batch or a narrower beam")
        return EXIT_FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        if error.errno == errno.EBADF:
            where = "standard output is closed: "
            _discard_stdout()
        _report(program, f"{where}{error.strerror or error}")
        return EXIT_FAILED
    except Exception as error:
        log.debug("where it happened", exc_info=True)
        what = f"{type(error).__name__}: {error}".partition("\n")[0]
        _report(program, f"unexpected {what}; --verbose=1 shows where; please report this")
        return EXIT_FAILED


def _replace_closed_streams() -> None:
    """Closed standard input reads as empty; writing to closed standard output is an error."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")


def _discard_stdout() -> None:
    """Send what is still in standard output's buffer nowhere, or Python complains at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(program: str, message: str) -> None:
    print(f"ERROR ({program}) {message}", file=sys.stderr, flush=True)


def _raise_terminated(signum: int, frame: object) -> NoReturn:
    raise SystemExit(EXIT_TERMINATED)


def _typer_command(main: Callable[..., int | None]) -> Any:
    """``main`` as a click command whose help is its module's docstring."""
    help_text = inspect.getdoc(inspect.getmodule(main)) or inspect.getdoc(main) or ""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    paragraphs = (help_text + "\n\n" + STANDARD_OPTIONS).split("\n\n")
    app.command(help="\n\n".join("\b\n" + paragraph for paragraph in paragraphs))(main)
    return typer.main.get_command(app)


def _set_up_logging(program: str, verbose: int) -> None:
    logging.addLevelName(logging.INFO, "LOG")
    level = logging.WARNING if verbose < 0 else logging.DEBUG if verbose > 0 else logging.INFO
    logging.basicConfig(
        stream=sys.stderr, format=f"%(levelname)s ({program}) %(message)s", force=True
    )
    log.setLevel(level)


# ---- Kaldi's option dialects -------------------------------------------------------------------


def _take_standard_options(arguments: list[str]) -> tuple[list[str], int, bool]:
    """Remove ``--verbose`` and ``--print-args``: (other arguments, verbosity, print arguments)."""
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
    """``--Use_Energy=true`` -> (``--use-energy``, True, ``true``); no option -> empty name."""
    if not token.startswith("--") or token == "--":
        return "", False, ""
    name, equals, value = token.partition("=")
    return normal_name(name), bool(equals), value


def _boolean(name: str, value: str) -> bool:
    if value.lower() in ("true", "t", "1", "yes"):
        return True
    if value.lower() in ("false", "f", "0", "no"):
        return False
    raise UsageError(f"{name} is true or false, not {value!r}")


def _expand_config(command: Any, arguments: list[str]) -> list[str]:
    """Put the options of ``--config`` files first and all options into click's dialect."""
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
        from_files += read_config_options(Path(value), command)
    return _to_click(command, from_files) + _to_click(command, typed)


def read_config_options(path: Path, command: Any = None) -> list[str]:
    """The ``--name=value`` lines of an options file, comments and blank lines dropped.

    With ``command`` an option that it lacks is an error naming file, line and the nearest option.
    """
    options = []
    for number, key, value in read_options_file(path):
        name = f"--{key}"
        if command is not None:
            known = [n for p in command.params for n in [*p.opts, *p.secondary_opts]]
            if name not in known:
                raise ConfigError(f"{path}:{number}: unknown option {name}{nearest(name, known)}")
        options.append(name if value is None else f"{name}={value}")
    return options


def _to_click(command: Any, tokens: list[str]) -> list[str]:
    flags = {n: p for p in command.params if getattr(p, "is_flag", False) for n in p.opts}
    valued = {
        n for p in command.params for n in p.opts if n.startswith("--") and n not in flags
    } - {"--help"}
    out: list[str] = []
    queue = list(tokens)
    while queue:
        token = queue.pop(0)
        if token == "--":
            return [*out, token, *queue]
        name, has_value, value = _split_option(token)
        if not name:
            out.append(token)
        elif name in flags:
            if not has_value:
                value = queue.pop(0) if queue and queue[0] in ("true", "false") else "true"
            off = flags[name].secondary_opts
            if _boolean(name, value):
                out.append(name)
            elif off:
                out.append(off[0])
        else:
            out.append(f"{name}={value}" if has_value else name)
            if name in valued and not has_value and queue:
                out.append(queue.pop(0))
    return out


# ---- counting and progress ---------------------------------------------------------------------


class Tally:
    """Counts what was done and what failed, and says so in a command's last line.

    Args:
        noun: what is counted, in the plural.
        permissive: failures are skipped without a bad exit status (an rspecifier with ``,p``).
    """

    def __init__(self, noun: str = "utterances", *, permissive: bool = False) -> None:
        self.noun, self.permissive = noun, permissive
        self.done = self.failed = 0

    def ok(self, count: int = 1) -> None:
        """Count successes."""
        self.done += count

    def fail(self, key: str, error: object) -> None:
        """Count a failure and warn, naming the utterance."""
        self.failed += 1
        log.warning("%s: %s", key, error)

    def require_some(self) -> None:
        """Raise DataError if nothing was done. Within a writer's block it keeps an older file."""
        if self.done == 0:
            raise DataError(
                f"nothing was done: no {self.noun} came through, {self.failed} failed; "
                "nothing is written"
            )

    def finish(self, extra: str = "") -> int:
        """Log ``Done N utterances, M failed, …`` and return the exit status."""
        tail = f", {extra}" if extra else ""
        log.info("Done %d %s, %d failed%s", self.done, self.noun, self.failed, tail)
        if self.done == 0:
            log.error("nothing was done: no %s came through", self.noun)
            return EXIT_FAILED
        return EXIT_FAILED if self.failed and not self.permissive else 0


def progress(items: Iterable[T], *, total: int | None = None, what: str = "done") -> Iterator[T]:
    """Yield ``items``, showing a bar on a terminal, else a log line every 30 s, on stderr."""
    if sys.stderr.isatty() and log.isEnabledFor(logging.INFO):
        with typer.progressbar(items, length=total, label=what, file=sys.stderr) as bar:
            yield from bar
        return
    last = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last >= 30.0:
            last = time.monotonic()
            log.info("%d%s %s", count, f" of {total}" if total is not None else "", what)


# ---- options from dataclasses ------------------------------------------------------------------


def options_from_fields(main: Callable[..., int | None]) -> Callable[..., int | None]:
    """``main`` with each parameter that is a dataclass replaced by one option a field.

    The field's name, type, default and ``metadata["help"]`` make the option.
    """
    hints = get_type_hints(main, include_extras=True)
    groups: dict[str, Any] = {n: kind for n, kind in hints.items() if is_dataclass(kind)}

    def command(**values: Any) -> int | None:
        for name, kind in groups.items():
            values[name] = kind(**{f.name: values.pop(f.name) for f in fields(kind)})
        return main(**values)

    own = inspect.signature(main).parameters
    parameters = [own[n].replace(annotation=hints[n]) for n in own if n not in groups]
    parameters += [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[type(field.default), typer.Option(help=field.metadata["help"])],
        )
        for kind in groups.values()
        for field in fields(kind)
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__module__, command.__doc__ = main.__module__, main.__doc__
    return command
