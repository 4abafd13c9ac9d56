#!/usr/bin/env python3
"""Turn the times of phones into alignments: the id of a token for every frame, as in ali.scp.

Usage: ctm_to_ali.py [options] TOKENS CTM UTT2NUM_FRAMES ALI_WSPECIFIER

e.g.: ctm_to_ali.py data/tokens.txt data/train/phones.ctm data/train/utt2num_frames \\
        ark,scp:data/train/ali.ark,data/train/ali.scp

CTM has lines UTT CHANNEL START DURATION PHONE with times in s, such as the phones.ctm that TIMIT's
prepare_data.py makes from .PHN files. A frame has the phone in which its middle lies. A gap between
two phones is divided in its middle; frames before the first phone or after the last belong to it.
A phone has at least one frame. --frame-shift and --frame-length are those of the features.

See also: align_tokens.py, train_framewise.py, compute_fbank_feats.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import logging
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, run
from pipeline.data.file_kinds import number
from pipeline.data.text_files import read_map
from pipeline.errors import DataError, PipelineError, UsageError
from pipeline.plain_text import read_lines, shown
from pipeline.tables import IntegersWriter
from pipeline.text.tokens import Tokens

log = logging.getLogger("pipeline")

FAR = 10.0  # frames

Phones = list[tuple[float, float, str]]  # start and end in s


def main(
    tokens: Annotated[Path, Argument(help="tokens.txt, whose ids the alignments have")],
    ctm: Annotated[Path, Argument(help="CTM file with the times of phones")],
    frames: Annotated[Path, Argument(metavar="UTT2NUM_FRAMES", help="frames of each utterance")],
    wspecifier: Annotated[
        str, Argument(metavar="ALI_WSPECIFIER", help="alignments to write, vectors of integers")
    ],
    frame_shift: Annotated[float, Option(help="time from frame to frame, in ms")] = 10.0,
    frame_length: Annotated[float, Option(help="length of a frame, in ms")] = 25.0,
    snip_edges: Annotated[
        bool, Option("--snip-edges/--no-snip-edges", help="frames lie within the recording")
    ] = True,
) -> int:
    if not (0.0 < frame_shift < 1e6 and 0.0 < frame_length < 1e6):
        raise UsageError("--frame-shift and --frame-length must be above 0 ms")
    from pipeline.decoding.frame_labels import labels_of_frames

    known, spoken = Tokens.from_file(tokens), read_phones(ctm)
    # Frame t has its middle at t shifts and half a length, or half a shift; here at t + 1/2.
    late = (frame_length - frame_shift) / 2.0 if snip_edges else 0.0
    tally = Tally(source=str(frames))
    with IntegersWriter(wspecifier) as writer:
        for utt_id, count in read_map(frames).items():
            try:
                if not count.isdecimal():
                    raise DataError(f"{frames}: {shown(count)!r} is not a number of frames")
                if utt_id not in spoken:
                    raise DataError(f"{ctm} lacks its phones")
                phones = spoken[utt_id]
                ids = known.encode([phone for _, _, phone in phones], where=f"{ctm}: {utt_id}")
                spans = [
                    ((start * 1000.0 - late) / frame_shift, (end * 1000.0 - late) / frame_shift)
                    for start, end, _ in phones
                ]
                labels = labels_of_frames(ids, spans, int(count))
                warn_of_another_length(utt_id, spans[-1][1], len(labels))
            except (PipelineError, ValueError) as error:
                tally.fail(utt_id, error)
                continue
            writer.write(utt_id, labels)
            tally.ok()
        tally.require_some()
    return tally.finish()


def warn_of_another_length(utt_id: str, end: float, frames: int) -> None:
    """Warn if the last phone's end, in frames, is far from the end of the utterance."""
    if abs(end - frames) > FAR + frames / 10.0:
        log.warning(
            "%s: the phones end at frame %.0f, but there are %d frames; are --frame-shift and the "
            "recording the right ones?",
            utt_id,
            end,
            frames,
        )


def read_phones(path: Path) -> dict[str, Phones]:
    """The phones of each utterance in a CTM file, by their start.

    Raises:
        DataError: the file cannot be read, or a line has another form. Names the line.
    """
    found: dict[str, Phones] = {}
    for line_number, line in enumerate(read_lines(path, DataError), start=1):
        fields = line.split()
        start, duration = [*map(number, fields[2:4]), -1.0, -1.0][:2]
        if len(fields) < 5 or not (start >= 0.0 and duration >= 0.0):  # NaN: not a number
            raise DataError(
                f"{path}:{line_number}: expected UTT CHANNEL START DURATION PHONE with times in s, "
                f"not {shown(line)!r}; correct it"
            )
        found.setdefault(fields[0], []).append((start, start + duration, fields[4]))
    return {utt_id: sorted(phones) for utt_id, phones in found.items()}


if __name__ == "__main__":
    run(main)
