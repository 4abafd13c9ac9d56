"""Kaldi data directories: reading them and selecting from them.

``utt2spk`` is the primary file; ``spk2utt`` is derived from it. Paths in ``wav.scp`` and the other
``.scp`` files are relative to the directory in which a program is started. Checks and file formats
are re-exported from here.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from pipeline.data.checks import validate, validation_warnings
from pipeline.data.file_kinds import FILES, UNKEYED, FileKind, Segment, invert
from pipeline.data.text_files import format_map, read_map, write_map
from pipeline.errors import DataDirError
from pipeline.files import discard, new_directory, replaced_directory, write_texts
from pipeline.plain_text import decode_text, shown

__all__ = [
    "FILES",
    "DataDir",
    "FileKind",
    "Segment",
    "filter_nist",
    "filter_tables",
    "filter_unkeyed",
    "invert",
    "read_map",
    "recordings",
    "validate",
    "validation_warnings",
    "write_files",
    "write_map",
    "write_subset",
]


class DataDir:
    """A data directory, whose files are read at their first use and checked strictly.

    A file that is missing or malformed raises ``DataDirError``, which names the file and the line;
    ``has`` tells whether a file exists. Dictionaries are in the order of the file, which is sorted.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise DataDirError(f"{path}: not a directory; give a data directory")
        self._tables: dict[str, dict[str, str]] = {}

    def __fspath__(self) -> str:
        return str(self.path)

    def has(self, name: str) -> bool:
        """Whether the file ``name`` exists."""
        return (self.path / name).is_file()

    def table(self, name: str) -> dict[str, str]:
        """The file ``name`` as key -> rest of the line; its form is checked if FILES has it."""
        if name not in self._tables:
            path, kind = self.path / name, FILES.get(name)
            table = read_map(path)
            for number, (key, value) in enumerate(table.items(), start=1):
                if kind is not None and not kind.good(value):
                    row = shown(f"{key} {value}")
                    what = f'"{row}" is not of the form {kind.form}; correct it'
                    raise DataDirError(f"{path}:{number}: {what}")
            self._tables[name] = table
        return self._tables[name]

    @property
    def wav_scp(self) -> dict[str, str]:
        """Recording -> file, or command that ends in ``|``."""
        return self.table("wav.scp")

    @property
    def text(self) -> dict[str, str]:
        """Utterance -> transcription."""
        return self.table("text")

    @property
    def utt2spk(self) -> dict[str, str]:
        """Utterance -> speaker."""
        return self.table("utt2spk")

    @property
    def feats_scp(self) -> dict[str, str]:
        """Utterance -> ark:offset."""
        return self.table("feats.scp")

    @property
    def cmvn_scp(self) -> dict[str, str]:
        """Speaker -> ark:offset."""
        return self.table("cmvn.scp")

    @property
    def spk2gender(self) -> dict[str, str]:
        """Speaker -> m or f."""
        return self.table("spk2gender")

    @cached_property
    def spk2utt(self) -> dict[str, list[str]]:
        """Speaker -> utterances, derived from utt2spk."""
        return invert(self.utt2spk)

    @cached_property
    def segments(self) -> dict[str, Segment]:
        """Utterance -> its part of a recording."""
        parts = {utt: value.split() for utt, value in self.table("segments").items()}
        return {utt: Segment(p[0], float(p[1]), float(p[2])) for utt, p in parts.items()}

    @cached_property
    def utt2dur(self) -> dict[str, float]:
        """Utterance -> duration in seconds."""
        return {utt: float(value) for utt, value in self.table("utt2dur").items()}

    @cached_property
    def utt2num_frames(self) -> dict[str, int]:
        """Utterance -> number of frames."""
        return {utt: int(value) for utt, value in self.table("utt2num_frames").items()}

    @property
    def utt_ids(self) -> list[str]:
        """All utterances, sorted."""
        return list(self.utt2spk)

    @property
    def spk_ids(self) -> list[str]:
        """All speakers, in the order of their utterances."""
        return list(self.spk2utt)

    def content_hash(self) -> str:
        """SHA-256 (hexadecimal) of the names and contents of its files and of those in ``conf``.

        Hidden files, other folders and times of change have no influence.
        """
        digest = hashlib.sha256()
        for path in sorted([*self.path.iterdir(), *self.path.glob("conf/*")], key=os.fsencode):
            if path.is_file() and not path.name.startswith("."):
                data, name = path.read_bytes(), os.fsencode(path.relative_to(self.path))
                digest.update(name + b"\0%d\0" % len(data))
                digest.update(data)
        return digest.hexdigest()


def write_subset(source: DataDir, utt_ids: Iterable[str], destination: str | Path) -> None:
    """Make ``destination`` a data directory of some utterances of ``source``.

    Every known file of the source is filtered. Tables by speaker or recording keep what the
    utterances need; so do the tables of other groups of speakers, ``spk2NAME``. ``stm`` and
    ``phones.ctm`` are filtered by their first column; ``glm``, ``frame_shift`` and ``conf`` are
    copied. See ``write_files`` for how the files are written.

    Raises:
        DataDirError: the source is malformed or lacks an utterance, or writing fails.
    """
    write_files(destination, _subset_texts(source, sorted(utt_ids)), conf=source.path / "conf")


