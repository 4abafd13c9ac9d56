#!/usr/bin/env python3
"""Make a data directory of some utterances of another.

Usage: subset_data_dir.py [--first|--last|--shortest|--speakers|--per-spk] [options] SRC N DEST
       subset_data_dir.py --utt-list=FILE SRC DEST
       subset_data_dir.py --spk-list=FILE SRC DEST

Without an option, N utterances are drawn at random; the same --seed draws the same utterances.

e.g.: subset_data_dir.py --first data/train 100 data/train_100
e.g.: subset_data_dir.py --utt-list=dev_ids data/train data/dev

See also: split_data.py, fix_data_dir.py, combine_data.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import log, run
from pipeline.data.data_dir import DataDir, write_subset
from pipeline.data.file_kinds import whole_number
from pipeline.errors import DataDirError, UsageError
from pipeline.plain_text import read_lines


def main(
    arguments: Annotated[
        list[str],
        Argument(metavar="SRC [N] DEST", help="directory, number of utterances, new directory"),
    ],
    first: Annotated[bool, Option("--first/--no-first", help="take the first N")] = False,
    last: Annotated[bool, Option("--last/--no-last", help="take the last N")] = False,
    shortest: Annotated[
        bool, Option("--shortest/--no-shortest", help="take the N with the fewest frames")
    ] = False,
    speakers: Annotated[
        bool,
        Option("--speakers/--no-speakers", help="take all of random speakers, at least N in all"),
    ] = False,
    per_spk: Annotated[
        bool, Option("--per-spk/--no-per-spk", help="take N of each speaker, evenly spaced")
    ] = False,
    utt_list: Annotated[
        str, Option(help="file with an utterance to keep first on each line; empty: none")
    ] = "",
    spk_list: Annotated[
        str, Option(help="file with a speaker to keep first on each line; empty: none")
    ] = "",
    seed: Annotated[int, Option(help="seed of the random choice")] = 0,
) -> int:
    modes = {"first": first, "last": last, "shortest": shortest, "speakers": speakers}
    modes |= {"per-spk": per_spk, "utt-list": bool(utt_list), "spk-list": bool(spk_list)}
    chosen = [name for name, on in modes.items() if on]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other; give only one")
    listed = utt_list or spk_list
    if len(arguments) != (2 if listed else 3):
        raise UsageError(f"expected {'SRC DEST' if listed else 'SRC N DEST'}, not {arguments}")
    data, destination = DataDir(arguments[0]), Path(arguments[-1])
    if destination.resolve() == data.path.resolve():
        raise UsageError(
            f"{destination}: is both the source and the destination; give another destination"
        )
    if listed:
        utts = choose_listed(data, Path(listed), of_speakers=bool(spk_list))
    else:
        utts = choose(data, how_many(arguments[1]), chosen[0] if chosen else "random", seed)
    write_subset(data, utts, destination)
    log.info("Done %d utterances of %d, 0 failed: %s", len(utts), len(data.utt_ids), destination)
    return 0


def how_many(text: str) -> int:
    """The argument N, a whole number above 0."""
    if whole_number(text) < 1:
        raise UsageError(f"N must be a whole number above 0, not {text!r}")
    return int(text)


def choose(data: DataDir, count: int, mode: str, seed: int) -> Sequence[str]:
    """Choose ``count`` utterances by ``mode``, which is the name of an option or "random"."""
    utts, rng = data.utt_ids, random.Random(seed)
    if mode == "per-spk":
        return [utt for ids in data.spk2utt.values() for utt in evenly(ids, count)]
    if count > len(utts):
        raise DataDirError(
            f"{data.path}: has only {len(utts)} utterances, not {count}; choose a smaller N"
        )
    if mode == "first":
        return utts[:count]
    if mode == "last":
        return utts[-count:]
    if mode == "shortest":
        name = "utt2num_frames" if data.has("utt2num_frames") else "utt2dur"
        lengths = {utt: float(value) for utt, value in data.table(name).items()}
        known = [utt for utt in utts if utt in lengths]
        return sorted(sorted(known, key=lambda utt: lengths[utt])[:count])
    if mode == "speakers":
        return whole_speakers(data, count, rng)
    return sorted(rng.sample(utts, count))


def evenly(items: list[str], count: int) -> list[str]:
    """``count`` evenly spaced items; all of them if there are fewer."""
    if count >= len(items):
        return items
    return [items[i * len(items) // count] for i in range(count)]


def whole_speakers(data: DataDir, count: int, rng: random.Random) -> list[str]:
    """The utterances of random speakers, until there are at least ``count``."""
    utts: list[str] = []
    for spk_id in rng.sample(data.spk_ids, len(data.spk_ids)):
        if len(utts) >= count:
            break
        utts += data.spk2utt[spk_id]
    return sorted(utts)


def choose_listed(data: DataDir, path: Path, *, of_speakers: bool) -> list[str]:
    """The utterances that the lines of a file begin with, or all utterances of such speakers."""
    lines = read_lines(path, DataDirError)
    wanted = {line.split()[0]: number for number, line in enumerate(lines, 1) if line.strip()}
    known = data.spk2utt if of_speakers else data.utt2spk
    unknown = [name for name in wanted if name not in known]
    if unknown:
        what = f'"{unknown[0]}" is not in {data.path}'
        log.warning("%s:%d: %s (%d such)", path, wanted[unknown[0]], what, len(unknown))
    utts = [u for u, spk in data.utt2spk.items() if (spk if of_speakers else u) in wanted]
    if not utts:
        raise DataDirError(f"{path}: has no name that is in {data.path}; write one name per line")
    return utts


if __name__ == "__main__":
    run(main)
