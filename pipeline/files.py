"""Files and folders that appear complete or not at all, and digests of their content."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import OutputError


@contextlib.contextmanager
def written(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, which is renamed to ``path`` if the block succeeds.

    The file is flushed to disk before it is renamed. If the block fails, an older file at ``path``
    stays as it was and the temporary file is removed. Temporary files of killed processes are
    removed as well.

    Raises:
        OutputError: the file cannot be written; names the file and the reason.
    """
    path = Path(path)
    temporary = path.with_name(f"{_prefix(path)}{os.getpid()}")
    try:
        _remove_leftovers(path)
        yield temporary
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch turns an OSError into a RuntimeError
        _remove(temporary)
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        what = f"{path}: cannot be written: {reason}; correct that, or write elsewhere"
        raise OutputError(what) from error
    except BaseException:
        _remove(temporary)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file atomically. Raises OutputError if it cannot be written."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file atomically. Raises OutputError if it cannot be written."""
    with written(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def replaced_directory(directory: Path) -> Iterator[Path]:
    """Yield a new, empty folder, which replaces ``directory`` if the block succeeds."""
    partial = directory.with_name(f".{directory.name}.partial")
    old = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    partial.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def file_digest(path: str | Path) -> str:
    """SHA-256 (hexadecimal) of the content of a file; a missing file counts as an empty one."""
    digest = hashlib.sha256()
    if Path(path).is_file():
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _prefix(path: Path) -> str:
    return f".{path.name}.tmp.{os.uname().nodename}."


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of ``path`` that ended processes of this machine have left."""
    prefix = _prefix(path)
    for name in os.listdir(path.parent):
        pid = name.removeprefix(prefix)
        if name != pid and pid.isdecimal() and not _is_running(int(pid)):
            _remove(path.with_name(name))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # the parent may not be a directory
        path.unlink(missing_ok=True)
