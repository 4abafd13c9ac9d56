"""CTC's searches in NumPy.

Engines of this family have `beam_search` and `prefix_search`, and for a beam search whose frames
come in chunks `begin`, `advance`, `settle`, `best` and `entries`. What they compare are sums and
products in float64 of Pr(k|t) over the greatest of its frame, formed as the reference forms them:
engines agree on what is equally probable.
"""

import heapq
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.search.fusion import Automaton

Array = NDArray[np.float64]
Ids = NDArray[np.int64]
Prefix = tuple[int, ...]

LN2 = float(np.log(2.0))
NOTHING = -(1 << 60)  # exponent of the probability 0
IMPOSSIBLE = (
    -5e11
)  # a label so far (in nats) below the most probable of its frame has probability 0
TIES = 1.0 - 1e-9  # what rounding may have made a prefix less probable


class Entry(NamedTuple):
    """A prefix in the last beam."""

    tokens: Prefix
    log_prob: float  # without the greatest Pr(k|t) of each frame
    fused: float
    state: int  # of the language model


class Found(NamedTuple):
    """The most probable string of a section."""

    tokens: Prefix
    probability: float
    is_complete: bool  # False: the limit was hit, and another string may be more probable


# ---- probabilities that do not underflow ---------------------------------------------------------


