"""Tokens with their times: hand segmentations and alignments."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError


@dataclass(frozen=True)
class Segment:
    """A token from one time to another."""

    start_s: float
    end_s: float
    token: str

    @property
    def middle_s(self) -> float:
        """Half way through."""
        return (self.start_s + self.end_s) / 2.0


def read_phn(path: Path, sample_rate: int) -> list[Segment]:
    """TIMIT's hand segmentation: lines ``start_sample end_sample phone``.

    Args:
        path: the ``.PHN`` file.
        sample_rate: in Hz.

    Raises:
        DataError: it cannot be read, holds nothing, or has a line of another form.
    """
    found = []
    for number, fields in _lines(path, "--phn takes TIMIT's .PHN file of the utterance"):
        if len(fields) != 3 or not (fields[0] + fields[1]).isdecimal():
            raise DataError(
                f'{path}:{number}: expected start_sample end_sample phone, not "{" ".join(fields)}"'
                "; give TIMIT's .PHN file of the utterance"
            )
        start, end = int(fields[0]) / sample_rate, int(fields[1]) / sample_rate
        if start >= end:
            raise DataError(f"{path}:{number}: this segment ends before it begins")
        found.append(Segment(start, end, fields[2]))
    if not found:
        raise DataError(f"{path}: no segments; give another .PHN file")
    return found


def read_ctm(path: Path, utt_id: str) -> list[Segment]:
    """One utterance of a CTM: lines ``utt channel start duration token …``, times in s.

    Raises:
        DataError: it cannot be read, has a line of another form, or lacks the utterance.
    """
    found = []
    for number, fields in _lines(path, "--ctm takes what --write-ctm of decode_*.py makes"):
        try:
            if fields[0] == utt_id:
                start, duration = float(fields[2]), float(fields[3])
                found.append(Segment(start, start + duration, fields[4]))
        except (IndexError, ValueError):
            raise DataError(
                f"{path}:{number}: expected utterance channel start duration token, not "
                f'"{" ".join(fields)}"; give a CTM'
            ) from None
    if not found:
        raise DataError(f"{path}: nothing of utterance {utt_id}; is this the CTM of another set?")
    return found


def read_times(phn: str, ctm: str, utt_id: str, sample_rate: int) -> tuple[list[Segment], str]:
    """What ``--phn`` or else ``--ctm`` names, and a word for it; nothing where both are empty."""
    if phn:
        return read_phn(Path(phn), sample_rate), "by hand"
    if ctm:
        return read_ctm(Path(ctm), utt_id), "CTM"
    return [], ""


def _lines(path: Path, what: str) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of each line; blanks are those of ASCII, as in Kaldi's tables."""
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot read these times: {error.strerror}; {what}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot read these times: no UTF-8 text; {what}") from error
    for number, line in enumerate(lines if lines != [""] else [], start=1):
        yield number, [field.decode("utf-8") for field in line.encode("utf-8").split()]
