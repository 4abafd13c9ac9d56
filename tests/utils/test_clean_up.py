"""clean_up.py: what killed commands left goes, what is being written stays."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.files import locked, written


def ended() -> int:
    gone = subprocess.Popen(["true"])
    gone.wait()
    return gone.pid


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with leftovers of all kinds, and with files of users."""
    host, pid = os.uname().nodename, ended()
    for name in ("exp/hyp.txt", "exp/.hidden", "exp/a.tmp", "exp/.backup/text", "exp/x.partial"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / "exp" / f".hyp.txt.tmp.{host}.{pid}.01234567").write_text("half")
    (tmp_path / "exp" / f".old.tmp.{host}.{pid}").write_text("of an older version")
    scoring = tmp_path / "exp" / f".scoring.tmp.{host}.{pid}.89abcdef"
    scoring.mkdir()
    (scoring / "wer").write_text("half")
    (tmp_path / "exp" / ".lock").write_text("")
    old = tmp_path / f".a.tmp.another.{pid}.01234567"
    old.write_text("half")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    (tmp_path / f".b.tmp.another.{pid}.01234567").write_text("half")
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name.partition(".tmp.")[0] for path in folder.rglob("*") if path.is_file()}


USERS = {"hyp.txt", ".hidden", "a.tmp", "text", "x.partial"}


def test_what_is_left_is_listed_and_removed(folder: Path, execute: Callable) -> None:
    before = sorted(folder.rglob("*"))
    dry = execute("clean_up.py", "--dry-run", folder)
    assert dry.status == 0
    assert sorted(folder.rglob("*")) == before
    done = execute("clean_up.py", folder)
    assert (done.status, done.out) == (0, dry.out)
    gone = {Path(line).name.partition(".tmp.")[0] for line in done.out.splitlines()}
    assert gone == {".hyp.txt", ".old", ".scoring", ".lock", ".a"}
    assert "another may still write it" in done.err
    assert "Done 5 removed, 1 kept, 0 failed" in done.err
    assert names(folder) == {*USERS, ".b"}
    execute("clean_up.py", "--other-hosts-after=0", folder)
    assert names(folder) == USERS


def test_what_is_being_written_stays(folder: Path, execute: Callable) -> None:
    with written(folder / "t") as stream, locked(folder / ".t.lock"):
        stream.write(b"half")
        done = execute("clean_up.py", "--other-hosts-after=0", folder)
        assert "still writes it" in done.err
        assert "a running process holds this lock" in done.err
    assert (folder / "t").read_bytes() == b"half"


def test_links_are_not_followed(tmp_path: Path, execute: Callable) -> None:
    (tmp_path / "precious").mkdir()
    host, pid = os.uname().nodename, ended()
    (tmp_path / "precious" / f".x.tmp.{host}.{pid}.01234567").write_text("in another folder")
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "link").symlink_to(tmp_path / "precious")
    (tmp_path / "exp" / f".y.tmp.{host}.{pid}.01234567").symlink_to(tmp_path / "precious")
    assert execute("clean_up.py", tmp_path / "exp").status == 0
    assert [p.name for p in (tmp_path / "exp").iterdir()] == ["link"]
    assert len(list((tmp_path / "precious").iterdir())) == 1


@pytest.mark.parametrize("hours", ["-1", "nan"])
def test_wrong_usage(tmp_path: Path, execute: Callable, hours: str) -> None:
    assert execute("clean_up.py", f"--other-hosts-after={hours}", tmp_path).status == 2
    done = execute("clean_up.py", tmp_path / "none")
    assert (done.status, "none: no such folder" in done.err) == (1, True)
