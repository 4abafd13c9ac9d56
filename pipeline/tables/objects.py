"""One matrix, vector or line of tokens in the formats of Kaldi: binary, text or compressed.

A binary object begins with ``\\0B``, a token and a blank; then follow little-endian data:

=============  ====================================================================
``FM``/``DM``  matrix float32/float64: ``\\4`` int32 rows, ``\\4`` int32 columns, rows
``FV``/``DV``  vector float32/float64: ``\\4`` int32 size, values
no token       vector of int32, as of alignments: ``\\4`` int32 size, each with a ``\\4`` before it
``CM`` …       compressed matrices, see ``pipeline.tables.compression``
=============  ====================================================================

A text object is written in brackets, one row per line, with 7 significant digits. Text is read as
float32. Objects are read from a ``ByteSource``, whose errors name the file, the key and the offset.
"""

import io
import math
import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TableError
from pipeline.plain_text import RETURN
from pipeline.tables.compression import HEADER, compress, data_size, decompress
from pipeline.tables.specifiers import ROW_TOLERANCE, Range
from pipeline.tables.streams import ByteSource

Array = NDArray[Any]

_DTYPES = {"FM": "<f4", "DM": "<f8", "FV": "<f4", "DV": "<f8"}
_COMPRESSED = ("CM", "CM2", "CM3")
_LONGEST_TOKEN = 8
_FOREIGN = {
    b"PKL": "a Python pickle, which could run code when read",
    b"RIF": "a RIFF wave file",
    b"fLa": "a FLAC file",
    b"NIS": "a NIST SPHERE file",
    b"\x93NU": "a NumPy file",
    b"\x1f\x8b": "a gzip file; read it through gunzip -c FILE |",
    b"AUD": "kaldiio's audio, not features",
    b"NPY": "kaldiio's NumPy entry, not Kaldi's",
}


@dataclass(frozen=True)
class _Head:
    """The header of a binary object."""

    token: str
    shape: tuple[int, ...]
    size: int  # bytes of data after the header
    compressed: bytes = b""  # the 16 bytes after CM, CM2 or CM3


# ---- reading -----------------------------------------------------------------------------------


def read_matrix_object(source: ByteSource) -> Array:
    """Read the next object as a (T, F) float32 or float64 array.

    Raises:
        TableError: the object is truncated, damaged, or not a matrix.
    """
    if _is_text(source):
        return _stack(source, _read_text_rows(source))
    head = _read_head(source, "matrix")
    data = source.read_exact(head.size)
    if head.compressed:
        if not head.size:
            return np.zeros((0, 0), dtype=np.float32)
        return decompress(head.token, head.compressed, data)
    return _as_array(data, head)


def read_vector_object(source: ByteSource) -> Array:
    """Read the next object as a (F,) float32, float64 or int32 array.

    Raises:
        TableError: the object is truncated, damaged, or not a vector.
    """
    if _is_text(source):
        rows = _read_text_rows(source)
        if len(rows) > 1:
            source.fail(f"found a matrix of {len(rows)} rows where a vector is expected")
        return rows[0] if rows else np.zeros(0, dtype=np.float32)
    if source.peek() == b"\4":
        return _read_int32_vector(source)
    head = _read_head(source, "vector")
    return _as_array(source.read_exact(head.size), head)


def _read_int32_vector(source: ByteSource) -> Array:
    """Read a vector of integers, the form of Kaldi's alignments.

    kaldiio decodes it, after the bytes were checked to be complete.
    """
    from kaldiio.matio import read_int32vector

    head = bytes(source.read_exact(5))
    (size,) = struct.unpack("<i", head[1:])
    if size < 0:
        source.fail(f"the header states {size} integers; the file is damaged: make it again")
    data = bytes(source.read_exact(5 * size))
    if data[::5] != b"\4" * size:
        source.fail("an integer lacks the size before it; the file is damaged: make it again")
    vector: Array = read_int32vector(io.BytesIO(b"\0B" + head + data))
    return vector


def read_shape_object(source: ByteSource) -> tuple[int, int]:
    """Read the shape (T, F) of the next matrix and pass over its values."""
    if _is_text(source):
        matrix = _stack(source, _read_text_rows(source))
        return matrix.shape[0], matrix.shape[1]
    head = _read_head(source, "matrix")
    source.skip(head.size)
    return head.shape[0], head.shape[1]


def read_text_object(source: ByteSource) -> str:
    """Read the rest of the line as ``tok tok tok``, with one blank between tokens."""
    line = source.readline()
    if b"\0" in line:
        source.fail("found a NUL byte: this is not a text table")
    if b"\r" in line.rstrip():
        source.fail(f"the line {RETURN}")
    try:
        return b" ".join(line.split()).decode("utf-8")
    except UnicodeDecodeError:
        source.fail("this text is not UTF-8; convert it, for example with iconv")


