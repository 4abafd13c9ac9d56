"""Files that appear complete or not at all."""

import os
import subprocess
from pathlib import Path

import pytest

from pipeline.errors import OutputError
from pipeline.files import file_digest, write_text, written


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_file_is_replaced_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path / "t", b"old\n")
    write_text(path, "new ü\n")
    assert path.read_bytes() == "new ü\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t", b"old\n")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="t: cannot be written: No space left on device; "):
        write_text(path, "new\n")
    assert path.read_bytes() == b"old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_write_where_there_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none/t: cannot be written: No such file"):
        write_text(tmp_path / "none" / "t", "x\n")
    with pytest.raises(OutputError, match=r"file/t: cannot be written: Not a directory"):
        write_text(write(tmp_path / "file", b"") / "t", "x\n")


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    """Leftovers of this file and machine are removed, except those of running processes."""
    host, gone = os.uname().nodename, subprocess.Popen(["true"])
    gone.wait()
    old, running = f".t.tmp.{host}.{gone.pid}", f".t.tmp.{host}.{os.getppid()}"
    others = [running, f".t.tmp.another.{gone.pid}", f".u.tmp.{host}.{gone.pid}", f"{old}.x"]
    for name in (old, *others):
        write(tmp_path / name, b"half")
    write_text(tmp_path / "t", "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["t", *others])


def test_an_error_of_torch_is_reported_too(tmp_path: Path) -> None:
    def fail() -> None:
        with written(tmp_path / "t") as stream:
            stream.write(b"half")
            raise RuntimeError("writing failed\nand more")

    with pytest.raises(OutputError, match=r"t: cannot be written: writing failed; correct that"):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_digest(tmp_path: Path) -> None:
    path = write(tmp_path / "t", b"abc")
    assert file_digest(path).startswith("ba7816bf8f01cfea")
    assert file_digest(tmp_path / "none") == file_digest(write(tmp_path / "empty", b""))
