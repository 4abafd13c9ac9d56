"""What numba keeps of compiled kernels: with a digest, and only where no other user may write.

Kept kernels are code that is loaded and run. So a damaged file is as good as none, and the kernel
is compiled again; and what others may have written is not loaded at all.
"""

import hashlib
import logging
import os
import pickle
import stat
from functools import cache
from pathlib import Path
from typing import Any

from numba.core.caching import IndexDataCacheFile

from pipeline.errors import OutputError
from pipeline.files import written

log = logging.getLogger("pipeline")

OTHERS = stat.S_IWGRP | stat.S_IWOTH
DIGEST = hashlib.sha256().digest_size


class KeptFile(IndexDataCacheFile):
    """numba's files of one kernel, an index and one file for each type, each with a digest."""

    def load(self, key: Any) -> Any:
        """The compiled code, or None if it is not there, is damaged, or is of another kernel."""
        name = self._load_index().get(key)
        found = self._loaded(self._data_path(name)) if name is not None else None
        if found is not None and found[0] == self._about(key):
            return found[1]
        announce()
        return None

    def save(self, key: Any, data: Any) -> None:
        """Keep compiled code; where that fails, say so, and let each process compile for itself."""
        try:
            super().save(key, (self._about(key), data))
        except (OSError, OutputError) as error:
            log.warning("a compiled kernel is not kept: %s", error)

    def _about(self, key: Any) -> Any:
        return self._index_name, self._source_stamp, key

    def _load_index(self) -> Any:
        found = self._loaded(self._index_path)
        if found is None or found[:2] != (self._version, self._source_stamp):
            return {}
        return found[2]

    def _save_index(self, overloads: Any) -> None:
        self._saved(self._index_path, (self._version, self._source_stamp, overloads))

    def _save_data(self, name: str, data: Any) -> None:
        self._saved(self._data_path(name), data)

    def _saved(self, path: str, content: Any) -> None:
        data = self._dump(content)
        with written(path, mask=OTHERS) as stream:
            stream.write(data + hashlib.sha256(data).digest())

    def _loaded(self, path: str) -> Any:
        try:
            with open(path, "rb") as stream:
                if not is_own(os.fstat(stream.fileno())):
                    log.warning("%s: other users may have written it; compiling anew", path)
                    return None
                data = stream.read()
        except OSError:
            return None
        if hashlib.sha256(data[:-DIGEST]).digest() != data[-DIGEST:]:
            log.warning("%s: damaged; compiling anew", path)
            return None
        try:
            return pickle.loads(data[:-DIGEST])
        except Exception as error:  # of another version of a package
            log.debug("%s: %s; compiling anew", path, error)
            return None


@cache
def announce() -> None:
    """Say, once in a process, that a kernel is compiled, since a command then starts late."""
    log.info("compiling kernels for this processor, once: some seconds")


def is_own(facts: os.stat_result) -> bool:
    """Whether only this user or the system's administrator may have written a file or folder."""
    return facts.st_uid in (os.getuid(), 0) and not facts.st_mode & OTHERS


def fault(folder: Path, *, beside_sources: bool) -> str:
    """Why code in a folder cannot be trusted, with the remedy; empty if it can.

    Args:
        folder: the folder, which need not exist.
        beside_sources: whether who may write the folder above may write the sources, too, so that
            nothing is gained by looking at it.
    """
    for place in (folder,) if beside_sources else (folder, folder.parent):
        try:
            facts = place.stat()
        except OSError:
            continue
        if facts.st_uid not in (os.getuid(), 0):
            return f"{place} belongs to another user"
        sticky = place != folder and facts.st_mode & stat.S_ISVTX
        if facts.st_mode & OTHERS and not sticky:
            return f"other users may write {place}; run chmod go-w on it"
    return ""


def make_folder(folder: Path) -> None:
    """Make a folder that only this user may write, if there is none. Raises OSError."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(exist_ok=True)
        if place in (folder, folder.parent):
            place.chmod(stat.S_IMODE(place.stat().st_mode) & ~OTHERS)
