"""What ``score.py`` left in decode directories, as the report reads it.

::

    MODEL_DIR/decode_SET/scoring/
      score.json     totals, interval, groups, confusions
      alignments     align_text.py's lines, utt a a ; b <eps> ; <eps> c
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.errors import DataError

FORMAT_VERSION = 1
EPS = "<eps>"
ERRORS = "SDI"  # substitution, deletion, insertion

Pair = tuple[str, str]


@dataclass(frozen=True)
class Counts:
    """Errors of a set, or of a part of it.

    Attributes:
        ref_tokens: tokens of the references, the denominator.
        sentences: utterances.
        rate: errors in percent of ``ref_tokens``; None where there are none of these.
        sentence_rate: utterances with an error, in percent; None without utterances.
    """

    ref_tokens: int
    ins: int
    del_: int
    sub: int
    errors: int
    sentences: int
    wrong_sentences: int
    rate: float | None
    sentence_rate: float | None


@dataclass(frozen=True)
class Utterance:
    """A reference and a hypothesis side by side.

    Attributes:
        pairs: (reference token, hypothesis token), ``<eps>`` where one has none.
        forgiven: tokens whose deletion is no error, as of an optional silence.
    """

    utt_id: str
    pairs: tuple[Pair, ...]
    forgiven: frozenset[str] = frozenset()

    @cached_property
    def kinds(self) -> str:
        """A letter a pair: S, D, I, F for a forgiven deletion, or C where both agree."""
        return "".join(self._kind(ref, hyp) for ref, hyp in self.pairs)

    def _kind(self, ref: str, hyp: str) -> str:
        if ref == hyp:
            return "C"
        if hyp == EPS:
            return "F" if ref in self.forgiven else "D"
        return "I" if ref == EPS else "S"

    @property
    def steps(self) -> list[tuple[str, str, str]]:
        """(kind, reference token, hypothesis token) of each pair."""
        return [(kind, *pair) for kind, pair in zip(self.kinds, self.pairs, strict=True)]

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return sum(self.kinds.count(kind) for kind in ERRORS)

    @property
    def ref_tokens(self) -> int:
        """Length of the reference."""
        return len(self.kinds) - self.kinds.count("I")

    @property
    def reference(self) -> tuple[str, ...]:
        """Tokens of the reference."""
        return tuple(ref for ref, _ in self.pairs if ref != EPS)


@dataclass(frozen=True)
class Interval:
    """Where the error rate lies with a probability of ``level``, in percent."""

    level: float
    low: float
    high: float
    replications: int


@dataclass(frozen=True)
class Decoding:
    """A model's scores on one set.

    Attributes:
        set_name: what follows ``decode_`` in the directory's name.
        name: of the error rate, such as PER.
        rule: the scoring rule, a sentence.
        variants: names of what in the rule departs from the default.
        mode: of utterances that not both sides have: strict, present, all; empty: not told.
        absent: references without a hypothesis.
        root: where the paths of the recipe begin, see `recipe_root`.
        data_dir: the data directory, as far as it is there.
        groups: speaker, gender, dialect … -> each one's errors.
        confusions: (reference, hypothesis, how often), most frequent first; the other two alike.
        utterances: by id; empty where there is no table of alignments.
    """

    model: Path
    path: Path
    set_name: str
    name: str
    rule: str
    variants: tuple[str, ...]
    mode: str
    absent: int
    root: Path
    data_dir: Path | None
    total: Counts
    interval: Interval | None
    groups: dict[str, dict[str, Counts]]
    confusions: list[tuple[str, str, int]]
    insertions: list[tuple[str, int]]
    deletions: list[tuple[str, int]]
    utterances: dict[str, Utterance]

    @property
    def standard(self) -> tuple[str, tuple[str, ...]]:
        """What two scores must share to be compared: the rule and its variants."""
        return self.rule, self.variants

    @property
    def partial(self) -> str:
        """What a score that lacks hypotheses is called; empty for a whole one."""
        if not self.absent:
            return ""
        all_of = {"all": self.total.sentences, "present": self.total.sentences + self.absent}
        of = f" of {all_of[self.mode]:,}" if self.mode in all_of else ""
        return f"PARTIAL, {self.absent:,}{of} missing"


def find_decodings(models: Sequence[Path], sets: Sequence[str] = ()) -> list[Decoding]:
    """The scored decode directories of each model, models in their order, sets by name.

    Args:
        models: model directories.
        sets: which ``decode_SET``; all that are scored if empty.

    Raises:
        DataError: a model has no score, or one is damaged; names what to run.
    """
    found = []
    for model in models:
        if not model.is_dir():
            raise DataError(f"{model}: no such directory; give a model directory")
        scored = [path for path in _decode_dirs(model, sets) if _score_file(path).is_file()]
        if not scored:
            where = " or ".join(f"decode_{name}" for name in sets) or "decode_NAME"
            raise DataError(
                f"{model}: no {where} there has scoring/score.json; "
                "decode, then run score.py DATA_DIR DECODE_DIR"
            )
        found += [read_decoding(model, path) for path in scored]
    return found


def _decode_dirs(model: Path, sets: Sequence[str]) -> list[Path]:
    if sets:
        return [model / f"decode_{name}" for name in dict.fromkeys(sets)]
    return sorted(path for path in model.glob("decode_*") if path.is_dir())


def _score_file(path: Path) -> Path:
    return path / "scoring" / "score.json"


def read_decoding(model: Path, path: Path) -> Decoding:
    """One decode directory.

    Raises:
        DataError: its ``score.json`` or its alignments are damaged; names file and what to run.
    """
    file = _score_file(path)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{file}: format {data['format_version']}, but this program reads "
                f"{FORMAT_VERSION}; score again with this version's score.py"
            )
        _check_digest(data.get("hyp_digest"), file, path)
        return _decoding(data, model, path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(
            f"{file}: cannot be used, {_fault(error)}; run score.py DATA_DIR {path} again"
        ) from error


def _check_digest(digest: str | None, file: Path, path: Path) -> None:
    """Raise DataError where hyp.txt is there, but not as it was scored."""
    hyp = path / "hyp.txt"
    if digest is None or not hyp.is_file():
        return
    with hyp.open("rb") as stream:
        now = hashlib.file_digest(stream, "sha256").hexdigest()
    if now != digest:
        raise DataError(
            f"{file}: the score of other hypotheses than {hyp} has now; "
            f"run score.py DATA_DIR {path} again"
        )


def _fault(error: Exception) -> str:
    """Why a score is of no use, in words."""
    match error:
        case OSError():
            return f"{error.strerror}"
        case json.JSONDecodeError():
            return "it is no JSON"
        case UnicodeDecodeError():
            return "it is no UTF-8 text"
        case KeyError():
            return f'it lacks "{error.args[0]}"'
        case _:
            return "something in it is of another kind"


def _decoding(data: dict[str, Any], model: Path, path: Path) -> Decoding:
    root = recipe_root(path, str(data["decode_dir"]))
    deletions = [(str(t), int(n)) for t, n in data["deletions"]]
    aligned = read_alignments(path / "scoring" / "alignments")
    groups = {
        str(group): {str(key): _counts(counts) for key, counts in members.items()}
        for group, members in data.get("groups", {}).items()
    }
    return Decoding(
        model=model,
        path=path,
        set_name=path.name.removeprefix("decode_"),
        name=str(data["name"]),
        rule=str(data["rule"]),
        variants=tuple(str(name) for name in data.get("variants", [])),
        mode=str(data.get("mode", "")),
        absent=int(data.get("absent", 0)),
        root=root,
        data_dir=_existing(root, str(data["data_dir"])),
        total=_counts(data["total"]),
        interval=_interval(data.get("interval")),
        groups=groups,
        confusions=[(str(r), str(h), int(n)) for r, h, n in data["confusions"]],
        insertions=[(str(t), int(n)) for t, n in data["insertions"]],
        deletions=deletions,
        utterances=_forgiving(aligned, {token for token, _ in deletions}),
    )


def _forgiving(utterances: dict[str, Utterance], counted: set[str]) -> dict[str, Utterance]:
    """The utterances, tokens whose deletions the score does not count as errors being forgiven."""
    gone = {ref for u in utterances.values() for ref, hyp in u.pairs if hyp == EPS}
    forgiven = frozenset(gone - counted)
    if not forgiven:
        return utterances
    return {key: replace(u, forgiven=forgiven) for key, u in utterances.items()}


def _counts(data: dict[str, Any]) -> Counts:
    rates = [data["error_rate"], data["sentence_error_rate"]]
    rate, sentence_rate = (None if value is None else float(value) for value in rates)
    return Counts(
        ref_tokens=int(data["ref_tokens"]),
        ins=int(data["ins"]),
        del_=int(data["del"]),
        sub=int(data["sub"]),
        errors=int(data["errors"]),
        sentences=int(data["sentences"]),
        wrong_sentences=int(data["wrong_sentences"]),
        rate=rate,
        sentence_rate=sentence_rate,
    )


def _interval(data: dict[str, Any] | None) -> Interval | None:
    if not data:
        return None
    low, high, level = float(data["low"]), float(data["high"]), float(data["level"])
    return Interval(level, low, high, int(data["replications"]))


def recipe_root(path: Path, recorded: str) -> Path:
    """The folder that a recorded relative path starts from, seen from here.

    Recipes run in their own folder and write such paths as ``exp/ctc/decode_dev``. Where the
    directory is now called ``egs/timit/exp/ctc/decode_dev``, that folder is ``egs/timit``.
    """
    tail = Path(recorded).parts
    if tail and not Path(recorded).is_absolute():
        parts = path.absolute().parts
        if parts[-len(tail) :] == tail:
            return Path(*parts[: -len(tail)])
    return Path()


def _existing(root: Path, recorded: str) -> Path | None:
    """A recorded path as it can be reached from here, or None."""
    return next((p for p in (Path(recorded), root / recorded) if p.is_dir()), None)


def read_alignments(path: Path) -> dict[str, Utterance]:
    """The table that ``align_text.py`` writes, by utterance; empty where there is none.

    Raises:
        DataError: a line is not of its form; names file and line.
    """
    if not path.is_file():
        return {}
    found = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); run score.py again") from error
    for number, line in enumerate(lines, start=1):
        # At ASCII's blanks alone: a token may hold others.
        fields = [field.decode("utf-8") for field in line.encode("utf-8").split()]
        if not fields:
            continue
        utt_id, *tokens = fields
        if any(token != ";" for token in tokens[2::3]) or len(tokens) % 3 == 1:
            raise DataError(
                f"{path}:{number}: not pairs of tokens between semicolons; run score.py again"
            )
        pairs = tuple(zip(tokens[0::3], tokens[1::3], strict=True))
        found[utt_id] = Utterance(utt_id, pairs)
    return found


def labels(paths: Iterable[Path]) -> dict[Path, str]:
    """A short name for each model: its directory's, with as many parents as tell it apart."""
    unique = list(dict.fromkeys(paths))
    parts = {path: path.absolute().parts for path in unique}
    longest = max((len(p) for p in parts.values()), default=1)
    for length in range(1, longest + 1):
        names = {path: "/".join(p[-length:]) for path, p in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    return {path: str(path) for path in unique}
