"""Kaldi tables: strict readers, atomic writers.

A table is a sequence of (key, object) pairs, in an archive or behind an scp file::

    with MatrixWriter("ark,scp:out.ark,out.scp") as writer:
        for utt_id, feats in MatrixReader("scp:feats.scp"):
            writer.write(utt_id, feats)

Readers stream in constant memory, and each ``iter()`` starts anew. They raise TableError for
whatever is not whole: a cut archive, a failing pipe, a missing file, an empty scp line. With
``,p`` a bad scp entry is skipped, and a bad archive ends where it is bad, each with a warning and
counted in ``skipped``. A list or an archive that cannot be opened at all is an error even then.

The specifier grammar is in ``table_specifiers``, the bytes are in ``table_objects``.
"""

from typing import Any

from numpy.typing import NDArray

from pipeline.errors import TableError
from pipeline.tables.objects import matrix_bytes
from pipeline.tables.random_access import RandomAccessReader
from pipeline.tables.readers import MatrixReader, ScpReader, ShapeReader, TextReader, VectorReader
from pipeline.tables.specifiers import (
    Rspecifier,
    Wspecifier,
    is_specifier,
    parse_rspecifier,
    parse_wspecifier,
)
from pipeline.tables.streams import open_input, open_output
from pipeline.tables.writers import MatrixWriter, TextWriter, VectorWriter, WaveWriter

__all__ = [
    "MatrixReader",
    "MatrixWriter",
    "RandomAccessReader",
    "Rspecifier",
    "ScpReader",
    "ShapeReader",
    "TextReader",
    "TextWriter",
    "VectorReader",
    "VectorWriter",
    "WaveWriter",
    "Wspecifier",
    "is_specifier",
    "open_input",
    "open_output",
    "parse_rspecifier",
    "parse_wspecifier",
    "read_matrix",
    "write_matrix",
]


def read_matrix(rxfilename: str, *, allow_pipes: bool = True) -> NDArray[Any]:
    """The (T, F) matrix in a file, with ``path:OFFSET``, ``[r0:r1]``, ``-`` and ``cmd |``."""
    return MatrixReader("ark:-").read_object(rxfilename, allow_pipes=allow_pipes)


def write_matrix(
    wxfilename: str, matrix: NDArray[Any], *, text: bool = False, compression_method: int = 0
) -> None:
    """Write one (T, F) matrix to a file (atomically), ``-`` or ``| cmd``."""
    try:
        data = matrix_bytes(matrix, text=text, compression_method=compression_method)
    except TableError as error:
        raise TableError(f"{wxfilename}: {error}") from error
    with open_output(wxfilename) as stream:
        stream.write(data)
