"""What ``score.py`` left in the decode directories of models: their scores, and the alignments.

``scoring/alignments`` has the lines of ``align_text.py``: ``utt a a ; b <eps> ; <eps> c``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pipeline.errors import DataError
from pipeline.scoring.results import SavedScore, read_score, score_file, scored_file

EPS = "<eps>"
ERRORS = "SDI"  # substitution, deletion, insertion

Pair = tuple[str, str]


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
class Decoding:
    """A model's scores on one set.

    Attributes:
        set_name: what follows ``decode_`` in the directory's name.
        score: what its ``score.json`` says.
        root: where the paths of the recipe begin, see `recipe_root`.
        data_dir: the data directory, as far as it is there.
        utterances: by id; empty where there is no table of alignments.
    """

    model: Path
    path: Path
    set_name: str
    score: SavedScore
    root: Path
    data_dir: Path | None
    utterances: dict[str, Utterance]

    @property
    def standard(self) -> tuple[str, tuple[str, ...]]:
        """What two scores must share to be compared: the rule and its variants."""
        return self.score.rule, self.score.variants

    @property
    def partial(self) -> str:
        """What a score that lacks hypotheses is called; empty for a whole one."""
        absent, sentences = self.score.absent, self.score.total.sentences
        if not absent:
            return ""
        all_of = {"all": sentences, "present": sentences + absent}
        of = f" of {all_of[self.score.mode]:,}" if self.score.mode in all_of else ""
        return f"PARTIAL, {absent:,}{of} missing"


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
        scored = [path for path in _decode_dirs(model, sets) if score_file(path).is_file()]
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


def read_decoding(model: Path, path: Path) -> Decoding:
    """One decode directory.

    Raises:
        DataError: its ``score.json`` or its alignments are damaged; names file and what to run.
    """
    score = read_score(path)
    root = recipe_root(path, score.decode_dir)
    aligned = read_alignments(scored_file(path, "alignments"))
    return Decoding(
        model=model,
        path=path,
        set_name=path.name.removeprefix("decode_"),
        score=score,
        root=root,
        data_dir=_existing(root, score.data_dir),
        utterances=_forgiving(aligned, {token for token, _ in score.confusions.deletions}),
    )


def _forgiving(utterances: dict[str, Utterance], counted: set[str]) -> dict[str, Utterance]:
    """The utterances, tokens whose deletions the score does not count as errors being forgiven."""
    gone = {ref for u in utterances.values() for ref, hyp in u.pairs if hyp == EPS}
    forgiven = frozenset(gone - counted)
    if not forgiven:
        return utterances
    return {key: replace(u, forgiven=forgiven) for key, u in utterances.items()}


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
