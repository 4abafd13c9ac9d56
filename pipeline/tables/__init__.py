"""Kaldi tables: strict readers and atomic writers.

A table is a sequence of (key, object) pairs, either in an archive or listed by an scp file::

    with MatrixWriter("ark,scp:out.ark,out.scp") as writer:
        for utt_id, feats in MatrixReader("scp:feats.scp"):
            writer.write(utt_id, feats)

Readers need constant memory, and every ``iter()`` starts from the beginning. They raise TableError
for all incomplete input: a truncated archive, a failing pipe, a missing file, an empty scp line.
With ``,p`` a bad scp entry is skipped, and an archive ends at its first bad entry; both are logged
as warnings and counted in ``skipped``. An scp file or an archive that cannot be opened is an error
even with ``,p``.

The grammar of specifiers is in ``pipeline.tables.specifiers``, the format of objects in
``pipeline.tables.objects``.
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
from pipeline.tables.writers import (
    IntegersWriter,
    MatrixWriter,
    NumberWriter,
    TextWriter,
    VectorWriter,
    WaveWriter,
)

__all__ = [
    "IntegersWriter",
    "MatrixReader",
    "MatrixWriter",
    "NumberWriter",
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
    """The (T, F) matrix in a file, which may be ``path:OFFSET[r0:r1]``, ``-`` or ``cmd |``."""
    return MatrixReader("ark:-").read_object(rxfilename, allow_pipes=allow_pipes)


def write_matrix(
    wxfilename: str, matrix: NDArray[Any], *, text: bool = False, compression_method: int = 0
) -> None:
    """Write one (T, F) matrix to a file (atomically), to ``-`` or to ``| cmd``."""
    try:
        data = matrix_bytes(matrix, text=text, compression_method=compression_method)
    except TableError as error:
        raise TableError(f"{wxfilename}: {error}") from error
    with open_output(wxfilename) as stream:
        stream.write(data)
