"""Tables of text: strict reading, sorted and atomic writing."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.text_files import (
    SAME_KIND_SHOWN,
    Problems,
    format_map,
    read_map,
    scan,
    write_map,
)
from pipeline.errors import DataDirError
from pipeline.plain_text import unseen


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_values_keep_inner_blanks_and_lose_outer_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "wav.scp", b"a  sox  x.wav -t wav - | \nb\ty.wav\nc\n")
    assert read_map(path) == {"a": "sox  x.wav -t wav - |", "b": "y.wav", "c": ""}


def test_only_ascii_blanks_part_key_and_value(tmp_path: Path) -> None:
    path = write(tmp_path / "text", "a c\u00a0d\n".encode())
    assert read_map(path) == {"a": "c\u00a0d"}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", ": the file is empty"),
        (b"a 1", ":1: the last line does not end in a newline"),
        (b"a 1\rb 2\r", ":1: the last line does not end in a newline"),
        (b"a 1\rb 2\n", ":1: the line holds a carriage return that does not end it"),
        (b"a 1\n\nb 2\n", ":2: the line is empty"),
        (b"a 1\n \t\nb 2\n", ":2: the line is empty"),
        (b"a 1\n b 2\n", ":2: the line begins with a blank"),
        (b"a 1\na 2\n", ':2: "a" occurs twice'),
        (b"b 1\na 2\n", ':2: "a" comes after "b": not sorted as by LC_ALL=C sort'),
        (b"a 1\nB 2\n", ':2: "B" comes after "a"'),
        (b"a 1\nb \xff\n", ":2: not UTF-8"),
    ],
)
def test_read_map_refuses(tmp_path: Path, data: bytes, what: str) -> None:
    path = write(tmp_path / "t", data)
    with pytest.raises(DataDirError) as caught:
        read_map(path)
    assert str(caught.value).startswith(f"{path}{what}")
    assert "; " in str(caught.value)


def test_missing_file_and_directory_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataDirError, match="no such file"):
        read_map(tmp_path / "none")
    with pytest.raises(DataDirError, match="cannot be read"):
        read_map(tmp_path)


def test_scan_returns_what_it_can_and_the_first_of_duplicates(tmp_path: Path) -> None:
    path = write(tmp_path / "t", b"b 1\r\n a 2\nb 3")
    problems = Problems()
    assert {key: row.value for key, row in scan(path, problems).items()} == {"b": "1", "a": "2"}
    assert len(problems.lines()) == 5


def test_many_problems_of_a_kind_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "t", b"".join(b"u%04d 1\r\n" % n for n in range(1000)))
    problems = Problems()
    scan(path, problems)
    lines = problems.lines()
    assert len(lines) == SAME_KIND_SHOWN + 1
    assert lines[-1].startswith(f"{path}: {1000 - SAME_KIND_SHOWN} more lines like those above; ")


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1).filter(
    lambda key: not unseen(key)
)


@given(st.dictionaries(KEYS, st.lists(KEYS).map(" ".join), min_size=1))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, table: dict) -> None:
    path = tmp_path_factory.getbasetemp() / "roundtrip"
    write_map(path, table)
    assert read_map(path) == table
    lines = path.read_bytes().split(b"\n")[:-1]
    assert lines == sorted(lines, key=lambda line: line.split(b" ", 1)[0])


def test_format_map_has_no_trailing_blank() -> None:
    assert format_map({"b": "1 2", "a": ""}) == "a\nb 1 2\n"
