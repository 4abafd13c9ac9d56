"""Byte streams for Kaldi's extended file names: files, offsets, pipes and standard streams.

A command that fails while it is read from or written to is an error, as with ``set -e -o pipefail``
in a shell, and a file appears under its final name complete or not at all.
"""

import contextlib
import io
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NoReturn, Self, cast

from pipeline.errors import PipelineError, TableError
from pipeline.files import NewFile
from pipeline.leftovers import remove_leftovers
from pipeline.plain_text import MARK, check_end, warn_of_mark
from pipeline.tables.specifiers import (
    check_rxfilename,
    check_wxfilename,
    is_read_pipe,
    split_offset,
)

CHUNK = 16 << 20  # bytes to read at once if the end of the stream is not known
_READER_CLOSED = (-13, 141)  # ended by SIGPIPE, which a shell reports as 141
_BOUNDARY = re.compile(rb"[ \t\r\n\0]")
_GRACE_S = 1.0  # time for a command to end by itself after a failure


# ---- reading -----------------------------------------------------------------------------------


@contextlib.contextmanager
def open_input(rxfilename: str, *, allow_pipes: bool = True) -> Iterator[BinaryIO]:
    """Open a file, ``path:OFFSET``, ``-`` (standard input) or ``command |`` as a binary stream.

    Raises:
        SpecifierError: the name has another form.
        TableError: the file is missing, the name is a pipe but ``allow_pipes`` is False, or the
            command ended with a status other than 0 (raised at the end, even if the data were
            complete).
    """
    check_rxfilename(rxfilename)
    if rxfilename in ("-", ""):
        yield sys.stdin.buffer
    elif is_read_pipe(rxfilename):
        if not allow_pipes:
            raise TableError(
                f"{rxfilename}: this entry would run a command; if you trust the file that holds "
                "it, give --allow-pipes"
            )
        with _reading_from(rxfilename) as stream:
            yield stream
    else:
        with _open_file(*split_offset(rxfilename)) as stream:
            yield stream


def _open_file(path: str, offset: int | None) -> BinaryIO:
    check_end(path, TableError)
    try:
        stream = open(path, "rb")  # noqa: SIM115
        if offset is None:
            return stream
        size = stream.seek(0, os.SEEK_END)
        stream.seek(offset)
    except OSError as error:
        hint = "; is the path relative to another directory?" if error.errno == 2 else ""
        raise TableError(f"{path}: cannot read: {error.strerror}{hint}") from error
    if offset >= size:
        stream.close()
        raise TableError(
            f"{path}: has {size} bytes, so offset {offset} is beyond its end; "
            "the file was changed after the scp file was written: make both again"
        )
    return stream


def _shell(command: str, **streams: int) -> subprocess.Popen[bytes]:
    bash = shutil.which("bash")
    words = [bash, "-o", "pipefail", "-c", command] if bash else ["/bin/sh", "-c", command]
    return subprocess.Popen(words, **streams)  # type: ignore[call-overload,no-any-return]


@contextlib.contextmanager
def _reading_from(rxfilename: str) -> Iterator[BinaryIO]:
    """The output of ``command |``. Raises TableError at the end if the command failed."""
    process = _shell(rxfilename[:-1], stdout=subprocess.PIPE)
    assert process.stdout is not None
    stream = cast(BinaryIO, process.stdout)
    try:
        yield stream
        ended = not stream.read(1)
    except BaseException as error:
        stream.close()
        status = _end(process)
        if isinstance(error, PipelineError) and status > 0 and status not in _READER_CLOSED:
            raise TableError(f"{rxfilename} {_failed(status)} (then: {error})") from error
        raise
    stream.close()
    status = process.wait() if ended else _end(process)
    # 141 after the end of the data: the reader of an inner command of the pipe stopped reading.
    tolerated = (0, 141) if ended else (0, *_READER_CLOSED)
    if status not in tolerated:
        raise TableError(f"{rxfilename} {_failed(status)}; run it by itself to see why")