class Powers(NamedTuple):
    """Numbers m · 2^e; the mantissas m lie in [½, 1) or are 0."""

    mantissas: Array
    exponents: Ids

    def log(self) -> Array:
        """Natural logarithms."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.mantissas) + self.exponents * LN2)

    def at(self, *where: object) -> "Powers":
        """Some of them."""
        return Powers(self.mantissas[where], self.exponents[where])  # type: ignore[index]

    def put(self, where: object, numbers: "Powers") -> None:
        """Replace some of them."""
        self.mantissas[where], self.exponents[where] = numbers  # type: ignore[call-overload]


def _normal(mantissas: Array, exponents: Ids) -> Powers:
    mantissas, shift = np.frexp(mantissas)
    return Powers(mantissas, np.where(mantissas == 0.0, NOTHING, exponents + shift))


def _exp(x: Array) -> Powers:
    """e^x of x ≤ 0."""
    possible = x > IMPOSSIBLE
    x = np.where(possible, x, 0.0)
    exponents = np.floor(x / LN2)
    mantissas = np.where(possible, np.exp(x - exponents * LN2), 0.0)
    return _normal(mantissas, exponents.astype(np.int64))


def _times(a: Powers, b: Powers) -> Powers:
    return _normal(a.mantissas * b.mantissas, a.exponents + b.exponents)


def _plus(a: Powers, b: Powers) -> Powers:
    top = np.maximum(a.exponents, b.exponents)
    low, high = (np.maximum(x.exponents - top, -1000).astype(np.int32) for x in (a, b))
    return _normal(np.ldexp(a.mantissas, low) + np.ldexp(b.mantissas, high), top)


# ---- beam search ---------------------------------------------------------------------------------


class _Beam(NamedTuple):
    prefixes: list[Prefix]
    blank: Powers  # of the paths that end in a blank
    label: Powers  # and in the last token
    states: Ids
    fused: Array


@dataclass
class Progress:
    """How far the search through an utterance has come."""

    beam_size: int
    beam: _Beam
    before: list[int] = field(default_factory=list)  # tokens before those of the beam's prefixes


def begin(beam_size: int, model: Automaton) -> Progress:
    """The beam before the first frame: the empty prefix, which has probability 1."""
    one, zero = _exp(np.zeros(1)), _exp(np.full(1, -np.inf))
    return Progress(beam_size, _Beam([()], one, zero, np.full(1, model.start), np.zeros(1)))


def advance(
    progress: Progress, log_probs: Array, tops: Array, blank: int, model: Automaton
) -> None:
    """Search on through some frames; arguments as of `beam_search`."""
    for row in log_probs - tops[:, None]:
        progress.beam = _advance(progress.beam, _exp(row), progress.beam_size, blank, model)


def settle(progress: Progress) -> None:
    """Take from the prefixes the tokens that all begin with, but for the last of them."""
    prefixes, count = progress.beam.prefixes, 0
    if prefixes:
        first, last = min(prefixes), max(prefixes)
        while count < len(first) and first[: count + 1] == last[: count + 1]:
            count += 1
    settled = list(prefixes[0][: count - 1]) if count else []
    progress.before += settled
    shorter = [prefix[len(settled) :] for prefix in prefixes]
    progress.beam = progress.beam._replace(prefixes=shorter)


def best(progress: Progress, *, length_normalise: bool) -> tuple[list[int], Prefix]:
    """The tokens that all prefixes begin with, and the others of the best prefix so far."""
    beam, before = progress.beam, len(progress.before)
    scores = (_plus(beam.blank, beam.label).log() + beam.fused).tolist()
    if length_normalise:
        scores = [x / max(1, before + len(y)) for x, y in zip(scores, beam.prefixes, strict=True)]
    ranked = ((-x, len(y), y) for x, y in zip(scores, beam.prefixes, strict=True))
    return progress.before, min(ranked, default=(0.0, 0, ()))[2]


def entries(progress: Progress) -> list[Entry]:
    """The beam after the last frame, in any order."""
    beam, before = progress.beam, tuple(progress.before)
    logs = _plus(beam.blank, beam.label).log()
    strings = [before + prefix for prefix in beam.prefixes]
    columns = (logs.tolist(), beam.fused.tolist(), beam.states.tolist())
    return [Entry(*entry) for entry in zip(strings, *columns, strict=True)]


def beam_search(
    log_probs: Array, tops: Array, beam_size: int, blank: int, model: Automaton
) -> list[Entry]:
    """Beam search over label prefixes.

    Args:
        log_probs: log Pr(k|t), (T, V).
        tops: the greatest of each frame, (T,), finite.
        beam_size: prefixes kept after each frame.
        blank: id of ∅.
        model: what tokens add to a score.

    Returns:
        The beam after the last frame, in any order.
    """
    progress = begin(beam_size, model)
    advance(progress, log_probs, tops, blank, model)
    return entries(progress)


def _advance(beam: _Beam, row: Powers, beam_size: int, blank: int, model: Automaton) -> _Beam:
    """One frame: every prefix stays (by a blank, or by its last label again) or grows by one."""
    count, vocab = len(beam.prefixes), len(row.mantissas)
    last = np.array([y[-1] if y else blank for y in beam.prefixes], np.int64)
    total = _plus(beam.blank, beam.label)
    grown = _times(total.at(slice(None), None), row)  # (B, V)
    # After its own last label a prefix grows only across a blank.
    grown.put((range(count), last), _times(beam.blank, row.at(last)))
    grown.mantissas[:, blank] = 0.0
    stay_blank, stay_label = _times(total, row.at(blank)), _times(beam.label, row.at(last))
    position = {y: n for n, y in enumerate(beam.prefixes)}
    here = [n for n, y in enumerate(beam.prefixes) if y and y[:-1] in position]
    above = [position[beam.prefixes[n][:-1]] for n in here], last[here]
    stay_label.put(here, _plus(stay_label.at(here), grown.at(*above)))
    grown.mantissas[above] = 0.0  # growth into a prefix that is in the beam is merged with it
    stay = _plus(stay_blank, stay_label)
    added = beam.fused[:, None] + model.log_probs[beam.states]
    scores = np.concatenate([stay.log() + beam.fused, (grown.log() + added).ravel()])
    kept = _best(scores, beam_size, beam.prefixes, vocab)
    old, (source, tokens) = kept[kept < count], np.divmod(kept[kept >= count] - count, vocab)
    new = grown.at(source, tokens)
    nothing = _exp(np.full(len(source), -np.inf))
    return _Beam(
        [_spelt(n, beam.prefixes, vocab) for n in (*old.tolist(), *kept[kept >= count].tolist())],
        _joined(stay_blank.at(old), nothing),
        _joined(stay_label.at(old), new),
        np.concatenate([beam.states[old], model.following[beam.states[source], tokens]]),
        np.concatenate([beam.fused[old], added[source, tokens]]),
    )


def _joined(a: Powers, b: Powers) -> Powers:
    mantissas, exponents = zip(a, b, strict=True)
    return Powers(np.concatenate(mantissas), np.concatenate(exponents))


def _spelt(number: int, prefixes: list[Prefix], vocab: int) -> Prefix:
    """A candidate: one of B prefixes, or number B + i · V + k, prefix i grown by k."""
    if number < len(prefixes):
        return prefixes[number]
    source, token = divmod(number - len(prefixes), vocab)
    return (*prefixes[source], token)


def _best(scores: Array, beam_size: int, prefixes: list[Prefix], vocab: int) -> Ids:
    """The numbers of the best candidates: at most ``beam_size``, none of them impossible."""
    possible = np.flatnonzero(scores > -np.inf)
    if len(possible) <= beam_size:
        return possible
    least = np.partition(scores, -beam_size)[-beam_size]
    above, level = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    wanted = beam_size - len(above)
    if len(level) > wanted:
        spelt = sorted((_spelt(n, prefixes, vocab), n) for n in level.tolist())
        spelt.sort(key=lambda item: len(item[0]))
        level = np.array([n for _, n in spelt[:wanted]])
    return np.concatenate([above, level])


# ---- prefix search -------------------------------------------------------------------------------


def prefix_search(rows: Array, sections: Ids, blank: int, limit: int) -> list[Found]:
    """The most probable string of each section.

    Args:
        rows: Pr(k|t), (T, V), in any scale in which no sum over the paths of a section overflows.
        sections: (N, 2) the first frame of each and the one past its last.
        blank: id of ∅.
        limit: prefixes that may be expanded in a section.
    """
    return [_best_string(rows[first:last], blank, limit) for first, last in sections.tolist()]


def _best_string(rows: Array, blank: int, limit: int) -> Found:
    columns: dict[Prefix, Array] = {(): np.stack([np.zeros(len(rows)), rows[:, blank].cumprod()])}
    best: Prefix = ()
    greatest = float(columns[()][1, -1])
    # The sum over all outputs of the frames from each one on.
    rest = np.append(rows.sum(axis=1)[::-1].cumprod()[::-1], 1.0)
    queue: list[tuple[float, Prefix]] = [(greatest - float(rest[0]), ())]
    while queue and -queue[0][0] > 0.0 and -queue[0][0] >= greatest * TIES:
        if limit == 0:
            return Found(best, greatest, False)
        limit -= 1
        _, prefix = heapq.heappop(queue)
        if prefix:
            columns[prefix] = _columns(columns[prefix[:-1]], rows, prefix, blank)
        whole, ends = _children(columns[prefix], rows, rest, prefix, blank)
        for k in range(rows.shape[1]):
            if k == blank:
                continue
            child, end, more = (*prefix, k), float(ends[k]), float(whole[k] - ends[k])
            if (-end, len(child), child) < (-greatest, len(best), best):
                best, greatest = child, end
            if more > 0.0 and more >= greatest * TIES:
                heapq.heappush(queue, (-more, child))
    return Found(best, greatest, True)


def _columns(parent: Array, rows: Array, prefix: Prefix, blank: int) -> Array:
    """γ(p_n, t) and γ(p_b, t) of a prefix p, (2, T), from those of the prefix one shorter."""
    k = prefix[-1]
    own = np.zeros_like(parent)
    own[0, 0] = rows[0, k] if len(prefix) == 1 else 0.0
    repeats = prefix[-2:-1] == (k,)
    for t in range(1, len(rows)):
        new = parent[1, t - 1] + (0.0 if repeats else parent[0, t - 1])
        own[0, t] = rows[t, k] * (new + own[0, t - 1])
        own[1, t] = rows[t, blank] * (own[1, t - 1] + own[0, t - 1])
    return own


def _children(
    parent: Array, rows: Array, rest: Array, prefix: Prefix, blank: int
) -> tuple[Array, Array]:
    """Of every prefix one longer: Pr(it or one that begins so), and Pr(it)."""
    label, null = (np.zeros_like(rows[0]) if prefix else rows[0]), np.zeros_like(rows[0])
    whole = label * rest[1]
    for t in range(1, len(rows)):
        new = np.full_like(label, parent[1, t - 1] + parent[0, t - 1])
        if prefix:
            new[prefix[-1]] = parent[1, t - 1]
        whole = whole + rows[t] * new * rest[t + 1]
        label, null = rows[t] * (new + label), rows[t, blank] * (null + label)
    return whole, label + null
