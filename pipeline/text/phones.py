"""Phone sets and the folding between them: TIMIT's 61 phones, the 48 that are modelled, the 39
that are scored (K.-F. Lee and H.-W. Hon, 1989).

A map file has one line for each phone of the largest set: its names in the three sets, or the
name alone when scoring drops the phone (TIMIT's ``q``, the glottal stop)::

    ao      ao      aa
    bcl     vcl     sil
    q

Folding happens after the search and before the alignment, to references and hypotheses alike.
Nothing is merged: ``bcl pau`` folds to ``sil sil``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PhoneError, UsageError

SETS = (61, 48, 39)  # the columns of a map file, from the finest set to the coarsest

Folds = dict[str, str | None]  # a phone -> its name in the target set; None: dropped


@dataclass(frozen=True)
class PhoneMap:
    """The names of every phone in the three sets.

    Attributes:
        path: the file, for error messages.
        rows: phone of the 61 -> its names in the sets of 61, 48 and 39, None where dropped.
    """

    path: str
    rows: dict[str, tuple[str, str | None, str | None]]

    def phones(self, size: int) -> list[str]:
        """The phones of the set of ``size`` 61, 48 or 39, sorted."""
        names = {row[_column(size)] for row in self.rows.values()}
        return sorted(name for name in names if name is not None)

    def folds(self, *, to: int = 39, from_set: int | None = None) -> Folds:
        """How each phone that may come folds to the set ``to``.

        Accepted are the phones of ``from_set`` (None: of every set down to the target's) and
        those that are in the target set already, which stay as they are.

        Raises:
            UsageError: a set that does not exist, or a target finer than the source.
        """
        target = _column(to)
        first = 0 if from_set is None else _column(from_set)
        if first > target:
            raise UsageError(f"phones cannot be unfolded from {from_set} to {to}")
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
        """Fold one utterance's phones; those without a name in the target set are dropped.

        Args:
            phones: the phones, in order.
            to: size of the target set: 61, 48 or 39.
            from_set: size of the set that the phones come from; None accepts any.
            where: what an error message starts with, such as ``data/train/text:17``.

        Raises:
            PhoneError: a phone that the map does not know.
        """
        return fold_with(
            self.folds(to=to, from_set=from_set), phones, where=where, map_path=self.path
        )


def fold_with(
    folds: Folds, phones: Iterable[str], *, where: str = "", map_path: str = "the phone map"
) -> list[str]:
    """Fold with a table of ``PhoneMap.folds``, made once for many utterances.

    Raises:
        PhoneError: a phone that the table does not know.
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
    """Read a map file: lines of three phones, or of one that is dropped.

    Raises:
        PhoneError: a line of another form, a phone twice, no phones, or one name that folds in
            two ways. Names file and line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PhoneError(f"{path}: cannot read this phone map: {error}") from error
    rows: dict[str, tuple[str, str | None, str | None]] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if len(fields) not in (1, 3):
            raise PhoneError(
                f"{path}:{number}: expected a phone's names in the sets of 61, 48 and 39, or one "
                f"name alone for a phone to drop, not {line!r}"
            )
        if fields[0] in rows:
            raise PhoneError(f"{path}:{number}: phone {fields[0]!r} twice; keep one of the lines")
        rows[fields[0]] = (fields[0], *(fields[1:] or (None, None)))
    if not rows:
        raise PhoneError(f"{path}: an empty phone map")
    _check_names_agree(path, rows)
    return PhoneMap(str(path), rows)


def _check_names_agree(
    path: str | Path, rows: dict[str, tuple[str, str | None, str | None]]
) -> None:
    """A name that two sets share must fold to the same phone from both."""
    scored: dict[str, str | None] = {name: row[2] for name, row in rows.items()}
    for row in rows.values():
        for name in row[1:]:
            if name is not None and scored.setdefault(name, row[2]) != row[2]:
                raise PhoneError(
                    f"{path}: {name!r} folds to {scored[name]!r} as one set's phone and to "
                    f"{row[2]!r} as another's; rename one"
                )


def _column(size: int) -> int:
    if size not in SETS:
        raise UsageError(f"there is no set of {size} phones; choose 61, 48 or 39")
    return SETS.index(size)
