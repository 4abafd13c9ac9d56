"""Writing ``metrics.jsonl``, which has one line per epoch."""

import json
import logging
from pathlib import Path
from typing import Any

from pipeline.files import write_text
from pipeline.seals import sealed, unsealed

log = logging.getLogger("pipeline")


def append_metrics(path: Path, line: dict[str, Any]) -> None:
    """Append the line of an epoch; it replaces that of an epoch which is repeated after a crash.

    A damaged line is left out, with a warning.

    Raises:
        OutputError: the file cannot be written.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    kept = []
    for number, old in enumerate(text.splitlines(), start=1):
        epoch = _epoch_of(old)
        if epoch is None:
            log.warning("%s:%d: damaged; this line is left out", path, number)
        elif epoch < line["epoch"]:
            kept.append(old)
    write_text(path, "\n".join([*kept, sealed(json.dumps(line))]) + "\n")


def _epoch_of(line: str) -> float | None:
    try:
        return float(unsealed(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return None
