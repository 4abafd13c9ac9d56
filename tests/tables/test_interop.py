"""Exchange of tables with kaldi_native_io, the C++ table code of Kaldi, and random round trips."""

import itertools
from pathlib import Path

import kaldi_native_io
import kaldiio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from pipeline.errors import TableError
from pipeline.plain_text import unseen
from pipeline.tables import (
    MatrixReader,
    MatrixWriter,
    NumberWriter,
    RandomAccessReader,
    ShapeReader,
    TextReader,
    TextWriter,
    VectorReader,
    VectorWriter,
    read_matrix,
)

KEYS = st.text(
    st.characters(blacklist_categories=("Cs", "Cc", "Z"), blacklist_characters="\x85"), min_size=1
).filter(lambda key: len(key.encode().split()) == 1 and not unseen(key))
FLOATS = st.sampled_from([np.float32, np.float64])
SMALL = {np.float32: st.floats(-1e6, 1e6, width=32), np.float64: st.floats(-1e6, 1e6)}
ANY = {
    np.float32: st.floats(width=32, allow_nan=False),
    np.float64: st.floats(width=64, allow_nan=False),
}
IN_TMP_PATH = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
COMPRESSION = kaldi_native_io.CompressionMethod.__members__.values()


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def matrices(values: dict[type, st.SearchStrategy[float]], max_rows: int = 12) -> st.SearchStrategy:
    shapes = st.tuples(st.integers(1, max_rows), st.integers(1, 5))
    return FLOATS.flatmap(lambda dtype: st_numpy.arrays(dtype, shapes, elements=values[dtype]))


def write_all(writer, table) -> None:
    with writer:
        for key, value in table.items():
            writer.write(key, value)


def same(ours: dict, theirs: dict) -> None:
    assert list(ours) == list(theirs)
    for key in ours:
        np.testing.assert_array_equal(ours[key], theirs[key])


def sample(dtype: type) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    shapes = itertools.product((1, 4, 9, 200), (1, 3, 40))
    return {f"u{t}x{f}": random.normal(size=(t, f)).astype(dtype) * 9 for t, f in shapes}


# ---- kaldi_native_io ---------------------------------------------------------------------------

MATRIX = [
    (np.float32, kaldi_native_io.FloatMatrixWriter, kaldi_native_io.SequentialFloatMatrixReader),
    (np.float64, kaldi_native_io.DoubleMatrixWriter, kaldi_native_io.SequentialDoubleMatrixReader),
]
VECTOR = [
    (np.float32, kaldi_native_io.FloatVectorWriter, kaldi_native_io.SequentialFloatVectorReader),
    (np.float64, kaldi_native_io.DoubleVectorWriter, kaldi_native_io.SequentialDoubleVectorReader),
]


@pytest.mark.parametrize("options", ["", ",t"])
@pytest.mark.parametrize(("dtype", "their_writer", "their_reader"), MATRIX)
def test_matrices_are_the_same_bytes(dtype, their_writer, their_reader, options, tmp_path) -> None:
    table = sample(dtype)
    write_all(MatrixWriter(f"ark,scp{options}:{tmp_path}/a.ark,{tmp_path}/a.scp"), table)
    write_all(their_writer(f"ark,scp{options}:{tmp_path}/b.ark,{tmp_path}/b.scp"), table)
    assert (tmp_path / "a.ark").read_bytes() == (tmp_path / "b.ark").read_bytes()
    offsets = (tmp_path / "a.scp").read_text().replace("a.ark", "b.ark")
    assert offsets == (tmp_path / "b.scp").read_text()
    for specifier in (f"ark:{tmp_path}/a.ark", f"scp:{tmp_path}/a.scp"):
        with their_reader(specifier) as reader:
            theirs = {key: np.array(value) for key, value in reader}
        ours = dict(MatrixReader(specifier))
        assert all(value.dtype == (np.float32 if options else dtype) for value in ours.values())
        if options and dtype == np.float64:  # text is single precision for us
            theirs = {key: value.astype(np.float32) for key, value in theirs.items()}
        same(ours, theirs)


@pytest.mark.parametrize("options", ["", ",t"])
@pytest.mark.parametrize(("dtype", "their_writer", "their_reader"), VECTOR)
def test_vectors_are_the_same_bytes(dtype, their_writer, their_reader, options, tmp_path) -> None:
    table = {key: value[:, 0] for key, value in sample(dtype).items()}
    write_all(VectorWriter(f"ark,scp{options}:{tmp_path}/a.ark,{tmp_path}/a.scp"), table)
    write_all(their_writer(f"ark,scp{options}:{tmp_path}/b.ark,{tmp_path}/b.scp"), table)
    assert (tmp_path / "a.ark").read_bytes() == (tmp_path / "b.ark").read_bytes()
    same(dict(VectorReader(f"scp:{tmp_path}/b.scp")), dict(VectorReader(f"ark:{tmp_path}/a.ark")))
    with their_reader(f"scp:{tmp_path}/a.scp") as reader:
        assert [key for key, _ in reader] == list(table)


