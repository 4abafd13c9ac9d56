#!/usr/bin/env python3
"""Make the data directories of a folder of Mandarin recordings.

Usage: prepare_data.py [options] CORPUS DATA

CORPUS holds a table and a folder of recordings for each part of it, of which at least one is there:

  sentences.tsv  sentences/ID.mp3   words.tsv  words/ID.mp3   speakers.tsv

A line of a table has an ID, the Chinese characters and, if it is known, the pinyin with tone
numbers, between tabs. Punctuation is not spoken and is taken off. Recordings may be MP3, WAV, FLAC,
Opus or Ogg. speakers.tsv, if it is there, has the ID, the speaker and the set (train, dev or test)
of each recording. Without it each part is taken for the speech of one speaker, and the text decides
on the set: by the SHA-256 of its characters 10 % of the items are test and 5 % dev. So neither
other items nor missing files change the set of an item, and no text is in two sets.

DATA gets train, dev and for each part test_PART, with wav.scp, text, text_char, text_pinyin,
utt2spk and spk2utt. text is text_char, the characters without spaces, or by --units=pinyin
text_pinyin, a syllable with its tone for each character. Where the table has no pinyin, it is that
of pypinyin's dictionary. --only=NAME puts all items of each part into NAME_PART, e.g. to evaluate
on another folder.

e.g.: prepare_data.py /corpora/mandarin data
e.g.: prepare_data.py --units=pinyin --only=eval /corpora/more data

See also: make_demo_corpus.py, count_unseen.py, utils/validate_data_dir.py, train_tokenizer.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, log, run
from pipeline.data.data_dir import invert, write_map
from pipeline.errors import DataDirError, UsageError
from pipeline.files import discard, replaced_directory
from pipeline.plain_text import fault_of_name, read_lines, shown
from pipeline.text.mandarin import characters, syllables, to_pinyin

PARTS = ("sentences", "words")
SETS = ("train", "dev", "test")
ENDINGS = ("mp3", "wav", "flac", "opus", "ogg")
DEV, TEST, OF = 1, 2, 20  # shares of dev and of test
SHOWN = 5  # number of faults in a message


class Units(StrEnum):
    """What the tokens are."""

    CHAR = "char"
    PINYIN = "pinyin"


@dataclass(frozen=True)
class Item:
    """A recording and its text."""

    utterance: str
    part: str
    speaker: str
    set: str
    wav: Path
    characters: str
    pinyin: str


def main(
    corpus: Annotated[Path, Argument(metavar="CORPUS", help="folder of tables and recordings")],
    data: Annotated[Path, Argument(metavar="DATA", help="folder for the data directories")],
    units: Annotated[Units, Option(help="units that text holds: char or pinyin")] = Units.CHAR,
    only: Annotated[
        str, Option(metavar="NAME", help="put all items into NAME_PART; empty: split them")
    ] = "",
    allow_partial: Annotated[
        bool,
        Option(
            "--allow-partial/--no-allow-partial",
            help="leave out items without a recording, and accept sets without items",
        ),
    ] = False,
) -> int:
    if only and (only in SETS or not re.fullmatch("[A-Za-z0-9-]+", only)):
        raise UsageError(f"--only: {only!r} must be a name of letters, digits and -, not a set's")
    items = read_corpus(corpus, allow_partial=allow_partial)
    groups: dict[str, list[Item]] = {} if only else {"train": [], "dev": []}
    for item in items:
        groups.setdefault(group_of(item, only), []).append(item)
    check_sets(groups, corpus, allow_partial=allow_partial)
    tally = Tally()
    for name, found in groups.items():
        write_directory(data / name, found, units)
        count = sum(len(item.characters) for item in found)
        log.info("%s: %d utterances, %d characters", name, len(found), count)
        tally.ok(len(found))
    for part in PARTS:
        if not only and f"test_{part}" not in groups:
            discard(data / f"test_{part}")  # of another corpus
    return tally.finish(f"in {', '.join(groups)}")


def read_corpus(corpus: Path, *, allow_partial: bool) -> list[Item]:
    """The items of all parts, sorted by their names.

    Raises:
        DataDirError: there is no table, or one is empty or wrong, or recordings are missing.
        PhoneError: a text is not Mandarin, or its pinyin does not fit.
    """
    tables = [part for part in PARTS if (corpus / f"{part}.tsv").exists()]
    if not tables:
        named = " nor ".join(f"{part}.tsv" for part in PARTS)
        raise DataDirError(f"{corpus}: has neither {named}; give a folder with one of these tables")
    speakers = read_speakers(corpus / "speakers.tsv")
    items, silent = [], []
    for part in tables:
        recordings = find_recordings(corpus / part)
        for key, text, pinyin in read_table(corpus / f"{part}.tsv"):
            if key not in recordings:
                silent.append(f"{corpus / part / key}.mp3")
                continue
            if speakers and key not in speakers:
                raise DataDirError(f"{corpus / 'speakers.tsv'}: lacks {key}; add a line for it")
            speaker, of_set = speakers.get(key, (part, set_of(text)))
            name = key if key.startswith(f"{speaker}-") else f"{speaker}-{key}"
            items.append(Item(name, part, speaker, of_set, recordings[key], text, pinyin))
    report_silent(silent, allow_partial=allow_partial)
    return sorted(items, key=lambda item: item.utterance.encode())


def report_silent(silent: list[str], *, allow_partial: bool) -> None:
    """Say which recordings are missing."""
    if not silent:
        return
    more = f" and {len(silent) - SHOWN} more" if len(silent) > SHOWN else ""
    message = f"no such recording: {', '.join(silent[:SHOWN])}{more}"
    if not allow_partial:
        what = "put them there, or give --allow-partial to leave these items out"
        raise DataDirError(f"{message} ({', '.join(ENDINGS)} are read); {what}")
    log.warning("%s; left out", message)


def read_fields(path: Path, least: int, most: int, columns: str) -> Iterator[tuple[str, list[str]]]:
    """The place and the fields of each line of a table, whose first ones are different names."""
    try:
        lines = read_lines(path, DataDirError)
    except OSError as error:
        raise DataDirError(f"{path}: cannot read this table: {error.strerror}") from error
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        where, fields = f"{path}:{number}", [field.strip() for field in line.split("\t")]
        key = fields[0]
        if not least <= len(fields) <= most or not key:
            raise DataDirError(f"{where}: expected {columns} between tabs, not {shown(line)!r}")
        fault = fault_of_name(key)
        if fault or re.search(r"[\s/]", key):
            raise DataDirError(f"{where}: {fault or f'the ID {shown(key)!r} has a blank or a /'}")
        if key in seen:
            raise DataDirError(f"{where}: {key} occurs twice; keep one of the lines")
        seen.add(key)
        yield where, fields
    if not seen:
        raise DataDirError(f"{path}: is empty; give lines with {columns}")


def read_table(path: Path) -> Iterator[tuple[str, str, str]]:
    """The ID, the characters and the pinyin of each line."""
    for where, (key, text, *rest) in read_fields(path, 2, 3, "an ID, characters and maybe pinyin"):
        spoken = characters(text, where)
        if rest and rest[0]:
            pinyin = syllables(rest[0], len(spoken), where)
        else:
            pinyin = to_pinyin(text, where)
        yield key, spoken, " ".join(pinyin)


def read_speakers(path: Path) -> dict[str, tuple[str, str]]:
    """The speaker and the set of each ID; empty if there is no such file."""
    found: dict[str, tuple[str, str]] = {}
    if not path.exists():
        return found
    for where, (key, speaker, of_set) in read_fields(path, 3, 3, "an ID, a speaker and a set"):
        if of_set not in SETS:
            raise DataDirError(f"{where}: the set {shown(of_set)!r} is not train, dev or test")
        if not speaker or fault_of_name(speaker) or re.search(r"\s", speaker):
            raise DataDirError(f"{where}: {shown(speaker)!r} is not the name of a speaker")
        found[key] = speaker, of_set
    return found


def find_recordings(folder: Path) -> dict[str, Path]:
    """ID -> recording, for all recordings of a folder."""
    if not folder.is_dir():
        raise DataDirError(f"{folder}: no such folder, which should hold ID.mp3")
    found: dict[str, Path] = {}
    for path in sorted(folder.resolve().iterdir()):
        if path.suffix[1:].lower() in ENDINGS and found.setdefault(path.stem, path) != path:
            raise DataDirError(f"{path}: {found[path.stem].name} is beside it; keep one of the two")
    return found


def set_of(text: str) -> str:
    """The set of a text, which only its characters determine."""
    place = int(hashlib.sha256(text.encode()).hexdigest(), 16) % OF
    return "dev" if place < DEV else "test" if place < DEV + TEST else "train"


def group_of(item: Item, only: str) -> str:
    """The name of the data directory of an item."""
    if only:
        return f"{only}_{item.part}"
    return f"test_{item.part}" if item.set == "test" else item.set


def check_sets(groups: dict[str, list[Item]], corpus: Path, *, allow_partial: bool) -> None:
    """Raise DataDirError if a set has no items; with ``allow_partial`` only if all have none."""
    empty = [name for name, items in groups.items() if not items]
    if not any(name.startswith("test_") for name in groups) and "train" in groups:
        empty.append("test")
    if not any(groups.values()) or (empty and not allow_partial):
        what = "give more items, --only, or --allow-partial"
        raise DataDirError(f"{corpus}: no items for {', '.join(empty)}; {what}")
    for name in empty:
        log.warning("%s: no items; left out", name)
        groups.pop(name, None)


def write_directory(directory: Path, items: list[Item], units: Units) -> None:
    """Write a data directory, which replaces an older one."""
    text = {item.utterance: item.characters for item in items}
    pinyin = {item.utterance: item.pinyin for item in items}
    twice = [name for name, n in Counter(item.utterance for item in items).items() if n > 1]
    if twice:
        raise DataDirError(f"{directory}: two items are called {twice[0]}; rename one ID")
    utt2spk = {item.utterance: item.speaker for item in items}
    with replaced_directory(directory) as partial:
        write_map(partial / "wav.scp", {item.utterance: str(item.wav) for item in items})
        write_map(partial / "text", pinyin if units is Units.PINYIN else text)
        write_map(partial / "text_char", text)
        write_map(partial / "text_pinyin", pinyin)
        write_map(partial / "utt2spk", utt2spk)
        write_map(partial / "spk2utt", {s: " ".join(u) for s, u in invert(utt2spk).items()})


if __name__ == "__main__":
    run(main)
