"""A file of finished results, so that an interrupted decoding can be continued."""

import contextlib
import fcntl
import json
import logging
import os
from pathlib import Path
from typing import Any, Self, TextIO

log = logging.getLogger("pipeline")


class Journal:
    """A file with one line per utterance; its first line holds the model and options in use.

    Only one process writes it at a time. If a cluster restarts a job whose first run is still
    running, on a node that was believed to be lost, the second run waits for the first and takes
    over its results.

    Args:
        path: the file; None: nothing is kept.
        made_with: the model and options, which must be the same for the results to be of use.
        resume: take over the results in the file if they were made with the same model and
            options, and keep the file at the end; else start a new file, and remove it once all is
            decoded.
    """

    def __init__(self, path: Path | None, made_with: dict[str, Any], *, resume: bool) -> None:
        self.path, self.resume = path, resume
        self.finished: dict[str, Any] = {}
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self.stream = _locked(path)
        lines = _whole_lines(self.stream) if resume else []
        if lines and lines[0] != made_with:
            different = [k for k in made_with if lines[0].get(k) != made_with[k]]
            log.warning(
                "%s: made with another %s; starting again",
                path,
                " and ".join(different) or "version",
            )
            lines = []
        for line in lines[1:]:
            self.finished[line["utterance"]] = line
        self.holds_something = bool(self.finished)
        kept = [made_with, *self.finished.values()]
        self.stream.seek(0)
        self.stream.truncate()
        self.stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)

    def add(self, utt_id: str, result: dict[str, Any]) -> None:
        """Add the result of an utterance."""
        if self.path is not None:
            line = {"utterance": utt_id, **result}
            self.holds_something = True
            self.stream.write(json.dumps(line, ensure_ascii=False) + "\n")

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
    while True:
        stream = path.open("a+", encoding="utf-8", errors="replace", buffering=1)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("%s: another process writes this file; waiting for it to end", path)
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError:
            return stream
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                return stream
        stream.close()  # the other process has removed this file


def _whole_lines(stream: TextIO) -> list[dict[str, Any]]:
    """The complete lines, up to the first that an interrupted process has not finished."""
    stream.seek(0)
    found = []
    for line in stream.read().splitlines():
        try:
            found.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            break
    return found
