"""Temporary names, and what killed processes have left under them.

What a command writes has the name ``.NAME.tmp.HOST.PID.RANDOM`` beside ``NAME`` until it is
complete. HOST and PID name the process, which locks the file or folder while it writes. What has
such a name but no process any more is a leftover.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

LONGEST_NAME = 255  # bytes of a file name

_TEMPORARY = re.compile(r"\..*\.tmp\.(?P<rest>.+)", re.DOTALL)
_WRITER = re.compile(r"(?P<host>.+?)\.(?P<pid>\d+)(?P<random>\.[0-9A-Za-z]{8})?", re.DOTALL)
_LOCK = re.compile(r"\.(.*\.)?lock", re.DOTALL)
_SKEW_S = 5.0  # by which the clocks of a process and of a file system may differ


def temporary_name(path: Path) -> Path:
    """A new temporary name for ``path`` in the same folder; nobody can know it before."""
    return path.with_name(f"{_prefix(path)}{os.getpid()}.{secrets.token_hex(4)}")


def remove(path: Path) -> None:
    """Remove a file, a link (not what it names) or a folder; what is gone already is fine.

    Raises:
        OSError: it cannot be removed.
    """
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return


def remove_leftovers(*paths: Path) -> None:
    """Remove what ended processes of this machine have left under temporary names of ``paths``.

    Each folder is listed once. What cannot be listed or removed, such as another user's, stays.
    """
    prefixes: dict[Path, list[str]] = {}
    for path in paths:
        prefixes.setdefault(path.parent, []).append(_prefix(path))
    for folder, beginnings in prefixes.items():
        with contextlib.suppress(OSError):
            names = [name for name in os.listdir(folder) if writer_of(name)]
            wanted = tuple(beginnings) if names else ()
            for name in names:
                if name.startswith(wanted) and is_leftover(folder / name):
                    with contextlib.suppress(OSError):
                        remove(folder / name)


def find_leftovers(folder: Path, *, other_hosts_after_s: float) -> Iterator[tuple[Path, str]]:
    """All leftovers in a folder and below it, each with why it is one or why it must stay.

    Symbolic links to folders are not followed.

    Args:
        folder: where to look.
        other_hosts_after_s: the age in seconds from which a temporary file of another machine, of
            whose processes nothing is known here, counts as a leftover.

    Yields:
        The path, and the reason to keep it, which is empty for a leftover.
    """
    for place, folders, names in os.walk(folder):
        here = Path(place)
        temporary = {n for n in folders if writer_of(n)}
        folders[:] = sorted(set(folders) - temporary)
        for name in sorted({*names, *temporary}):
            path = here / name
            if writer_of(name):
                yield path, _reason_to_keep(path, other_hosts_after_s)
            elif _LOCK.fullmatch(name) and _is_empty(path):
                yield path, "a running process holds this lock" if _is_held(path) else ""


def _is_empty(path: Path) -> bool:
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(facts.st_mode) and facts.st_size == 0


def writer_of(name: str) -> tuple[str, int] | None:
    """The machine and the process that made a temporary name; None for any other name.

    Process 0 stands for this one in the names of older versions, which this one does not make.
    """
    found = _TEMPORARY.fullmatch(name)
    writer = found and _WRITER.fullmatch(found["rest"])
    if not writer:
        return None
    pid = int(writer["pid"])
    return writer["host"], 0 if pid == os.getpid() and not writer["random"] else pid


def is_temporary(name: str) -> bool:
    """Whether a name is that of a lock, or of what is not complete yet."""
    return writer_of(name) is not None or _LOCK.fullmatch(name) is not None


def is_leftover(path: Path) -> bool:
    """Whether a temporary name is of a process of this machine that has ended."""
    return _reason_to_keep(path, float("inf")) == ""


def _prefix(path: Path) -> str:
    """The beginning of the temporary names of ``path`` on this machine; cut, if it is too long."""
    tail = f".tmp.{os.uname().nodename}."
    room = LONGEST_NAME - len(os.fsencode(tail)) - len(".1234567890.01234567")
    return f".{os.fsdecode(os.fsencode(path.name)[:room])}{tail}"


def _reason_to_keep(path: Path, other_hosts_after_s: float) -> str:
    writer = writer_of(path.name)
    try:
        changed = path.lstat().st_mtime
    except FileNotFoundError:
        return "gone"
    if writer is None:
        return "no temporary name"
    host, pid = writer
    if host != os.uname().nodename:
        age = time.time() - changed
        return "" if age >= other_hosts_after_s else f"{host} may still write it"
    if pid and _is_running(pid, changed):
        return f"process {pid} still writes it"
    return "a running process has locked it" if _is_held(path) else ""


def _is_running(pid: int, written: float) -> bool:
    """Whether a process runs that can have made a file which was last changed at ``written``.

    A younger process with the same number is another one.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    started = _start_of(pid)
    return started is None or started <= written + _SKEW_S


def _start_of(pid: int) -> float | None:
    """When a process started, in seconds since 1970; None if that is not known."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        boot = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
        assert boot is not None
    except (OSError, ValueError, IndexError, AssertionError):
        return None
    return int(boot[1]) + ticks / os.sysconf("SC_CLK_TCK")


def _is_held(path: Path) -> bool:
    """Whether a process has locked a file or folder, or one cannot know since it is another's."""
    writes = 0 if path.is_dir() else os.O_RDWR
    try:
        descriptor = os.open(path, writes | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EPERM)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # the file system has no locks
        return False
    finally:
        os.close(descriptor)
    return False
