"""Byte streams behind Kaldi's extended file names: files, offsets, pipes, standard streams.

What a shell's ``set -e -o pipefail`` is to a recipe, this is to a table: a command that fails
while we read from it or write to it is an error, and a file appears under its final name whole
or not at all.
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
from types import TracebackType
from typing import BinaryIO, NoReturn, Self, cast

from pipeline.errors import PipelineError, TableError
from pipeline.tables.specifiers import (
    check_rxfilename,
    check_wxfilename,
    is_read_pipe,
    split_offset,
)

CHUNK = 16 << 20  # bytes asked for at once when the end of the stream is not known
_READER_CLOSED = (-13, 141)  # ended by SIGPIPE; 141 is how a shell reports it
_BOUNDARY = re.compile(rb"[ \t\r\n\0]")
_GRACE_S = 1.0  # how long a command may take to end by itself after a failure


# ---- reading -----------------------------------------------------------------------------------


@contextlib.contextmanager
def open_input(rxfilename: str, *, allow_pipes: bool = True) -> Iterator[BinaryIO]:
    """Open a file, ``path:OFFSET``, ``-`` (standard input) or ``command |`` as a binary stream.

    Raises:
        SpecifierError: the name is not of this form.
        TableError: no such file, a pipe where ``allow_pipes`` is False, or (at the end, even if
            the data looked whole) a command that exited with a status other than 0.
    """
    check_rxfilename(rxfilename)
    if rxfilename in ("-", ""):
        yield sys.stdin.buffer
    elif is_read_pipe(rxfilename):
        if not allow_pipes:
            raise TableError(
                f"{rxfilename}: this entry would run a command; allow that with --allow-pipes "
                "if you trust the file it stands in"
            )
        with _reading_from(rxfilename) as stream:
            yield stream
    else:
        with _open_file(*split_offset(rxfilename)) as stream:
            yield stream


def _open_file(path: str, offset: int | None) -> BinaryIO:
    try:
        stream = open(path, "rb")  # noqa: SIM115
        if offset is None:
            return stream
        size = stream.seek(0, os.SEEK_END)
        stream.seek(offset)
    except OSError as error:
        hint = "; does the path hold from this directory?" if error.errno == 2 else ""
        raise TableError(f"{path}: cannot read: {error.strerror}{hint}") from error
    if offset >= size:
        stream.close()
        raise TableError(
            f"{path}: has {size} bytes, offset {offset} is beyond its end; "
            "it was changed after the scp was written: make both again"
        )
    return stream


def _shell(command: str, **streams: int) -> subprocess.Popen[bytes]:
    bash = shutil.which("bash")
    words = [bash, "-o", "pipefail", "-c", command] if bash else ["/bin/sh", "-c", command]
    return subprocess.Popen(words, **streams)  # type: ignore[call-overload,no-any-return]


@contextlib.contextmanager
def _reading_from(rxfilename: str) -> Iterator[BinaryIO]:
    """The output of ``command |``; raises at the end if the command failed."""
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
    # 141 after the end of the data: an inner command of the pipe whose reader wanted no more.
    tolerated = (0, 141) if ended else (0, *_READER_CLOSED)
    if status not in tolerated:
        raise TableError(f"{rxfilename} {_failed(status)}; run it by itself to see why")


def _failed(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"


def _end(process: subprocess.Popen[bytes]) -> int:
    """Wait for a command that is no longer wanted, ending it if it stays."""
    try:
        return process.wait(timeout=_GRACE_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
        return 0


class ByteSource:
    """A stream that knows where it is: exact reads, keys and lines, errors that name the place.

    Args:
        stream: what ``open_input`` gave.
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
        """Bytes to the end of the file; None when the stream does not know."""
        if not self._regular:
            return None
        return max(0, os.fstat(self._stream.fileno()).st_size - self.offset)

    def fail(self, what: str) -> NoReturn:
        """Raise a TableError naming the file, the key and the byte offset."""
        key = f' key "{self.key}"' if self.key is not None else ""
        raise TableError(f"{self.name}:{key} byte {self.offset}: {what}")

    def peek(self) -> bytes:
        """The next byte without taking it; empty at the end."""
        return self._stream.peek(1)[:1]

    def take_word(self, longest: int) -> bytes:
        """The bytes before the next blank, newline, NUL or end, which stays in place.

        More than ``longest`` bytes come back when there is no such thing near.
        """
        word = b""
        while len(word) <= longest and (ahead := self._stream.peek(1)):
            boundary = _BOUNDARY.search(ahead)
            word += self.take(boundary.start() if boundary else len(ahead))
            if boundary:
                break
        return word

    def take(self, count: int) -> bytes:
        """At most ``count`` bytes; fewer only at the end."""
        data = self._stream.read(count)
        self.offset += len(data)
        return data

    def readline(self) -> bytes:
        """The next line with its newline; empty at the end."""
        line = self._stream.readline()
        self.offset += len(line)
        self.lines += 1
        return line

    def check_room(self, count: int) -> None:
        """Raise TableError now if the file ends before ``count`` more bytes."""
        room = self.remaining()
        if room is not None and count > room:
            self._truncated(count, room)

    def read_exact(self, count: int) -> bytearray:
        """Exactly ``count`` bytes. Memory grows only as far as the data really goes."""
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
            f"the header promises {wanted} bytes, {present} are left; "
            "the file is cut off or damaged: make it again"
        )


