"""Damaged files are errors that name the place, the problem and the remedy."""

import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import SpecifierError, TableError
from pipeline.tables import (
    MatrixReader,
    MatrixWriter,
    ScpReader,
    ShapeReader,
    TextReader,
    TextWriter,
    VectorReader,
    VectorWriter,
    read_matrix,
    write_matrix,
)

FM = b"\0BFM "


def dims(*sizes: int) -> bytes:
    return b"".join(b"\4" + struct.pack("<i", size) for size in sizes)


@pytest.fixture
def ark(tmp_path: Path) -> Path:
    path = tmp_path / "a.ark"
    with MatrixWriter(f"ark,scp:{path},{tmp_path}/a.scp") as writer:
        for key in ("u1", "u2", "u3"):
            writer.write(key, np.ones((4, 3), dtype=np.float32))
    return path


def message(reader: object) -> str:
    with pytest.raises(TableError) as error:
        list(reader)  # type: ignore[call-overload]
    return str(error.value)


# ---- archives ----------------------------------------------------------------------------------


def test_every_truncation_is_an_error_or_a_whole_entry(ark: Path) -> None:
    data = ark.read_bytes()
    ends = [len(data) * n // 3 for n in range(4)]
    for length in range(len(data)):
        ark.write_bytes(data[:length])
        for reader in (MatrixReader, ShapeReader):
            if length in ends:
                assert len(list(reader(f"ark:{ark}"))) == ends.index(length)
            else:
                assert re.match(
                    rf"{re.escape(str(ark))}: .*byte \d+: ", message(reader(f"ark:{ark}"))
                )


def test_a_truncated_archive_names_file_key_and_offset(ark: Path) -> None:
    ark.write_bytes(ark.read_bytes()[:-5])
    text = message(MatrixReader(f"ark:{ark}"))
    assert text.startswith(
        f'{ark}: key "u3" byte 150: the header states 48 bytes, but only 43 are left'
    )
    assert "make it again" in text


def test_permissive_stops_at_the_damage(ark: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = ark.read_bytes()
    ark.write_bytes(data.replace(b"u2 \0BFM", b"u2 \0BXX"))
    reader = MatrixReader(f"ark,p:{ark}")
    assert [key for key, _ in reader] == ["u1"]
    assert reader.skipped == 1
    assert 'key "u2"' in caplog.text
    assert "reading stopped there" in caplog.text


@pytest.mark.parametrize(
    "header",
    [
        FM + dims(2**31 - 1, 2**31 - 1),
        FM + dims(10**9, 1),
        b"\0BCM " + struct.pack("<ffii", 0, 1, 2**31 - 1, 2**31 - 1),
        b"\0BCM2 " + struct.pack("<ffii", 0, 1, 10**9, 1),
    ],
)
def test_a_huge_header_allocates_nothing(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"u " + header + b"x" * 100)
    assert "100 are left" in message(MatrixReader(f"ark:{tmp_path}/m"))
    assert "100 are left" in message(ShapeReader(f"ark:{tmp_path}/m"))
    assert "100 are left" in message(MatrixReader(f"ark:cat {tmp_path}/m |"))
    assert "100 are left" in message(ShapeReader(f"ark:cat {tmp_path}/m |"))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (FM + dims(-1, 3), "the header states shape (-1, 3); the file is damaged"),
        (FM + dims(1, -3), "damaged"),
        (b"\0BCM " + struct.pack("<ffii", 0, 1, -5, 3), "damaged"),
        (b"\0BCM2 " + struct.pack("<ffii", 0, np.inf, 1, 1), "range inf; the file is damaged"),
        (FM + b"\x08" + b"\0" * 20, "expected a 4-byte integer in the header, found size 8"),
        (b"\0BXYZ ", "an object of type 'XYZ' where a matrix is expected"),
        (b"\0BFV " + dims(1) + b"\0" * 4, "found a vector where a matrix is expected"),
        (b"\0B\4\1\0\0\0", "where the type of an object, such as FM, is expected"),
        (b"\0X", "expected \\0B"),
        (
            b"PKL" + pickle.dumps(1),
            "expected a Kaldi object, found a Python pickle, which could run code when read",
        ),
        (b"\0BPKL", "a Python pickle"),
        (b"RIFF....WAVE", "a RIFF wave file"),
        (b"\x1f\x8b\x08", "gunzip -c FILE |"),
        (b"x y z\n", "where a Kaldi object is expected"),
        (b"[ 1 2\n 3 ]\n", "row 0 has 2 columns but row 1 has 1"),
        (b"[ 1 2\n 3 x1 ]\n", "'x1' is not a number"),
        (b"[ 1_0 ]\n", "'1_0' is not a number"),
        (b"[ 1 2 ] 3\n", "b'3' after the closing bracket"),
        (b"[ 1 2\n", "without a closing bracket; it is truncated"),
        (b"", "the file ends where an object is expected"),
    ],
)
def test_objects_that_are_no_matrix(data: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"u1 " + data)
    text = message(MatrixReader(f"ark:{tmp_path}/m"))
    assert why in text
    assert text.startswith(f'{tmp_path}/m: key "u1" byte ')


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return open, (f"{tmp_path}/exploded",)

    (tmp_path / "m").write_bytes(b"u \0BPKL" + pickle.dumps(Bomb()))
    for reader in (MatrixReader, VectorReader, ShapeReader):
        assert "expected a Kaldi object, found a Python pickle" in message(
            reader(f"ark:{tmp_path}/m")
        )
    assert not (tmp_path / "exploded").exists()


