"""Sequential readers of Kaldi tables; import them from ``pipeline.tables``."""

import logging
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from pipeline.errors import PipelineError, SpecifierError, TableError
from pipeline.plain_text import RETURN, fault_of_name, foreign, without_mark
from pipeline.tables.objects import (
    range_bounds,
    read_matrix_object,
    read_shape_object,
    read_text_object,
    read_vector_object,
)
from pipeline.tables.specifiers import Range, is_read_pipe, parse_rspecifier, split_range
from pipeline.tables.streams import ByteSource, open_input

log = logging.getLogger("pipeline")

Array = NDArray[Any]
V = TypeVar("V")

_BLANKS = (b" ", b"\t", b"\n", b"\r")
_NO_KEY = "a key is missing; the file is damaged here or before, or is not an archive"
_LONGEST_KEY = 1 << 16


class Reader(Generic[V]):
    """Base class of the readers, which iterate over (key, object).

    Args:
        rspecifier: ``ark[,options]:…`` or ``scp[,options]:…``.
        allow_pipes: whether the entries of an scp file may be commands (``cmd |``). A pipe in the
            rspecifier itself was typed by the user and is always run.

    Attributes:
        permissive: whether the rspecifier has ``,p``.
        skipped: the number of bad entries that the last iteration skipped because of ``,p``.

    Raises:
        SpecifierError: the rspecifier is malformed.
    """

    def __init__(self, rspecifier: str, *, allow_pipes: bool = False) -> None:
        self.specifier = parse_rspecifier(rspecifier)
        self.allow_pipes = allow_pipes
        self.permissive = self.specifier.permissive
        self.skipped = 0

    def __iter__(self) -> Iterator[tuple[str, V]]:
        self.skipped = 0
        entries = self._archive() if self.specifier.kind == "ark" else self._script()
        return self._in_order(entries) if self.specifier.sorted else entries

    def _read(self, source: ByteSource) -> V:
        raise NotImplementedError

    def _cut(self, value: V, wanted: Range, where: str) -> V:
        raise NotImplementedError

    def _read_key(self, source: ByteSource) -> str | None:
        return _read_key(source)

    def _archive(self) -> Iterator[tuple[str, V]]:
        opened = False
        try:
            with open_input(self.specifier.rxfilename) as stream:
                opened = True
                source = ByteSource(stream, self.specifier.rxfilename)
                source.pass_mark()
                while (key := self._read_key(source)) is not None:
                    source.key = key
                    yield key, self._read(source)
                    source.key = None
        except TableError as error:
            if not (opened and self.permissive):
                raise
            self.skip(f"{error}; reading stopped there")

    def _script(self) -> Iterator[tuple[str, V]]:
        for line, key, rxfilename in script_lines(self.specifier.rxfilename):
            try:
                value = self.read_entry(line, key, rxfilename)
            except BadEntry as error:
                if not self.permissive:
                    raise
                self.skip(f"{error}; skipped")
                continue
            yield key, value

    def _in_order(self, entries: Iterator[tuple[str, V]]) -> Iterator[tuple[str, V]]:
        last: str | None = None
        for key, value in entries:
            check_sorted(self.specifier.rxfilename, last, key)
            last = key
            yield key, value

    def skip(self, message: str) -> None:
        """Log a warning and count a skipped entry."""
        self.skipped += 1
        log.warning("%s", message)

    def read_entry(self, line: int, key: str, rxfilename: str) -> V:
        """Read the object of one line of the scp file.

        Raises:
            BadEntry: the object cannot be read.
            TableError: the entry is a command or standard input, which is an error even with
                ``,p``.
        """
        where = f'{shown(self.specifier.rxfilename)}:{line}: key "{key}"'
        if is_read_pipe(rxfilename) and not self.allow_pipes:
            raise TableError(
                f"{where}: the entry would run the command {rxfilename!r}; "
                "if you trust this file, give --allow-pipes"
            )
        if rxfilename == "-":
            raise TableError(f"{where}: an entry cannot be standard input; name a file")
        try:
            return self.read_object(rxfilename, allow_pipes=self.allow_pipes)
        except PipelineError as error:
            raise BadEntry(f"{where}: {error}") from error

    def read_object(self, rxfilename: str, *, allow_pipes: bool) -> V:
        """Read the object that an rxfilename names, which may have an offset and a range."""
        base, wanted = split_range(rxfilename)
        with open_input(base, allow_pipes=allow_pipes) as stream:
            value = self._read(ByteSource(stream, base))
        return value if wanted is None else self._cut(value, wanted, base)


class BadEntry(TableError):
    """An entry of an scp file cannot be read; it is skipped if the rspecifier has ``,p``."""


class MatrixReader(Reader[Array]):
    """Iterate over (key, (T, F) float32 or float64 array).

    For the arguments and errors see `Reader`.
    """

    def _read(self, source: ByteSource) -> Array:
        return read_matrix_object(source)

    def _cut(self, value: Array, wanted: Range, where: str) -> Array:
        rows, columns = _bounds(wanted, value.shape[0], value.shape[1], where)
        return value[rows, columns]


class ShapeReader(Reader[tuple[int, int]]):
    """Iterate over (key, (T, F)), the shapes of matrices; binary values are not read."""

    def _read(self, source: ByteSource) -> tuple[int, int]:
        return read_shape_object(source)

    def _cut(self, value: tuple[int, int], wanted: Range, where: str) -> tuple[int, int]:
        rows, columns = _bounds(wanted, value[0], value[1], where)
        return rows.stop - rows.start, columns.stop - columns.start


