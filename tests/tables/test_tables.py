"""Readers and writers against Kaldi's own files, and the rules of keys, ranges and order."""

import hashlib
import io
import struct
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import TableError
from pipeline.tables import (
    MatrixReader,
    MatrixWriter,
    RandomAccessReader,
    ScpReader,
    ShapeReader,
    TextReader,
    TextWriter,
    VectorReader,
    VectorWriter,
    open_output,
    read_matrix,
    write_matrix,
)


@pytest.fixture
def kaldi(golden: Path) -> Path:
    return golden / "kaldi_tables"


@pytest.fixture
def scp(tmp_path: Path) -> Path:
    """Three matrices u1, u2, u3 of 4, 5 and 6 rows, 3 columns."""
    with MatrixWriter(f"ark,scp:{tmp_path}/a.ark,{tmp_path}/a.scp") as writer:
        for number in (1, 2, 3):
            rows = number + 3
            values = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
            writer.write(f"u{number}", values * number)
    return tmp_path / "a.scp"


def copy(rspecifier: str, wspecifier: str, method: int = 0) -> None:
    with MatrixWriter(wspecifier, compression_method=method) as writer:
        for key, value in MatrixReader(rspecifier):
            writer.write(key, value)


# ---- Kaldi's bytes -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fbank41.ark", "cmvn_spk.ark"])
def test_binary_copy_is_byte_for_byte(name: str, kaldi: Path, tmp_path: Path) -> None:
    copy(f"ark:{kaldi / name}", f"ark:{tmp_path}/out")
    assert (tmp_path / "out").read_bytes() == (kaldi / name).read_bytes()


@pytest.mark.parametrize("method", range(1, 8))
def test_compressed_copy_is_byte_for_byte(method: int, kaldi: Path, tmp_path: Path) -> None:
    copy(f"ark:{kaldi}/fbank41.ark", f"ark:{tmp_path}/out", method)
    expected = kaldi / f"fbank41_cm{method}.ark"
    assert (tmp_path / "out").read_bytes() == expected.read_bytes()


def test_text_copy_is_byte_for_byte(kaldi: Path, tmp_path: Path) -> None:
    copy(f"ark:{kaldi}/fbank41.ark", f"ark,t:{tmp_path}/out")
    assert (tmp_path / "out").read_bytes() == (kaldi / "fbank41.txt").read_bytes()


@pytest.mark.parametrize("method", [1, 2, 3])
def test_compressed_values_are_kaldis(method: int, kaldi: Path, tmp_path: Path) -> None:
    copy(f"ark:{kaldi}/fbank41_cm{method}.ark", f"ark,t:{tmp_path}/out")
    ours = hashlib.sha256((tmp_path / "out").read_bytes()).hexdigest()
    assert f"{ours}  cm{method}.txt" in (kaldi / "SHA256SUMS").read_text()


def test_compressed_text_holds_what_would_be_read_back(kaldi: Path, tmp_path: Path) -> None:
    copy(f"ark:{kaldi}/fbank41.ark", f"ark,t:{tmp_path}/out", 3)
    ours = hashlib.sha256((tmp_path / "out").read_bytes()).hexdigest()
    assert f"{ours}  cm3.txt" in (kaldi / "SHA256SUMS").read_text()


def test_single_matrix_is_byte_for_byte(kaldi: Path, tmp_path: Path) -> None:
    matrix = read_matrix(str(kaldi / "cmvn_global.mat"))
    assert matrix.shape == (2, 124)
    write_matrix(f"{tmp_path}/out", matrix)
    assert (tmp_path / "out").read_bytes() == (kaldi / "cmvn_global.mat").read_bytes()
    write_matrix(f"{tmp_path}/out.txt", matrix, text=True)
    np.testing.assert_allclose(read_matrix(f"{tmp_path}/out.txt"), matrix, rtol=1e-6)


def test_text_numbers_look_as_in_cpp(tmp_path: Path) -> None:
    row = [5.0, -0.0, 1e-5, 1e7, 123456.7, 0.1, np.inf, -np.inf, np.nan]
    with MatrixWriter(f"ark,t:{tmp_path}/m") as writer:
        writer.write("u", np.array([row, row], dtype=np.float32))
        writer.write("none", np.zeros((0, 0), dtype=np.float32))
    with VectorWriter(f"ark,t:{tmp_path}/v") as writer:
        writer.write("u", np.array([1.5, 2.0]))
        writer.write("none", np.zeros(0))
    line = "5 -0 1e-05 1e+07 123456.7 0.1 inf -inf nan"
    assert (tmp_path / "m").read_text() == f"u  [\n  {line} \n  {line} ]\nnone  [ ]\n"
    assert (tmp_path / "v").read_text() == "u  [ 1.5 2 ]\nnone  [ ]\n"
    np.testing.assert_array_equal(
        dict(MatrixReader(f"ark:{tmp_path}/m"))["u"][0], np.array(row, np.float32)
    )
    assert dict(VectorReader(f"ark:{tmp_path}/v"))["none"].shape == (0,)


