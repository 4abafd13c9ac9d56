"""Best alignments of references and hypotheses, for many utterances at a time.

Often several alignments are equally good. A `Rule` states the cost of each step, and which of
several equally good steps is taken on the way back from the end of both sequences. The rules are
those of the programs that results are usually compared with:

============  ====================  ==============================================================
rule          cost sub, del, ins    preferred among equally good steps, from the end backwards
============  ====================  ==============================================================
KALDI         1, 1, 1               a match or substitution, then a deletion: ``align-text``
KALDI_COUNTS  1, 1, 1               an insertion, then a deletion: ``compute-wer``
NIST          4, 3, 3               a match or substitution, then an insertion: NIST's ``sclite``
============  ====================  ==============================================================

With the first two rules the number of errors is the Levenshtein distance, and only its division
into kinds differs. The third rule may count more errors, since it prefers a substitution to an
insertion together with a deletion.
"""

from array import array
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.scoring.counts import ErrorCounts

EPS = "<eps>"
CORRECT, SUB, DEL, INS, FORGIVEN = range(5)  # FORGIVEN: the deletion of an optional token
NO_HYP = (DEL, FORGIVEN)
_NONE = 5
_CELLS = 1 << 20  # cells of the tables of one batch of utterances
_LINES = 4096  # utterances to write at a time

Pair = tuple[str, Sequence[str], Sequence[str]]  # utt_id, reference, hypothesis
Ints = NDArray[np.int64]


class Rule(NamedTuple):
    """The costs of steps, the order of preference among equally good steps, and a name."""

    sub: int
    del_: int
    ins: int
    optional: int  # the deletion of an optional token
    order: tuple[int, int, int]
    name: str


KALDI = Rule(1, 1, 1, 0, (CORRECT, DEL, INS), "kaldi")
KALDI_COUNTS = Rule(1, 1, 1, 0, (INS, DEL, CORRECT), "kaldi")
NIST = Rule(4, 3, 3, 2, (CORRECT, INS, DEL), "nist")


def find_rule(name: str) -> Rule:
    """The rule with this name. Raises UsageError if it is not kaldi or nist."""
    for rule in (KALDI, NIST):
        if rule.name == name:
            return rule
    raise UsageError(f"--alignment must be kaldi or nist, not {name!r}")


@dataclass(frozen=True)
class Alignments:
    """Alignments of N utterances with S steps in all, which are stored one after the other.

    Attributes:
        utt_ids: the N utterances.
        vocabulary: the tokens in the order of their numbers.
        ref: (S,), the number of the reference token of each step; -1 if there is none.
        hyp: (S,), the number of the hypothesis token of each step; -1 if there is none.
        op: (S,), the kind of each step: CORRECT, SUB, DEL, INS or FORGIVEN.
        starts: (N+1,), the first step of each utterance, and S.
    """

    utt_ids: list[str]
    vocabulary: list[str]
    ref: NDArray[np.int32]
    hyp: NDArray[np.int32]
    op: NDArray[np.uint8]
    starts: Ints

    def __len__(self) -> int:
        return len(self.utt_ids)

    @cached_property
    def tallies(self) -> Ints:
        """(N, 4), the numbers of steps of each utterance that are CORRECT, SUB, DEL and INS."""
        owners = np.repeat(np.arange(len(self)), np.diff(self.starts))
        op = np.where(self.op == FORGIVEN, CORRECT, self.op)
        counts = np.bincount(owners * 4 + op, minlength=4 * len(self))
        return counts.reshape(-1, 4).astype(np.int64)

    def select(self, order: Ints) -> "Alignments":
        """The alignments of the utterances with these numbers, in this order."""
        lengths = np.diff(self.starts)[order]
        steps = _ranges(self.starts[:-1][order], lengths)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        names = [self.utt_ids[number] for number in order]
        sides = self.ref[steps], self.hyp[steps]
        return Alignments(names, self.vocabulary, *sides, self.op[steps], starts)

    def total(self) -> ErrorCounts:
        """The error counts of all utterances together."""
        return add_up(self.tallies)

    @cached_property
    def kinds(self) -> tuple[list[tuple[int, str, str]], NDArray[np.int32], Ints]:
        """The distinct steps.

        Returns:
            The K distinct steps (op, ref, hyp), the number (S,) of the distinct step that each step
            is, and the counts (K,).
        """
        codes = (self.ref.astype(np.int64) + 1) * (len(self.vocabulary) + 1) + self.hyp + 1
        _, first, which, counts = np.unique(
            codes, return_index=True, return_inverse=True, return_counts=True
        )
        names = [*self.vocabulary, EPS]  # the number -1 stands for the last
        columns = (table[first].tolist() for table in (self.op, self.ref, self.hyp))
        kinds = [(op, names[r], names[h]) for op, r, h in zip(*columns, strict=True)]
        return kinds, which.astype(np.int32), counts.astype(np.int64)

    def lines(self, render: Callable[[int, str, str], str], separator: str) -> Iterator[str]:
        """For each utterance a line: its steps, rendered and joined with the separator.

        Args:
            render: gives the text of a step (op, ref, hyp); called once for each distinct step.
            separator: the text between two steps.
        """
        for (line,) in self.columns(lambda *step: (render(*step),), separator):
            yield line

    def columns(
        self, render: Callable[[int, str, str], tuple[str, ...]], separator: str
    ) -> Iterator[tuple[str, ...]]:
        """Like ``lines`` with several lines per utterance: ``render`` gives a text for each."""
        kinds, which, _ = self.kinds
        count = len(render(CORRECT, EPS, EPS))
        texts = list(zip(*(render(*kind) for kind in kinds), strict=True)) or [()] * count
        for start in range(0, len(self), _LINES):
            bounds = self.starts[start : start + _LINES + 1].tolist()
            part = which[bounds[0] : bounds[-1]].tolist()
            chunks = [[text[kind] for kind in part] for text in texts]
            for begin, end in pairwise(bounds):
                piece = slice(begin - bounds[0], end - bounds[0])
                yield tuple(separator.join(chunk[piece]) for chunk in chunks)

    def steps(self, number: int) -> list[tuple[int, str, str]]:
        """(op, reference token, hypothesis token) of each step of an utterance; EPS for none."""
        part = slice(int(self.starts[number]), int(self.starts[number + 1]))
        names = [*self.vocabulary, EPS]  # the number -1 stands for the last
        columns = (self.op[part].tolist(), self.ref[part].tolist(), self.hyp[part].tolist())
        return [(op, names[r], names[h]) for op, r, h in zip(*columns, strict=True)]


