"""Edit distance, alignment and error counts of hypotheses against references.

The distance is Levenshtein's: an insertion, a deletion and a substitution cost 1 each. Often
several alignments reach it, and two rules choose among them, both Kaldi's, so that our tables are
its tables. Each walks back from the end of both sequences:

- ``align``, as ``align-text``: a match or substitution if it is among the best, else a deletion
  if it is, else an insertion.
- ``count_errors``, as ``compute-wer``: an insertion if it is among the best, else a deletion if
  it is, else a match or substitution. The split into kinds may thus differ from the alignment's;
  the total never does.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError, TableError
from pipeline.phones import fold_with, load_phone_map
from pipeline.tables import TextReader

EPS = "<eps>"
MODES = ("strict", "present", "all")

Costs = npt.NDArray[np.int32]
Pair = tuple[str, list[str], list[str]]
Fold = Callable[[list[str], str], list[str]]


@dataclass(frozen=True)
class ErrorCounts:
    """Errors of one or many utterances; they add up with ``+``.

    Attributes:
        ref_tokens: length of the references.
        ins: tokens of the hypothesis that the reference lacks.
        del_: tokens of the reference that the hypothesis lacks.
        sub: tokens replaced by another.
        sentences: utterances scored.
        wrong_sentences: those of them with an error.
    """

    ref_tokens: int = 0
    ins: int = 0
    del_: int = 0
    sub: int = 0
    sentences: int = 0
    wrong_sentences: int = 0

    @property
    def errors(self) -> int:
        """Insertions, deletions and substitutions together."""
        return self.ins + self.del_ + self.sub

    @property
    def error_rate(self) -> float:
        """Errors a reference token, in percent: the WER, or the PER of phones.

        Raises:
            DataError: there is no reference token.
        """
        if self.ref_tokens == 0:
            raise DataError(
                "the references hold no tokens, so there is no error rate; give the right text"
            )
        return 100.0 * self.errors / self.ref_tokens

    @property
    def sentence_error_rate(self) -> float:
        """Utterances with an error, in percent of those scored.

        Raises:
            DataError: no utterance was scored.
        """
        if self.sentences == 0:
            raise DataError("no utterance was scored; are the keys of the two tables the same?")
        return 100.0 * self.wrong_sentences / self.sentences

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.ref_tokens + other.ref_tokens,
            self.ins + other.ins,
            self.del_ + other.del_,
            self.sub + other.sub,
            self.sentences + other.sentences,
            self.wrong_sentences + other.wrong_sentences,
        )


def edit_distance(ref: Sequence[Hashable], hyp: Sequence[Hashable]) -> int:
    """The least number of insertions, deletions and substitutions that make ``ref`` ``hyp``.

    Several times faster than ``count_errors``, where the kinds of errors do not matter.
    """
    import jiwer

    as_words = jiwer.Compose([jiwer.ReduceToListOfListOfWords()])
    # Numbers for tokens, since jiwer splits at blanks of every kind.
    sides = [" ".join(map(str, numbers)) for numbers in _numbered(ref, hyp)]
    found = jiwer.process_words(
        sides[0], sides[1], reference_transform=as_words, hypothesis_transform=as_words
    )
    return int(found.substitutions + found.deletions + found.insertions)


def agreements(ref: Sequence[Hashable], others: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """For each of ``others`` the places in ``ref`` that stand in it too, by a best alignment."""
    import jiwer

    as_words = jiwer.Compose([jiwer.ReduceToListOfListOfWords()])
    if not ref or not others:
        return [[] for _ in others]
    sides = [_numbered(ref, other) for other in others]
    found = jiwer.process_words(
        [" ".join(map(str, side[0])) for side in sides],
        [" ".join(map(str, side[1])) for side in sides],
        reference_transform=as_words,
        hypothesis_transform=as_words,
    )
    return [
        [
            place
            for chunk in chunks
            if chunk.type == "equal"
            for place in range(chunk.ref_start_idx, chunk.ref_end_idx)
        ]
        for chunks in found.alignments
    ]


def align(ref: Sequence[str], hyp: Sequence[str], *, eps: str = EPS) -> list[tuple[str, str]]:
    """Best alignment: (reference token, hypothesis token), ``eps`` where one has none."""
    costs = _costs(ref, hyp)
    pairs = []
    i, j = len(ref), len(hyp)
    while i or j:
        step = _align_step(costs, ref, hyp, i, j)
        i, j = i - step[0], j - step[1]
        pairs.append((ref[i] if step[0] else eps, hyp[j] if step[1] else eps))
    return pairs[::-1]


def count_errors(ref: Sequence[str], hyp: Sequence[str]) -> ErrorCounts:
    """Errors of one utterance."""
    costs = _costs(ref, hyp)
    ins = del_ = sub = 0
    i, j = len(ref), len(hyp)
    while i or j:
        best = costs[i, j]
        if j and costs[i, j - 1] + 1 == best:
            ins, j = ins + 1, j - 1
        elif i and costs[i - 1, j] + 1 == best:
            del_, i = del_ + 1, i - 1
        else:
            i, j = i - 1, j - 1
            sub += ref[i] != hyp[j]
    return ErrorCounts(len(ref), ins, del_, sub, 1, int(ins + del_ + sub > 0))


def total_errors(pairs: Iterable[Pair]) -> ErrorCounts:
    """Errors of many utterances, each (utt_id, reference, hypothesis)."""
    return sum((count_errors(ref, hyp) for _, ref, hyp in pairs), ErrorCounts())


def read_transcripts(rspecifier: str, *, fold: Fold | None = None) -> dict[str, list[str]]:
    """The tokens of every utterance of a text table, in its order.

    Args:
        rspecifier: e.g. ``ark:data/test/text``; ``-`` is ``ark:-``.
        fold: is given the tokens and ``TABLE: utt_id``, for messages, and returns other tokens.

    Raises:
        TableError: a key is there twice.
    """
    rspecifier = "ark:-" if rspecifier == "-" else rspecifier
    transcripts: dict[str, list[str]] = {}
    for key, text in TextReader(rspecifier):
        if key in transcripts:
            raise TableError(f"{rspecifier}: {key} is there twice; keep one of the lines")
        tokens = text.split(" ") if text else []
        transcripts[key] = fold(tokens, f"{rspecifier}: {key}") if fold else tokens
    return transcripts


def phone_folder(map_path: str, *, to: int = 39) -> Fold:
    """A ``fold`` for ``read_transcripts``: phones of any set of a map to the set of ``to``.

    Raises:
        PhoneError: the map is wrong; the fold itself raises it for an unknown phone.
        UsageError: there is no set of ``to`` phones.
    """
    folds = load_phone_map(map_path).folds(to=to)

    def fold(phones: list[str], where: str) -> list[str]:
        return fold_with(folds, phones, where=where, map_path=map_path)

    return fold


def pair_up(
    refs: Mapping[str, list[str]], hyps: Mapping[str, list[str]], *, mode: str = "strict"
) -> Iterator[Pair]:
    """(utt_id, reference, hypothesis) in the references' order.

    Args:
        mode: what to do about a reference without hypothesis: ``strict`` raises, ``present``
            leaves it out, ``all`` takes an empty hypothesis.

    Raises:
        DataError: a reference has no hypothesis and ``mode`` is strict; names the utterance.
    """
    for key, ref in refs.items():
        if key in hyps:
            yield key, ref, hyps[key]
        elif mode == "all":
            yield key, ref, []
        elif mode == "strict":
            raise DataError(
                f"{key}: no hypothesis for this utterance; decode it, or say --mode=present to "
                "leave such utterances out or --mode=all to count them as deletions"
            )


def _numbered(*sequences: Sequence[Hashable]) -> list[list[int]]:
    """The sequences with a number for each distinct token."""
    numbers: dict[Hashable, int] = {}
    return [[numbers.setdefault(token, len(numbers)) for token in s] for s in sequences]


def _costs(ref: Sequence[str], hyp: Sequence[str]) -> Costs:
    """(R+1, H+1): [i, j] is the distance between the first i and the first j tokens."""
    ref_ids, hyp_ids = (np.array(s, dtype=np.int32) for s in _numbered(ref, hyp))
    columns = np.arange(len(hyp) + 1, dtype=np.int32)
    costs = np.empty((len(ref) + 1, len(hyp) + 1), dtype=np.int32)
    costs[0] = columns
    for i, token in enumerate(ref_ids, start=1):
        row = costs[i - 1] + 1  # a deletion
        row[1:] = np.minimum(row[1:], costs[i - 1, :-1] + (hyp_ids != token))
        costs[i] = np.minimum.accumulate(row - columns) + columns  # insertions
    return costs


def _align_step(
    costs: Costs, ref: Sequence[str], hyp: Sequence[str], i: int, j: int
) -> tuple[int, int]:
    """How many reference and hypothesis tokens the alignment's last pair before (i, j) holds."""
    best = costs[i, j]
    if i and j and costs[i - 1, j - 1] + (ref[i - 1] != hyp[j - 1]) == best:
        return 1, 1
    return (1, 0) if i and costs[i - 1, j] + 1 == best else (0, 1)