def write_files(destination: str | Path, texts: Mapping[str, str], *, conf: Path) -> None:
    """Write the files of a data directory, and a copy of the folder ``conf`` if it exists.

    A new directory appears under its name when it is complete. In an existing directory, each known
    file is replaced, or removed if ``texts`` lacks it, and so is the folder ``conf``.

    Args:
        destination: the data directory to write.
        texts: name of a file -> its text.
        conf: a folder with options files.

    Raises:
        DataDirError: the directory cannot be written; a new one is then not left behind.
    """
    destination = Path(destination)
    try:
        if destination.exists():
            write_texts(destination, texts, without={*FILES, *UNKEYED}.difference(texts))
            _replace_folder(destination / "conf", conf)
        else:
            _make_directory(destination, texts, conf)
    except OSError as error:
        what = f"cannot be written: {error.strerror}; correct that, or write elsewhere"
        raise DataDirError(f"{destination}: {what}") from error


def _replace_folder(target: Path, source: Path) -> None:
    """Make ``target`` a copy of ``source``, without files of an older one, or remove it."""
    if target.exists() and source.exists() and target.samefile(source):
        return
    if not source.is_dir():
        discard(target)
        return
    with replaced_directory(target) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)


def _make_directory(destination: Path, texts: Mapping[str, str], conf: Path) -> None:
    with new_directory(destination) as folder:
        for name, text in texts.items():
            (folder / name).write_bytes(text.encode())
        if conf.is_dir():
            shutil.copytree(conf, folder / "conf")


def _subset_texts(source: DataDir, utts: list[str]) -> dict[str, str]:
    """The files of a data directory of these utterances, as name -> text."""
    if unknown := [utt for utt in utts if utt not in source.utt2spk]:
        what = f'{len(unknown)} utterances are not in utt2spk, first "{unknown[0]}"'
        raise DataDirError(f"{source.path}: {what}; run utils/fix_data_dir.py on the directory")
    tables = {name: source.table(name) for name in FILES if source.has(name) and name != "spk2utt"}
    texts = filter_tables(tables, utts)
    return texts | filter_unkeyed(source.path, set(utts), set(recordings(tables, utts)))


def recordings(tables: Mapping[str, Mapping[str, str]], utts: Iterable[str]) -> list[str]:
    """The recordings that hold these utterances, sorted.

    Without ``segments`` every utterance is a recording of the same name.
    """
    if "segments" not in tables:
        return sorted(utts)
    segments = tables["segments"]
    return sorted({segments[utt].split()[0] for utt in utts if utt in segments})


def filter_tables(tables: Mapping[str, Mapping[str, str]], utts: list[str]) -> dict[str, str]:
    """All files, and spk2utt, with only the lines that ``utts`` need, as name -> text.

    Args:
        tables: name of a file -> key -> value; must include ``utt2spk``.
        utts: sorted utterances, all in ``utt2spk``.
    """
    utt2spk = {utt: tables["utt2spk"][utt] for utt in utts}
    spks = sorted(set(utt2spk.values()))
    kept = {"utt": utts, "spk": spks, "reco": recordings(tables, utts)}
    texts = {}
    for name, table in tables.items():
        keys = kept[FILES[name].key]
        texts[name] = format_map({key: table[key] for key in keys if key in table})
    texts["spk2utt"] = format_map({s: " ".join(ids) for s, ids in invert(utt2spk).items()})
    return texts


def filter_unkeyed(directory: Path, utts: set[str], recos: set[str]) -> dict[str, str]:
    """The files of a data directory that are not tables by key, as name -> text.

    Of ``stm`` the lines of these recordings are kept, and of ``phones.ctm`` those of these
    utterances or recordings.

    Raises:
        DataDirError: a file is not a text in UTF-8; names it.
    """
    texts = {}
    for name in UNKEYED:
        if (path := directory / name).is_file():
            data = path.read_bytes()
            if b"\n" not in data:  # lines end in carriage returns alone, by some old editors
                data = data.replace(b"\r", b"\n")
            texts[name] = decode_text(data, str(path), DataDirError)
    for name, kept in (("stm", recos), ("phones.ctm", utts | recos)):
        if name in texts:
            texts[name] = filter_nist(texts[name], kept)
    return texts


def filter_nist(text: str, kept: set[str]) -> str:
    """The lines of an stm or ctm file that begin with these names, and all ``;;`` lines."""
    lines = text.split("\n")
    return "\n".join(
        line
        for number, line in enumerate(lines, start=1)
        if line.startswith(";;")
        or kept.issuperset(line.split()[:1] or [""])
        or (number == len(lines) and not line)
    )