@pytest.mark.parametrize("method", COMPRESSION, ids=str)
def test_compressed_matrices_are_the_same_bytes(method, tmp_path) -> None:
    table = sample(np.float32)
    table |= {
        "flat": np.full((20, 2), 0.25, np.float32),
        "zero": np.zeros((20, 1), np.float32),
        "edges": np.array([[-1e9, -1, 0.5, 0.999, 1, 2, 254.5, 255, 256, 1e9]] * 9, np.float32).T,
        "halves": np.arange(0, 256, 0.5, dtype=np.float32).reshape(-1, 2),
        "denormal": np.array([[9.68e-43]] + [[0.0]] * 8, np.float32),
        "nearly-denormal": np.array([[4e-38, 1e-40, 2e-45, -3e-41, 0]] * 9, np.float32).T * 3,
    }
    write_all(MatrixWriter(f"ark:{tmp_path}/a", compression_method=int(method)), table)
    with kaldi_native_io.CompressedMatrixWriter(f"ark:{tmp_path}/b") as writer:
        for key, value in table.items():
            writer.write(key, value, method)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with kaldi_native_io.SequentialFloatMatrixReader(f"ark:{tmp_path}/b") as reader:
        same(dict(MatrixReader(f"ark:{tmp_path}/b")), {k: np.array(v) for k, v in reader})


@IN_TMP_PATH
@given(matrix=matrices(SMALL, 30), method=st.sampled_from(list(COMPRESSION)))
def test_compression_of_anything_is_the_same_bytes(matrix, method, tmp_path) -> None:
    matrix = matrix.astype(np.float32)
    write_all(MatrixWriter(f"ark:{tmp_path}/a", compression_method=int(method)), {"u": matrix})
    with kaldi_native_io.CompressedMatrixWriter(f"ark:{tmp_path}/b") as writer:
        writer.write("u", matrix, method)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with kaldi_native_io.SequentialFloatMatrixReader(f"ark:{tmp_path}/b") as reader:
        same(dict(MatrixReader(f"ark:{tmp_path}/b")), {k: np.array(v) for k, v in reader})


@pytest.mark.parametrize("suffix", ["[0:4]", "[2:2,1:3]", "[:,0:0]", "[7:11]"])
def test_ranges_mean_the_same(suffix, tmp_path) -> None:
    write_all(
        MatrixWriter(f"ark,scp:{tmp_path}/a.ark,{tmp_path}/a.scp"),
        {"u": np.arange(40, dtype=np.float32).reshape(10, 4)},
    )
    scp = tmp_path / "b.scp"
    scp.write_text((tmp_path / "a.scp").read_text().strip() + suffix + "\n")
    with kaldi_native_io.SequentialFloatMatrixReader(f"scp:{scp}") as reader:
        same(dict(MatrixReader(f"scp:{scp}")), {key: np.array(value) for key, value in reader})


def test_text_tables_both_ways(tmp_path) -> None:
    table = {"u1": "a b c", "u2": "", "u3": "zwölf"}
    write_all(TextWriter(f"ark:{tmp_path}/a"), table)
    with kaldi_native_io.SequentialTokenVectorReader(f"ark:{tmp_path}/a") as reader:
        assert {key: " ".join(value) for key, value in reader} == table
    with kaldi_native_io.TokenVectorWriter(f"ark,t:{tmp_path}/b") as writer:
        for key, value in table.items():
            writer.write(key, value.split())
    assert dict(TextReader(f"ark:{tmp_path}/b")) == table


def test_lengths_are_the_same(tmp_path) -> None:
    table = sample(np.float32)
    write_all(
        MatrixWriter(f"ark,scp:{tmp_path}/a.ark,{tmp_path}/a.scp", compression_method=1), table
    )
    with kaldi_native_io.SequentialMatrixShapeReader(f"scp:{tmp_path}/a.scp") as reader:
        theirs = {key: (shape.num_rows, shape.num_cols) for key, shape in reader}
    for specifier in (f"ark:{tmp_path}/a.ark", f"scp:{tmp_path}/a.scp"):
        assert dict(ShapeReader(specifier)) == theirs


def test_kaldiio_reads_what_we_write(tmp_path: Path) -> None:
    table = sample(np.float32)
    write_all(MatrixWriter(f"ark,scp:{tmp_path}/a.ark,{tmp_path}/a.scp"), table)
    same(table, dict(kaldiio.load_ark(f"{tmp_path}/a.ark")))
    same(table, dict(kaldiio.load_scp(f"{tmp_path}/a.scp").items()))
    kaldiio.save_ark(f"{tmp_path}/b.ark", table, scp=f"{tmp_path}/b.scp")
    same(table, dict(MatrixReader(f"scp:{tmp_path}/b.scp")))


