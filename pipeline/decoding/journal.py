"""What a decoding has finished, on disk as it goes, so that one that was stopped can go on."""

import contextlib
import fcntl
import json
import logging
import os
from pathlib import Path
from typing import Any, Self, TextIO

log = logging.getLogger("pipeline")


class Journal:
    """A file of one line an utterance, the first line saying with what it was made.

    One process writes it at a time: where a cluster has started a job anew while the first try of
    it still runs, on a node believed to be lost, the second waits, and takes over what the first
    has finished.

    Args:
        path: the file; None: nothing is kept.
        made_with: what must be the same for its lines to be of use.
        resume: take over what is there, if it was made with the same, and leave it there at the
            end too; else it is begun anew, and removed after a decoding that came to its end.
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
                "%s: made with another %s; begun anew", path, " and ".join(different) or "version"
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
        """Keep what came of an utterance."""
        if self.path is not None:
            line = {"utterance": utt_id, **result}
            self.holds_something = True
            self.stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        """Close it; after a decoding that came to its end it is not needed any more."""
        if self.path is not None:
            if (failure[0] is None and not self.resume) or not self.holds_something:
                self.path.unlink(missing_ok=True)
            self.stream.close()  # and with it the lock


def _locked(path: Path) -> TextIO:
    """The file, open and locked, where the file system can lock; waits for who has it."""
    while True:
        stream = path.open("a+", encoding="utf-8", errors="replace", buffering=1)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("%s: another process writes it; waiting until that ends", path)
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError:
            return stream
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                return stream
        stream.close()  # removed meanwhile by who had it


def _whole_lines(stream: TextIO) -> list[dict[str, Any]]:
    """The lines up to the first that a stopped process left half."""
    stream.seek(0)
    found = []
    for line in stream.read().splitlines():
        try:
            found.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            break
    return found
