"""Phone sets and the folding between them.

TIMIT has 61 phones, of which 48 are usually modelled and 39 scored (K.-F. Lee and H.-W. Hon, 1989).
A map file has one line for each phone of the largest set: its names in the three sets, or its name
alone if scoring drops the phone (TIMIT's ``q``, the glottal stop)::

    ao      ao      aa
    bcl     vcl     sil
    q

References and hypotheses are folded in the same way, after decoding and before the alignment. Equal
neighbours are not merged: ``bcl pau`` folds to ``sil sil``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PhoneError, UsageError
from pipeline.plain_text import check_spellings, named, read_lines, shown, unseen

SETS = (61, 48, 39)  # the columns of a map file, from the finest set to the coarsest

Folds = dict[str, str | None]  # phone -> its name in the target set; None if it is dropped


@dataclass(frozen=True)
class PhoneMap:
    """The names of every phone in the three sets.

    Attributes:
        path: the file, for error messages.
        rows: phone of the 61 -> its names in the sets of 61, 48 and 39; None if it is dropped.
    """

    path: str
    rows: dict[str, tuple[str, str | None, str | None]]

    def phones(self, size: int) -> list[str]:
        """The sorted phones of the set with ``size`` 61, 48 or 39."""
        names = {row[_column(size)] for row in self.rows.values()}
        return sorted(name for name in names if name is not None)

    def folds(self, *, to: int = 39, from_set: int | None = None) -> Folds:
        """The names that phones fold to in the set ``to``.

        The table has the phones of ``from_set`` (None: of every set that is not smaller than the
        target set) and those of the target set, which fold to themselves.

        Raises:
            UsageError: a set does not exist, or the target set is larger than the source.
        """
        target = _column(to)
        first = 0 if from_set is None else _column(from_set)
        if first > target:
            raise UsageError(f"{from_set} phones cannot be folded to {to}; choose a smaller set")
        sources = {first, target} if from_set is not None else set(range(target + 1))
        folds: Folds = {}
        for column in sorted(sources):
            for row in self.rows.values():
                name = row[column]
                if name is not None:
                    folds.setdefault(name, row[target])
        return folds

    def fold(
        self, phones: Iterable[str], *, to: int = 39, from_set: int | None = None, where: str = ""
    ) -> list[str]:
        """Fold the phones of an utterance; those without a name in the target set are dropped.

        Args:
            phones: the phones, in order.
            to: the size of the target set: 61, 48 or 39.
            from_set: the size of the set that the phones come from; None accepts any set.
            where: the beginning of error messages, such as ``data/train/text:17``.

        Raises:
            PhoneError: a phone is not in the map.
        """
        return fold_with(
            self.folds(to=to, from_set=from_set), phones, where=where, map_path=self.path
        )


def fold_with(
    folds: Folds, phones: Iterable[str], *, where: str = "", map_path: str = "the phone map"
) -> list[str]:
    """Fold the phones of an utterance with a table of ``PhoneMap.folds``.

    Raises:
        PhoneError: a phone is not in the table.
    """
    folded = []
    for phone in phones:
        try:
            name = folds[phone]
        except KeyError:
            place = f"{where}: " if where else ""
            raise PhoneError(
                f'{place}unknown phone "{phone}"; correct it, or map it in {map_path}'
            ) from None
        if name is not None:
            folded.append(name)
    return folded


def load_phone_map(path: str | Path) -> PhoneMap:
    """Read a map file, whose lines hold three names of a phone, or one phone to drop.

    Raises:
        PhoneError: a line has another form, a phone occurs twice, there are no phones, or a name
            folds in two ways. Names the file and the line.
    """
    try:
        lines = read_lines(path, PhoneError)
    except OSError as error:
        raise PhoneError(f"{path}: cannot read this phone map: {error.strerror}") from error
    rows: dict[str, tuple[str, str | None, str | None]] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if len(fields) not in (1, 3):
            raise PhoneError(
                f"{path}:{number}: expected the names of a phone in the sets of 61, 48 and 39, or "
                f"one name for a phone to drop, not {shown(line)!r}; correct it"
            )
        if char := unseen("".join(fields)):
            what = f"{shown(line)!r} holds {named(char)}, which cannot be seen; take it out"
            raise PhoneError(f"{path}:{number}: {what}")
        if fields[0] in rows:
            raise PhoneError(
                f"{path}:{number}: phone {fields[0]!r} occurs twice; keep one of the lines"
            )
        rows[fields[0]] = (fields[0], *(fields[1:] or (None, None)))
    if not rows:
        raise PhoneError(f"{path}: the phone map is empty; restore it")
    names = (name for row in rows.values() for name in row if name is not None)
    check_spellings(names, str(path), PhoneError)
    _check_names_agree(path, rows)
    return PhoneMap(str(path), rows)


def _check_names_agree(
    path: str | Path, rows: dict[str, tuple[str, str | None, str | None]]
) -> None:
    """Raise PhoneError if a name that two sets share folds to different phones."""
    scored: dict[str, str | None] = {name: row[2] for name, row in rows.items()}
    for row in rows.values():
        for name in row[1:]:
            if name is not None and scored.setdefault(name, row[2]) != row[2]:
                raise PhoneError(
                    f"{path}: {name!r} folds to {scored[name]!r} as a phone of one set and to "
                    f"{row[2]!r} as a phone of another; rename one"
                )


def _column(size: int) -> int:
    if size not in SETS:
        raise UsageError(f"there is no set of {size} phones; choose 61, 48 or 39")
    return SETS.index(size)