def add_up(tallies: Ints) -> ErrorCounts:
    """The error counts of several utterances, from rows of `Alignments.tallies`."""
    cor, sub, del_, ins = (int(count) for count in tallies.sum(axis=0))
    wrong = int((tallies[:, 1:].sum(axis=1) > 0).sum())
    return ErrorCounts(cor + sub + del_, ins, del_, sub, len(tallies), wrong)


def align_all(
    pairs: "Iterable[Pair] | Numbered", rule: Rule = KALDI, *, optional: Container[str] = ()
) -> Alignments:
    """Align the reference and the hypothesis of every utterance.

    Args:
        pairs: (utt_id, reference, hypothesis); pass `Numbered` to align the same pairs repeatedly.
        rule: the costs and preferences of the steps.
        optional: reference tokens with a forgiven deletion, such as ``(sil)`` with sclite -D.
    """
    texts = pairs if isinstance(pairs, Numbered) else Numbered(pairs)
    forgiven = np.array([token in optional for token in texts.vocabulary], dtype=bool)
    lengths = np.zeros(len(texts.utt_ids), dtype=np.int64)
    found = []
    for batch in texts.batches():
        ref, hyp = texts.ref.padded(batch, -1), texts.hyp.padded(batch, -2)
        back = _back_pointers(ref, hyp, rule, forgiven)
        op, lengths[batch] = _trace(back, texts.ref.lengths[batch], texts.hyp.lengths[batch])
        found.append((batch, op))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    op = np.empty(int(starts[-1]), dtype=np.uint8)
    for batch, part in found:
        op[_ranges(starts[batch], lengths[batch])] = part
    sides = []
    for side, missing in ((texts.ref, INS), (texts.hyp, DEL)):
        tokens = np.full(len(op), -1, dtype=np.int32)
        tokens[op != missing] = side.tokens
        sides.append(tokens)
    op[(op == CORRECT) & (sides[0] != sides[1])] = SUB
    if forgiven.any():
        op[(op == DEL) & forgiven[sides[0]]] = FORGIVEN
    return Alignments(texts.utt_ids, list(texts.vocabulary), sides[0], sides[1], op, starts)


def align(ref: Sequence[str], hyp: Sequence[str], *, eps: str = EPS) -> list[tuple[str, str]]:
    """Align one utterance by KALDI: pairs of reference and hypothesis tokens, ``eps`` for none."""
    steps = align_all([("", ref, hyp)]).steps(0)
    return [(eps if op == INS else r, eps if op == DEL else h) for op, r, h in steps]


def count_errors(ref: Sequence[str], hyp: Sequence[str]) -> ErrorCounts:
    """The error counts of one utterance, by KALDI_COUNTS."""
    return total_errors([("", ref, hyp)])


def total_errors(pairs: Iterable[Pair]) -> ErrorCounts:
    """The error counts of many utterances (utt_id, reference, hypothesis), by KALDI_COUNTS."""
    return align_all(pairs, KALDI_COUNTS).total()


# ---- tokens as numbers ---------------------------------------------------------------------------


class _Numbers(dict[str, int]):
    """Token -> number, which is assigned when the token is first looked up."""

    def __missing__(self, token: str) -> int:
        self[token] = len(self)
        return self[token]