class VectorReader(Reader[Array]):
    """Iterate over (key, (F,) float32 or float64 array)."""

    def _read(self, source: ByteSource) -> Array:
        return read_vector_object(source)

    def _cut(self, value: Array, wanted: Range, where: str) -> Array:
        return value[_bounds(wanted, len(value), None, where)[0]]


class TextReader(Reader[str]):
    """Iterate over (key, ``tok tok tok``). A line without a key is an error."""

    def _read(self, source: ByteSource) -> str:
        return read_text_object(source)

    def _cut(self, value: str, wanted: Range, where: str) -> str:
        raise TableError(f"{where}: text cannot have a range {wanted.text}; remove it")

    def _read_key(self, source: ByteSource) -> str | None:
        if source.peek() in _BLANKS:
            raise TableError(
                f"{source.name}:{source.lines + 1}: the line is empty or begins with a blank; "
                'expected "key tokens"'
            )
        return _read_key(source)


class ScpReader:
    """Iterate over (key, rxfilename) of an scp file, such as wav.scp, without opening the entries.

    Args:
        rspecifier: ``scp[,options]:…``.
        allow_pipes: stored for the caller, who opens the entries.

    Raises:
        SpecifierError: the rspecifier names an archive or is malformed.
        TableError: in the iteration, a line is empty or has only a key.
    """

    def __init__(self, rspecifier: str, *, allow_pipes: bool = False) -> None:
        self.specifier = parse_rspecifier(rspecifier)
        if self.specifier.kind != "scp":
            raise SpecifierError(f"{rspecifier}: expected a list of files; write scp:FILE")
        self.allow_pipes = allow_pipes
        self.permissive = self.specifier.permissive
        self.skipped = 0

    def __iter__(self) -> Iterator[tuple[str, str]]:
        last: str | None = None
        for _, key, rxfilename in script_lines(self.specifier.rxfilename):
            if self.specifier.sorted:
                check_sorted(self.specifier.rxfilename, last, key)
            last = key
            yield key, rxfilename


def shown(rxfilename: str) -> str:
    """The name of a file for messages."""
    return rxfilename if rxfilename not in ("-", "") else "standard input"


def _bounds(wanted: Range, rows: int, columns: int | None, where: str) -> tuple[slice, slice]:
    row_slice, column_slice, truncated = range_bounds(wanted, rows, columns, where)
    if truncated:
        log.warning("%s: %s exceeds the last row, %d; cut there", where, wanted.text, rows - 1)
    return row_slice, column_slice


def check_sorted(rxfilename: str, last: str | None, key: str) -> None:
    """Raise TableError unless ``key`` comes after ``last`` in the order of LC_ALL=C."""
    if last is not None and last >= key:
        why = "occurs twice" if last == key else f'comes after "{last}"'
        raise TableError(
            f'{shown(rxfilename)}: key "{key}" {why}, but the rspecifier has s (sorted); '
            "sort it with LC_ALL=C sort -u, or leave off s"
        )


def _read_key(source: ByteSource) -> str | None:
    """Read the next key and the blank after it (but no newline); None at the end."""
    while (byte := source.peek()) in _BLANKS:
        source.take(1)
    if not byte:
        return None
    start = source.offset
    key = source.take_word(_LONGEST_KEY)
    byte = source.peek()
    if byte == b"\0" or len(key) > _LONGEST_KEY:
        source.offset = start
        source.fail(_no_table(source, key) or _NO_KEY)
    if byte in (b" ", b"\t"):
        source.take(1)
    try:
        name = key.decode("utf-8")
    except UnicodeDecodeError:
        source.offset = start
        what = f"the key {key[:40]!r} is not UTF-8; the file is damaged or is not an archive"
        source.fail(_no_table(source, key) or what)
    if fault := fault_of_name(name):
        source.offset = start
        source.fail(_no_table(source, key) or fault)
    return name


def _no_table(source: ByteSource, key: bytes) -> str:
    """What a file is that is no table of Kaldi's, judged by its first bytes; empty if unknown."""
    if source.offset > 0:
        return ""
    what = foreign(key + source.take(64), nul=True)
    source.offset = 0
    hint = '; a table is read with "ark:gunzip -c FILE |"' if "gzip" in what else ""
    return f"this is {what}{hint}" if what else ""


def script_lines(rxfilename: str) -> Iterator[tuple[int, str, str]]:
    """(line number, key, rxfilename) of each line of an scp file."""
    name = shown(rxfilename)
    with open_input(rxfilename) as stream:
        for number, raw in enumerate(stream, start=1):
            if number == 1:
                if what := foreign(raw, nul=True):
                    raise TableError(f"{name}: is {what}")
                raw = without_mark(raw, name)
            if b"\r" in raw.rstrip():
                raise TableError(f"{name}:{number}: {RETURN}")
            try:
                fields = [part.decode("utf-8") for part in raw.strip().split(None, 1)]
            except UnicodeDecodeError:
                raise TableError(f"{name}:{number}: not UTF-8; is this an scp file?") from None
            if b"\0" in raw or not fields:
                what = "not text; is this an scp file?" if b"\0" in raw else "empty line; remove it"
                raise TableError(f"{name}:{number}: {what}")
            if len(fields) == 1:
                raise TableError(
                    f'{name}:{number}: expected "key file", found only the key "{fields[0]}"'
                )
            if fault := fault_of_name(fields[0]):
                raise TableError(f"{name}:{number}: {fault}")
            yield number, fields[0], fields[1]
