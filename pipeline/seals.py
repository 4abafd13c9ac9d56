"""Seals: digests that files carry of their own content, by which a damaged file is recognised.

A JSON object has its seal as the last entry, ``"sha256"``, of a file or of a line. Binary files
have it where their format has room for it. A file without a seal, made by an older version or by
hand, is not checked.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from pipeline.files import file_digest, write_text

KEY = "sha256"
DAMAGED = "its content is not what was written"
ON_PURPOSE = '(remove the entry "sha256" if you changed it on purpose)'
LARGEST = 1 << 30  # bytes of a JSON file that is read; ours are far smaller


class Damaged(ValueError):
    """The content of a file is not what was written; says so in words."""


_SEAL = re.compile(r'(.*),([ \n]*)"sha256": "([0-9a-f]{64})"([ \n]*\}\n?)', re.DOTALL)
_DIGEST = re.compile(r"[0-9a-f]{64}")


def digest_of(data: bytes) -> str:
    """SHA-256 (hexadecimal) of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sealed(text: str) -> str:
    """The text of a JSON object that is not empty, with the seal as its last entry."""
    body, brace, end = text.rpartition("}")
    lines = body.rstrip(" \n").rpartition("\n")
    blank = " " if not lines[1] else "\n" + " " * (len(lines[2]) - len(lines[2].lstrip(" ")))
    seal = digest_of(text.encode())
    return f'{body.rstrip()},{blank}"{KEY}": "{seal}"{body[len(body.rstrip()) :]}{brace}{end}'


def unsealed(text: str, *, required: bool = False, version: int | None = None) -> dict[str, Any]:
    """The entries of a JSON object without the seal, which is checked if there is one.

    Args:
        text: the object.
        required: whether a text without a seal counts as damaged.
        version: the ``format_version`` of the object; another one is not checked.

    Raises:
        ValueError: the text is not JSON.
        TypeError: it is not an object.
        Damaged: it is nested too deeply, or not what was written.
    """
    try:
        data = json.loads(text)
    except RecursionError:
        raise Damaged("it is nested too deeply") from None
    if not isinstance(data, dict):
        raise TypeError("it is not a JSON object")
    if version is not None and data.get("format_version", version) != version:
        return data
    last = next(reversed(data), "")
    ours = len(last) == len(KEY) and _DIGEST.fullmatch(str(data[last]))  # its name may be damaged
    if not required and last != KEY and not ours:
        return data
    parts = _SEAL.fullmatch(text)
    if parts is None or digest_of((parts[1] + parts[4]).encode()) != parts[3]:
        raise Damaged(f"{DAMAGED} {ON_PURPOSE}")
    del data[KEY]
    return data


def read_text(path: Path) -> str:
    """The text of a small file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8, or larger than any file that a command writes.
    """
    if (size := path.stat().st_size) > LARGEST:
        raise Damaged(f"it has {size} bytes, more than any such file")
    return path.read_text(encoding="utf-8")


# ---- files whose format has no room for a seal ---------------------------------------------------


def sidecar(path: Path) -> Path:
    """The hidden file beside ``path`` that holds its digest and its size."""
    return path.with_name(f".{path.name}.{KEY}")


def write_sidecar(path: Path) -> None:
    """Write the sidecar of a finished file. Raises OutputError if it cannot be written."""
    write_text(sidecar(path), f"{file_digest(path)} {path.stat().st_size}\n")


def check_sidecar(path: Path, remedy: str) -> None:
    """Compare a file with its sidecar, if it has one.

    A file of another size is another file, which somebody has put in its place on purpose.

    Args:
        path: the file.
        remedy: the command that makes it again.

    Raises:
        DataError: the file has the same size, but other bytes, or the sidecar is damaged.
    """
    seal = sidecar(path)
    try:
        digest, size = seal.read_text(encoding="ascii").split()
        same_size = int(size) == path.stat().st_size
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        digest, same_size = "", True
    if same_size != (digest == file_digest(path)):  # the sidecar may be damaged, too
        raise DataError(
            f"{path}: damaged, {DAMAGED} by the digest in {seal.name}; {remedy}, or remove "
            f"{seal.name} if you changed the file on purpose"
        )
