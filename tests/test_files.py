"""Files that appear complete or not at all."""

import contextlib
import fcntl
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import OutputError, PipelineError
from pipeline.files import (
    file_digest,
    locked,
    new_directory,
    replaced_directory,
    write_text,
    write_texts,
    written,
)
from pipeline.leftovers import find_leftovers, is_leftover, temporary_name, writer_of
from pipeline.tables import TextWriter

ROOT = Path(__file__).resolve().parents[1]


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


# ---- temporary names -----------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002, 0o000])
def test_only_the_owner_may_read_it_until_it_has_its_name(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with written(tmp_path / "t") as stream:
            (temporary,) = tmp_path.iterdir()
            stream.write(b"x")
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o666 & ~umask
        with replaced_directory(tmp_path / "d") as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o777 & ~umask
    finally:
        os.umask(before)


def test_no_name_is_made_twice(tmp_path: Path) -> None:
    names = {temporary_name(tmp_path / "t") for _ in range(100)}
    assert len(names) == 100


WRITERS = {
    "written": lambda path: write_text(path, "ours"),
    "table": lambda path: write_table(path),
    "folder": lambda path: replace(path),
    "new folder": lambda path: make(path),
    "texts": lambda path: write_texts(path.parent, {path.name: "ours"}),
}


def write_table(path: Path) -> None:
    with TextWriter(f"ark:{path}") as writer:
        writer.write("a", "ours")


def replace(path: Path) -> None:
    with replaced_directory(path) as folder:
        (folder / "x").write_text("ours")


def make(path: Path) -> None:
    with new_directory(path) as folder:
        (folder / "x").write_text("ours")


@pytest.mark.parametrize("what", WRITERS)
@pytest.mark.parametrize("target", ["file", "folder", "nothing"])
def test_a_planted_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, target: str
) -> None:
    """Even if somebody had guessed the name, what the link names stays as it was."""
    monkeypatch.setattr("secrets.token_hex", lambda size: "01234567")
    victim, place = tmp_path / "victim", tmp_path / "shared"
    place.mkdir()
    if target == "file":
        victim.write_text("precious")
    elif target == "folder":
        victim.mkdir()
        (victim / "x").write_text("precious")
    temporary_name(place / "t").symlink_to(victim)
    for name in (".t.lock", ".lock"):  # a link that leads nowhere
        if what not in ("texts", "folder"):
            (place / name).symlink_to(tmp_path / "made")
    with contextlib.suppress(OSError, PipelineError):
        WRITERS[what](place / "t")
    if target == "file":
        assert victim.read_text() == "precious"
    elif target == "folder":
        assert [p.name for p in victim.iterdir()] == ["x"]
        assert (victim / "x").read_text() == "precious"
    else:
        assert not victim.exists()
    assert not (tmp_path / "made").exists()


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "victim")
    link = r"\.lock: a symbolic link, not a lock; remove it"
    with pytest.raises(OutputError, match=link), locked(tmp_path / ".lock"):
        pass
    assert not (tmp_path / "victim").exists()


@settings(max_examples=30)
@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
def test_any_name_can_be_written_and_its_temporary_name_is_known_again(name: str) -> None:
    if len(name.encode()) > 255 or name in (".", ".."):
        return
    temporary = temporary_name(Path("folder") / name)
    assert len(os.fsencode(temporary.name)) <= 255
    assert writer_of(temporary.name) == (os.uname().nodename, os.getpid())
    assert not writer_of(name) or ".tmp." in name


# ---- leftovers -----------------------------------------------------------------------------------


def ended() -> int:
    gone = subprocess.Popen(["true"])
    gone.wait()
    return gone.pid


def named(name: str, pid: int, host: str = os.uname().nodename) -> str:
    return f".{name}.tmp.{host}.{pid}.01234567"


