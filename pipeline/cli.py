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
from pipeline.options import nearest, normal_name, read_options_file

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


# ---- options in Kaldi's notations --------------------------------------------------------------


def _take_standard_options(arguments: list[str]) -> tuple[list[str], int, bool]:
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
    if value.lower() in ("true", "t", "1", "yes"):
        return True
    if value.lower() in ("false", "f", "0", "no"):
        return False
    raise UsageError(f"{name} must be true or false, not {value!r}")


def _expand_config(command: Any, arguments: list[str]) -> list[str]:
    """The arguments in click's notation, the options of ``--config`` files before all others."""
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
    """The ``--name=value`` lines of an options file, without comments and blank lines.

    Raises:
        ConfigError: the file cannot be read, or ``command`` has no such option. The message names
            the file, the line and the most similar option.
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
    """Counts successes and failures, which the last line of a command reports.

    Args:
        noun: what is counted, in the plural.
        permissive: whether failures leave the exit status 0, as for an rspecifier with ``,p``.
    """

    def __init__(self, noun: str = "utterances", *, permissive: bool = False) -> None:
        self.noun, self.permissive = noun, permissive
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
        if self.done == 0:
            raise DataError(
                f"nothing was done: no {self.noun} succeeded, {self.failed} failed; "
                "no output was written"
            )

    def finish(self, extra: str = "") -> int:
        """Log ``Done N utterances, M failed, …`` and return the exit status."""
        tail = f", {extra}" if extra else ""
        log.info("Done %d %s, %d failed%s", self.done, self.noun, self.failed, tail)
        if self.done == 0:
            log.error("nothing was done: no %s succeeded", self.noun)
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
            annotation=Annotated[type(field.default), typer.Option(help=field.metadata["help"])],
        )
        for kind in groups.values()
        for field in fields(kind)
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__module__, command.__doc__ = main.__module__, main.__doc__
    return command
