#!/usr/bin/env python3
"""Join data directories into one.

Usage: combine_data.py DEST SRC SRC ...

A file that one of the sources lacks is left out, with a warning. Several sources may have the same
speaker or recording if their entries agree, but not the same utterance.

e.g.: combine_data.py data/train_all data/train_clean data/train_other

See also: subset_data_dir.py, fix_data_dir.py, validate_data_dir.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument

from pipeline.cli import log, run
from pipeline.data.data_dir import FILES, DataDir, filter_tables, write_files
from pipeline.errors import DataDirError, UsageError


def main(
    destination: Annotated[str, Argument(metavar="DEST", help="data directory to write")],
    sources: Annotated[list[str], Argument(metavar="SRC ...", help="data directories to join")],
) -> int:
    if Path(destination).resolve() in [Path(source).resolve() for source in sources]:
        raise UsageError(
            f"{destination}: is both a source and the destination; give another destination"
        )
    parts = [DataDir(source) for source in sources]
    segmented = {part.has("segments") for part in parts}
    if len(segmented) > 1:
        fix = "add segments of whole recordings to the others, or extract the segments"
        raise DataDirError(f"{destination}: only some of the sources have segments; {fix}")
    tables = {}
    for name in FILES:
        having = [part for part in parts if part.has(name)]
        if having and len(having) < len(parts) and name != "spk2utt":
            log.warning(
                "%s is left out: only %d of %d sources have it", name, len(having), len(parts)
            )
        elif having and name != "spk2utt":
            tables[name] = join(name, parts)
    if "utt2spk" not in tables:
        raise DataDirError(f"{destination}: not all sources have utt2spk; give data directories")
    texts = filter_tables(tables, sorted(tables["utt2spk"]))
    shifts = {(p.path / "frame_shift").read_text() for p in parts if p.has("frame_shift")}
    if len(shifts) > 1:
        raise DataDirError(
            f"{destination}: the sources differ in frame_shift; compute the features again"
        )
    if shifts:
        texts["frame_shift"] = shifts.pop()
    write_files(destination, texts, conf=parts[0].path / "conf")
    log.info("Done %d utterances, 0 failed: %s", len(tables["utt2spk"]), destination)
    return 0


def join(name: str, parts: list[DataDir]) -> dict[str, str]:
    """The lines of a file from all sources."""
    joined: dict[str, str] = {}
    for part in parts:
        for key, value in part.table(name).items():
            if key in joined and (FILES[name].key == "utt" or joined[key] != value):
                raise DataDirError(
                    f'{part.path / name}: another source has "{key}" too; rename one of them'
                )
            joined[key] = value
    return joined


if __name__ == "__main__":
    run(main)