def test_vectors_and_matrices_are_not_mixed_up(ark: Path, tmp_path: Path) -> None:
    assert "found a matrix where a vector" in message(VectorReader(f"ark:{ark}"))
    (tmp_path / "v").write_text("u [ 1\n 2 ]\n")
    assert "matrix of 2 rows where a vector" in message(VectorReader(f"ark:{tmp_path}/v"))


def test_what_is_no_archive_at_all(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"\0BFM " + dims(1, 1) + b"\0" * 4)
    assert "byte 0: a key is missing" in message(MatrixReader(f"ark:{path}"))
    path.write_bytes(b"x" * 200_000)
    assert "a key is missing" in message(MatrixReader(f"ark:{path}"))
    path.write_bytes(b"\xff\xfd [ 1 ]\n")
    assert "is not UTF-8" in message(MatrixReader(f"ark:{path}"))
    path.write_bytes("u1 [ 1 ]\n".encode("utf-16"))
    assert "this is UTF-16; convert it" in message(MatrixReader(f"ark:{path}"))
    assert "cannot read: No such file" in message(MatrixReader(f"ark:{tmp_path}/none"))
    assert "cannot read: No such file" in message(MatrixReader(f"ark,p:{tmp_path}/none"))
    assert "cannot read: Is a directory" in message(MatrixReader(f"ark:{tmp_path}"))


def test_text_tables_are_strict(ark: Path, tmp_path: Path) -> None:
    path = tmp_path / "text"
    for data in (b"a x\n\nb y\n", b"a x\n b y\n"):
        path.write_bytes(data)
        assert message(TextReader(f"ark:{path}")).startswith(f"{path}:2: ")
    path.write_bytes(b"a \xff\n")
    assert "not UTF-8" in message(TextReader(f"ark:{path}"))
    assert "NUL" in message(TextReader(f"ark:{ark}"))


# ---- scp files ---------------------------------------------------------------------------------