# ---- round trips -------------------------------------------------------------------------------


@IN_TMP_PATH
@given(table=st.dictionaries(KEYS, matrices(ANY), max_size=4))
def test_binary_round_trip(table, tmp_path) -> None:
    write_all(MatrixWriter(f"ark,scp:{tmp_path}/a.ark,{tmp_path}/a.scp"), table)
    for specifier in (f"ark:{tmp_path}/a.ark", f"scp:{tmp_path}/a.scp"):
        read = dict(MatrixReader(specifier))
        same(read, table)
        assert [v.dtype for v in read.values()] == [v.dtype for v in table.values()]
        shapes = {key: value.shape for key, value in table.items()}
        assert dict(ShapeReader(specifier)) == shapes
        with RandomAccessReader(specifier) as reader:
            for key in reversed(table):
                np.testing.assert_array_equal(reader[key], table[key])


@IN_TMP_PATH
@given(table=st.dictionaries(KEYS, matrices(SMALL), max_size=4))
def test_text_round_trip(table, tmp_path) -> None:
    write_all(MatrixWriter(f"ark,t:{tmp_path}/a"), table)
    read = dict(MatrixReader(f"ark:{tmp_path}/a"))
    assert list(read) == list(table)
    for key, value in table.items():
        np.testing.assert_allclose(read[key], value, rtol=1e-6, atol=1e-38)


@IN_TMP_PATH
@given(table=st.dictionaries(KEYS, st.lists(KEYS).map(" ".join), max_size=6))
def test_token_round_trip(table, tmp_path) -> None:
    write_all(TextWriter(f"ark,scp:{tmp_path}/a.ark,{tmp_path}/a.scp"), table)
    assert dict(TextReader(f"ark:{tmp_path}/a.ark")) == table
    assert dict(TextReader(f"scp:{tmp_path}/a.scp")) == table


@IN_TMP_PATH
@given(matrix=matrices(SMALL, 9), data=st.data())
def test_ranges_are_slices(matrix, data, tmp_path) -> None:
    write_all(MatrixWriter(f"ark,scp:{tmp_path}/a.ark,{tmp_path}/a.scp"), {"u": matrix})
    place = (tmp_path / "a.scp").read_text().split()[1]
    first = data.draw(st.integers(0, matrix.shape[0] - 1))
    last = data.draw(st.integers(first, matrix.shape[0] - 1))
    column = data.draw(st.integers(0, matrix.shape[1] - 1))
    cut = read_matrix(f"{place}[{first}:{last},{column}:{column}]")
    np.testing.assert_array_equal(cut, matrix[first : last + 1, column : column + 1])


def test_alignments_of_kaldi_are_read(tmp_path: Path) -> None:
    table = {"a": [3, 3, 70000, -1], "b": []}
    with kaldi_native_io.Int32VectorWriter(f"ark,scp:{tmp_path}/ali.ark,{tmp_path}/ali.scp") as ali:
        for key, value in table.items():
            ali.write(key, value)
    for specifier in (f"ark:{tmp_path}/ali.ark", f"scp:{tmp_path}/ali.scp"):
        read = dict(VectorReader(specifier))
        assert {key: value.tolist() for key, value in read.items()} == table
        assert read["a"].dtype == np.int32
    whole = (tmp_path / "ali.ark").read_bytes()
    (tmp_path / "cut.ark").write_bytes(whole[:20])
    with pytest.raises(TableError, match=r"cut\.ark"):
        list(VectorReader(f"ark:{tmp_path}/cut.ark"))
    (tmp_path / "bad.ark").write_bytes(whole[:14] + b"X" + whole[15:])
    with pytest.raises(TableError, match=r"bad\.ark"):
        list(VectorReader(f"ark:{tmp_path}/bad.ark"))


def test_numbers_are_written_as_by_kaldi(tmp_path) -> None:
    with NumberWriter(f"ark,t:{tmp_path}/ours") as writer:
        for key, value in (("a", 0), ("b", 50), ("c", 2**31 - 1)):
            writer.write(key, str(value))
    with kaldi_native_io.Int32Writer(f"ark,t:{tmp_path}/theirs") as writer:
        for key, value in (("a", 0), ("b", 50), ("c", 2**31 - 1)):
            writer.write(key, value)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    with kaldi_native_io.SequentialInt32Reader(f"ark:{tmp_path}/ours") as reader:
        assert dict(reader) == {"a": 0, "b": 50, "c": 2**31 - 1}