def test_what_a_killed_process_left_is_told_from_what_is_being_written(tmp_path: Path) -> None:
    left = [tmp_path / named("a", ended()), tmp_path / "sub" / named("b", ended())]
    left[1].parent.mkdir()
    left[0].write_text("half")
    left[1].mkdir()
    (left[1] / "x").write_text("half")
    foreign = tmp_path / named("c", ended(), "another")
    foreign.write_text("half")
    user = tmp_path / ".hidden"
    user.write_text("mine")
    young = tmp_path / named("d", os.getpid())  # of a process that had our number before
    young.write_text("half")
    os.utime(young, (1, 1))
    with written(tmp_path / "t"), locked(tmp_path / "sub" / ".lock"):
        found = dict(find_leftovers(tmp_path, other_hosts_after_s=3600))
        assert {path for path, reason in found.items() if not reason} == {*left, young}
        kept = {path.name.partition(".tmp")[0]: reason for path, reason in found.items() if reason}
        assert kept[".c"] == "another may still write it"
        assert kept[".t"] == f"process {os.getpid()} still writes it"
        assert kept[".lock"] == "a running process holds this lock"
        assert len(kept) == 3
    os.utime(foreign, (1, 1))
    assert dict(find_leftovers(tmp_path, other_hosts_after_s=3600))[foreign] == ""


def test_what_another_process_has_locked_is_no_leftover(tmp_path: Path) -> None:
    """As in another container on the same machine, whose processes cannot be seen."""
    path = tmp_path / named("t", ended())
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert not is_leftover(path)
    assert is_leftover(path)


# ---- several processes ---------------------------------------------------------------------------

REPLACE = """
import sys
from pathlib import Path
from pipeline.files import replaced_directory, write_texts
target, mark = Path(sys.argv[1]), sys.argv[2]
for _ in range(30):
    if sys.argv[3] == "folder":
        with replaced_directory(target) as folder:
            for name in "abc":
                (folder / name).write_text(mark)
    else:
        write_texts(target, {name: mark for name in "abc"})
"""


@pytest.mark.parametrize("kind", ["folder", "texts"])
def test_of_writers_at_once_one_wins_wholly(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "texts":
        target.mkdir()
    command = [sys.executable, "-c", REPLACE, str(target)]
    writers = [
        subprocess.Popen([*command, mark, kind], env={**os.environ, "PYTHONPATH": str(ROOT)})
        for mark in ("one", "two", "three")
    ]
    while kind == "folder" and any(writer.poll() is None for writer in writers):
        with contextlib.suppress(FileNotFoundError):  # before the first
            descriptor = os.open(target, os.O_RDONLY)  # a reader that is in the folder
            try:
                seen = set()
                for name in "abc":
                    file = os.open(name, os.O_RDONLY, dir_fd=descriptor)
                    seen.add(os.read(file, 9))
                    os.close(file)
                assert len(seen) == 1
            finally:
                os.close(descriptor)
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len({(target / name).read_text() for name in "abc"}) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["target"]
    assert sorted(p.name for p in target.iterdir()) == ["a", "b", "c"]


def test_a_lock_waits_and_ends_with_its_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hold = "import sys, time; from pathlib import Path; from pipeline.files import locked\n"
    hold += "with locked(Path(sys.argv[1])): print(flush=True); time.sleep(60)"
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / ".lock")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert other.stdout is not None
    other.stdout.readline()
    timer = threading.Timer(0.3, other.kill)
    timer.start()
    with locked(tmp_path / ".lock"):
        assert other.wait() == -9
    other.stdout.close()
    assert f"{tmp_path}: another process writes here; waiting for its end" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    """Like /dev/null, which root could replace by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    write_text(pipe, "said\n")
    assert reader.communicate(timeout=20)[0] == b"said\n"
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a device")
def test_a_device_stays_one(tmp_path: Path) -> None:
    device = tmp_path / "null"
    os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    write_text(device, "said\n")
    assert device.is_char_device()
    full = tmp_path / "full"
    os.mknod(full, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
    with pytest.raises(OutputError, match="full: cannot be written: No space left on device"):
        write_text(full, "said\n")
    assert full.is_char_device()


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_folder_is_no_file_to_write(name: str) -> None:
    with pytest.raises(OutputError, match="a folder"):
        write_text(name, "x")
