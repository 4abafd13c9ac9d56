"""Checks of a Kaldi data directory, which report all problems at once, each with its remedy.

Sorting by utterance must also sort by speaker, because programs read tables of utterances and
tables of speakers side by side, in one pass. This holds if the name of every utterance begins with
the name of its speaker: ``fcjf0_sx127`` is spoken by ``fcjf0``.
"""

import unicodedata
from itertools import pairwise
from pathlib import Path

from pipeline.data.file_kinds import FILES, UNKEYED, FileKind, invert, number
from pipeline.data.text_files import Problems, Table, read_map, scan
from pipeline.plain_text import (
    MARK,
    foreign,
    named,
    shown,
    spelt_twice,
    two_spellings,
    unseen,
    without_mark,
)

_FIX = "run utils/fix_data_dir.py on the directory"
_NOT_WORDS = ("<s>", "</s>", "#0")
_NOT_PRINTED = ("Cc", "Cn", "Cs", "Zl", "Zp")  # Unicode categories


def validate(
    directory: str | Path,
    *,
    feats: bool = True,
    text: bool = True,
    wav: bool = True,
    spk_sort: bool = True,
    non_print: bool = False,
) -> list[str]:
    """All problems of a data directory, as lines ``file:line: problem; remedy``.

    Args:
        directory: the data directory.
        feats: whether feats.scp must exist. If it exists, it is always checked.
        text: whether text must exist; if False, it is not checked either.
        wav: whether wav.scp must exist. If it exists, it is always checked.
        spk_sort: whether utt2spk must also be sorted by speaker.
        non_print: whether text may have characters that cannot be printed.
    """
    directory, problems = Path(directory), Problems()
    if not directory.is_dir():
        return [f"{directory}: not a directory; give a data directory"]
    required = {"utt2spk": "write it", "spk2utt": "make it with utils/utt2spk_to_spk2utt.py"}
    wanted = [("text", text), ("feats.scp", feats), ("wav.scp", wav)]
    required |= {n: f"make it, or give --no-{n.partition('.')[0]}" for n, want in wanted if want}
    tables: dict[str, Table] = {}
    for name, kind in FILES.items():
        path = directory / name
        if name == "text" and not text:
            continue
        if path.exists():
            tables[name] = scan(path, problems)
            _check_rows(path, tables[name], kind, problems)
        elif name in required:
            problems.add(path, None, "no such file", required[name])
    if "text" in tables:
        _check_text(directory / "text", tables["text"], problems, non_print=non_print)
    if "utt2spk" in tables:
        _check_speakers(directory, tables, problems, spk_sort=spk_sort)
        _check_keys(directory, tables, problems)
    _check_unkeyed(directory, problems)
    return problems.lines()


def _check_rows(path: Path, table: Table, kind: FileKind, problems: Problems) -> None:
    for key, row in table.items():
        if not kind.good(row.value):
            what = f'"{shown(f"{key} {row.value}")}" is not of the form {kind.form}'
            problems.add(path, row.line, what, "correct it")


def _check_text(path: Path, table: Table, problems: Problems, *, non_print: bool) -> None:
    for row in table.values():
        if "<" in row.value or "#0" in row.value:
            for word in set(row.value.split()).intersection(_NOT_WORDS):
                fix = "remove it: it stands for a sentence end or a back-off in grammars"
                problems.add(path, row.line, f'a transcription holds "{word}"', fix)
        if row.value.isascii() and row.value.isprintable():
            continue
        for char in sorted(set(row.value) - set(" \t")):
            if char.isspace():
                fix = "use an ASCII blank: not all programs separate words at this one"
                problems.add(path, row.line, f"white space {named(char)}", fix)
            elif not non_print and unicodedata.category(char) in _NOT_PRINTED:
                fix = "remove it, or give --non-print"
                problems.add(path, row.line, f"{named(char)} cannot be printed", fix)
            elif not non_print and unseen(char, joiners=True):
                fix = "remove it, or give --non-print"
                problems.add(path, row.line, f"{named(char)} cannot be seen", fix)
    if pair := two_spellings(word for row in table.values() for word in row.value.split()):
        line = max(next(r.line for r in table.values() if text in r.value) for text in pair)
        problems.add(path, line, *spelt_twice(pair).split("; ", 1))