def _as_array(data: bytearray, head: _Head) -> Array:
    values = np.frombuffer(data, dtype=_DTYPES[head.token]).reshape(head.shape)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _is_text(source: ByteSource) -> bool:
    """Whether a text object follows; of a binary object, only ``\\0B`` is read."""
    while (byte := source.peek()) in (b" ", b"\t", b"\n", b"\r") and byte:
        source.take(1)
    if byte == b"[":
        return True
    if not byte:
        source.fail("the file ends where an object is expected")
    if byte != b"\0":
        _refuse_foreign(source, source.take(64))
    start = source.take(2)
    if start != b"\0B":
        source.fail(f"expected \\0B, found {start!r}; is this a Kaldi object?")
    return False


def _refuse_foreign(source: ByteSource, start: bytes) -> None:
    source.offset -= len(start)  # for the message
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            source.fail(f"expected a Kaldi object, found {what}")
    if re.match(rb"\S+[ \t]+(\0B|\[)", start):
        source.fail(
            "this is an archive (key, object, key, …), not one object; read it as ark:FILE, "
            "or name an offset in the scp line, FILE:OFFSET, as ark,scp:… writes it"
        )
    source.fail(f"found {start[:16]!r} where a Kaldi object is expected")


def _read_head(source: ByteSource, wanted: str) -> _Head:
    token = _read_token(source)
    if token in _DTYPES:
        is_matrix = token.endswith("M")
        shape = tuple(_read_int32(source) for _ in range(2 if is_matrix else 1))
        size = int(np.dtype(_DTYPES[token]).itemsize) * int(np.prod(shape, dtype=object))
        head = _Head(token, shape, size)
    elif token in _COMPRESSED:
        is_matrix = True
        raw = bytes(source.read_exact(HEADER.size))
        low, extent, rows, columns = HEADER.unpack(raw)
        if not (math.isfinite(low) and math.isfinite(extent)):
            source.fail(
                f"the header states minimum {low} and range {extent}; the file is damaged: "
                "make it again"
            )
        head = _Head(token, (rows, columns), data_size(token, rows, columns), raw)
        if columns == 0 or rows == 0:
            head = _Head(token, (0, 0), 0, raw)
    else:
        source.fail(f"found an object of type {token!r} where a {wanted} is expected")
    if min(head.shape) < 0:
        source.fail(f"the header states shape {head.shape}; the file is damaged: make it again")
    if is_matrix != (wanted == "matrix"):
        source.fail(f"found a {'matrix' if is_matrix else 'vector'} where a {wanted} is expected")
    return head


def _read_token(source: ByteSource) -> str:
    if source.peek() == b"P":
        source.fail(
            "expected a Kaldi object, found a Python pickle (PKL), which could run code when read"
        )
    token = b""
    while len(token) < _LONGEST_TOKEN:
        byte = source.take(1)
        if byte == b" ":
            break
        if not byte:
            source.fail("the file ends inside a header; it is truncated: make it again")
        if not byte.isalnum():
            source.fail(
                f"found {token + byte!r} where the type of an object, such as FM, is expected"
            )
        token += byte
    return token.decode("latin-1")


def _read_int32(source: ByteSource) -> int:
    raw = source.read_exact(5)
    if raw[0] != 4:
        source.fail(f"expected a 4-byte integer in the header, found size {raw[0]}")
    return int(struct.unpack("<i", raw[1:])[0])


def _read_text_rows(source: ByteSource) -> list[Array]:
    """Read the rows of ``[ … ]``, which end at a newline or a semicolon."""
    rows: list[Array] = []
    opening = source.take(1)  # [
    while True:
        line = source.readline()
        if not line:
            source.fail(
                f"the file ends after {opening!r} without a closing bracket; it is truncated: "
                "make it again"
            )
        body, bracket, rest = line.partition(b"]")
        rows += [_parse_row(source, part) for part in body.split(b";") if part.strip()]
        if bracket:
            if rest.strip():
                source.fail(f"found {rest.strip()[:20]!r} after the closing bracket")
            return rows


def _parse_row(source: ByteSource, text: bytes) -> Array:
    try:
        if b"_" in text:  # Python would accept 1_000
            raise ValueError
        with np.errstate(over="ignore"):
            return np.array([float(word) for word in text.split()]).astype(np.float32)
    except ValueError:
        bad = next((w for w in text.split() if not _is_number(w)), text)
        source.fail(f"{bad[:20].decode('latin-1')!r} is not a number")


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return b"_" not in word


def _stack(source: ByteSource, rows: list[Array]) -> Array:
    if not rows:
        return np.zeros((0, 0), dtype=np.float32)
    widths = [len(row) for row in rows]
    if len(set(widths)) > 1:
        odd = next(i for i, width in enumerate(widths) if width != widths[0])
        source.fail(f"row 0 has {widths[0]} columns but row {odd} has {widths[odd]}")
    return np.stack(rows)


# ---- ranges ------------------------------------------------------------------------------------


