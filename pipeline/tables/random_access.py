"""Random access to Kaldi tables by key; import it from ``pipeline.tables``."""

from collections.abc import Iterator
from typing import Any, Literal, Self

from pipeline.errors import TableError
from pipeline.tables.readers import (
    BadEntry,
    MatrixReader,
    Reader,
    TextReader,
    VectorReader,
    check_sorted,
    script_lines,
    shown,
)


class RandomAccessReader:
    """A table with ``key in reader`` and ``reader[key]``; use it with ``with``, or call ``close``.

    Of an scp file all lines are read at once, and objects when they are asked for. An archive is
    read as far as needed, and its objects are kept in memory. With ``s,cs`` only the current object
    is kept; with ``o`` an object is released after it was returned.

    Args:
        rspecifier: ``ark[,options]:…`` or ``scp[,options]:…``.
        kind: the kind of the objects: ``matrix``, ``vector`` or ``text``.
        allow_pipes: as for the other readers, see `pipeline.tables.readers.Reader`.

    Raises:
        TableError: a key is missing or occurs twice, or keys are not in the promised order.
    """

    def __init__(
        self,
        rspecifier: str,
        kind: Literal["matrix", "vector", "text"] = "matrix",
        *,
        allow_pipes: bool = False,
    ) -> None:
        kinds: dict[str, type[Reader[Any]]] = {
            "matrix": MatrixReader,
            "vector": VectorReader,
            "text": TextReader,
        }
        self._reader = kinds[kind](rspecifier, allow_pipes=allow_pipes)
        self.specifier = self._reader.specifier
        self.permissive = self.specifier.permissive
        self._name = shown(self.specifier.rxfilename)
        self._kept: dict[str, Any] = {}
        self._seen: set[str] = set()
        self._stream: Iterator[tuple[str, Any]] | None = None
        self._script: dict[str, tuple[int, str, str]] | None = None
        self._asked: str | None = None
        self._furthest: str | None = None

    @property
    def skipped(self) -> int:
        """The number of bad entries that were skipped because of ``,p``."""
        return self._reader.skipped

    def __contains__(self, key: str) -> bool:
        self._check_call(key)
        if self.specifier.kind == "ark":
            return self._find_in_archive(key)
        return self._find_in_script(key)

    def __getitem__(self, key: str) -> Any:
        if key not in self:
            taken = key in self._seen
            why = "was returned before, but the rspecifier has o" if taken else "is missing"
            raise TableError(f'{self._name}: key "{key}" {why}')
        return self._kept.pop(key) if self.specifier.once else self._kept[key]

    def _check_call(self, key: str) -> None:
        if self.specifier.called_sorted and self._asked is not None and key < self._asked:
            raise TableError(
                f'{self._name}: key "{key}" was requested after "{self._asked}", '
                "but the rspecifier has cs (called sorted); leave off cs"
            )
        self._asked = key

    def _find_in_archive(self, key: str) -> bool:
        if self._stream is None:
            self._stream = iter(self._reader)
        if key in self._kept or key in self._seen:
            return key in self._kept
        by_order = self.specifier.sorted
        if by_order and self._furthest is not None and self._furthest > key:
            return False
        for found, value in self._stream:
            self._keep(found, value)
            if found == key or (by_order and found > key):
                break
        return key in self._kept

    def _keep(self, key: str, value: Any) -> None:
        if self.specifier.sorted and self.specifier.called_sorted:
            self._kept.clear()
        elif key in self._seen:
            raise TableError(f'{self._name}: key "{key}" occurs twice')
        else:
            self._seen.add(key)
        self._kept[key] = value
        self._furthest = key

    def _find_in_script(self, key: str) -> bool:
        if self._script is None:
            self._script = self._load_script()
        if key in self._kept:
            return True
        if key not in self._script:
            return False
        try:
            self._kept = {key: self._reader.read_entry(*self._script[key])}
        except BadEntry as error:
            if not self.permissive:
                raise
            del self._script[key]
            self._reader.skip(f"{error}; skipped")
            return False
        return True

    def _load_script(self) -> dict[str, tuple[int, str, str]]:
        script: dict[str, tuple[int, str, str]] = {}
        last: str | None = None
        for line, key, rxfilename in script_lines(self.specifier.rxfilename):
            if self.specifier.sorted:
                check_sorted(self._name, last, key)
            if key in script:
                raise TableError(f'{self._name}:{line}: key "{key}" occurs twice')
            script[key] = (line, key, rxfilename)
            last = key
        return script

    def close(self) -> None:
        """Close the archive, if one is open."""
        if self._stream is not None:
            self._stream.close()  # type: ignore[attr-defined]  # a generator
            self._stream = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()
