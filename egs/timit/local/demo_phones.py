"""Converts the phonemes and samples of espeak-ng to TIMIT's 61 phones with their times.

espeak-ng reports the start of the sound of a phoneme. For a voiceless stop this is the burst, and
the closure is the digital silence before it. A voiced stop starts with its pre-voicing, in which
the burst is found by its energy at high frequencies. Four phones (``hv ux nx ax-h``) are chosen by
context only, without a difference in the sound; they are folded to others in the set of 39 phones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import DataError
from pipeline.synth.espeak import RATE, Event

_SILENT = 3 / 32768  # largest sample of a closure
_SHORTEST_CLOSURE = 0.005 * RATE
_SHORTEST_GAP = 0.020 * RATE  # shortest silence with a label of its own, epi
_SHORTEST_PAUSE = 0.090 * RATE  # shortest silence with the label pau
_CLOSURE_AFTER_PAUSE = 0.050 * RATE
_BURST_WINDOW = 44  # in samples, 2 ms
_BURST_BELOW_PEAK_DB = 18.0
_FIRST_OF_TWO = 0.6  # share of the first phone of a vowel with r, or of a vowel with an l in it

# A phone of TIMIT, or two in sequence, and the corresponding phonemes of espeak-ng.
_TABLE = """
p p
t t t2 t[
k k
b b
d d
g g
ch tS
jh dZ
q ?
dx t# *
f f
th T
s s
sh S
hh h
v v
dh D
z z
zh Z
m m
n n
ng N
em m-
en n-
eng N-
el @L
l l l#
r r r-
w w
y j
iy i i:
ih I
eh E
ae a aa
aa 0 A:
ao O O: O2
ah V
uh U
uw u u:
er 3:
axr 3
ax @ @2 @5 @- a# 0#
ix I2 I# E#
ey eI
ay aI
oy OI
aw aU
ow oU
aa+r A@
ao+r O@ o@
eh+r e@
ih+r i@3 I@
uh+r U@
ay+axr aI3
ay+ax aI@
aw+axr aU@
iy+ax i@
"""
_PHONEMES = {
    phoneme: tuple(label.split("+"))
    for label, *phonemes in map(str.split, _TABLE.strip().splitlines())
    for phoneme in phonemes
}
_STOPS = {"p", "t", "t2", "t[", "k", "b", "d", "g", "tS", "dZ"}
_CLOSURE = {
    **{"p": "pcl", "t": "tcl", "k": "kcl", "b": "bcl", "d": "dcl", "g": "gcl"},
    **{"ch": "tcl", "jh": "dcl"},
}
_VOICED_STOPS = {"b", "d", "g", "jh"}
_VOICELESS = set("p t k ch f th s sh hh q pcl tcl kcl h# pau epi".split())  # noqa: SIM905
_CORONALS = set("t d s z n l ch jh sh zh th dx y".split())  # noqa: SIM905
_VOWELS = set(  # and the syllabic consonants
    "iy ih eh ae aa ah ao uh uw ux er ax ix axr ax-h ey ay oy aw ow el em en eng".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Segment:
    """A phone: its label in TIMIT, and its start and end in samples at 22050 Hz."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class _Token:
    """A phoneme: name, stress, the starts of its silence (`quiet`) and its sound, and its end."""

    name: str
    stress: int
    quiet: int
    start: int
    end: int

    @property
    def labels(self) -> tuple[str, ...]:
        if _is_pause(self.name):
            return ("pau",)
        if self.name not in _PHONEMES:
            raise DataError(f"the phoneme {self.name!r} of espeak-ng has no phone in TIMIT")
        return _PHONEMES[self.name]


def phone_segments(samples: np.ndarray, events: Sequence[Event]) -> list[Segment]:
    """The phones of an utterance, contiguous, without the ``h#`` at both ends.

    Args:
        samples: (T,) at 22050 Hz, as produced by espeak-ng, in which silence is exactly zero.
        events: the events that espeak-ng has reported with the samples.

    Raises:
        DataError: a phoneme has no phone in TIMIT.
    """
    tokens = _tokens(samples, events)
    segments: list[Segment] = []
    for index, token in enumerate(tokens):
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        _add_gap(segments, token)
        if token.name == ";" or _is_absorbed_r(token, segments):
            segments[-1] = Segment(segments[-1].label, segments[-1].start, token.end)
        elif token.end <= token.start:
            _split_last(segments, token.labels[0])
        else:
            _add_sound(segments, samples, token, following)
    return segments


def _tokens(samples: np.ndarray, events: Sequence[Event]) -> list[_Token]:
    """The phonemes with the silences before them; pauses are merged, and dropped at the end."""
    phonemes = [event for event in events if event.name]
    merged: list[Event] = []
    for event in phonemes:
        if _is_pause(event.name) and merged and _is_pause(merged[-1].name):
            continue
        merged.append(event)
    end = len(samples)
    if merged and _is_pause(merged[-1].name):
        end = merged.pop().sample
    quiets: list[int] = []
    for index, event in enumerate(merged):
        quiets.append(_quiet_start(samples, event, merged[index - 1] if index else None))
    ends = [*quiets[1:], end]
    rows = zip(merged, quiets, ends, strict=True)
    return [_Token(e.name, e.stress, quiet, e.sample, last) for e, quiet, last in rows]


def _quiet_start(samples: np.ndarray, event: Event, previous: Event | None) -> int:
    """The start of the silence before a phoneme, or of the phoneme if there is no silence."""
    if previous is None or _is_pause(event.name):
        return event.sample
    is_stop = event.name in _STOPS
    if _is_pause(previous.name):
        after_pause = max(previous.sample, event.sample - int(_CLOSURE_AFTER_PAUSE))
        return after_pause if is_stop else event.sample
    if previous.name == "?":
        return event.sample
    loud = np.flatnonzero(np.abs(samples[previous.sample : event.sample]) >= _SILENT)
    start = previous.sample + (int(loud[-1]) + 1 if len(loud) else 0)
    shortest = _SHORTEST_CLOSURE if is_stop or event.name == "?" else _SHORTEST_GAP
    return start if event.sample - start >= shortest else event.sample


def _add_gap(segments: list[Segment], token: _Token) -> None:
    """Label the silence before a phoneme as a closure, epi or pau; a glottal stop has its own."""
    if token.quiet == token.start or token.name == "?":
        return
    closure = _CLOSURE.get(token.labels[0])
    silence = "epi" if token.start - token.quiet < _SHORTEST_PAUSE else "pau"
    segments.append(Segment(closure or silence, token.quiet, token.start))


def _is_absorbed_r(token: _Token, segments: list[Segment]) -> bool:
    """Whether this is a linking r after a vowel that is already r-coloured."""
    return token.name == "r-" and bool(segments) and segments[-1].label in ("er", "axr")


def _split_last(segments: list[Segment], label: str) -> None:
    """Split the last segment for a phoneme that espeak-ng has rendered inside it."""
    if not segments:
        return
    last = segments.pop()
    middle = last.start + _FIRST_OF_TWO * (last.end - last.start)
    segments += [Segment(last.label, last.start, middle), Segment(label, middle, last.end)]


def _add_sound(
    segments: list[Segment], samples: np.ndarray, token: _Token, following: _Token | None
) -> None:
    start = token.quiet if token.name == "?" else token.start
    labels = token.labels
    if labels[0] in _VOICED_STOPS:
        _add_voiced_stop(segments, samples, token)
    elif len(labels) == 2 and labels[1] == "r" and _starts_with(following, "r"):
        segments.append(Segment(labels[0], start, token.end))
    elif len(labels) == 2:
        segments.append(Segment(labels[0], start, token.end))
        _split_last(segments, labels[1])
    else:
        before = segments[-1].label if segments else "h#"
        label = _in_context(labels[0], token, before, segments, following)
        segments.append(Segment(label, start, token.end))


def _add_voiced_stop(segments: list[Segment], samples: np.ndarray, token: _Token) -> None:
    """Add a voiced stop: the pre-voicing belongs to the closure, the rest is the stop."""
    label = token.labels[0]
    burst = find_burst(samples[token.start : token.end])
    middle = token.end if burst is None else token.start + burst
    if middle > token.start:
        closed_from = token.start
        if segments and token.quiet < token.start:
            closed_from = int(segments.pop().start)
        segments.append(Segment(_CLOSURE[label], closed_from, middle))
    if middle < token.end:
        segments.append(Segment(label, middle, token.end))


def find_burst(samples: np.ndarray) -> int | None:
    """The position of the burst of a voiced stop in samples from its start; None without a burst.

    Args:
        samples: (T,), from the start of the pre-voicing, or of the burst, to the next phoneme.
    """
    count = len(samples) // _BURST_WINDOW
    if count < 3:
        return None
    high = np.diff(samples, 2, prepend=np.zeros(2)) ** 2
    energy = high[: count * _BURST_WINDOW].reshape(count, _BURST_WINDOW).mean(axis=1)
    loud = energy >= energy[2:].max() * 10 ** (-_BURST_BELOW_PEAK_DB / 10)
    first = int(np.flatnonzero(loud[2:])[0]) + 2  # the voicing also starts with a click
    if first <= 3:
        return 0
    return first * _BURST_WINDOW if energy[first:].max() > 1e-8 else None


def _is_pause(name: str) -> bool:
    return name.startswith("_")


def _starts_with(token: _Token | None, label: str) -> bool:
    return token is not None and token.name != ";" and token.labels[0] == label


def _in_context(
    label: str, token: _Token, before: str, segments: list[Segment], following: _Token | None
) -> str:
    """The variant of a phone that the transcribers of TIMIT would have chosen in this context."""
    after = following.labels[0] if following and following.name != ";" else "h#"
    if label == "hh":
        return "hh" if before in _VOICELESS else "hv"
    if label == "uw":
        return "ux" if before in _CORONALS else "uw"
    if label == "ih":
        return "ih" if token.stress else "ix"
    if label == "ax" and before in _VOICELESS and after in _VOICELESS - {"q", "pau", "h#"}:
        return "ax-h" if before not in ("h#", "pau", "epi") else "ax"
    if label == "n" and before in _VOWELS and after in _VOWELS:
        return "nx" if following is not None and following.stress == 0 else "n"
    return label
