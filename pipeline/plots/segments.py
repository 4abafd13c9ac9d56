"""Tokens with their times: hand segmentations, alignments, and the strips that show them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import DataError
from pipeline.plots.figures import GREY, RED

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split()
        if len(fields) != 3 or not (fields[0] + fields[1]).isdecimal():
            raise DataError(
                f"{path}:{number}: expected start_sample end_sample phone, not {line!r}"
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
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split()
        try:
            if fields[0] == utt_id:
                start, duration = float(fields[2]), float(fields[3])
                found.append(Segment(start, start + duration, fields[4]))
        except (IndexError, ValueError):
            raise DataError(
                f"{path}:{number}: expected utterance channel start duration token, not {line!r}"
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


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read these times: {error}") from error


# ---- strips --------------------------------------------------------------------------------------


STRIP = 0.42  # inches that a strip is high
FONT = 7.5
LEVELS = (0.5, 0.83, 0.17)  # heights at which a name may stand


def draw_strip(
    axes: "Axes",
    segments: Sequence[Segment],
    label: str,
    *,
    boxes: bool,
    inches_a_second: float,
    chosen: Collection[int] = (),
) -> None:
    """Tokens at their times in a row of their own, none over another as far as there is room.

    Args:
        axes: an empty strip.
        segments: in order.
        label: what it shows.
        boxes: whether starts and ends mean something and are drawn; else only the middles.
        inches_a_second: about how long a second is.
        chosen: numbers of segments that stand in red.
    """
    axes.set_ylim(0.0, 1.0)
    axes.set_yticks([])
    axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8, labelpad=8)
    for spine in axes.spines.values():
        spine.set_visible(boxes)
    axes.tick_params(bottom=False, labelbottom=False)
    heights = levels_for(segments, LEVELS, inches_a_second)
    for number, (segment, height) in enumerate(zip(segments, heights, strict=True)):
        red = number in chosen
        if boxes:
            axes.axvline(segment.start_s, color=GREY, linewidth=0.5)
            axes.axvline(segment.end_s, color=GREY, linewidth=0.5)
        if boxes and red:
            axes.axvspan(segment.start_s, segment.end_s, color=RED, alpha=0.15, linewidth=0)
        axes.text(
            segment.middle_s,
            height,
            segment.token,
            color=RED if red else "black",
            fontweight="bold" if red else "normal",
            fontsize=FONT,
            ha="center",
            va="center_baseline",
        )


def levels_for(
    segments: Sequence[Segment], levels: Sequence[float], inches_a_second: float
) -> list[float]:
    """For each name the first of the levels where the name before it has ended."""
    ends = dict.fromkeys(levels, float("-inf"))
    heights = []
    for segment in segments:
        half = 0.5 * FONT / 72.0 * (0.66 * len(segment.token) + 0.4) / inches_a_second
        free = [level for level, end in ends.items() if end <= segment.middle_s - half]
        level = free[0] if free else min(ends, key=lambda one: ends[one])
        ends[level] = segment.middle_s + half
        heights.append(level)
    return heights
