"""Kaldi's compressed matrices, byte for byte: 8 or 16 bits per value, with loss.

There are three formats (Kaldi's ``src/matrix/compressed-matrix.h``). All begin with a header:
``float32 minimum, float32 range, int32 rows, int32 columns``. Then follow:

* ``CM``: for each column four uint16 quantiles (0, 25, 75, 100 %), then uint8 codes column by
  column, piecewise linear between the quantiles (codes 0-64, 64-192, 192-255);
* ``CM2``: uint16 codes row by row, linear over the range;
* ``CM3``: uint8 codes row by row, linear over the range.

Kaldi computes in single precision, with a few constants in double precision. Values are rounded
here at the same places as in Kaldi, so that the files are identical.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TableError

HEADER = struct.Struct("<ffii")
METHODS = {
    1: "CM when there are more than 8 rows, else CM2",
    2: "CM, for speech features",
    3: "CM2 over the matrix's own range",
    4: "CM2 for integers in -32768…32767",
    5: "CM3 over the matrix's own range",
    6: "CM3 for integers in 0…255",
    7: "CM3 for values in 0…1",
}

_FIXED_RANGE = {4: (-32768.0, 65535.0), 6: (0.0, 255.0), 7: (0.0, 1.0)}
_STEP16 = np.float32(1.52590218966964e-05)  # 1/65535, as Kaldi spells it

Float32 = NDArray[np.float32]


def data_size(kind: str, rows: int, columns: int) -> int:
    """The number of bytes after the header of a ``CM``, ``CM2`` or ``CM3`` matrix."""
    if kind == "CM":
        return columns * (8 + rows)
    return rows * columns * (2 if kind == "CM2" else 1)


def compress(matrix: NDArray[np.floating], method: int) -> bytes:
    """The bytes of ``matrix`` (T, F) as Kaldi writes them, beginning with ``CM ``, ``CM2 `` or
    ``CM3 ``.

    Values outside the fixed range of methods 4, 6 and 7 are clipped, as in Kaldi.

    Raises:
        TableError: the matrix holds NaN or infinity, or the method is unknown.
    """
    if method not in METHODS:
        raise TableError(f"compression method {method} is not one of 1 to 7")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(matrix, dtype=np.float32)
    rows, columns = values.shape
    if rows == 0 or columns == 0:
        return b"CM " + HEADER.pack(0.0, 0.0, 0, 0)
    if not np.isfinite(values).all():
        raise TableError("NaN or infinity cannot be compressed; write without --compress")
    if method == 1:
        method = 2 if rows > 8 else 3
    low, extent = _FIXED_RANGE.get(method) or _own_range(values)
    header = HEADER.pack(low, extent, rows, columns)
    low32, extent32 = np.float32(low), np.float32(extent)
    if method == 2:
        return b"CM " + header + _encode_columns(values, low32, extent32)
    if method in (3, 4):
        return b"CM2 " + header + _linear(values, low32, extent32, 65535).astype("<u2").tobytes()
    return b"CM3 " + header + _linear(values, low32, extent32, 255).astype(np.uint8).tobytes()


def decompress(kind: str, header: bytes, data: bytes | bytearray) -> Float32:
    """The (T, F) float32 matrix that ``CM``, ``CM2`` or ``CM3`` data encode.

    Args:
        kind: ``CM``, ``CM2`` or ``CM3``.
        header: the 16 bytes after the kind.
        data: the bytes after the header.
    """
    low, extent, rows, columns = HEADER.unpack(header)
    with np.errstate(over="ignore", invalid="ignore"):  # a damaged header may hold any number
        if kind == "CM":
            return _decode_columns(data, np.float32(low), np.float32(extent), rows, columns)
        top, dtype = (65535, "<u2") if kind == "CM2" else (255, "u1")
        codes = np.frombuffer(data, dtype=dtype).reshape(rows, columns)
        step = np.float32(float(extent) * (1.0 / top))
        decoded: Float32 = np.float32(low) + codes.astype(np.float32) * step
        return decoded


def _own_range(values: Float32) -> tuple[float, float]:
    """(minimum, range) in single precision; the range is above 0 even for a constant matrix."""
    # By position: of equal values Kaldi takes the first, which matters for 0 and -0.
    low, high = values.flat[values.argmin()], values.flat[values.argmax()]
    if low == high:
        high = np.float32(float(low) + (1.0 + abs(float(low))))
    with np.errstate(over="ignore"):
        extent = high - low
    if not np.isfinite(extent):
        raise TableError(
            "the range of the values exceeds single precision; write without --compress"
        )
    return float(low), float(extent)


def _linear(values: Float32, low: np.float32, extent: np.float32, top: int) -> NDArray[np.int64]:
    """Codes 0 … ``top``, linear over the range; rounded by adding 0.499, as in Kaldi."""
    with np.errstate(over="ignore"):
        fraction = np.clip((values - low) / extent, np.float32(0.0), np.float32(1.0))
    codes: NDArray[np.int64] = ((fraction * np.float32(top)).astype(np.float64) + 0.499).astype(
        np.int64
    )
    return codes


def _quantile_codes(values: Float32, low: np.float32, extent: np.float32) -> NDArray[np.int64]:
    """(4, F) strictly increasing uint16 codes of the 0, 25, 75 and 100 % quantiles."""
    rows, columns = values.shape
    ordered = np.sort(values, axis=0)
    places = [0, rows // 4, 3 * (rows // 4), rows - 1] if rows >= 5 else list(range(rows))
    codes = np.zeros((4, columns), dtype=np.int64)
    codes[: len(places)] = _linear(ordered[places], low, extent, 65535)
    codes[0] = np.minimum(codes[0], 65532)
    for place in (1, 2, 3):
        codes[place] = np.minimum(np.maximum(codes[place], codes[place - 1] + 1), 65532 + place)
    return codes


def _quantiles(codes: NDArray[np.int64], low: np.float32, extent: np.float32) -> Float32:
    quantiles: Float32 = low + (extent * _STEP16) * codes.astype(np.float32)
    return quantiles


def _encode_columns(values: Float32, low: np.float32, extent: np.float32) -> bytes:
    quantile_codes = _quantile_codes(values, low, extent)
    p0, p25, p75, p100 = _quantiles(quantile_codes, low, extent)
    codes = np.where(
        values < p25,
        _segment(values, p0, p25, 0, 64),
        np.where(
            values < p75, _segment(values, p25, p75, 64, 192), _segment(values, p75, p100, 192, 255)
        ),
    )
    heads = np.ascontiguousarray(quantile_codes.T).astype("<u2").tobytes()
    return heads + np.ascontiguousarray(codes.T).astype(np.uint8).tobytes()


def _segment(values: Float32, start: Float32, end: Float32, first: int, last: int) -> Float32:
    """Codes ``first`` … ``last``, linear between ``start`` and ``end`` of each column."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scaled = (values - start) / (end - start) * np.float32(last - first)
    whole = np.trunc(scaled.astype(np.float64) + 0.5)
    # Kaldi converts to a 32-bit integer, where a value out of range becomes the smallest integer.
    whole = np.where(np.abs(whole) < 2.0**31, whole, -(2.0**31))
    codes: Float32 = np.clip(first + whole, first, last).astype(np.float32)
    return codes


def _decode_columns(
    data: bytes | bytearray, low: np.float32, extent: np.float32, rows: int, columns: int
) -> Float32:
    heads = np.frombuffer(data, dtype="<u2", count=4 * columns).reshape(columns, 4)
    codes = np.frombuffer(data, dtype=np.uint8, offset=8 * columns).reshape(columns, rows).T
    p0, p25, p75, p100 = _quantiles(heads.T.astype(np.int64), low, extent)
    decoded = np.where(
        codes <= 64,
        _between(codes, p0, p25, 0, 1 / 64.0),
        np.where(
            codes <= 192,
            _between(codes, p25, p75, 64, 1 / 128.0),
            _between(codes, p75, p100, 192, 1 / 63.0),
        ),
    )
    return np.ascontiguousarray(decoded.astype(np.float32))


def _between(
    codes: NDArray[np.uint8], start: Float32, end: Float32, first: int, step: float
) -> NDArray[np.float64]:
    steps = codes.astype(np.float32) - np.float32(first)
    scaled: NDArray[np.float32] = (end - start) * steps
    between: NDArray[np.float64] = start.astype(np.float64) + scaled.astype(np.float64) * step
    return between
