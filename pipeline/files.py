"""Files and folders that appear complete or not at all, locks, and digests of content."""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import OutputError
from pipeline.leftovers import remove, remove_leftovers, temporary_name

log = logging.getLogger("pipeline")

WAITING = "another process writes here; waiting for its end"
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2
_HERE = -100  # AT_FDCWD


class NewFile:
    """A file under a temporary name beside its target, until ``commit`` gives it its name.

    The name cannot be known beforehand, no link is followed, and only the owner may read the file
    until it has its name; then it has the permissions of any new file. It is locked while it is
    written, so that nobody takes it for a leftover.

    Args:
        target: the name that it gets.
        mask: permissions that it never gets.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, target: Path, *, mask: int = 0) -> None:
        self.target = target
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.path = temporary_name(target)
        descriptor = os.open(self.path, flags, 0o666)
        self._mode = stat.S_IMODE(os.fstat(descriptor).st_mode) & ~mask  # as the umask gives it
        with contextlib.suppress(OSError):  # some file systems have neither modes nor locks
            os.fchmod(descriptor, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.stream: BinaryIO = os.fdopen(descriptor, "wb")

    def prepare(self) -> None:
        """Flush the file to disk. Raises OSError if the disk is full."""
        self.stream.flush()
        os.fsync(self.stream.fileno())

    def commit(self) -> None:
        """Give the file its name and close it. Raises OSError if that is not possible."""
        with contextlib.suppress(OSError):
            os.fchmod(self.stream.fileno(), self._mode)
        os.replace(self.path, self.target)
        self.stream.close()

    def abort(self) -> None:
        """Close and remove the file; never raises an error, which would hide the first one."""
        with contextlib.suppress(OSError, ValueError):
            self.stream.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def written(path: str | Path, *, previous: Path | None = None, mask: int = 0) -> Iterator[BinaryIO]:
    """Yield a stream to a temporary file, which gets the name ``path`` if the block succeeds.

    The file is flushed to disk before it is renamed. If the block fails, an older file at ``path``
    stays as it was and the temporary file is removed. Temporary files of killed processes are
    removed as well. A device or a pipe, such as ``/dev/null``, is written to as it is, and never
    replaced.

    Args:
        path: the file to write.
        previous: the name that an older file at ``path`` gets; None: it is replaced.
        mask: permissions that the file does not get, whatever the umask.

    Raises:
        OutputError: the file cannot be written; names the file and the reason.
    """
    path, new = Path(path), None
    if path.name in ("", ".."):
        raise OutputError(f"{path}: a folder; give the name of a file to write")
    if _is_device(path):
        with _device(path) as stream:
            yield stream
        return
    try:
        remove_leftovers(path)
        new = NewFile(path, mask=mask)
        yield new.stream
        new.prepare()
        if previous is not None and path.exists():
            os.replace(path, previous)
        new.commit()
    except (OSError, RuntimeError) as error:  # torch turns an OSError into a RuntimeError
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        what = f"{path}: cannot be written: {reason}; correct that, or write elsewhere"
        raise OutputError(what) from error
    finally:
        if new is not None and not new.stream.closed:
            new.abort()


def _is_device(path: Path) -> bool:
    """Whether a path names something else than a file or a folder; links of /dev are such."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or path.parent == Path("/dev")


@contextlib.contextmanager
def _device(path: Path) -> Iterator[BinaryIO]:
    try:
        with open(path, "wb") as stream:
            yield stream
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file atomically. Raises OutputError if it cannot be written."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file atomically. Raises OutputError if it cannot be written."""
    with written(path) as stream:
        stream.write(data)


def write_texts(folder: Path, texts: Mapping[str, str], *, without: Iterable[str] = ()) -> None:
    """Replace several files of a folder at nearly the same time, when all of them are on disk.

    Of two processes that do this in the same folder the second waits.

    Args:
        folder: where the files are.
        texts: name of a file -> its text, in the order in which they get their names.
        without: names of files to remove.

    Raises:
        OutputError: a file cannot be written; then none has changed.
    """
    made: list[NewFile] = []
    with locked(folder / ".lock"):
        try:
            remove_leftovers(*(folder / name for name in texts))
            for name, text in texts.items():
                made.append(NewFile(folder / name))
                made[-1].stream.write(text.encode())
                made[-1].prepare()
            for new in made:
                new.commit()
            for name in without:
                (folder / name).unlink(missing_ok=True)
        except OSError as error:
            what = f"cannot be written: {error.strerror}; correct that, or write elsewhere"
            raise OutputError(f"{folder}: {what}") from error
        finally:
            for new in made:
                if not new.stream.closed:
                    new.abort()


# ---- folders -------------------------------------------------------------------------------------