# ---- writing -----------------------------------------------------------------------------------


class Output:
    """A stream to write to, which becomes visible only when it is whole.

    A regular file is written as ``.NAME.tmp.HOST.PID`` beside its target (links followed),
    ``prepare`` brings it to the disk and ``commit`` gives it its name; ``abort`` removes it.
    Standard output, devices, FIFOs and ``| command`` take the bytes as they come.
    """

    def __init__(self, wxfilename: str) -> None:
        check_wxfilename(wxfilename)
        self.name = wxfilename
        self.offset = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._temporary: str | None = None
        self._target = os.path.realpath(wxfilename)
        self._stream = self._open()

    @property
    def atomic(self) -> bool:
        """Whether the bytes wait under another name until ``commit``."""
        return self._temporary is not None

    def _open(self) -> BinaryIO:
        if self.name in ("-", ""):
            self.name = "standard output"
            sys.stdout.flush()
            return sys.stdout.buffer
        if self.name.startswith("|"):
            self._process = _shell(self.name[1:], stdin=subprocess.PIPE)
            return cast(BinaryIO, self._process.stdin)
        path = self.name
        if not os.path.exists(path) or stat.S_ISREG(os.stat(path).st_mode):
            folder, base = os.path.split(self._target)
            path = self._temporary = os.path.join(
                folder, f".{base}.tmp.{os.uname().nodename}.{os.getpid()}"
            )
        try:
            return open(path, "wb")
        except OSError as error:
            hint = "; create its directory first" if error.errno == 2 else ""
            raise TableError(f"{self.name}: cannot write: {error.strerror}{hint}") from error

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data``."""
        with self._named_errors():
            self._stream.write(data)
        self.offset += len(data)

    def tell(self) -> int:
        """Bytes written so far."""
        return self.offset

    def flush(self) -> None:
        """Pass on what is buffered."""
        with self._named_errors():
            self._stream.flush()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Give an OSError (disk full, …) the name of the file; find out why a pipe closed."""
        try:
            yield
        except BrokenPipeError:
            if self._process is not None and (status := _end(self._process)):
                raise TableError(
                    f"{self.name} {_failed(status)} before it took all; run it by itself to see why"
                ) from None
            raise
        except OSError as error:
            if error.filename is None:
                raise OSError(error.errno, error.strerror, self.name) from error
            raise

    def prepare(self) -> None:
        """Bring everything to the disk, or to the end of the pipe; raises if that fails."""
        with self._named_errors():
            self._stream.flush()
            if self._temporary is not None:
                os.fsync(self._stream.fileno())
            if self._temporary is not None or self._process is not None:
                self._stream.close()
        if self._process is not None and (status := self._process.wait()):
            raise TableError(f"{self.name} {_failed(status)}; run it by itself to see why")

    def commit(self) -> None:
        """After ``prepare``: give the file its name."""
        if self._temporary is not None:
            with self._named_errors():
                os.replace(self._temporary, self._target)
            self._temporary = None
        elif not self._stream.closed and self._stream is not sys.stdout.buffer:
            self._stream.close()

    def remove_old(self) -> None:
        """Remove what stands under the final name, if that is a file."""
        if self._temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._target)

    def abort(self) -> None:
        """Leave nothing behind. Never raises, so that the reason for it is not hidden."""
        if self._process is not None:
            self._process.terminate()  # or it would take the early end for a whole table
        with contextlib.suppress(OSError, ValueError):
            if self._stream is not sys.stdout.buffer:
                self._stream.close()
        if self._process is not None:
            self._process.wait()
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                os.remove(self._temporary)

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

    A file is written under a temporary name in the same directory, synced and renamed when the
    block ends well, and removed when it does not.

    Raises:
        SpecifierError: the name is not of this form.
        TableError: the file cannot be made, or the command failed.
        OSError: the disk is full; names the file.
    """
    with Output(wxfilename) as output:
        yield cast(BinaryIO, output)
