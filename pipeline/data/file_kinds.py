"""The files of a Kaldi data directory: what their keys name, and the form of their lines."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Segment(NamedTuple):
    """A part of a recording, with times in seconds from the start of the recording."""

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
    """

    key: str
    form: str
    good: Callable[[str], bool]


def number(text: str) -> float:
    """The finite number that ``text`` spells, or NaN if it spells none."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _is_word(value: str) -> bool:
    return len(value.split()) == 1


def _is_segment(value: str) -> bool:
    fields = value.split()
    return len(fields) == 3 and 0 <= number(fields[1]) < number(fields[2])


def _is_channel(value: str) -> bool:
    fields = value.split()
    return len(fields) == 2 and fields[1] in ("A", "B", "1")


def _is_warp(value: str) -> bool:
    return 0.5 < number(value) < 1.5


def _is_duration(value: str) -> bool:
    return number(value) > 0


def _is_count(value: str) -> bool:
    return value.isascii() and value.isdecimal() and int(value) > 0


def _is_recording(value: str) -> bool:
    return bool(value) and not value.startswith("~")


FILES: dict[str, FileKind] = {
    "utt2spk": FileKind("utt", "UTT SPK", _is_word),
    "spk2utt": FileKind("spk", "SPK UTT [UTT ...]", bool),
    "wav.scp": FileKind("reco", "RECO FILE, where FILE does not begin with ~", _is_recording),
    "segments": FileKind("utt", "UTT RECO START END, in seconds, 0 <= START < END", _is_segment),
    "text": FileKind("utt", "UTT [TOKEN ...]", lambda value: True),
    "feats.scp": FileKind("utt", "UTT ARK:OFFSET", bool),
    "cmvn.scp": FileKind("spk", "SPK ARK:OFFSET", bool),
    "vad.scp": FileKind("utt", "UTT ARK:OFFSET", bool),
    "spk2gender": FileKind("spk", "SPK m, or SPK f", lambda value: value in ("m", "f")),
    "utt2dur": FileKind("utt", "UTT SECONDS, above 0", _is_duration),
    "utt2num_frames": FileKind("utt", "UTT FRAMES, a whole number above 0", _is_count),
    "reco2dur": FileKind("reco", "RECO SECONDS, above 0", _is_duration),
    "reco2file_and_channel": FileKind("reco", "RECO FILE A, or RECO FILE B", _is_channel),
    "utt2lang": FileKind("utt", "UTT LANGUAGE", _is_word),
    "utt2uniq": FileKind("utt", "UTT UTT_BEFORE_PERTURBATION", _is_word),
    "utt2warp": FileKind("utt", "UTT FACTOR, between 0.5 and 1.5", _is_warp),
    "spk2warp": FileKind("spk", "SPK FACTOR, between 0.5 and 1.5", _is_warp),
}


def invert(utt2spk: dict[str, str]) -> dict[str, list[str]]:
    """Speaker -> utterances, both in the order of their first occurrence."""
    spk2utt: dict[str, list[str]] = {}
    for utt_id, spk_id in utt2spk.items():
        spk2utt.setdefault(spk_id, []).append(utt_id)
    return spk2utt
