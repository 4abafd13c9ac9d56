"""A file of finished results, so that an interrupted decoding can be continued."""

import contextlib
import errno
import json
import logging
import os
from pathlib import Path
from typing import Any, Self, TextIO

from pipeline.errors import OutputError
from pipeline.files import hold
from pipeline.seals import sealed, unsealed

log = logging.getLogger("pipeline")

FIELDS = {"utterance": str, "input": int, "frames": int, "hyp": str, "nbest": list, "tokens": list}
WAITING = "another process writes this file; waiting for it to end"
LONGEST = 1 << 26  # characters of a line; the result of an utterance is far shorter


class Journal:
    """A file with one line per utterance; its first line holds the model and options in use.

    Only one process writes it at a time. If a cluster restarts a job whose first run is still
    running, on a node that was believed to be lost, the second run waits for the first and takes
    over its results. Each line carries a digest of itself; a damaged one is left out, with a
    warning, so that its utterance is decoded again.

    Args:
        path: the file; None: nothing is kept.
        made_with: the model and options, which must be the same for the results to be of use.
        resume: take over the results in the file if they were made with the same model and
            options, and keep the file at the end; else start a new file, and remove it once all is
            decoded.

    Raises:
        OutputError: the file is a symbolic link or cannot be opened.
    """

    def __init__(self, path: Path | None, made_with: dict[str, Any], *, resume: bool) -> None:
        self.path, self.resume = path, resume
        self.finished: dict[str, Any] = {}
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self.stream = _locked(path)
        lines, whole = _read(self.stream, path) if resume else ([], False)
        if lines and lines[0] != made_with:
            head = lines[0] or {}
            different = [k for k in made_with if head.get(k) != made_with[k]]
            log.warning(
                "%s: made with another %s; starting again",
                path,
                " and ".join(different) if head and different else "version",
            )
            lines, whole = [], False
        for line in lines[1:]:
            if line is not None:
                self.finished[line["utterance"]] = line
        self.holds_something = bool(self.finished)
        if not (lines and whole):
            self.stream.seek(0)
            self.stream.truncate()
            for kept in (made_with, *self.finished.values()):
                self._write(kept)

    def add(self, utt_id: str, result: dict[str, Any]) -> None:
        """Add the result of an utterance."""
        if self.path is not None:
            self.holds_something = True
            self._write({"utterance": utt_id, **result})

    def _write(self, line: dict[str, Any]) -> None:
        self.stream.write(sealed(json.dumps(line, ensure_ascii=False)) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        """Close the file, and remove it if it is not needed any more."""
        if self.path is not None:
            if (failure[0] is None and not self.resume) or not self.holds_something:
                self.path.unlink(missing_ok=True)
            self.stream.close()  # releases the lock


def _locked(path: Path) -> TextIO:
    """Open the file and lock it if the file system has locks; waits while another has the lock."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            link = error.errno == errno.ELOOP
            what = "a symbolic link; remove it" if link else f"cannot be written: {error.strerror}"
            raise OutputError(f"{path}: {what}") from error
        if hold(descriptor, path, f"{path}: {WAITING}"):
            return os.fdopen(
                descriptor, "a+", encoding="utf-8", errors="replace", buffering=1, newline="\n"
            )
        os.close(descriptor)  # the other process has removed this file


def _read(stream: TextIO, path: Path) -> tuple[list[dict[str, Any] | None], bool]:
    """The lines, None for a damaged one, and whether all of them are whole.

    The last line may lack its end, since a process was killed while it wrote it; it is left out.
    """
    stream.seek(0)
    found: list[dict[str, Any] | None] = []
    while text := stream.readline(LONGEST):
        if not text.endswith("\n"):
            if len(text) == LONGEST:
                log.warning("%s:%d: damaged; left out with all that follows", path, len(found) + 1)
            return found, False
        found.append(_result(text, first=not found))
        if found[-1] is None and len(found) > 1:
            log.warning("%s:%d: damaged; its utterance is decoded again", path, len(found))
    return found, None not in found


def _result(text: str, *, first: bool) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError, TypeError):
        line = unsealed(text.removesuffix("\n"), required=True)
        if first or all(type(line.get(name)) is kind for name, kind in FIELDS.items()):
            return line
    return None