def test_types_are_kept(tmp_path: Path) -> None:
    for dtype in (np.float32, np.float64):
        value = np.array([[1, 2], [3, 4]], dtype=dtype)[:, ::-1]
        with MatrixWriter(f"ark:{tmp_path}/m") as writer:
            writer.write("u", value.astype(value.dtype.newbyteorder(">")))
        with VectorWriter(f"ark:{tmp_path}/v") as writer:
            writer.write("u", value[0])
        (matrix,) = dict(MatrixReader(f"ark:{tmp_path}/m")).values()
        (vector,) = dict(VectorReader(f"ark:{tmp_path}/v")).values()
        assert matrix.dtype == vector.dtype == dtype
        np.testing.assert_array_equal(matrix, value)
        np.testing.assert_array_equal(vector, value[0])
        matrix += 1  # a reader's array may be changed


def test_empty_and_constant_matrices(tmp_path: Path) -> None:
    flat = np.full((9, 2), 3.5, dtype=np.float32)
    for method in range(8):
        with MatrixWriter(f"ark:{tmp_path}/m", compression_method=method) as writer:
            writer.write("empty", np.zeros((0, 7), dtype=np.float32))
            writer.write("flat", flat if method < 6 else flat - 3)
        read = dict(MatrixReader(f"ark:{tmp_path}/m"))
        assert read["empty"].shape == (0, 0)
        assert read["flat"].shape == (9, 2)
        assert dict(ShapeReader(f"ark:{tmp_path}/m")) == {"empty": (0, 0), "flat": (9, 2)}


@pytest.mark.parametrize(("method", "low", "high"), [(4, -32768, 32767), (6, 0, 255), (7, 0, 1)])
def test_values_out_of_range_are_clipped(
    method: int, low: float, high: float, tmp_path: Path
) -> None:
    value = np.array([[-1e6, low, high, 1e6]], dtype=np.float32)
    with MatrixWriter(f"ark:{tmp_path}/m", compression_method=method) as writer:
        writer.write("u", value)
    (read,) = dict(MatrixReader(f"ark:{tmp_path}/m")).values()
    np.testing.assert_allclose(read, [[low, low, high, high]], atol=1e-2)


# ---- text forms that others write --------------------------------------------------------------


def test_text_matrices_in_every_layout(tmp_path: Path) -> None:
    text = "a [ 1 2 ; 3 4 ]\nb\t[\n1 2\n\n  3 4\n]\r\n\nc\n [ 1 2\n3 4 ]\nd [ ]\n"
    (tmp_path / "m").write_bytes(text.encode())
    read = dict(MatrixReader(f"ark:{tmp_path}/m"))
    for key in "abc":
        np.testing.assert_array_equal(read[key], np.array([[1, 2], [3, 4]], np.float32))
    assert read["d"].shape == (0, 0)


