"""Text tables of data directories: ``KEY VALUE`` lines, read strictly and written whole.

A table is sorted by key as ``LC_ALL=C sort`` sorts (bytes; for UTF-8 that is the order of Python's
strings), has each key once, and ends every line with a newline.
"""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import DataDirError
from pipeline.files import write_text

SAME_KIND_SHOWN = 5  # problems of one kind in one file that are told in full
PROBLEMS_SHOWN = 200

_BLANKS = " \t\v\f"  # ASCII only, as Kaldi splits
_LINE = re.compile(rf"([^{_BLANKS}]+)[{_BLANKS}]*(.*)", re.DOTALL)
_FIX = "run utils/fix_data_dir.py on the directory"


class Row(NamedTuple):
    """A line of a table: its number from 1, and what follows the key."""

    line: int
    value: str


Table = dict[str, Row]


class Problems:
    """Collects what is wrong: some of each kind in full, the rest counted.

    ``fix`` is what names a kind, so it must not vary from line to line.
    """

    def __init__(self) -> None:
        self._told: list[str] = []
        self._count: Counter[tuple[Path, str]] = Counter()

    def __bool__(self) -> bool:
        return bool(self._count)

    def add(self, path: Path, line: int | None, what: str, fix: str) -> None:
        """Tell of one problem; ``line`` is None when it is the whole file's."""
        self._count[path, fix] += 1
        if self._count[path, fix] <= SAME_KIND_SHOWN:
            where = path if line is None else f"{path}:{line}"
            self._told.append(f"{where}: {what}; {fix}")

    def lines(self) -> list[str]:
        """One line for each problem told, then for each kind how many were not."""
        rest = [
            f"{path}: {count - SAME_KIND_SHOWN} more lines like those above; {fix}"
            for (path, fix), count in self._count.items()
            if count > SAME_KIND_SHOWN
        ]
        lines = self._told + rest
        if len(lines) > PROBLEMS_SHOWN:
            more = len(lines) - PROBLEMS_SHOWN
            lines = [*lines[:PROBLEMS_SHOWN], f"{more} more problems; mend these first"]
        return lines


def scan(path: str | Path, problems: Problems) -> Table:
    """Read a table and note every departure from its form; what can be read is returned.

    Of lines with the same key the first counts. Missing file: ``DataDirError``.
    """
    path = Path(path)
    data = _read_bytes(path)
    if not data:
        problems.add(path, None, "an empty file", "write it again, or remove it")
    elif not data.endswith(b"\n"):
        last = data.count(b"\n") + 1
        fix = "add the newline if the file was not cut short"
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
            problems.add(path, number, "a carriage return", "remove them with sed -i 's/\\r//g'")
            line = line.replace("\r", "")
        match = _LINE.match(line)
        if match is None:
            what = "a line that begins with a blank" if line.strip() else "an empty line"
            problems.add(path, number, what, f"remove it, or {_FIX}")
            match = _LINE.match(line.strip(_BLANKS))
            if match is None:
                continue
        key, value = match.groups()
        if key in table:
            problems.add(path, number, f'"{key}" a second time', f"keep one, or {_FIX}")
            continue
        if key < previous:
            what = f'"{key}" comes after "{previous}": not sorted as LC_ALL=C'
            problems.add(path, number, what, f"sort it, or {_FIX}")
        previous = key
        table[key] = Row(number, value.rstrip(_BLANKS))
    return table


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataDirError(f"{path}: no such file; write it, or correct the path") from None
    except OSError as error:
        raise DataDirError(f"{path}: cannot be read: {error.strerror}; mend that") from error


def read_map(path: str | Path) -> dict[str, str]:
    """Read a table: key -> the rest of its line.

    Raises:
        DataDirError: no such file, an empty one, or the first line that breaks the form that the
            module's docstring states.
    """
    problems = Problems()
    table = scan(path, problems)
    if problems:
        raise DataDirError(problems.lines()[0])
    return {key: row.value for key, row in table.items()}


def format_map(table: dict[str, str]) -> str:
    """The text of a table: sorted by key as bytes, one line an entry."""
    return "".join(f"{key} {value}".rstrip(" ") + "\n" for key, value in sorted(table.items()))


def write_map(path: str | Path, table: dict[str, str]) -> None:
    """Write a table, sorted, under its name only when it is whole."""
    write_text(path, format_map(table))
