#!/usr/bin/env python3
"""Correct a Kaldi data directory: sort its files, remove duplicates, and make the files agree.

Usage: fix_data_dir.py [options] DIR

Every file is sorted as by LC_ALL=C sort. Byte order marks, carriage returns at the ends of lines,
empty lines, malformed lines and all but the first line of a key are dropped, and then all
utterances that any file lacks. utt2spk is the primary file; spk2utt is derived from it. Files that
change are replaced atomically, after all files were copied to DIR/.backup. Transcriptions are not
changed. Nothing is changed if utt2spk is malformed or not sorted by speaker, if a file is not a
text in UTF-8, if a name holds a character that cannot be seen or is spelt in two ways, or if no
utterance would remain.

e.g.: fix_data_dir.py data/train && validate_data_dir.py data/train

See also: validate_data_dir.py, subset_data_dir.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import log, run
from pipeline.data.data_dir import FILES, filter_tables, filter_unkeyed, recordings
from pipeline.data.text_files import Problems, scan
from pipeline.errors import DataDirError
from pipeline.files import write_texts
from pipeline.plain_text import MARK, check_spellings, decode_text, fault_of_name, shown

Tables = dict[str, dict[str, str]]


def main(
    directory: Annotated[str, Argument(metavar="DIR", help="data directory to correct")],
    spk_sort: Annotated[
        bool, Option("--spk-sort/--no-spk-sort", help="require utt2spk sorted by speaker, too")
    ] = True,
) -> int:
    path = Path(directory)
    if not path.is_dir():
        raise DataDirError(f"{path}: not a directory; give a data directory")
    tables = read_all(path)
    total = len(tables["utt2spk"])
    utts = common_utterances(path, tables)
    if spk_sort:
        check_speaker_order(path, {utt: tables["utt2spk"][utt] for utt in utts})
    texts = filter_tables(tables, utts)
    texts |= filter_unkeyed(path, set(utts), set(recordings(tables, utts)))
    replace(path, texts)
    kept = f"all {total} utterances" if len(utts) == total else f"{len(utts)} utterances"
    print(f"{Path(sys.argv[0]).name}: kept {kept} out of {total}")
    return 0


def read_all(path: Path) -> Tables:
    """The well-formed lines of all known files except spk2utt, as name -> key -> value."""
    tables: Tables = {}
    for name, kind in FILES.items():
        file = path / name
        if name == "spk2utt" or not (file.exists() or name == "utt2spk"):
            continue
        if file.exists():
            refuse_what_only_its_owner_can_correct(file)
        rows = scan(file, Problems())
        for key, row in rows.items():
            fault = fault_of_name(key)
            if fault:
                raise DataDirError(f"{file}:{row.line}: {fault}, in all files")
        bad = {key for key, row in rows.items() if not kind.good(row.value)}
        for key in sorted(bad)[:5]:
            what = f'{file}:{rows[key].line}: "{shown(key)}" is not of the form {kind.form}'
            if name == "utt2spk":
                raise DataDirError(f"{what}; correct it, because all other files depend on it")
            log.warning("%s; the line is dropped", what)
        tables[name] = {key: row.value for key, row in rows.items() if key not in bad}
    if not tables["utt2spk"]:
        raise DataDirError(
            f"{path / 'utt2spk'}: missing or empty; write it, because all other files depend on it"
        )
    names = (key for table in tables.values() for key in table)
    check_spellings(names, str(path), DataDirError, parts=False)
    return tables


def common_utterances(path: Path, tables: Tables) -> list[str]:
    """The sorted utterances that all files have, including their recordings and speakers."""
    utt2spk, utts = tables["utt2spk"], sorted(tables["utt2spk"])
    segments = tables.get("segments")
    for name in sorted(tables, key=lambda name: name != "segments"):
        kind, table = FILES[name].key, tables[name]
        if not FILES[name].complete:
            lost = set()
        elif kind == "spk":
            lost = {utt for utt in utts if utt2spk[utt] not in table}
        elif kind == "reco" and segments is not None:
            lost = {utt for utt in utts if segments[utt].split()[0] not in table}
        else:
            lost = {utt for utt in utts if utt not in table}
        if lost:
            log.warning("%s/%s lacks %d utterances, e.g. %s", path, name, len(lost), min(lost))
            utts = [utt for utt in utts if utt not in lost]
        if not utts:
            raise DataDirError(
                f"{path / name}: has no utterance in common with the other files; nothing was "
                "changed; compare the keys of the files"
            )
    return utts


def check_speaker_order(path: Path, utt2spk: dict[str, str]) -> None:
    """Raise DataDirError if the order of the utterances is not that of their speakers."""
    for (utt, spk), (next_utt, next_spk) in pairwise(utt2spk.items()):
        if spk > next_spk:
            what = (
                f'in the order of utterances, speaker "{spk}" of "{utt}" comes before "{next_spk}" '
                f'of "{next_utt}"'
            )
            fix = "sorting cannot correct that; begin each utterance's name with its speaker's"
            raise DataDirError(f"{path / 'utt2spk'}: {what}; {fix}")


def _without_blanks(data: bytes) -> bytes:
    """Without the blank that Kaldi's programs put at the end of lines of numbers."""
    return data.replace(b" \n", b"\n")


def replace(path: Path, texts: dict[str, str]) -> None:
    """Write the files that have changed, after copying all files to .backup."""
    files = {name: path / name for name in texts}
    changed = [
        name
        for name, file in files.items()
        if not file.exists() or _without_blanks(file.read_bytes()) != texts[name].encode()
    ]
    if not changed:
        return
    backup = path / ".backup"
    try:
        if backup.is_symlink():  # it would be followed, and what it names overwritten
            raise DataDirError(f"{backup}: a symbolic link, not a folder; remove it")
        backup.mkdir(exist_ok=True)
        for name, file in files.items():
            if file.exists():
                (backup / name).unlink(missing_ok=True)
                shutil.copy2(file, backup / name)
    except OSError as error:
        what = f"cannot copy the files: {error.strerror}; nothing was changed; correct that"
        raise DataDirError(f"{backup}: {what}") from error
    write_texts(path, {name: texts[name] for name in changed})
    log.info("rewrote %s; the old files are in %s", ", ".join(changed), backup)


def refuse_what_only_its_owner_can_correct(path: Path) -> None:
    """Raise DataDirError for a file that is not UTF-8, or with a carriage return inside a line."""
    data = path.read_bytes()
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    decode_text(data.removeprefix(MARK), str(path), DataDirError)


if __name__ == "__main__":
    run(main)