def test_text_table(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("a  x \t y\u00a0z \nb\nc\tzwölf\r\nd last".encode())
    expected = [("a", "x y\u00a0z"), ("b", ""), ("c", "zwölf"), ("d", "last")]
    assert list(TextReader(f"ark:{path}")) == expected
    with TextWriter(f"ark:{tmp_path}/copy") as writer:
        for key, value in expected:
            writer.write(key, value)
    assert (tmp_path / "copy").read_text() == "a x y\u00a0z\nb\nc zwölf\nd last\n"


def test_text_table_through_an_scp(tmp_path: Path) -> None:
    with TextWriter(f"ark,scp:{tmp_path}/t.ark,{tmp_path}/t.scp") as writer:
        for key, value in [("a", "x y"), ("b", ""), ("c", "z")]:
            writer.write(key, value)
    assert list(TextReader(f"scp:{tmp_path}/t.scp")) == [("a", "x y"), ("b", ""), ("c", "z")]


# ---- scp files and ranges ----------------------------------------------------------------------


@pytest.mark.parametrize("options", ["", ",t"])
def test_offsets_point_at_the_object(options: str, tmp_path: Path) -> None:
    ark, scp = tmp_path / "m.ark", tmp_path / "m.scp"
    with MatrixWriter(f"ark,scp{options}:{ark},{scp}") as writer:
        writer.write("u1", np.eye(2))
        writer.write("u2", np.ones((3, 1)))
    for line in scp.read_text().splitlines():
        key, _, place = line.partition(" ")
        path, _, offset = place.rpartition(":")
        assert path == str(ark)
        start = ark.read_bytes()[int(offset) - len(key) - 1 :]
        assert start.startswith(f"{key} ".encode() + (b" [" if options else b"\0BDM "))
    shapes = {key: value.shape for key, value in MatrixReader(f"scp:{scp}")}
    assert shapes == {"u1": (2, 2), "u2": (3, 1)}


@pytest.mark.parametrize(
    ("suffix", "rows", "columns"),
    [
        ("[0:0]", slice(0, 1), slice(None)),
        ("[1:3]", slice(1, 4), slice(None)),
        ("[:,1:2]", slice(None), slice(1, 3)),
        ("[2:2,0:0]", slice(2, 3), slice(0, 1)),
        ("[1:2,:]", slice(1, 3), slice(None)),
        ("[:]", slice(None), slice(None)),
    ],
)
def test_ranges_include_both_ends(suffix: str, rows: slice, columns: slice, scp: Path) -> None:
    entry = dict(ScpReader(f"scp:{scp}"))["u1"]
    whole = read_matrix(entry)
    scp.write_text(f"u1 {entry}{suffix}\n")
    ((_, cut),) = MatrixReader(f"scp:{scp}")
    np.testing.assert_array_equal(cut, whole[rows, columns])
    assert list(ShapeReader(f"scp:{scp}")) == [("u1", cut.shape)]
    np.testing.assert_array_equal(read_matrix(entry + suffix), cut)


def test_a_range_may_end_up_to_two_rows_late(scp: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = dict(ScpReader(f"scp:{scp}"))["u1"]  # 4 rows, the last is number 3
    assert read_matrix(f"{entry}[1:6]").shape == (3, 3)
    assert "[1:6] exceeds the last row, 3" in caplog.text
    for suffix, what in [
        ("[1:7]", "[1:7] selects rows 1 to 7, but there are only 4"),
        ("[4:5]", "rows 4 to 5"),
        ("[0:1,0:3]", "[0:1,0:3] selects columns 0 to 3, but there are only 3"),
    ]:
        with pytest.raises(TableError) as error:
            read_matrix(entry + suffix)
        assert what in str(error.value)


def test_ranges_of_vectors(tmp_path: Path) -> None:
    with VectorWriter(f"ark,scp:{tmp_path}/v.ark,{tmp_path}/v.scp") as writer:
        writer.write("u", np.arange(5.0))
    line = (tmp_path / "v.scp").read_text().strip()
    (tmp_path / "r.scp").write_text(f"{line}[1:2]\n")
    ((_, value),) = VectorReader(f"scp:{tmp_path}/r.scp")
    np.testing.assert_array_equal(value, [1.0, 2.0])
    (tmp_path / "r.scp").write_text(f"{line}[1:2,0:0]\n")
    with pytest.raises(TableError, match="selects columns, but this is a vector"):
        list(VectorReader(f"scp:{tmp_path}/r.scp"))


def test_an_scp_entry_may_hold_blanks(tmp_path: Path) -> None:
    path = tmp_path / "my features.mat"
    write_matrix(str(path), np.eye(2))
    (tmp_path / "a.scp").write_text(f"  u1\t {path}  \r\n")
    assert list(ScpReader(f"scp:{tmp_path}/a.scp")) == [("u1", str(path))]
    assert len(list(MatrixReader(f"scp:{tmp_path}/a.scp"))) == 1


def test_wav_scp_commands_are_given_unopened(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("u1 sph2pipe -f wav a.sph |\n")
    assert list(ScpReader(f"scp:{tmp_path}/wav.scp")) == [("u1", "sph2pipe -f wav a.sph |")]


def test_empty_tables_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for reader in (MatrixReader, VectorReader, TextReader, ShapeReader):
        for kind in ("ark", "scp"):
            assert list(reader(f"{kind}:{tmp_path}/empty")) == []


# ---- order, random access ----------------------------------------------------------------------


def test_sorted_archives(scp: Path) -> None:
    assert [key for key, _ in MatrixReader(f"scp,s:{scp}")] == ["u1", "u2", "u3"]
    lines = scp.read_text().splitlines()
    scp.write_text("\n".join([lines[1], lines[0]]) + "\n")
    assert [key for key, _ in MatrixReader(f"scp:{scp}")] == ["u2", "u1"]
    for reader in (MatrixReader, ScpReader):
        with pytest.raises(TableError, match=r'key "u1" comes after "u2".*LC_ALL=C sort'):
            list(reader(f"scp,s:{scp}"))
    scp.write_text(f"{lines[0]}\n{lines[0]}\n")
    with pytest.raises(TableError, match='key "u1" occurs twice'):
        list(MatrixReader(f"scp,s:{scp}"))


def test_sorting_is_by_bytes(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("B x\na x\nz x\né x\n")
    assert len(list(TextReader(f"ark,s:{path}"))) == 4


@pytest.mark.parametrize("specifier", ["scp:{0}.scp", "ark:{0}.ark", "ark,s:{0}.ark"])
def test_random_access_in_any_order(specifier: str, scp: Path) -> None:
    with RandomAccessReader(specifier.format(scp.with_suffix(""))) as reader:
        for key in ("u2", "u1", "u3", "u1"):
            assert key in reader
            assert reader[key].shape == (int(key[1]) + 3, 3)
        assert "u0" not in reader
        with pytest.raises(TableError, match='key "u9" is missing'):
            reader["u9"]


def test_random_access_sorted_and_called_sorted(scp: Path) -> None:
    with RandomAccessReader(f"ark,s,cs:{scp.with_suffix('.ark')}") as reader:
        assert "u0" not in reader
        assert reader["u1"].shape == reader["u1"].shape == (4, 3)
        assert "u2a" not in reader
        assert reader["u3"].shape == (6, 3)
        with pytest.raises(TableError, match=r'"u2" was requested after "u3".*cs'):
            reader["u2"]


def test_random_access_once(scp: Path) -> None:
    with RandomAccessReader(f"ark,o:{scp.with_suffix('.ark')}") as reader:
        assert reader["u2"].shape == (5, 3)
        with pytest.raises(TableError, match="returned before"):
            reader["u2"]


def test_random_access_refuses_keys_that_occur_twice(scp: Path, tmp_path: Path) -> None:
    line = scp.read_text().splitlines()[0]
    scp.write_text(f"{line}\n{line}\n")
    with pytest.raises(TableError, match=r'a\.scp:2: key "u1" occurs twice'):
        assert "u1" in RandomAccessReader(f"scp:{scp}")
    (tmp_path / "t").write_text("a x\na y\n")
    with pytest.raises(TableError, match='key "a" occurs twice'):
        assert "b" in RandomAccessReader(f"ark:{tmp_path}/t", "text")


def test_random_access_permissive(scp: Path) -> None:
    text = scp.read_text()
    scp.write_text(text.replace("a.ark", "gone.ark", 1))
    with RandomAccessReader(f"scp,p:{scp}") as reader:
        assert "u1" not in reader
        assert "u2" in reader
        assert reader.skipped == 1
    with pytest.raises(TableError, match=r"a\.scp:1: key \"u1\": .*gone\.ark"):
        assert "u1" in RandomAccessReader(f"scp:{scp}")


def test_random_access_of_text_and_vectors(tmp_path: Path) -> None:
    (tmp_path / "utt2spk").write_text("u1 s1\nu2 s2\n")
    assert RandomAccessReader(f"ark,s,cs:{tmp_path}/utt2spk", "text")["u2"] == "s2"
    (tmp_path / "v").write_text("u1 [ 1 2 ]\n")
    assert RandomAccessReader(f"ark:{tmp_path}/v", "vector")["u1"].tolist() == [1.0, 2.0]


# ---- streams -----------------------------------------------------------------------------------


def test_a_reader_can_be_read_again(scp: Path) -> None:
    reader = MatrixReader(f"scp:{scp}")
    assert len(list(reader)) == len(list(reader)) == 3


def test_standard_input_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"u \0BFV \4" + struct.pack("<i2f", 2, 1.0, 2.0)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    ((key, value),) = VectorReader("ark:-")
    assert (key, value.tolist()) == ("u", [1.0, 2.0])


def test_open_output_is_atomic_and_follows_links(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "file")
    with open_output(f"{tmp_path}/link") as stream:
        stream.write(b"data")
        assert not (tmp_path / "disk" / "file").exists()
    assert (tmp_path / "disk" / "file").read_bytes() == b"data"
    assert (tmp_path / "link").is_symlink()
    with pytest.raises(TypeError), open_output(f"{tmp_path}/link") as stream:
        stream.write("not bytes")  # type: ignore[arg-type]
    assert (tmp_path / "link").read_bytes() == b"data"
    assert len(list(tmp_path.rglob("*"))) == 3


def test_an_scp_alone_says_where_each_entry_goes(tmp_path: Path) -> None:
    (tmp_path / "to.scp").write_text(f"a {tmp_path}/1.mat\nb {tmp_path}/2.mat\n")
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    with MatrixWriter(f"scp:{tmp_path}/to.scp") as writer:
        writer.write("b", matrix)
        writer.write("a", matrix + 1)
    assert (read_matrix(f"{tmp_path}/2.mat") == matrix).all()
    assert dict(MatrixReader(f"scp:{tmp_path}/to.scp"))["a"][0, 0] == 1
    with (
        pytest.raises(TableError, match=r'to.scp: no file for key "c"'),
        MatrixWriter(f"scp:{tmp_path}/to.scp") as writer,
    ):
        writer.write("c", matrix)
    with MatrixWriter(f"scp,p:{tmp_path}/to.scp") as writer:
        writer.write("c", matrix)
