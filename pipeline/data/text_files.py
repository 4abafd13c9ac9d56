"""Text tables of data directories: lines ``KEY VALUE``, read strictly and written atomically.

A table is sorted by key as ``LC_ALL=C sort`` sorts (bytes; for UTF-8 that is the order of Python's
strings), has each key once, and ends every line with a newline. What editors add, a byte order mark
and carriage returns before newlines, is passed over by `read_map` (see `pipeline.plain_text`), but
`scan` reports it.
"""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import DataDirError
from pipeline.files import write_text
from pipeline.plain_text import MARK, check_end, fault_of_name, foreign, shown, warn_of_mark

SAME_KIND_SHOWN = 5  # problems of one kind in one file that are reported in full
PROBLEMS_SHOWN = 200

_BLANKS = " \t\v\f"  # only ASCII blanks, as in Kaldi
_LINE = re.compile(rf"([^{_BLANKS}]+)[{_BLANKS}]*(.*)", re.DOTALL)
_FIX = "run utils/fix_data_dir.py on the directory"


class Row(NamedTuple):
    """A line of a table: its number from 1, and the text after the key."""

    line: int
    value: str


Table = dict[str, Row]


class Problems:
    """Collects problems: the first ones of each kind in full, the others counted.

    Problems with the same ``fix`` are of one kind, so it must not vary from line to line.
    """

    def __init__(self) -> None:
        self._reported: list[str] = []
        self._count: Counter[tuple[Path, str]] = Counter()

    def __bool__(self) -> bool:
        return bool(self._count)

    def add(self, path: Path, line: int | None, what: str, fix: str) -> None:
        """Add a problem; ``line`` is None if it concerns the whole file."""
        self._count[path, fix] += 1
        if self._count[path, fix] <= SAME_KIND_SHOWN:
            where = path if line is None else f"{path}:{line}"
            self._reported.append(f"{where}: {what}; {fix}")

    def lines(self) -> list[str]:
        """A line for each problem reported in full, then a line for each kind with more of them."""
        rest = [
            f"{path}: {count - SAME_KIND_SHOWN} more lines like those above; {fix}"
            for (path, fix), count in self._count.items()
            if count > SAME_KIND_SHOWN
        ]
        lines = self._reported + rest
        if len(lines) > PROBLEMS_SHOWN:
            more = len(lines) - PROBLEMS_SHOWN
            lines = [*lines[:PROBLEMS_SHOWN], f"{more} more problems; correct these first"]
        return lines


def scan(path: str | Path, problems: Problems, *, tolerant: bool = False) -> Table:
    """Read a table and add every violation of its form to ``problems``.

    Lines that can be read are returned; of several lines with the same key, the first.

    Args:
        path: the file.
        problems: the collection to add to.
        tolerant: whether a byte order mark is only a warning, and carriage returns before newlines
            are passed over.

    Raises:
        DataDirError: the file is missing or cannot be read.
    """
    path = Path(path)
    data = _read_bytes(path)
    if what := foreign(data):
        problems.add(path, None, *f"is {what}".split("; ", 1))
        return {}
    if data.startswith(MARK):
        data = data[len(MARK) :]
        if tolerant:
            warn_of_mark(str(path))
        else:
            problems.add(path, 1, "begins with a byte order mark", f"take it off, or {_FIX}")
    if tolerant:
        data = data.replace(b"\r\n", b"\n")
    elif b"\r" in data and b"\n" not in data:
        what = "the lines end in carriage returns without newlines"
        problems.add(path, 1, what, f"replace them with tr '\\r' '\\n', or {_FIX}")
        data = data.replace(b"\r", b"\n")
    if not data:
        problems.add(path, None, "the file is empty", "write it again, or remove it")
    elif not data.endswith(b"\n"):
        last = data.count(b"\n") + 1
        fix = "add the newline, unless the file was cut short"
        problems.add(path, last, "the last line does not end in a newline", fix)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problems.add(path, line, "not UTF-8", "convert the file with iconv")
        text = data.decode(errors="replace")
    return _scan_lines(path, text.removesuffix("\n").split("\n") if text else [], problems)


def _scan_lines(path: Path, lines: list[str], problems: Problems) -> Table:
    table: Table = {}
    previous = ""
    for number, line in enumerate(lines, start=1):
        if "\r" in line:
            _add_return(path, number, line, problems)
            line = line.replace("\r", "")
        if "\0" in line:
            problems.add(path, number, "the line holds a NUL byte", "write the file again")
        match = _LINE.match(line)
        if match is None:
            what = "the line begins with a blank" if line.strip() else "the line is empty"
            problems.add(path, number, what, f"remove it, or {_FIX}")
            match = _LINE.match(line.strip(_BLANKS))
            if match is None:
                continue
        key, value = match.groups()
        if fault := fault_of_name(key):
            what, _, fix = fault.partition("; ")
            problems.add(path, number, what, f"{fix}, in all files")
        if key in table:
            problems.add(
                path, number, f'"{shown(key)}" occurs twice', f"keep one of the lines, or {_FIX}"
            )
            continue
        if key < previous:
            what = f'"{key}" comes after "{previous}": not sorted as by LC_ALL=C sort'
            problems.add(path, number, what, f"sort it, or {_FIX}")
        previous = key
        table[key] = Row(number, value.rstrip(_BLANKS))
    return table


def _add_return(path: Path, number: int, line: str, problems: Problems) -> None:
    if line.find("\r") == len(line) - 1:
        fix = f"remove it with sed -i 's/\\r$//', or {_FIX}"
        problems.add(path, number, "the line holds a carriage return at its end", fix)
    else:
        fix = "replace it with tr '\\r' '\\n'"
        what = "the line holds a carriage return that does not end it"
        problems.add(path, number, what, fix)


def _read_bytes(path: Path) -> bytes:
    check_end(path, DataDirError)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataDirError(f"{path}: no such file; write it, or correct the path") from None
    except OSError as error:
        raise DataDirError(f"{path}: cannot be read: {error.strerror}; correct that") from error


def read_map(path: str | Path) -> dict[str, str]:
    """Read a table as key -> rest of the line.

    Raises:
        DataDirError: the file is missing or empty, or a line violates the form described at the
            head of this module; names the first such line.
    """
    problems = Problems()
    table = scan(path, problems, tolerant=True)
    if problems:
        raise DataDirError(problems.lines()[0])
    return {key: row.value for key, row in table.items()}


def format_map(table: dict[str, str]) -> str:
    """The text of a table, one line per entry, sorted by the bytes of the key."""
    return "".join(f"{key} {value}".rstrip(" ") + "\n" for key, value in sorted(table.items()))


def write_map(path: str | Path, table: dict[str, str]) -> None:
    """Write a table, sorted by key, atomically."""
    write_text(path, format_map(table))
