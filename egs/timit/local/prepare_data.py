#!/usr/bin/env python3
"""Make the Kaldi data directories train, dev and test of TIMIT, with the standard split.

Usage: prepare_data.py [options] CORPUS DATA_DIR

CORPUS holds TRAIN and TEST as distributed by the LDC, at any depth, in upper or lower case. A .WAV
file may be SPHERE or RIFF; a file X.WAV.wav beside X.WAV is read only if X.WAV cannot be read.
Nothing is written to CORPUS. train has all speakers under TRAIN; dev (50 speakers) and test (the 24
speakers of the core test set) have the speakers under TEST that conf/dev_spk.list and
conf/test_spk.list name. The SA sentences, which all speakers share, are left out.

DATA_DIR/{train,dev,test} get wav.scp, text (61 phones), utt2spk, spk2utt, spk2gender, spk2dialect,
utt2dur and phones.ctm (the times of the phones). Existing directories are replaced.

The program fails unless it finds 3696, 400 and 192 utterances, and 15057 and 7215 phones to score
in dev and test, because other results cannot be compared with published ones. With --allow-partial
it continues, and it reads the lists of speakers from DOC of the corpus if they exist there.

e.g.: prepare_data.py /corpora/TIMIT data
e.g.: prepare_data.py --allow-partial data/demo_corpus data/demo

See also: make_demo_corpus.py, utils/validate_data_dir.py, map_phones.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, progress, run
from pipeline.data.data_dir import invert, write_map
from pipeline.data.file_kinds import whole_number
from pipeline.errors import AudioError, DataError, UsageError
from pipeline.files import replaced_directory
from pipeline.frontend.audio import audio_duration_s
from pipeline.plain_text import read_lines, shown
from pipeline.text.phones import PhoneMap, load_phone_map

log = logging.getLogger("pipeline")

RATE = 16000  # sample rate in Hz; the times in .PHN files are in samples
CONF = Path(__file__).resolve().parents[1] / "conf"
PARTS = ("train", "dev", "test")
SPEAKERS = {"train": 462, "dev": 50, "test": 24}
SENTENCES = 8  # sentences of each speaker, without the two SA sentences
SCORED_PHONES = {"dev": 15057, "test": 7215}  # folded to 39 phones, without q
SHOWN = 5  # number of faults of one kind in a message

# TRAIN|TEST / DRn / SPEAKER / SENTENCE . WAV|PHN|WAV.wav, in a path relative to the corpus's root
_FILE = re.compile(
    r"(?:.*/)?(train|test)/dr(\d)/([fm][a-z0-9]{4})/(s[aix]\d+)\.(wav|phn|wav\.wav)", re.IGNORECASE
)
_LIST = re.compile(r"(?:.*/)?doc/(dev|test)_spk\.list", re.IGNORECASE)


@dataclass
class Utterance:
    """A sentence of a speaker, with its files in the corpus.

    Attributes:
        utt_id: the name, such as ``faks0_sx43``.
        speaker: the speaker, such as ``faks0``.
        top: the top directory in the corpus, train or test.
        dialect: the number of the DR directory, 1 to 8.
        directory: the directory of the files.
        wavs: the recordings, of which the first readable one is used.
        phn: the file with the times of the phones.
    """

    utt_id: str
    speaker: str
    top: str
    dialect: str
    directory: Path
    wavs: list[Path] = field(default_factory=list)
    phn: Path | None = None


Phones = list[tuple[int, int, str]]  # start and end in samples, phone


def main(
    corpus: Annotated[
        Path, Argument(metavar="CORPUS", help="directory of TIMIT, with TRAIN and TEST")
    ],
    data_dir: Annotated[Path, Argument(metavar="DATA_DIR", help="folder for the data directories")],
    allow_partial: Annotated[
        bool,
        Option("--allow-partial/--no-allow-partial", help="accept a corpus with other counts"),
    ] = False,
    include_sa: Annotated[
        bool, Option("--include-sa/--no-include-sa", help="keep the SA sentences")
    ] = False,
) -> int:
    _check_places(corpus, data_dir)
    utterances, lists = scan_corpus(corpus)
    if not include_sa:
        utterances = [u for u in utterances if not u.utt_id.partition("_")[2].startswith("sa")]
    parts = split(utterances, _speaker_lists(lists if allow_partial else {}))
    used = [utterance for part in PARTS for utterance in parts[part]]
    _check_pairs(used)
    phone_map = load_phone_map(CONF / "phones.60-48-39.map")
    known = phone_map.folds(to=61, from_set=61).keys()
    phones = {u.utt_id: read_phn(u.phn, known) for u in used if u.phn is not None}
    _check_counts(parts, phones, phone_map, include_sa=include_sa, allow_partial=allow_partial)
    tally = Tally()
    wavs = {u.utt_id: _readable(u.wavs) for u in progress(used, total=len(used), what="files")}
    for part in PARTS:
        _write_part(data_dir / part, parts[part], phones, wavs)
        tally.ok(len(parts[part]))
    return tally.finish(", ".join(f"{part} {len(parts[part])}" for part in PARTS))


def _check_places(corpus: Path, data_dir: Path) -> None:
    """Check the directories, so that nothing is written into the corpus or over other files."""
    if not corpus.is_dir():
        raise DataError(f"{corpus}: no such directory; give the one that holds TRAIN and TEST")
    source, target = corpus.resolve(), data_dir.resolve()
    inside = target.is_relative_to(source)
    if inside or any(source.is_relative_to(target / part) for part in PARTS):
        raise UsageError(f"{data_dir}: would change the corpus {corpus}; give another DATA_DIR")
    for part in PARTS:
        old = data_dir / part
        if old.exists() and not (old / "wav.scp").exists() and any(old.iterdir()):
            raise UsageError(f"{old}: exists and is not a data directory; give another DATA_DIR")


# ---- reading the corpus ------------------------------------------------------------------------


def scan_corpus(corpus: Path) -> tuple[list[Utterance], dict[str, Path]]:
    """All utterances, sorted, and the lists of speakers in DOC of the corpus, by part.

    Only paths relative to the root are used, so that the name of the root has no influence.

    Raises:
        DataError: there are no utterances, or one occurs twice.
    """
    found: dict[str, Utterance] = {}
    lists: dict[str, Path] = {}
    for path in sorted(_files(corpus)):
        listed, match = _LIST.fullmatch(path), _FILE.fullmatch(path)
        if listed:
            lists[listed[1].lower()] = corpus / path
        elif match:
            _add_file(found, corpus / path, *(group.lower() for group in match.groups()))
    if not found:
        raise DataError(
            f"{corpus}: has no TRAIN/DRn/SPEAKER/SENTENCE.WAV or .PHN; give the directory of TIMIT"
        )
    return [found[utt_id] for utt_id in sorted(found)], lists


def _files(corpus: Path) -> Iterable[str]:
    for directory, _, names in os.walk(corpus, followlinks=True):
        inside = os.path.relpath(directory, corpus).replace(os.sep, "/")
        for name in names:
            yield f"{inside}/{name}"


def _add_file(
    found: dict[str, Utterance],
    path: Path,
    top: str,
    dialect: str,
    speaker: str,
    name: str,
    kind: str,
) -> None:
    utt_id = f"{speaker}_{name}"
    utterance = found.setdefault(utt_id, Utterance(utt_id, speaker, top, dialect, path.parent))
    if utterance.directory != path.parent or (kind == "phn" and utterance.phn is not None):
        other = utterance.phn or utterance.wavs[0]
        raise DataError(f"{path}: {utt_id} is also in {other}; keep one of the copies")
    if kind == "phn":
        utterance.phn = path
    elif kind == "wav":
        utterance.wavs.insert(0, path)
    else:
        utterance.wavs.append(path)


def read_phn(path: Path, known: Iterable[str]) -> Phones:
    """Read the phones of a .PHN file and their times in samples.

    Raises:
        DataError: a line does not have three fields, times are not ascending numbers, a phone is
            not in ``known``, or there are no phones. Names the file and the line.
    """
    phones: Phones = []
    for number, line in enumerate(read_lines(path, DataError), start=1):
        fields = line.split()
        start, end = [*map(whole_number, fields[:2]), -1, -1][:2]
        if len(fields) != 3 or start < 0 or end < 0:
            what = f"expected START END PHONE in samples, not {shown(line)!r}"
            raise DataError(f"{path}:{number}: {what}; correct it")
        phone = fields[2]
        if end < start or start < (phones[-1][0] if phones else 0):
            raise DataError(f"{path}:{number}: the times do not ascend: {line!r}; correct it")
        if phone not in known:
            what = f'unknown phone "{shown(phone)}"; correct it to one of the 61 phones'
            raise DataError(f"{path}:{number}: {what}")
        phones.append((start, end, phone))
    if not phones:
        raise DataError(f"{path}:1: has no phones; restore the file from the corpus")
    return phones


def _readable(wavs: list[Path]) -> tuple[Path, float]:
    """The first readable recording, and its duration in seconds."""
    for wav in wavs[:-1]:
        try:
            return wav, audio_duration_s(str(wav))
        except AudioError as error:
            log.warning("%s; using %s instead", error, wavs[wavs.index(wav) + 1])
    return wavs[-1], audio_duration_s(str(wavs[-1]))


# ---- the split ---------------------------------------------------------------------------------


def _speaker_lists(of_corpus: dict[str, Path]) -> dict[str, set[str]]:
    """The dev and test speakers, from the corpus if it has both lists, otherwise from conf."""
    paths = {part: CONF / f"{part}_spk.list" for part in ("dev", "test")}
    if of_corpus.keys() >= paths.keys():
        paths = of_corpus
        log.info("dev and test speakers: %s, %s", paths["dev"], paths["test"])
    return {
        part: {name for line in read_lines(path, DataError) for name in line.lower().split()}
        for part, path in paths.items()
    }


def split(
    utterances: Iterable[Utterance], lists: dict[str, set[str]]
) -> dict[str, list[Utterance]]:
    """The parts: train has all speakers of TRAIN, dev and test the listed speakers of TEST."""
    parts: dict[str, list[Utterance]] = {part: [] for part in PARTS}
    for utterance in utterances:
        if utterance.top == "train":
            parts["train"].append(utterance)
        for part, speakers in lists.items():
            if utterance.top == "test" and utterance.speaker in speakers:
                parts[part].append(utterance)
    missing = sorted(set.union(*lists.values()) - {u.speaker for p in parts for u in parts[p]})
    if missing:
        log.warning("these dev or test speakers are not under TEST: %s", _some(missing))
    return parts


def _check_pairs(utterances: list[Utterance]) -> None:
    """Raise DataError if a recording has no phones, or phones have no recording."""
    without_phn = [str(u.wavs[0]) for u in utterances if u.phn is None]
    without_wav = [str(u.phn) for u in utterances if not u.wavs]
    faults = []
    if without_phn:
        faults.append(f"{_some(without_phn)}: the .PHN file is missing")
    if without_wav:
        faults.append(f"{_some(without_wav)}: the .WAV file is missing")
    if faults:
        raise DataError("; ".join(faults) + "; restore the files from the corpus")


def _check_counts(
    parts: dict[str, list[Utterance]],
    phones: dict[str, Phones],
    phone_map: PhoneMap,
    *,
    include_sa: bool,
    allow_partial: bool,
) -> None:
    """Compare with the published counts.

    Raises:
        DataError: the counts differ (with ``allow_partial``, a warning is logged instead), or a
        part
            has no utterances.
    """
    faults = []
    each = SENTENCES + 2 * include_sa
    for part, utterances in parts.items():
        per_speaker = Counter(u.speaker for u in utterances)
        scored = sum(
            len(phone_map.fold([phone for _, _, phone in phones[u.utt_id]])) for u in utterances
        )
        found = [
            ("utterances", len(utterances), SPEAKERS[part] * each),
            ("speakers", len(per_speaker), SPEAKERS[part]),
            ("scored phones", scored, scored if include_sa else SCORED_PHONES.get(part, scored)),
        ]
        faults += [f"{part} has {n} {what}, not {usual}" for what, n, usual in found if n != usual]
        odd = [f"{spk} {count}" for spk, count in sorted(per_speaker.items()) if count != each]
        if odd:
            faults.append(f"speakers of {part} without {each} utterances: {_some(odd)}")
    if faults and not allow_partial:
        raise DataError(
            f"this is not the whole of TIMIT: {'; '.join(faults)}; restore it, or give "
            "--allow-partial"
        )
    if faults:
        log.warning("this is not the whole of TIMIT: %s", "; ".join(faults))
    for part, utterances in parts.items():
        if not utterances:
            raise DataError(
                f"{part}: has no utterances; list the speakers of this corpus in DOC/dev_spk.list "
                "and DOC/test_spk.list"
            )


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


# ---- writing -----------------------------------------------------------------------------------


def _write_part(
    directory: Path,
    utterances: list[Utterance],
    phones: dict[str, Phones],
    wavs: dict[str, tuple[Path, float]],
) -> None:
    """Write a data directory under another name, then replace the old one."""
    with replaced_directory(directory) as partial:
        for name, table in _tables(utterances, phones, wavs).items():
            write_map(partial / name, table)
        (partial / "phones.ctm").write_text(_ctm(utterances, phones), encoding="ascii")


def _tables(
    utterances: list[Utterance],
    phones: dict[str, Phones],
    wavs: dict[str, tuple[Path, float]],
) -> dict[str, dict[str, str]]:
    utt2spk = {u.utt_id: u.speaker for u in utterances}
    return {
        "wav.scp": {u: os.path.abspath(wavs[u][0]) for u in utt2spk},
        "text": {u: " ".join(phone for _, _, phone in phones[u]) for u in utt2spk},
        "utt2spk": utt2spk,
        "spk2utt": {spk: " ".join(utts) for spk, utts in invert(utt2spk).items()},
        "spk2gender": {u.speaker: u.speaker[0] for u in utterances},
        "spk2dialect": {u.speaker: f"dr{u.dialect}" for u in utterances},
        "utt2dur": {u: f"{wavs[u][1]:.5f}" for u in utt2spk},
    }


def _ctm(utterances: list[Utterance], phones: dict[str, Phones]) -> str:
    """The lines of a CTM file: utterance, channel, start and duration in seconds, phone."""
    return "".join(
        f"{u.utt_id} 1 {start / RATE:.6f} {(end - start) / RATE:.6f} {phone}\n"
        for u in utterances
        for start, end, phone in phones[u.utt_id]
    )


if __name__ == "__main__":
    run(main)