class _Side:
    """The tokens of all references or all hypotheses."""

    def __init__(self, tokens: NDArray[np.int32], lengths: Ints) -> None:
        self.tokens, self.lengths = tokens, lengths
        self.starts = np.cumsum(lengths) - lengths

    def padded(self, batch: Ints, padding: int) -> NDArray[np.int32]:
        """The tokens of a batch, (B, longest), with ``padding`` after those of each utterance."""
        places = np.arange(int(self.lengths[batch].max(initial=0)))
        inside = places < self.lengths[batch, None]
        padded = np.full(inside.shape, padding, dtype=np.int32)
        padded[inside] = self.tokens[_ranges(self.starts[batch], self.lengths[batch])]
        return padded


class Numbered:
    """Triples (utt_id, reference, hypothesis) with numbers in place of tokens."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.vocabulary = _Numbers()
        self.utt_ids: list[str] = []
        number = self.vocabulary.__getitem__
        refs, hyps, ref_lengths, hyp_lengths = array("i"), array("i"), array("q"), array("q")
        for utt_id, ref, hyp in pairs:
            self.utt_ids.append(utt_id)
            refs.extend(map(number, ref))
            hyps.extend(map(number, hyp))
            ref_lengths.append(len(ref))
            hyp_lengths.append(len(hyp))
        self.ref, self.hyp = (
            _Side(np.array(tokens, dtype=np.int32), np.array(lengths, dtype=np.int64))
            for tokens, lengths in ((refs, ref_lengths), (hyps, hyp_lengths))
        )

    def batches(self) -> Iterator[Ints]:
        """Batches of utterances of similar lengths, by number, whose tables fit into memory."""
        order = np.lexsort((self.hyp.lengths, self.ref.lengths))
        start = 0
        while start < len(order):
            count = max(1, _CELLS // self._cells(order[start : start + 1]))
            while count > 1 and self._cells(order[start : start + count]) > 2 * _CELLS:
                count //= 2
            yield order[start : start + count]
            start += count

    def _cells(self, batch: Ints) -> int:
        ref, hyp = int(self.ref.lengths[batch].max()), int(self.hyp.lengths[batch].max())
        return len(batch) * (ref + 1) * (hyp + 1)


def _ranges(starts: Ints, lengths: Ints) -> Ints:
    """The numbers start, start + 1, … of all ranges, one range after the other."""
    shift = starts - (np.cumsum(lengths) - lengths)
    ranges: Ints = np.arange(int(lengths.sum())) + np.repeat(shift, lengths)
    return ranges


# ---- dynamic programming -------------------------------------------------------------------------


def _back_pointers(
    ref: NDArray[np.int32], hyp: NDArray[np.int32], rule: Rule, forgiven: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """The last step of the best alignment of the first i and the first j tokens, (B, R+1, H+1)."""
    (count, rows), columns = ref.shape, np.arange(hyp.shape[1] + 1, dtype=np.int32) * rule.ins
    back = np.empty((count, rows + 1, len(columns)), dtype=np.uint8)
    back[:, 0, 0], back[:, 0, 1:] = _NONE, INS
    costs = np.broadcast_to(columns, (count, len(columns)))
    for i in range(rows):
        token = ref[:, i, None]
        deletion = np.where(forgiven[token], rule.optional, rule.del_).astype(np.int32)
        good = {DEL: costs + deletion}
        good[CORRECT] = np.full_like(good[DEL], np.iinfo(np.int32).max)
        good[CORRECT][:, 1:] = costs[:, :-1] + (hyp != token) * np.int32(rule.sub)
        best = np.minimum(good[CORRECT], good[DEL])
        costs = np.minimum.accumulate(best - columns, axis=1) + columns
        good[INS] = np.full_like(good[DEL], np.iinfo(np.int32).max)
        good[INS][:, 1:] = costs[:, :-1] + rule.ins
        steps = back[:, i + 1]
        for step in reversed(rule.order):
            np.copyto(steps, step, where=good[step] == costs)
    return back


def _trace(
    back: NDArray[np.uint8], ref_lengths: Ints, hyp_lengths: Ints
) -> tuple[NDArray[np.uint8], Ints]:
    """The steps of all utterances, (S,), and the number of steps of each utterance, (B,)."""
    count, _, width = back.shape
    cells = np.arange(count) * (back.size // max(count, 1)) + ref_lengths * width + hyp_lengths
    moves = np.zeros(_NONE + 1, dtype=np.int64)
    moves[[CORRECT, DEL, INS]] = width + 1, width, 1
    flat, steps = back.reshape(-1), []
    while True:
        step = flat[cells]
        if (step == _NONE).all():
            break
        steps.append(step)
        cells = cells - moves[step]
    if not steps:
        return np.empty(0, dtype=np.uint8), np.zeros(count, dtype=np.int64)
    table = np.stack(steps[::-1], axis=1)
    taken = table != _NONE
    return table[taken], taken.sum(axis=1, dtype=np.int64)
