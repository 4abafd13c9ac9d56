#!/usr/bin/env python3
"""Join data directories into one.

Usage: combine_data.py DEST SRC SRC ...

A file that one of the sources lacks is left out, with a warning; conf is that of the first source.
The lines of stm and phones.ctm are joined, glm and frame_shift must be the same. Several sources
may have the same speaker or recording if their entries agree, but not the same utterance.

e.g.: combine_data.py data/train_all data/train_clean data/train_other

See also: subset_data_dir.py, fix_data_dir.py, validate_data_dir.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import os
from pathlib import Path
from typing import Annotated

from typer import Argument

from pipeline.cli import log, run
from pipeline.data.data_dir import (
    FILES,
    DataDir,
    filter_tables,
    filter_unkeyed,
    recordings,
    write_files,
)
from pipeline.data.file_kinds import UNKEYED
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
        having = next(part for part in parts if part.has("segments"))
        lacking = next(part for part in parts if not part.has("segments"))
        what = f"{having.path} has segments, but {lacking.path} has none"
        raise DataDirError(f"{destination}: {what}; {fix}")
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
        lacking = next(part for part in parts if not part.has("utt2spk"))
        raise DataDirError(f"{lacking.path}/utt2spk: no such file; give data directories")
    texts = filter_tables(tables, sorted(tables["utt2spk"]))
    texts |= unkeyed(parts, set(tables["utt2spk"]), set(recordings(tables, tables["utt2spk"])))
    conf = parts[0].path / "conf"
    if "feats.scp" in tables and not same_front_end(destination, parts):
        conf = Path(os.devnull)
    write_files(destination, texts, conf=conf)
    log.info("Done %d utterances, 0 failed: %s", len(tables["utt2spk"]), destination)
    return 0


def same_front_end(destination: str, parts: list[DataDir]) -> bool:
    """Whether all sources say how their features were made, which must be the same way.

    Raises:
        DataDirError: two sources were made by different options.
    """
    from pipeline.frontend.front_end import FrontEnd

    folders = [part.path / "conf" for part in parts if (part.path / "conf").is_dir()]
    made = [FrontEnd.load(folder) for folder in folders]
    for folder, front_end in zip(folders, made, strict=True):
        if front_end != made[0]:
            raise DataDirError(
                f"{destination}: {folders[0]} and {folder} say that the features were computed by "
                "different options; compute those of one source again"
            )
    if folders and len(folders) < len(parts):
        log.warning("conf is left out: only %d of %d sources have it", len(folders), len(parts))
    return len(folders) == len(parts)


def join(name: str, parts: list[DataDir]) -> dict[str, str]:
    """The lines of a file from all sources."""
    joined: dict[str, str] = {}
    origin: dict[str, DataDir] = {}
    for part in parts:
        for key, value in part.table(name).items():
            if key in joined and (FILES[name].key == "utt" or joined[key] != value):
                what = f'{origin[key].path / name} has "{key}" too'
                raise DataDirError(f"{part.path / name}: {what}; rename one of them")
            joined[key] = value
            origin[key] = part
    return joined


def unkeyed(parts: list[DataDir], utts: set[str], recos: set[str]) -> dict[str, str]:
    """The files that are not tables by key: joined, or the same in all sources."""
    found = [filter_unkeyed(part.path, utts, recos) for part in parts]
    texts = {}
    for name in UNKEYED:
        having = [part for part, own in zip(parts, found, strict=True) if name in own]
        own = [texts_of[name] for texts_of in found if name in texts_of]
        if name in ("stm", "phones.ctm") and having:
            if len(having) < len(parts):
                log.warning(
                    "%s is left out: only %d of %d sources have it", name, len(having), len(parts)
                )
            else:
                texts[name] = join_nist(own)
        elif having:
            other = next((p for p, text in zip(having, own, strict=True) if text != own[0]), None)
            if other is not None:
                what = f"differs from {having[0].path / name}"
                fix = "compute the features again" if name == "frame_shift" else "give one of them"
                raise DataDirError(f"{other.path / name}: {what}; {fix}")
            texts[name] = own[0]
    return texts


def join_nist(texts: list[str]) -> str:
    """The lines of stm or ctm files, the comments first, sorted by their first column."""
    lines = [line for text in texts for line in text.split("\n") if line.strip()]
    comments = dict.fromkeys(line for line in lines if line.startswith(";;"))
    rest = [line for line in lines if not line.startswith(";;")]
    joined = [*comments, *sorted(rest, key=lambda line: line.split()[:1])]
    return "".join(f"{line}\n" for line in joined)


if __name__ == "__main__":
    run(main)
