"""The files of a Kaldi data directory: what their keys name, and the form of their lines."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.plain_text import unseen


class Segment(NamedTuple):
    """A part of a recording, with times in seconds from the start of the recording.

    An end of -1 is the end of the recording.
    """

    reco_id: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class FileKind:
    """The content of a file of a data directory.

    Attributes:
        key: what the first column names: ``utt``, ``spk`` or ``reco``.
        form: the form of a line, for error messages.
        good: tells whether the text after the key is well formed.
        complete: whether every utterance, speaker or recording must have a line.
    """

    key: str
    form: str
    good: Callable[[str], bool]
    complete: bool = True


def number(text: str) -> float:
    """The finite number that ``text`` spells in ASCII digits, or NaN if it spells none."""
    if not _NUMBER.fullmatch(text):
        return math.nan
    value = float(text)
    return value if math.isfinite(value) else math.nan


def whole_number(text: str) -> int:
    """The number from 0 to 2^31 - 1 that ASCII digits spell, or -1 if they spell none."""
    return int(text) if _DIGITS.fullmatch(text) and int(text) < 2**31 else -1


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_DIGITS = re.compile(r"\d{1,10}", re.ASCII)
TO_END = -1.0  # the end of a segment that reaches to the end of its recording


def parse_segment(value: str) -> Segment | None:
    """The segment ``RECO START END``, with any finite times; None if it is of another form."""
    fields = value.split()
    if len(fields) != 3 or unseen(fields[0]):
        return None
    segment = Segment(fields[0], *map(number, fields[1:]))
    return segment if math.isfinite(segment.start_s + segment.end_s) else None


def _is_segment(value: str) -> bool:
    segment = parse_segment(value)
    if segment is None:
        return False
    return 0 <= segment.start_s < (math.inf if segment.end_s == TO_END else segment.end_s)


def _is_word(value: str) -> bool:
    return len(value.split()) == 1 and not unseen(value)


def _are_words(value: str) -> bool:
    return bool(value) and not any(map(unseen, value.split(" ")))


def _is_channel(value: str) -> bool:
    fields = value.split()
    return len(fields) == 2 and fields[1] in ("A", "B", "1")


def _is_warp(value: str) -> bool:
    return 0.5 < number(value) < 1.5


def _is_duration(value: str) -> bool:
    return number(value) > 0


def _is_count(value: str) -> bool:
    return whole_number(value) > 0


def _is_recording(value: str) -> bool:
    return bool(value) and not value.startswith("~")


FILES: dict[str, FileKind] = {
    "utt2spk": FileKind("utt", "UTT SPK", _is_word),
    "spk2utt": FileKind("spk", "SPK UTT [UTT ...]", _are_words),
    "wav.scp": FileKind("reco", "RECO FILE, where FILE does not begin with ~", _is_recording),
    "segments": FileKind(
        "utt", "UTT RECO START END, in seconds, 0 <= START < END, or END = -1", _is_segment
    ),
    "text": FileKind("utt", "UTT [TOKEN ...]", lambda value: True),
    "feats.scp": FileKind("utt", "UTT ARK:OFFSET", bool),
    "cmvn.scp": FileKind("spk", "SPK ARK:OFFSET", bool),
    "vad.scp": FileKind("utt", "UTT ARK:OFFSET", bool),
    "spk2gender": FileKind("spk", "SPK m, or SPK f", lambda value: value in ("m", "f")),
    "spk2dialect": FileKind("spk", "SPK DIALECT", bool, complete=False),
    "utt2dur": FileKind("utt", "UTT SECONDS, above 0", _is_duration),
    "utt2num_frames": FileKind("utt", "UTT FRAMES, a whole number above 0", _is_count),
    "reco2dur": FileKind("reco", "RECO SECONDS, above 0", _is_duration),
    "reco2file_and_channel": FileKind("reco", "RECO FILE A, or RECO FILE B", _is_channel),
    "utt2lang": FileKind("utt", "UTT LANGUAGE", _is_word),
    "utt2uniq": FileKind("utt", "UTT UTT_BEFORE_PERTURBATION", _is_word),
    "utt2warp": FileKind("utt", "UTT FACTOR, between 0.5 and 1.5", _is_warp),
    "spk2warp": FileKind("spk", "SPK FACTOR, between 0.5 and 1.5", _is_warp),
}

# Files that are not tables by key: NIST's references and rules, the frame shift in seconds, and the
# times of the phones in NIST's format.
UNKEYED = ("stm", "glm", "frame_shift", "phones.ctm")


def invert(utt2spk: dict[str, str]) -> dict[str, list[str]]:
    """Speaker -> utterances, both in the order of their first occurrence."""
    spk2utt: dict[str, list[str]] = {}
    for utt_id, spk_id in utt2spk.items():
        spk2utt.setdefault(spk_id, []).append(utt_id)
    return spk2utt
