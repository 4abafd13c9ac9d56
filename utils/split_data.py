#!/usr/bin/env python3
"""Split a data directory into parts for parallel jobs: DIR/splitN/1 to DIR/splitN/N.

Usage: split_data.py [options] DIR N

The parts keep the order of the files, so that joining them gives the original. A speaker stays in
one part, unless --per-utt is given, which writes DIR/splitNutt. The parts have about equal totals
of utt2num_frames, utt2dur, segments or the sizes of the recordings in wav.scp, whichever exists
first; if no lengths are known, they have equal numbers of utterances. Nothing is done if the parts
already exist and DIR has not changed.

e.g.: split_data.py data/train 10
e.g.: split_data.py --per-utt data/test 40

See also: run.py, validate_data_dir.py, subset_data_dir.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import os
from collections.abc import Mapping
from itertools import accumulate, chain
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import log, run
from pipeline.data.data_dir import DataDir, write_subset
from pipeline.errors import DataDirError
from pipeline.files import locked, replaced_directory

STAMP = ".source"  # file with the content hash of the directory that was split


def cut(weights: list[float], parts: int) -> list[tuple[int, int]]:
    """Cut a sequence into ``parts`` contiguous, non-empty ranges of about equal weight."""
    sums = list(accumulate(weights))
    ends: list[int] = []
    end = 0
    for part in range(1, parts):
        goal = sums[-1] * part / parts
        first, last = end + 1, len(weights) - (parts - part)
        end = first
        while end < last and abs(sums[end] - goal) < abs(sums[end - 1] - goal):
            end += 1
        ends.append(end)
    return list(zip([0, *ends], [*ends, len(weights)], strict=True))


def main(
    directory: Annotated[str, Argument(metavar="DIR", help="data directory to split")],
    parts: Annotated[int, Argument(metavar="N", help="number of parts", min=1)],
    per_utt: Annotated[
        bool, Option("--per-utt/--per-spk", help="split speakers, too; writes DIR/splitNutt")
    ] = False,
) -> int:
    data = DataDir(directory)
    groups = [[utt] for utt in data.utt_ids] if per_utt else list(data.spk2utt.values())
    if parts > len(groups):
        have = f"{len(groups)} {'utterances' if per_utt else 'speakers'}"
        advice = "fewer parts" if per_utt else "--per-utt, or fewer parts"
        raise DataDirError(f"{directory}: {have} cannot be split into {parts} parts; use {advice}")
    if not per_utt and list(chain(*groups)) != data.utt_ids:
        advice = "begin each utterance's name with its speaker's, or use --per-utt"
        raise DataDirError(f"{directory}/utt2spk: not sorted by speaker; {advice}")
    target = data.path / f"split{parts}{'utt' if per_utt else ''}"
    if target.is_file():
        raise DataDirError(f"{target}: a file has the name of the folder to write; move it away")
    with locked(data.path / f".{target.name}.split.lock", where=data.path):
        stamp = data.content_hash()
        if is_current(target, parts, stamp):
            log.info("%s is up to date", target)
            return 0
        of_utt = utterance_weights(data)
        lacking = next((utt for utt in data.utt_ids if utt not in of_utt), None)
        if lacking is not None:
            name = "segments" if data.has("segments") else "wav.scp"
            what = f'lacks "{lacking}", which utt2spk has; run utils/fix_data_dir.py {directory}'
            raise DataDirError(f"{directory}/{name}: {what}")
        ranges = cut([sum(of_utt[utt] for utt in group) for group in groups], parts)
        write_parts(data, [list(chain(*groups[a:b])) for a, b in ranges], target, stamp)
    log.info("Done %d utterances, 0 failed, in %d parts: %s", len(of_utt), parts, target)
    return 0


def utterance_weights(data: DataDir) -> Mapping[str, float]:
    """Utterance -> its weight: frames, seconds or bytes; 1 if none of these is known."""
    for name in ("utt2num_frames", "utt2dur"):
        if data.has(name):
            weights: Mapping[str, float] = getattr(data, name)
            if weights.keys() >= data.utt2spk.keys():
                return weights
            log.warning("%s/%s lacks utterances and is not used for balancing", data.path, name)
    if data.has("segments") and all(p.end_s > p.start_s for p in data.segments.values()):
        return {utt: part.end_s - part.start_s for utt, part in data.segments.items()}
    sizes = recording_sizes(data)
    if sizes is not None:
        return sizes
    log.warning("%s: has no utt2num_frames or utt2dur; parts are balanced by count", data.path)
    return dict.fromkeys(data.utt_ids, 1.0)


def recording_sizes(data: DataDir) -> Mapping[str, float] | None:
    """Utterance -> size of its recording in bytes; None if a recording is not a readable file."""
    if not data.has("wav.scp") or data.wav_scp.keys() != data.utt2spk.keys():
        return None
    try:
        return {utt: float(os.stat(name).st_size) for utt, name in data.wav_scp.items()}
    except OSError:
        return None


def is_current(target: Path, parts: int, stamp: str) -> bool:
    """Whether ``target`` holds all parts of the same files."""
    try:
        same = (target / STAMP).read_text() == stamp
    except OSError:
        return False
    return same and all((target / str(n + 1) / "utt2spk").exists() for n in range(parts))


def write_parts(data: DataDir, utts_of_part: list[list[str]], target: Path, stamp: str) -> None:
    """Write all parts under a temporary name, then replace older ones."""
    with replaced_directory(target) as folder:
        for number, utts in enumerate(utts_of_part, start=1):
            write_subset(data, utts, folder / str(number))
        (folder / STAMP).write_text(stamp)


if __name__ == "__main__":
    run(main)