def range_bounds(
    wanted: Range, rows: int, columns: int | None, where: str
) -> tuple[slice, slice, bool]:
    """The rows and columns that a range ``[r0:r1,c0:c1]`` selects from an object.

    Args:
        wanted: the range. Its last row may lie fewer than 3 rows beyond the end.
        rows: number of rows of the object.
        columns: number of columns; None for a vector.
        where: the name of the object, for error messages.

    Returns:
        The slice of rows, the slice of columns, and whether rows beyond the end were cut off.

    Raises:
        TableError: the range lies outside of the object.
    """
    row0, row1 = wanted.rows or (0, rows - 1)
    truncated = row1 >= rows
    if wanted.rows and (row0 >= rows or row1 >= rows + ROW_TOLERANCE):
        raise TableError(
            f"{where}: {wanted.text} selects rows {row0} to {row1}, but there are only {rows}"
        )
    if wanted.columns and columns is None:
        raise TableError(f"{where}: {wanted.text} selects columns, but this is a vector")
    column0, column1 = wanted.columns or (0, (columns or 0) - 1)
    if wanted.columns and column1 >= (columns or 0):
        raise TableError(
            f"{where}: {wanted.text} selects columns {column0} to {column1}, but there are only "
            f"{columns}"
        )
    return slice(row0, min(row1, rows - 1) + 1), slice(column0, column1 + 1), truncated


# ---- writing -----------------------------------------------------------------------------------


def matrix_bytes(value: object, *, text: bool = False, compression_method: int = 0) -> bytes:
    """The bytes of a matrix as Kaldi writes it, without a key.

    Args:
        value: (T, F), float32 or float64.
        text: whether to write text.
        compression_method: 0 for none, or Kaldi's method 1 … 7. With ``text``, the values that
            would be read back from the compressed matrix are written.

    Raises:
        TableError: the dtype or the shape is another, or NaN or infinity is to be compressed.
    """
    matrix = _checked(value, 2)
    if compression_method:
        packed = compress(matrix, compression_method)
        if not text:
            return b"\0B" + packed
        token, _, rest = packed.partition(b" ")
        if matrix.size:
            matrix = decompress(token.decode(), rest[: HEADER.size], rest[HEADER.size :])
    if not text:
        return _binary_bytes(matrix)
    if not matrix.size:
        return b" [ ]\n"
    line = b"\n  " + b"%.7g " * matrix.shape[1]
    return b" [" + b"".join(line % tuple(row) for row in matrix.tolist()) + b"]\n"


def vector_bytes(value: object, *, text: bool = False) -> bytes:
    """The bytes of a (F,) float32 or float64 array as Kaldi writes it, without a key."""
    vector = _checked(value, 1)
    if not text:
        return _binary_bytes(vector)
    return b" [ " + b"%.7g " * len(vector) % tuple(vector.tolist()) + b"]\n"


def integers_bytes(value: object, *, text: bool = False) -> bytes:
    """The bytes of a (T,) array of integers, such as an alignment, as Kaldi writes it."""
    vector = np.asarray(value)
    if vector.ndim != 1 or (vector.size and vector.dtype.kind not in "iu"):
        raise TableError(f"found {vector.dtype} of shape {vector.shape}, not a vector of integers")
    if vector.size and not -(2**31) <= int(vector.min()) <= int(vector.max()) < 2**31:
        raise TableError("an integer of this vector exceeds Kaldi's 32 bits")
    if text:
        return b" " + b"%d " * len(vector) % tuple(vector.tolist()) + b"\n"
    items = np.zeros(len(vector), dtype=[("size", "i1"), ("value", "<i4")])
    items["size"], items["value"] = 4, vector
    return b"\0B\4" + struct.pack("<i", len(vector)) + items.tobytes()


def _binary_bytes(array: Array) -> bytes:
    token = ("F" if array.dtype.itemsize == 4 else "D") + ("M" if array.ndim == 2 else "V")
    shape = array.shape if array.size or array.ndim == 1 else (0, 0)
    sizes = b"".join(b"\4" + struct.pack("<i", size) for size in shape)
    data = np.ascontiguousarray(array, dtype=_DTYPES[token]).tobytes()
    return b"\0B" + token.encode() + b" " + sizes + data


def _checked(value: object, ndim: int) -> Array:
    array = np.asarray(value)
    what = "matrix (T, F)" if ndim == 2 else "vector (F,)"
    if array.dtype.kind in "iub":
        raise TableError(
            f"integers ({array.dtype}) cannot be written to a table of features; "
            "convert them to float32 or float64 first"
        )
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        raise TableError(f"the type {array.dtype} is not float32 or float64; convert it first")
    if array.ndim != ndim:
        raise TableError(f"found an array of shape {array.shape} where a {what} is expected")
    if max(array.shape, default=0) > 2**31 - 1:
        raise TableError(f"the shape {array.shape} exceeds Kaldi's 32-bit sizes")
    return array