@contextlib.contextmanager
def new_directory(directory: Path) -> Iterator[Path]:
    """Yield a new, empty folder, which gets the name ``directory`` if the block succeeds.

    Only its owner may enter it until then. Folders that killed processes left are removed.

    Raises:
        OutputError: another process has made a folder of that name in the meantime.
        OSError: the folder cannot be made.
    """
    with _building(directory) as new:
        yield new.path
        new.open_up()
        try:
            new.path.rename(directory)
        except (FileExistsError, NotADirectoryError) as error:
            raise _made(directory) from error
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            raise _made(directory) from error


def _made(directory: Path) -> OutputError:
    what = "another process has made it in the meantime; remove it, or give another name"
    return OutputError(f"{directory}: {what}")


@contextlib.contextmanager
def replaced_directory(directory: Path) -> Iterator[Path]:
    """Yield a new, empty folder, which replaces ``directory`` if the block succeeds.

    The old folder and the new one change places in one step where the system can do that, so a
    reader finds either. Of two processes that replace the same folder the second waits.
    """
    _make_parents(directory)
    with (
        locked(directory.with_name(f".{directory.name}.lock"), where=directory),
        _building(directory) as new,
    ):
        yield new.path
        new.open_up()
        if not os.path.lexists(directory):
            new.path.rename(directory)
        elif not _exchanged(new.path, directory):
            discard(directory)
            new.path.rename(directory)


def _make_parents(directory: Path) -> None:
    if not os.path.lexists(directory.parent):  # else the error for a file there says nothing
        directory.parent.mkdir(parents=True, exist_ok=True)


class _NewFolder:
    def __init__(self, target: Path) -> None:
        self.path = temporary_name(target)
        self.path.mkdir()
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self.descriptor = os.open(self.path, flags)
        self._mode = stat.S_IMODE(os.fstat(self.descriptor).st_mode)  # as the umask gives it
        with contextlib.suppress(OSError):  # some file systems have neither modes nor locks
            os.fchmod(self.descriptor, 0o700)
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def open_up(self) -> None:
        """Give the folder the permissions of any new one."""
        with contextlib.suppress(OSError):
            os.fchmod(self.descriptor, self._mode)


@contextlib.contextmanager
def _building(directory: Path) -> Iterator[_NewFolder]:
    _make_parents(directory)
    remove_leftovers(directory)
    new = _NewFolder(directory)
    try:
        yield new
    finally:
        with contextlib.suppress(OSError):
            remove(new.path)  # what failed, or what was replaced
        os.close(new.descriptor)


def _exchanged(one: Path, other: Path) -> bool:
    """Let two paths change places; False if the system cannot do that."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    done = call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)
    return bool(done == 0)


def discard(directory: Path) -> None:
    """Remove a folder, a file or a link, which is gone at once, not file by file."""
    away = temporary_name(directory)
    with contextlib.suppress(FileNotFoundError):
        directory.rename(away)
        remove(away)


# ---- locks ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(path: Path, *, where: object = None, waiting: str = WAITING) -> Iterator[int | None]:
    """Hold a lock, a file at ``path``; wait while another process holds it.

    The lock ends with the process, and holds across machines where the file system's locks do. The
    file is removed at the end. Where it cannot be made, or the file system has no locks, nothing is
    locked.

    Args:
        path: the file.
        where: what is locked, for the warning that says why nothing happens.
        waiting: the rest of this warning.

    Yields:
        The descriptor of the file, which a child process may inherit; None if there is no lock.

    Raises:
        OutputError: a symbolic link has the name of the lock.
    """
    descriptor = _lock(path, f"{path.parent if where is None else where}: {waiting}")
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(descriptor)


def _lock(path: Path, waiting: str) -> int | None:
    while True:
        try:
            descriptor = _opened(path)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OutputError(f"{path}: a symbolic link, not a lock; remove it") from error
            log.debug("%s: no lock: %s", path, error.strerror)
            return None
        if hold(descriptor, path, waiting):
            return descriptor
        os.close(descriptor)


def _opened(path: Path) -> int:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)  # NFS locks only such files
    except PermissionError:
        return os.open(path, os.O_RDONLY | flags)  # another user's


def hold(descriptor: int, path: Path, waiting: str) -> bool:
    """Lock an open file, and wait until that is possible.

    Returns:
        False if another process has removed the file in the meantime, so that it must be made
        again.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("%s", waiting)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        log.debug("%s: this file system has no locks", path)
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


# ---- content -------------------------------------------------------------------------------------


def file_digest(path: str | Path) -> str:
    """SHA-256 (hexadecimal) of the content of a file; a missing file counts as an empty one."""
    digest = hashlib.sha256()
    if Path(path).is_file():
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