def _check_speakers(
    directory: Path, tables: dict[str, Table], problems: Problems, *, spk_sort: bool
) -> None:
    """Check that utt2spk is also in the order of speakers, and that spk2utt is its inverse."""
    utt2spk = {utt: row.value for utt, row in tables["utt2spk"].items()}
    for (utt, spk), (next_utt, next_spk) in pairwise(utt2spk.items()):
        if spk_sort and utt < next_utt and spk > next_spk:
            what = (
                f'speaker "{next_spk}" of "{next_utt}" comes after "{spk}" of "{utt}": sorting by '
                "utterance must also sort by speaker, as tables of both are read side by side"
            )
            fix = "begin each utterance's name with its speaker's, or give --no-spk-sort"
            line = tables["utt2spk"][next_utt].line
            problems.add(directory / "utt2spk", line, what, fix)
    expected = invert(utt2spk)
    for spk, row in tables.get("spk2utt", {}).items():
        if spk in expected and row.value.split() != expected[spk]:
            what = f'the utterances of "{spk}" are not those of utt2spk, in its order'
            fix = f"make it with utils/utt2spk_to_spk2utt.py, or {_FIX}"
            problems.add(directory / "spk2utt", row.line, what, fix)


def _check_keys(directory: Path, tables: dict[str, Table], problems: Problems) -> None:
    """Check that every file names the same utterances, speakers and recordings."""
    if pair := two_spellings((key for table in tables.values() for key in table), parts=False):
        problems.add(directory, None, *spelt_twice(pair).split("; ", 1))
    utt2spk = tables["utt2spk"]
    of_utts = dict.fromkeys(utt2spk), "utt2spk"
    of_recos = of_utts
    if "segments" in tables:
        values = (row.value.split() for row in tables["segments"].values())
        of_recos = dict.fromkeys(v[0] for v in values if v), "segments"
        if "wav.scp" not in tables:
            fix = "write wav.scp with the recordings that segments names"
            problems.add(directory / "segments", None, "there is no wav.scp", fix)
    of_spks = dict.fromkeys(row.value for row in utt2spk.values()), "utt2spk"
    expected = {"utt": of_utts, "spk": of_spks, "reco": of_recos}
    for name, table in tables.items():
        if not table or not FILES[name].complete:
            continue  # an empty file has been reported already
        keys, origin = expected[FILES[name].key]
        missing = [key for key in keys if key not in table]
        extra = [key for key in table if key not in keys]
        if missing:
            what = f'{len(missing)} of {len(keys)} in {origin} are missing, first "{missing[0]}"'
            problems.add(directory / name, None, what, f"add them, or {_FIX}")
        if extra:
            what = f'{len(extra)} of {len(table)} are not in {origin}, first "{extra[0]}"'
            problems.add(directory / name, table[extra[0]].line, what, f"remove them, or {_FIX}")


def _check_unkeyed(directory: Path, problems: Problems) -> None:
    """Check the files without keys: frame_shift is one number, the others are complete texts."""
    path = directory / "frame_shift"
    data = path.read_bytes().removeprefix(MARK) if path.exists() else b"1"
    if not FILES["utt2dur"].good(data.decode(errors="replace").strip()):
        problems.add(path, 1, "not a frame shift", "write one number above 0, in seconds")
    for name in UNKEYED:
        path = directory / name
        data = path.read_bytes() if path.exists() else b"\n"
        if what := foreign(data):
            problems.add(path, None, *f"is {what}".split("; ", 1))
        elif not data.endswith((b"\n", b"\r")):
            problems.add(path, None, "empty, or cut short in its last line", "write it again")
        if data.startswith(MARK):
            problems.add(path, 1, "begins with a byte order mark", f"take it off, or {_FIX}")
        if b"\r" in data:
            fix = f"replace it by newlines, or {_FIX}"
            problems.add(path, None, "lines end in carriage returns", fix)
    path = directory / "stm"
    data = path.read_bytes() if path.exists() else b""
    lines = without_mark(data, str(path)).decode(errors="replace").splitlines()
    for line_number, line in enumerate(lines if not foreign(data) else [], start=1):
        fields = line.split()
        if line.startswith(";;"):
            continue
        if len(fields) < 5 or not 0 <= number(fields[3]) < number(fields[4]):
            form = "FILE CHANNEL SPK START END [<LABELS>] TOKENS, times in seconds, START < END"
            problems.add(path, line_number, f"not of the form {form}", "correct it")


def validation_warnings(directory: str | Path) -> list[str]:
    """Warnings about what programs accept but is seldom intended; for a valid directory."""
    directory, found = Path(directory), []
    utt2spk = read_map(directory / "utt2spk")
    if odd := [utt for utt, spk in utt2spk.items() if not utt.startswith(spk)]:
        what = f'{len(odd)} utterances do not begin with their speaker\'s name, first "{odd[0]}"'
        fix = "name them SPEAKER-REST, so that combined directories stay sorted"
        found.append(f"{directory / 'utt2spk'}: {what}; {fix}")
    channels = directory / "reco2file_and_channel"
    if channels.exists() and any(v.split()[1] == "1" for v in read_map(channels).values()):
        found.append(f'{channels}: channel "1"; scoring programs expect A or B')
    return found