def _failed(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"


def _end(process: subprocess.Popen[bytes]) -> int:
    """Wait for a command that is no longer needed, and terminate it if it does not end."""
    try:
        return process.wait(timeout=_GRACE_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
        return 0


class ByteSource:
    """A stream with its position: reads exact counts, words and lines; its errors name the place.

    Args:
        stream: a stream of ``open_input``.
        name: the file name for messages.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        has_peek = hasattr(stream, "peek")
        self._stream = cast(io.BufferedReader, stream if has_peek else io.BufferedReader(stream))
        self.name = split_offset(name)[0] if name not in ("-", "") else "standard input"
        self.key: str | None = None
        self.lines = 0  # taken by readline
        self._regular = self._is_regular()
        self.offset = stream.tell() if self._regular else 0

    def _is_regular(self) -> bool:
        try:
            return stat.S_ISREG(os.fstat(self._stream.fileno()).st_mode)
        except (OSError, ValueError):  # a stream in memory
            return False

    def remaining(self) -> int | None:
        """The number of bytes to the end of the file; None if the stream does not know it."""
        if not self._regular:
            return None
        return max(0, os.fstat(self._stream.fileno()).st_size - self.offset)

    def fail(self, what: str) -> NoReturn:
        """Raise a TableError naming the file, the key and the byte offset."""
        key = f' key "{self.key}"' if self.key is not None else ""
        raise TableError(f"{self.name}:{key} byte {self.offset}: {what}")

    def peek(self) -> bytes:
        """The next byte, which stays in the stream; empty at the end."""
        return self._stream.peek(1)[:1]

    def take_word(self, longest: int) -> bytes:
        """Read the bytes up to the next blank, newline, NUL or end, which stays in the stream.

        More than ``longest`` bytes are returned if none of these comes before.
        """
        word = b""
        while len(word) <= longest and (ahead := self._stream.peek(1)):
            boundary = _BOUNDARY.search(ahead)
            word += self.take(boundary.start() if boundary else len(ahead))
            if boundary:
                break
        return word

    def pass_mark(self) -> None:
        """Pass over a byte order mark, which editors put at the beginning of a text."""
        if self._stream.peek(len(MARK))[: len(MARK)] == MARK:
            self.take(len(MARK))
            warn_of_mark(self.name)

    def take(self, count: int) -> bytes:
        """Read ``count`` bytes; fewer only at the end."""
        data = self._stream.read(count)
        self.offset += len(data)
        return data

    def readline(self) -> bytes:
        """Read the next line with its newline; empty at the end."""
        line = self._stream.readline()
        self.offset += len(line)
        self.lines += 1
        return line

    def check_room(self, count: int) -> None:
        """Raise TableError if the file ends before ``count`` more bytes."""
        room = self.remaining()
        if room is not None and count > room:
            self._truncated(count, room)

    def read_exact(self, count: int) -> bytearray:
        """Read exactly ``count`` bytes, without reserving memory for data that do not exist."""
        self.check_room(count)
        data = bytearray()
        while len(data) < count:
            piece = self._stream.read(min(CHUNK, count - len(data)))
            if not piece:
                self._truncated(count, len(data))
            data += piece
        self.offset += count
        return data

    def skip(self, count: int) -> None:
        """Pass over exactly ``count`` bytes."""
        self.check_room(count)
        if self._regular:
            self._stream.seek(count, os.SEEK_CUR)
            self.offset += count
            return
        left = count
        while left:
            piece = self._stream.read(min(CHUNK, left))
            if not piece:
                self._truncated(count, count - left)
            left -= len(piece)
        self.offset += count

    def _truncated(self, wanted: int, present: int) -> NoReturn:
        self.fail(
            f"the header states {wanted} bytes, but only {present} are left; "
            "the file is truncated or damaged: make it again"
        )


# ---- writing -----------------------------------------------------------------------------------


class Output:
    """A stream to write to; a file becomes visible only when it is complete.

    A regular file is written under a temporary name beside its target (symbolic links are
    followed), see `NewFile`. ``prepare`` flushes it to disk, ``commit`` gives it its name, and
    ``abort`` removes it. Standard output, devices, FIFOs and ``| command`` receive the bytes at
    once. What a killed process left beside the target is removed first, if ``tidy``.
    """

    def __init__(self, wxfilename: str, *, tidy: bool = True) -> None:
        check_wxfilename(wxfilename)
        self.name = wxfilename
        self.offset = 0
        self._tidy = tidy
        self._process: subprocess.Popen[bytes] | None = None
        self._new: NewFile | None = None
        self._target = os.path.realpath(wxfilename)
        self._stream = self._open()

    @property
    def atomic(self) -> bool:
        """Whether the bytes are kept under another name until ``commit``."""
        return self._new is not None

    def _open(self) -> BinaryIO:
        if self.name in ("-", ""):
            self.name = "standard output"
            sys.stdout.flush()
            return sys.stdout.buffer
        if self.name.startswith("|"):
            self._process = _shell(self.name[1:], stdin=subprocess.PIPE)
            return cast(BinaryIO, self._process.stdin)
        try:
            if os.path.exists(self.name) and not stat.S_ISREG(os.stat(self.name).st_mode):
                return open(self.name, "wb")
            if self._tidy:
                remove_leftovers(Path(self._target))
            self._new = NewFile(Path(self._target))
            return self._new.stream
        except OSError as error:
            hint = "; create its directory first" if error.errno == 2 else ""
            raise TableError(f"{self.name}: cannot write: {error.strerror}{hint}") from error

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data``."""
        with self._named_errors():
            self._stream.write(data)
        self.offset += len(data)

    def tell(self) -> int:
        """The number of bytes written so far."""
        return self.offset

    def flush(self) -> None:
        """Write out the buffered bytes."""
        with self._named_errors():
            self._stream.flush()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Add the name of the file to an OSError (disk full, …); report why a pipe was closed."""
        try:
            yield
        except BrokenPipeError:
            if self._process is not None and (status := _end(self._process)):
                raise TableError(
                    f"{self.name} {_failed(status)} before it read all data; run it by itself to "
                    "see why"
                ) from None
            raise
        except OSError as error:
            if error.filename is None:
                raise OSError(error.errno, error.strerror, self.name) from error
            raise

    def prepare(self) -> None:
        """Flush everything to disk, or wait for the end of the command.

        Raises:
            TableError: the command failed.
            OSError: the disk is full; names the file.
        """
        with self._named_errors():
            self._stream.flush()
            if self._new is not None:
                self._new.prepare()
            if self._process is not None:
                self._stream.close()
        if self._process is not None and (status := self._process.wait()):
            raise TableError(f"{self.name} {_failed(status)}; run it by itself to see why")

    def commit(self) -> None:
        """Give the file its final name; call ``prepare`` before."""
        if self._new is not None:
            with self._named_errors():
                self._new.commit()
            self._new = None
        elif not self._stream.closed and self._stream is not sys.stdout.buffer:
            self._stream.close()

    def remove_old(self) -> None:
        """Remove an older file of the final name."""
        if self._new is not None:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._target)

    def abort(self) -> None:
        """Discard everything. Never raises an error, which would hide the first one."""
        if self._process is not None:
            self._process.terminate()  # otherwise it would take the early end for a complete table
        with contextlib.suppress(OSError, ValueError):
            if self._stream is not sys.stdout.buffer:
                self._stream.close()
        if self._process is not None:
            self._process.wait()
        if self._new is not None:
            self._new.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.prepare()
            self.commit()
        except BaseException:
            self.abort()
            raise


@contextlib.contextmanager
def open_output(wxfilename: str) -> Iterator[BinaryIO]:
    """Open a file, ``-`` (standard output) or ``| command`` as a binary stream to write to.

    A file is written under a temporary name in the same directory. It is flushed to disk and
    renamed if the block succeeds, and removed otherwise.

    Raises:
        SpecifierError: the name has another form.
        TableError: the file cannot be created, or the command failed.
        OSError: the disk is full; names the file.
    """
    with Output(wxfilename) as output:
        yield cast(BinaryIO, output)
