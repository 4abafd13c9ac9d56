"""Tokens with their times, from hand segmentations or alignments."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.file_kinds import number, whole_number
from pipeline.errors import DataError
from pipeline.plain_text import read_lines
from pipeline.seals import check_sidecar


@dataclass(frozen=True)
class Segment:
    """A token with its start and end."""

    start_s: float
    end_s: float
    token: str

    @property
    def middle_s(self) -> float:
        """The middle of the segment."""
        return (self.start_s + self.end_s) / 2.0


def read_phn(path: Path, sample_rate: int) -> list[Segment]:
    """Read a hand segmentation of TIMIT, with lines ``start_sample end_sample phone``.

    Args:
        path: the ``.PHN`` file.
        sample_rate: the sample rate in Hz.

    Raises:
        DataError: the file cannot be read, is empty, or has a line of another form.
    """
    found = []
    for line, fields in _lines(path, "give a .PHN file of TIMIT with --phn"):
        if len(fields) != 3 or min(whole_number(fields[0]), whole_number(fields[1])) < 0:
            raise DataError(
                f'{path}:{line}: expected start_sample end_sample phone, not "{" ".join(fields)}"'
                "; give the .PHN file of the utterance in TIMIT"
            )
        start, end = int(fields[0]) / sample_rate, int(fields[1]) / sample_rate
        if start >= end:
            raise DataError(f"{path}:{line}: the segment ends before it begins; correct it")
        found.append(Segment(start, end, fields[2]))
    if not found:
        raise DataError(f"{path}: has no segments; give another .PHN file")
    return found


def read_ctm(path: Path, utt_id: str) -> list[Segment]:
    """Read an utterance of a CTM file: lines ``utt channel start duration token …``, times in s.

    Raises:
        DataError: the file cannot be read, has a line of another form, or lacks the utterance.
    """
    found = []
    check_sidecar(path, "decode again")
    for line, fields in _lines(path, "give a file of decode_*.py --write-ctm with --ctm"):
        try:
            if fields[0] == utt_id:
                start, duration = number(fields[2]), number(fields[3])
                if not (math.isfinite(start) and math.isfinite(duration)):
                    raise ValueError
                found.append(Segment(start, start + duration, fields[4]))
        except (IndexError, ValueError):
            raise DataError(
                f"{path}:{line}: expected utterance channel start duration token, not "
                f'"{" ".join(fields)}"; give a CTM file'
            ) from None
    if not found:
        raise DataError(f"{path}: lacks utterance {utt_id}; is this the CTM file of another set?")
    return found


def read_times(phn: str, ctm: str, utt_id: str, sample_rate: int) -> tuple[list[Segment], str]:
    """The segmentation of ``--phn``, or else of ``--ctm``, and its label; empty without both."""
    if phn:
        return read_phn(Path(phn), sample_rate), "by hand"
    if ctm:
        return read_ctm(Path(ctm), utt_id), "CTM"
    return [], ""


def _lines(path: Path, what: str) -> Iterator[tuple[int, list[str]]]:
    """The number and the fields of each line, split at ASCII blanks as in Kaldi's tables."""
    try:
        lines = read_lines(path, DataError)
    except OSError as error:
        raise DataError(f"{path}: cannot read these times: {error.strerror}; {what}") from error
    for line_number, line in enumerate(lines, start=1):
        if line.lstrip().startswith(";;"):
            continue  # a comment in NIST's formats
        yield line_number, [field.decode("utf-8") for field in line.encode("utf-8").split()]
