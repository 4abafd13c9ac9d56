#!/usr/bin/env python3
"""Make the data directories train, dev and test of the corpus speechocean762.

Usage: prepare_data.py [options] CORPUS DATA

e.g.: local/prepare_data.py /corpora/speechocean762 data

Each directory has wav.scp, text (the phones), text_words, utt2spk, spk2utt and spk2gender. The 39
phones are the canonical ones of the corpus in lower case, without stress and word position.
Utterances are named SPEAKER-UTTERANCE, so that they are sorted by speaker. dev has every tenth of
the sorted training speakers, beginning with the fifth. test is left out if the corpus lacks it.

See also: utils/validate_data_dir.py, train_tokenizer.py, compute_fbank_feats.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import re
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, log, run
from pipeline.data.data_dir import write_map
from pipeline.data.file_kinds import whole_number
from pipeline.errors import DataDirError, PhoneError
from pipeline.files import replaced_directory
from pipeline.plain_text import fault_of_name, read_lines, shown

CMU_PHONES = """
aa ae ah ao aw ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh
"""
PHONE = re.compile(r"([A-Z]+)[012]?(?:_[BIES])?")
SIZES = {"train": (112, 2240), "dev": (13, 260), "test": (125, 2500)}  # speakers, utterances

Table = dict[str, str]


def main(
    corpus: Annotated[
        Path, Argument(metavar="CORPUS", help="directory of the corpus as it is published")
    ],
    data: Annotated[Path, Argument(metavar="DATA", help="folder for the data directories")],
    allow_partial: Annotated[
        bool,
        Option(
            "--allow-partial/--no-allow-partial",
            help="accept a corpus with other numbers of speakers and utterances",
        ),
    ] = False,
) -> int:
    spoken = read_phones(corpus / "resource" / "text-phone")
    parts = split_train(read_part(corpus / "train", spoken))
    if (corpus / "test").is_dir():
        parts["test"] = read_part(corpus / "test", spoken)
    tally = Tally()
    for name, tables in parts.items():
        check_size(name, tables, allow_partial=allow_partial)
    for name, tables in parts.items():
        with replaced_directory(data / name) as partial:
            for file, table in tables.items():
                write_map(partial / file, table)
        count = len(tables["text"])
        log.info("%s: %d speakers, %d utterances", name, len(tables["spk2utt"]), count)
        tally.ok(count)
    return tally.finish(f"in {', '.join(parts)}")


def read_table(path: Path) -> Table:
    """The lines ``key rest`` of a file of the corpus, which need not be sorted."""
    table: Table = {}
    try:
        lines = read_lines(path, DataDirError)
    except OSError as error:
        raise DataDirError(f"{path}: {error.strerror}; give the unpacked corpus") from error
    for number, line in enumerate(lines, start=1):
        key, *rest = line.split(maxsplit=1) or [""]
        if not rest:
            raise DataDirError(f"{path}:{number}: expected a key and a value, not {shown(line)!r}")
        fault = fault_of_name(key)
        if fault:
            raise DataDirError(f"{path}:{number}: {fault}")
        if key in table:
            raise DataDirError(f"{path}:{number}: {key} occurs twice; keep one of the lines")
        table[key] = rest[0].strip()
    return table


def read_phones(path: Path) -> dict[str, list[list[str]]]:
    """Utterance -> the phones of each of its words, from lines ``UTTERANCE.WORD phones``."""
    rows: dict[str, dict[int, list[str]]] = {}
    for key, value in read_table(path).items():
        utterance, _, word = key.rpartition(".")
        if not utterance or whole_number(word) < 0:
            raise DataDirError(f"{path}: {key} is not of the form UTTERANCE.WORD; correct it")
        phones = [bare_phone(phone, f"{path}: {key}") for phone in value.split()]
        rows.setdefault(utterance, {})[int(word)] = phones
    return {utterance: [words[i] for i in sorted(words)] for utterance, words in rows.items()}


def bare_phone(phone: str, where: str) -> str:
    """``AH0_B`` -> ``ah``."""
    match = PHONE.fullmatch(phone)
    name = match[1].lower() if match else phone
    if name not in CMU_PHONES.split():
        raise PhoneError(
            f"{where}: unknown phone {phone!r}; correct it to one of the 39 phones of CMU"
        )
    return name


def read_part(part: Path, spoken: dict[str, list[list[str]]]) -> dict[str, Table]:
    """The tables of one part of the corpus, with the names of a data directory."""
    words, audio = read_table(part / "text"), read_table(part / "wav.scp")
    speakers, genders = read_table(part / "utt2spk"), read_table(part / "spk2gender")
    for name, table in (("wav.scp", audio), ("utt2spk", speakers)):
        strays = sorted(words.keys() ^ table.keys())
        if strays:
            raise DataDirError(
                f"{part}: not in both text and {name}: {some(strays)}; unpack the corpus again"
            )
    nameless = sorted(set(speakers.values()) - genders.keys())
    if nameless:
        raise DataDirError(
            f"{part / 'spk2gender'}: lacks {some(nameless)}; unpack the corpus again"
        )
    silent = [u for u, sentence in words.items() if len(spoken.get(u, [])) != len(sentence.split())]
    if silent:
        raise DataDirError(
            f"{part.parent / 'resource' / 'text-phone'}: does not have one line for each word of "
            f"{some(silent)}; unpack the corpus again"
        )
    paths = {utterance: (part.parent / rest).resolve() for utterance, rest in audio.items()}
    absent = [str(path) for path in paths.values() if not path.is_file()]
    if absent:
        raise DataDirError(
            f"{part / 'wav.scp'}: no such file: {some(absent)}; unpack the corpus again"
        )
    name = {utterance: f"{speakers[utterance]}-{utterance}" for utterance in words}
    phones = {u: " ".join(p for word in spoken[u] for p in word) for u in words}
    return data_tables(
        {name[u]: str(paths[u]) for u in words},
        {name[u]: phones[u] for u in words},
        {name[u]: words[u] for u in words},
        {name[u]: speakers[u] for u in words},
        genders,
    )


def data_tables(
    wav: Table, phones: Table, words: Table, utt2spk: Table, genders: Table
) -> dict[str, Table]:
    """The files of a data directory as name -> table, with spk2utt derived from utt2spk."""
    spk2utt: dict[str, list[str]] = {}
    for utterance in sorted(utt2spk):
        spk2utt.setdefault(utt2spk[utterance], []).append(utterance)
    return {
        "wav.scp": wav,
        "text": phones,
        "text_words": words,
        "utt2spk": utt2spk,
        "spk2utt": {speaker: " ".join(utterances) for speaker, utterances in spk2utt.items()},
        "spk2gender": {speaker: genders[speaker] for speaker in spk2utt},
    }


def split_train(tables: dict[str, Table]) -> dict[str, dict[str, Table]]:
    """Split into train and dev: every tenth sorted speaker, beginning with the fifth, is in dev."""
    speakers = sorted(tables["spk2utt"])
    dev = set(speakers[4::10])
    return {
        "train": of_speakers(tables, set(speakers) - dev),
        "dev": of_speakers(tables, dev),
    }


def of_speakers(tables: dict[str, Table], speakers: set[str]) -> dict[str, Table]:
    """The tables of the utterances of some speakers."""
    utterances = {u for u, speaker in tables["utt2spk"].items() if speaker in speakers}
    wanted = utterances | speakers
    return {
        file: {key: value for key, value in table.items() if key in wanted}
        for file, table in tables.items()
    }


def check_size(name: str, tables: dict[str, Table], *, allow_partial: bool) -> None:
    """Compare a part with that of the whole corpus.

    Raises:
        DataDirError: the sizes differ; with ``allow_partial``, a warning is logged instead.
    """
    size = len(tables["spk2utt"]), len(tables["text"])
    if size == SIZES[name]:
        return
    message = (
        f"{name}: {size[0]} speakers and {size[1]} utterances, not the {SIZES[name][0]} and "
        f"{SIZES[name][1]} of the whole corpus"
    )
    if not allow_partial or not size[1]:
        raise DataDirError(f"{message}; unpack the corpus again, or give --allow-partial")
    log.warning("%s", message)


def some(names: list[str]) -> str:
    """A list for a message: three names and the number of the others."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


if __name__ == "__main__":
    run(main)
