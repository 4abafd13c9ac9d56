#!/usr/bin/env python3
"""Cut recordings into utterances, as the file `segments` of a data directory says.

Usage: extract_segments.py [options] WAV_RSPECIFIER SEGMENTS WAV_WSPECIFIER

e.g.: extract_segments.py scp:data/train/wav.scp data/train/segments ark:- |
        compute_fbank_feats.py ark:- ark:feats.ark

A line of SEGMENTS is: utterance recording start end, in seconds; an end of -1 is the end of the
recording. An end at most --max-overshoot past the recording's is cut to it.

See also: compute_fbank_feats.py, make_feats.sh
"""

import math
from collections import defaultdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, run
from pipeline.data.data_dir import Segment, read_map
from pipeline.data.file_kinds import number
from pipeline.errors import AudioError, DataDirError


def main(
    wav_rspecifier: Annotated[str, Argument(metavar="WAV_RSPECIFIER", help="recordings")],
    segments: Annotated[Path, Argument(metavar="SEGMENTS", help="what to cut out of them")],
    wav_wspecifier: Annotated[str, Argument(metavar="WAV_WSPECIFIER", help="RIFF, 16 bits")],
    min_segment_length: Annotated[float, Option(help="leave out shorter ones, seconds")] = 0.1,
    max_overshoot: Annotated[float, Option(help="how far an end may lie outside, seconds")] = 0.5,
    channel: Annotated[int, Option(help="of a recording with several; -1: only one allowed")] = -1,
    allow_pipes: Annotated[
        bool, Option("--allow-pipes/--no-allow-pipes", help="run commands that an scp file names")
    ] = False,
) -> int:
    """Write each utterance's samples, in the order of the recordings."""
    from pipeline.frontend.audio import WavReader, wave_bytes
    from pipeline.tables import WaveWriter

    wanted: dict[str, list[tuple[str, Segment]]] = defaultdict(list)
    for utt_id, line in read_map(segments).items():
        segment = _parse(line, utt_id, segments)
        wanted[segment.reco_id].append((utt_id, segment))
    reader = WavReader(wav_rspecifier, allow_pipes=allow_pipes)
    tally = Tally(permissive=reader.permissive)
    with WaveWriter(wav_wspecifier) as writer:
        for reco_id, recording in reader:
            parts = wanted.pop(reco_id, [])
            if not parts:
                continue
            try:
                samples, rate = recording.read(sample_rate=None, channel=channel)
            except AudioError as error:
                for utt_id, _ in parts:
                    tally.fail(utt_id, error)
                continue
            for utt_id, segment in parts:
                try:
                    first, last = _bounds(segment, len(samples) / rate, max_overshoot)
                    if last - first < min_segment_length:
                        raise AudioError(f"{last - first:.3f} s is below --min-segment-length")
                except AudioError as error:
                    tally.fail(utt_id, error)
                    continue
                cut = samples[round(first * rate) : round(last * rate)]
                writer.write(utt_id, wave_bytes(cut, rate))
                tally.ok()
        for reco_id, parts in wanted.items():
            for utt_id, _ in parts:
                tally.fail(utt_id, f"recording {reco_id} is not in {wav_rspecifier}")
        tally.require_some()
    return tally.finish()


def _parse(line: str, utt_id: str, path: Path) -> Segment:
    fields = line.split()
    times = [number(field) for field in fields[1:]]
    if len(times) != 2 or not all(map(math.isfinite, times)):
        what = f'"{utt_id} {line}" is not of the form UTT RECO START END'
        raise DataDirError(f"{path}: {what}; correct it")
    return Segment(fields[0], *times)


def _bounds(segment: Segment, duration_s: float, max_overshoot_s: float) -> tuple[float, float]:
    """Start and end in seconds, inside the recording."""
    end = duration_s if segment.end_s == -1 else segment.end_s
    if segment.start_s < 0 or segment.start_s >= min(end, duration_s):
        raise AudioError(
            f"from {segment.start_s} to {end} s of a recording of {duration_s:.3f} s: nothing there"
        )
    if end > duration_s + max_overshoot_s:
        raise AudioError(f"ends at {end} s, but the recording at {duration_s:.3f} s")
    return segment.start_s, min(end, duration_s)


if __name__ == "__main__":
    run(main)
