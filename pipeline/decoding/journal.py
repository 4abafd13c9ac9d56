"""What a decoding has finished, on disk as it goes, so that one that was stopped can go on."""

import json
import logging
from pathlib import Path
from typing import Any, Self

log = logging.getLogger("pipeline")


class Journal:
    """A file of one line an utterance, the first line saying with what it was made.

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
        lines = _whole_lines(path) if resume else []
        if lines and lines[0] != made_with:
            different = [k for k in made_with if lines[0].get(k) != made_with[k]]
            log.warning(
                "%s: made with another %s; begun anew", path, " and ".join(different) or "version"
            )
            lines = []
        for line in lines[1:]:
            self.finished[line["utterance"]] = line
        self.holds_something = bool(self.finished)
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [made_with, *self.finished.values()]
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))
        self.stream = path.open("a", encoding="utf-8", buffering=1)

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
            self.stream.close()
            if (failure[0] is None and not self.resume) or not self.holds_something:
                self.path.unlink(missing_ok=True)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The lines up to the first that a stopped process left half."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            break
    return found