def test_scp_lines_that_are_no_entry(ark: Path) -> None:
    scp = ark.with_suffix(".scp")
    good = scp.read_text()
    for bad, why in [
        ("\n", "empty line; remove it"),
        ("  \n", "empty line; remove it"),
        ("u9\n", 'expected "key file", found only the key "u9"'),
    ]:
        scp.write_text(good + bad)
        for reader in (MatrixReader(f"scp,p:{scp}"), ScpReader(f"scp:{scp}")):
            assert message(reader) == f"{scp}:4: {why}"
    scp.write_bytes(b"u1 a\0b\n")
    assert "is this an scp file?" in message(ScpReader(f"scp:{scp}"))
    scp.write_bytes(ark.read_bytes())
    assert "is this an scp file?" in message(MatrixReader(f"scp:{scp}"))
    with pytest.raises(SpecifierError, match="write scp:FILE"):
        ScpReader(f"ark:{ark}")


def test_scp_entries_that_cannot_be_read(
    ark: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scp = tmp_path / "b.scp"
    good = f"u9 {ark}:3\n"
    for entry, why in [
        (f"{tmp_path}/none.ark:3", "none.ark: cannot read: No such file or directory"),
        (f"{ark}:999", f"has {ark.stat().st_size} bytes, so offset 999 is beyond its end"),
        (f"{ark}:4", "byte 4: "),
        (f"{ark}", "this is an archive"),
        (f"{ark}:3[7:9]", "rows 7 to 9"),
        (f"{ark}:3[x]", "'x' is not a range"),
        (f"{ark} | x", "has a | inside"),
        ("x" * 300, "cannot read: File name too long"),
    ]:
        scp.write_text(f"u1 {entry}\n{good}")
        text = message(MatrixReader(f"scp:{scp}"))
        assert text.startswith(f'{scp}:1: key "u1": ')
        assert why in text
        reader = MatrixReader(f"scp,p:{scp}")
        assert [key for key, _ in reader] == ["u9"]
        assert reader.skipped == 1
        assert caplog.records[-1].levelname == "WARNING"


def test_scp_that_names_a_whole_archive_says_how_to_read_it(ark: Path, tmp_path: Path) -> None:
    (tmp_path / "b.scp").write_text(f"u1 {ark}\n")
    text = message(MatrixReader(f"scp:{tmp_path}/b.scp"))
    assert "read it as ark:FILE" in text
    assert "FILE:OFFSET" in text


@pytest.mark.parametrize("options", ["", ",p"])
def test_commands_in_an_scp_are_refused(options: str, ark: Path, tmp_path: Path) -> None:
    scp = tmp_path / "b.scp"
    scp.write_text(f"u1 touch {tmp_path}/ran; cat {ark} |\n")
    text = message(MatrixReader(f"scp{options}:{scp}"))
    assert text.startswith(f'{scp}:1: key "u1": ')
    assert "--allow-pipes" in text
    assert not (tmp_path / "ran").exists()
    scp.write_text(f"u1 tail -c +4 {ark} |\n")
    ((_, value),) = MatrixReader(f"scp{options}:{scp}", allow_pipes=True)
    assert value.shape == (4, 3)
    scp.write_text("u1 -\n")
    assert "cannot be standard input" in message(MatrixReader(f"scp{options}:{scp}"))


# ---- writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (np.ones((2, 2), dtype=np.int64), "integers (int64)"),
        (np.ones((2, 2), dtype=np.uint8), "convert them to float32 or float64"),
        (np.ones((2, 2), dtype=bool), "integers (bool)"),
        (np.ones((2, 2), dtype=np.float16), "float16 is not float32 or float64"),
        (np.ones((2, 2), dtype=np.complex64), "complex64 is not"),
        (np.ones((2, 2, 2)), "shape (2, 2, 2) where a matrix (T, F)"),
        (np.ones(2), "shape (2,) where a matrix (T, F)"),
        ("text", "is not float32"),
    ],
)
def test_values_that_are_no_matrix(value: object, why: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    for _ in range(2):
        with pytest.raises(TableError) as error, MatrixWriter(f"ark:{path}") as writer:
            writer.write("u1", value)  # type: ignore[arg-type]
        assert str(error.value).startswith(f'{path}: key "u1": ')
        assert why in str(error.value)
    with pytest.raises(TableError) as error:
        write_matrix(f"{path}", value)  # type: ignore[arg-type]
    assert why in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_values_that_are_no_vector(tmp_path: Path) -> None:
    with (
        pytest.raises(TableError, match=r"shape \(2, 2\) where a vector"),
        VectorWriter(f"ark:{tmp_path}/v") as writer,
    ):
        writer.write("u1", np.ones((2, 2)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_no_compression_of_nan_and_infinity(bad: float, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="NaN or infinity cannot be compressed"):
        write_matrix(f"{tmp_path}/m", np.array([[1.0, bad]]), compression_method=1)
    with pytest.raises(TableError, match="not one of 1 to 7"):
        write_matrix(f"{tmp_path}/m", np.ones((1, 1)), compression_method=8)
    wide = np.array([[-3e38, 3e38]], dtype=np.float32)
    with pytest.raises(TableError, match="range of the values exceeds single precision"):
        write_matrix(f"{tmp_path}/m", wide, compression_method=3)


@pytest.mark.parametrize("key", ["", "a b", "a\tb", "a\n", "\0", "a\x0bb"])
def test_keys_that_cannot_be_read_back(key: str, tmp_path: Path) -> None:
    with (
        pytest.raises(TableError, match="cannot be a key"),
        TextWriter(f"ark:{tmp_path}/t") as writer,
    ):
        writer.write(key, "x")


def write_twice(writer: TextWriter) -> None:
    writer.write("u1", "x")
    writer.write("u1", "y")


def test_a_key_written_twice(tmp_path: Path) -> None:
    with (
        pytest.raises(TableError, match=r'/t: key "u1" written twice'),
        TextWriter(f"ark,scp:{tmp_path}/t,{tmp_path}/s") as writer,
    ):
        write_twice(writer)
    assert list(tmp_path.iterdir()) == []


def test_text_that_does_not_fit_on_a_line(tmp_path: Path) -> None:
    with (
        pytest.raises(TableError, match="is not one line of text"),
        TextWriter(f"ark:{tmp_path}/t") as writer,
    ):
        writer.write("u1", "x\nu2 y")


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with (
        pytest.raises(TableError, match=r"no/m: cannot write: .*create its directory first"),
        MatrixWriter(f"ark:{tmp_path}/no/m"),
    ):
        pass
    with (
        pytest.raises(TableError, match="create its directory first"),
        MatrixWriter(f"ark,scp:{tmp_path}/m,{tmp_path}/no/s"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="inside the with block of the writer"):
        MatrixWriter(f"ark:{tmp_path}/m").write("u", np.ones((1, 1)))


def test_an_exception_leaves_the_old_files(ark: Path) -> None:
    scp = ark.with_suffix(".scp")
    before = ark.read_bytes(), scp.read_bytes()
    with pytest.raises(ZeroDivisionError), MatrixWriter(f"ark,scp:{ark},{scp}") as writer:
        writer.write("new", np.ones((1, 1)) / (1 // 0))
    assert (ark.read_bytes(), scp.read_bytes()) == before
    assert len(list(ark.parent.iterdir())) == 2


def test_an_archive_may_be_copied_onto_itself(ark: Path) -> None:
    before = ark.read_bytes()
    with MatrixWriter(f"ark:{ark}") as writer:
        for key, value in MatrixReader(f"ark:{ark}"):
            writer.write(key, value)
    assert ark.read_bytes() == before


def test_a_full_device_is_an_error_that_names_it() -> None:
    with (
        pytest.raises(OSError, match="No space left") as error,
        MatrixWriter("ark,f:/dev/full") as writer,
    ):
        writer.write("u", np.ones((1, 1)))
    assert error.value.filename == "/dev/full"


def test_read_matrix_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"\0BFM " + dims(1, 1))
    with pytest.raises(
        TableError, match=r"/m: byte 15: the header states 4 bytes, but only 0 are left"
    ):
        read_matrix(f"{tmp_path}/m")
