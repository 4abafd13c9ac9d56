"""What all commands share: reading options, exit status, log lines, progress and the final count.

A command is a typed function in a file of ``bin/``; the docstring of that file is its help::

    if __name__ == "__main__":
        run(main)

Options may be written as for Kaldi's programs (``--use-energy=true``) or as for its scripts
(``--use-energy true``), and with ``_`` in place of ``-``. A file given by ``--config=FILE`` holds
lines ``--name=value``; options on the command line take precedence over it. This is the only module
that imports typer.
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

os.environ.setdefault("TYPER_USE_RICH", "0")  # plain help, which starts 0.2 s sooner
import typer

from pipeline.environment import lacks
from pipeline.errors import ConfigError, DataError, PipelineError, UsageError
from pipeline.notations import expand_config, take_standard_options
from pipeline.options import flag, placed

log = logging.getLogger("pipeline")

STANDARD_OPTIONS = """\
Standard options: --config=FILE (lines --name=value; the command line takes precedence),
--verbose=N (-1 warnings only, 0 normal, 1 debug), --print-args=true|false, --help."""

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_READER_CLOSED = 141
EXIT_TERMINATED = 143

T = TypeVar("T")


def run(main: Callable[..., int | None]) -> NoReturn:
    """Run ``main`` with the arguments of this process, and exit.

    The exit status is 0 if all was done, 1 after a failure of the data or the run, 2 for wrong
    usage or configuration, 130 if interrupted, 141 if the reader of the output closed the pipe, and
    143 if terminated.
    """
    signal.signal(signal.SIGTERM, _raise_terminated)
    _replace_closed_streams()
    sys.exit(execute(main, sys.argv[1:], Path(sys.argv[0]).name))


def execute(main: Callable[..., int | None], arguments: list[str], program: str) -> int:
    """Run ``main`` on ``arguments`` and return the exit status.

    Errors that a user can cause are reported on standard error and never raised.
    """
    places: dict[str, str] = {}  # where the value of each option was read
    try:
        command = _typer_command(main)
        arguments, verbose, print_args = take_standard_options(arguments)
        arguments = expand_config(command, arguments, places)
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
        _name_place(error, places)
        error.show()  # type: ignore[attr-defined]  # usage, a hint, the message
        return int(getattr(error, "exit_code", 2))
    except BrokenPipeError:
        _discard_stdout()
        return EXIT_READER_CLOSED
    except PipelineError as error:
        _report(program, _placed(error, places))
        return error.exit_code
    except KeyboardInterrupt:
        _report(program, "interrupted")
        return EXIT_INTERRUPTED
    except MemoryError:
        _report(program, "out of memory; try fewer jobs, a smaller batch or a smaller beam")
        return EXIT_FAILED
    except ImportError as error:
        _report(program, lacks(error))
        return EXIT_FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        if error.errno == errno.EBADF:
            where = "standard output is closed: "
            _discard_stdout()
        _report(program, f"{where}{error.strerror or error}")
        return EXIT_FAILED
    except Exception as error:
        log.debug("traceback of the unexpected error", exc_info=True)
        what = f"{type(error).__name__}: {error}".partition("\n")[0]
        _report(program, f"unexpected {what}; --verbose=1 shows a traceback; please report this")
        return EXIT_FAILED


def _placed(error: PipelineError, places: dict[str, str]) -> str:
    """The message of an error; if a value is wrong, after the file and line that it is from."""
    if not isinstance(error, ConfigError):
        return str(error)
    files = {where.rpartition(":")[0] for where in places.values() if where}
    return placed(str(error), places, ", ".join(sorted(files)))


def _name_place(error: Any, places: dict[str, str]) -> None:
    """Put the file and line of the option before click's message, if a file gave its value."""
    parameter = getattr(error, "param", None)
    where = places.get(parameter.opts[-1], "") if parameter is not None else ""
    if where:
        error.message = f"{where}: {error.message}"


def _replace_closed_streams() -> None:
    """Let closed standard input read as empty, and make writing to closed standard output fail."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")


def _discard_stdout() -> None:
    """Discard what is still buffered for standard output; otherwise Python complains at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(program: str, message: str) -> None:
    print(f"ERROR ({program}) {message}", file=sys.stderr, flush=True)


