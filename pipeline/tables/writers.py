"""Atomic writers of Kaldi tables; import them from ``pipeline.tables``."""

import re
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from numpy.typing import NDArray

from pipeline.errors import TableError
from pipeline.leftovers import remove_leftovers
from pipeline.plain_text import fault_of_name
from pipeline.tables.objects import integers_bytes, matrix_bytes, vector_bytes
from pipeline.tables.readers import ScpReader
from pipeline.tables.specifiers import parse_wspecifier
from pipeline.tables.streams import Output

Array = NDArray[Any]
V = TypeVar("V")


class _Writer(Generic[V]):
    """Base class of the writers: a context manager with ``write(key, value)``.

    Archive and scp file are written under temporary names. If the block succeeds, the archive is
    renamed first and the scp file last; otherwise both are removed. With an scp alone each entry is
    written atomically to the file that the scp names for its key. A key that the scp lacks is an
    error; with ``,p`` it is left out.

    Raises:
        SpecifierError: the wspecifier is malformed.
        TableError: a key holds blanks or occurs twice, a value is not of the right type or shape,
            or a pipe fails.
        OSError: the disk is full; names the file.
    """

    def __init__(self, wspecifier: str) -> None:
        self.specifier = parse_wspecifier(wspecifier)
        self._keys: set[str] = set()
        self._lines: list[bytes] = []
        self._ark: Output | None = None
        self._scp: Output | None = None
        self._targets: dict[str, str] | None = None  # key -> file, if the wspecifier is scp alone

    def _encode(self, value: V) -> bytes:
        raise NotImplementedError

    def __enter__(self) -> Self:
        if self.specifier.ark is None:
            self._targets = dict(ScpReader(f"scp:{self.specifier.scp}"))
            remove_leftovers(*map(Path, self._targets.values()))
            return self
        self._ark = Output(self.specifier.ark or "-")
        if self.specifier.scp is not None:
            try:
                self._scp = Output(self.specifier.scp)
            except BaseException:
                self._ark.abort()
                raise
        return self

    def write(self, key: str, value: V) -> None:
        """Add one entry."""
        if self._targets is not None:
            self._write_file(key, value)
            return
        if self._ark is None:
            raise ValueError("write() must be called inside the with block of the writer")
        if not key or re.search("[\0-\x20\x7f]", key):
            raise TableError(
                f"{self._ark.name}: {key!r} cannot be a key: it is empty or holds blanks"
            )
        if fault := fault_of_name(key):
            raise TableError(f"{self._ark.name}: {fault}")
        if key in self._keys:
            raise TableError(f'{self._ark.name}: key "{key}" written twice; keys must differ')
        try:
            data = self._encode(value)
        except TableError as error:
            raise TableError(f'{self._ark.name}: key "{key}": {error}') from error
        self._keys.add(key)
        blank = b"" if data == b"\n" and self._scp is None else b" "
        self._ark.write(key.encode() + blank)
        if self._scp is not None:
            self._lines.append(f"{key} {self.specifier.ark}:{self._ark.offset}\n".encode())
        self._ark.write(data)
        if self.specifier.flush:
            self._ark.flush()

    def _write_file(self, key: str, value: V) -> None:
        assert self._targets is not None
        if key in self._targets:
            with Output(self._targets[key], tidy=False) as stream:
                stream.write(self._encode(value))
        elif not self.specifier.permissive:
            raise TableError(f'{self.specifier.scp}: no file for key "{key}"; add a line for it')

    def _finish(self) -> None:
        ark, scp = self._ark, self._scp
        if ark is None:
            return
        ark.prepare()
        if scp is not None and scp.atomic:
            scp.write(b"".join(self._lines))
            scp.prepare()
            scp.remove_old()  # it refers to the archive that is about to be replaced
        ark.commit()
        if scp is not None and not scp.atomic:
            scp.write(b"".join(self._lines))
            scp.prepare()
        if scp is not None:
            scp.commit()

    def _abort(self) -> None:
        for output in (self._ark, self._scp):
            if output is not None:
                output.abort()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
            else:
                self._abort()
        except BaseException:
            self._abort()
            raise
        finally:
            self._ark = self._scp = self._targets = None


class MatrixWriter(_Writer[Array]):
    """Write (T, F) float32 or float64 arrays, which keep their type.

    Args:
        wspecifier: ``ark[,options]:…`` or ``ark,scp[,options]:….ark,….scp``.
        compression_method: 0 for none, or Kaldi's 1 to 7 (with loss, see
            ``pipeline.tables.compression``).
    """

    def __init__(self, wspecifier: str, *, compression_method: int = 0) -> None:
        super().__init__(wspecifier)
        self._method = compression_method

    def _encode(self, value: Array) -> bytes:
        return matrix_bytes(value, text=self.specifier.text, compression_method=self._method)


class VectorWriter(_Writer[Array]):
    """Write (F,) float32 or float64 arrays, which keep their type."""

    def _encode(self, value: Array) -> bytes:
        return vector_bytes(value, text=self.specifier.text)


class IntegersWriter(_Writer[Array]):
    """Write (T,) arrays of integers, such as alignments."""

    def _encode(self, value: Array) -> bytes:
        return integers_bytes(value, text=self.specifier.text)


class TextWriter(_Writer[str]):
    """Write lines ``key tok tok tok``, with or without ``t`` in the wspecifier."""

    def _encode(self, value: str) -> bytes:
        if "\n" in value or "\0" in value:
            raise TableError(f"{value!r} holds a newline or NUL, so it is not one line of text")
        return value.encode() + b"\n"


class NumberWriter(TextWriter):
    """Write lines ``key number`` with a blank at the end, as Kaldi writes integers and floats."""

    def _encode(self, value: str) -> bytes:
        return value.encode() + b" \n"


class WaveWriter(_Writer[bytes]):
    """Write RIFF files made by `pipeline.frontend.audio.wave_bytes`, as Kaldi's wav-copy does."""

    def _encode(self, value: bytes) -> bytes:
        return value
