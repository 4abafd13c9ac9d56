"""Files and folders that appear whole or not at all, and digests of what they hold."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import OutputError


@contextlib.contextmanager
def written(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; the file gets its own when the block ends well.

    It is brought to the disk before it is renamed. After a failure the file that stood under
    ``path`` is still there, and nothing else; what a killed process left is removed.

    Raises:
        OutputError: it cannot be written, with the file's name and the reason.
    """
    path = Path(path)
    temporary = path.with_name(f"{_prefix(path)}{os.getpid()}")
    try:
        _remove_leftovers(path)
        yield temporary
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch makes the second of the first
        _remove(temporary)
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        what = f"{path}: cannot be written: {reason}; mend that, or write elsewhere"
        raise OutputError(what) from error
    except BaseException:
        _remove(temporary)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 under the name ``path`` when it is whole. Raises OutputError if it cannot."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file under the name ``path`` when it is whole. Raises OutputError if it cannot."""
    with written(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def replaced_directory(directory: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of ``directory`` if the block ends well."""
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
    """SHA-256 (hex) of what a file holds; that of nothing where there is no file."""
    digest = hashlib.sha256()
    if Path(path).is_file():
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _prefix(path: Path) -> str:
    return f".{path.name}.tmp.{os.uname().nodename}."


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of ``path`` whose process, on this machine, is gone."""
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
    with contextlib.suppress(OSError):  # its parent may be no directory
        path.unlink(missing_ok=True)