def _raise_terminated(signum: int, frame: object) -> NoReturn:
    raise SystemExit(EXIT_TERMINATED)


def _typer_command(main: Callable[..., int | None]) -> Any:
    """``main`` as a click command with the docstring of its module as help."""
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


# ---- options of another command ----------------------------------------------------------------


def parse_options(kind: type[T], words: list[str], program: str) -> tuple[T, list[str]]:
    """Read options as a command does that has a dataclass of them, in all notations.

    Args:
        kind: the dataclass.
        words: options only, ``--config=FILE`` among them.
        program: the command, for messages.

    Returns:
        The options, and the standard options that were given (``--verbose``, ``--print-args``).

    Raises:
        PipelineError: an option is invalid; names the file and the line if it is from a file.
    """
    found: list[T] = []

    def main(options: Any) -> None:
        found.append(options)

    main.__annotations__ = {"options": kind, "return": type(None)}
    if {"--help", "-h"} & set(words):
        raise UsageError(f"--help cannot be among these options; run {program} --help")
    command, places = _typer_command(options_from_fields(main)), dict[str, str]()
    words, verbose, print_args = take_standard_options(words)
    words = expand_config(command, words, places)
    try:
        with command.make_context(program, words) as context:
            command.invoke(context)
    except typer.TyperException as error:
        _name_place(error, places)
        raise
    except ConfigError as error:
        raise ConfigError(_placed(error, places)) from error
    standard = [f"--verbose={verbose}"] if verbose else []
    return found[0], [*standard, *(["--print-args=true"] if print_args else [])]


# ---- counting and progress ---------------------------------------------------------------------


class Tally:
    """Counts successes and failures, which the last line of a command reports.

    Args:
        noun: what is counted, in the plural.
        permissive: whether failures leave the exit status 0, as for an rspecifier with ``,p``.
        allow_empty: whether it is no failure that nothing was done.
        source: what is read, for the message that nothing was done.
    """

    def __init__(
        self,
        noun: str = "utterances",
        *,
        permissive: bool = False,
        allow_empty: bool = False,
        source: str = "",
    ) -> None:
        self.noun, self.permissive, self.allow_empty = noun, permissive, allow_empty
        self.nothing = f"{source}: nothing was done" if source else "nothing was done"
        self.done = self.failed = 0

    def ok(self, count: int = 1) -> None:
        """Count successes."""
        self.done += count

    def fail(self, key: str, error: object) -> None:
        """Count a failure and log a warning that names the utterance."""
        self.failed += 1
        log.warning("%s: %s", key, error)

    def require_some(self) -> None:
        """Raise DataError if nothing was done.

        Within the block of a writer this keeps an older file of the same name.
        """
        if self.done == 0 and not self.allow_empty:
            raise DataError(
                f"{self.nothing}: no {self.noun} succeeded, {self.failed} failed; "
                "no output was written"
            )

    def finish(self, extra: str = "") -> int:
        """Log ``Done N utterances, M failed, …`` and return the exit status."""
        tail = f", {extra}" if extra else ""
        log.info("Done %d %s, %d failed%s", self.done, self.noun, self.failed, tail)
        if self.done == 0 and not self.allow_empty:
            log.error("%s: no %s succeeded", self.nothing, self.noun)
            return EXIT_FAILED
        return EXIT_FAILED if self.failed and not self.permissive else 0


def progress(items: Iterable[T], *, total: int | None = None, what: str = "done") -> Iterator[T]:
    """Yield ``items`` and show progress on stderr: a bar on a terminal, else a line every 30 s."""
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
    """``main`` with each dataclass parameter replaced by one option for each field.

    An option takes its name, type and default from the field, and its help from
    ``metadata["help"]``.
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
            annotation=Annotated[type(field.default), _declared(field)],
        )
        for kind in groups.values()
        for field in fields(kind)
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__module__, command.__doc__ = main.__module__, main.__doc__
    return command


def _declared(field: Any) -> Any:
    """The option of a field. One that is "false" by default may be given without a value: true."""
    names, choices = (flag(field.name),), ()
    if field.default == "false":
        choices = field.metadata["bounds"].choices
    return typer.Option(
        *(names if field.name.endswith("_") else ()),
        help=field.metadata["help"],
        metavar="|".join(choices) or None,
    )
