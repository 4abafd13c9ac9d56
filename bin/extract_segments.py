#!/usr/bin/env python3
"""Cut recordings into utterances, as listed in the file `segments` of a data directory.

Usage: extract_segments.py [options] WAV_RSPECIFIER SEGMENTS WAV_WSPECIFIER

e.g.: extract_segments.py scp:data/train/wav.scp data/train/segments ark:- |
        compute_fbank_feats.py ark:- ark:feats.ark

A line of SEGMENTS is "utterance recording start end", with times in seconds; an end of -1 means the
end of the recording. An end that lies at most --max-overshoot seconds after the end of the
recording is moved to the end of the recording. Utterances are written in the order of SEGMENTS:
each recording is read once, and what is cut before its turn waits in a temporary file.

See also: compute_fbank_feats.py, make_feats.sh
"""

import pipeline.environment  # isort: skip  # noqa: F401

from collections import defaultdict
from pathlib import Path
from typing import Annotated

from typer import Argument

from pipeline.cli import Tally, options_from_fields, run
from pipeline.data.data_dir import Segment, read_map
from pipeline.data.file_kinds import TO_END, parse_segment
from pipeline.errors import AudioError, DataDirError
from pipeline.frontend.extraction import SegmentOptions
from pipeline.plain_text import shown


@options_from_fields
def main(
    wav_rspecifier: Annotated[str, Argument(metavar="WAV_RSPECIFIER", help="recordings to read")],
    segments: Annotated[
        Path, Argument(metavar="SEGMENTS", help="file of the utterances' times in seconds")
    ],
    wav_wspecifier: Annotated[
        str, Argument(metavar="WAV_WSPECIFIER", help="utterances to write, 16-bit RIFF")
    ],
    options: SegmentOptions,
) -> int:
    """Write each utterance's samples."""
    from pipeline.frontend.audio import WavReader, wave_bytes
    from pipeline.tables import WaveWriter
    from pipeline.tables.ordered import in_order

    table = read_map(segments)
    wanted: dict[str, list[tuple[str, Segment]]] = defaultdict(list)
    for utt_id, line in table.items():
        segment = parse_segment(line)
        if segment is None:
            what = f'"{utt_id} {shown(line)}" is not of the form UTT RECO START END'
            raise DataDirError(f"{segments}: {what}; correct it")
        wanted[segment.reco_id].append((utt_id, segment))
    reader = WavReader(wav_rspecifier, allow_pipes=options.allow_pipes)
    tally = Tally(
        permissive=reader.permissive, allow_empty=options.allow_empty, source=wav_rspecifier
    )
    with WaveWriter(wav_wspecifier) as writer, in_order(table, writer.write) as put:

        def fail(utt_id: str, error: object) -> None:
            tally.fail(utt_id, error)
            put(utt_id, None)

        for reco_id, recording in reader:
            parts = wanted.pop(reco_id, [])
            if not parts:
                continue
            try:
                samples, rate = recording.read(sample_rate=None, channel=options.channel)
            except AudioError as error:
                for utt_id, _ in parts:
                    fail(utt_id, error)
                continue
            for utt_id, segment in parts:
                try:
                    first, last = _bounds(segment, len(samples) / rate, options.max_overshoot)
                    if last - first < options.min_segment_length:
                        raise AudioError(f"{last - first:.3f} s is less than --min-segment-length")
                except AudioError as error:
                    fail(utt_id, error)
                    continue
                put(utt_id, wave_bytes(samples[round(first * rate) : round(last * rate)], rate))
                tally.ok()
        for reco_id, parts in wanted.items():
            for utt_id, _ in parts:
                fail(utt_id, f"recording {reco_id} is not in {wav_rspecifier}")
        tally.require_some()
    return tally.finish()


def _bounds(segment: Segment, duration_s: float, max_overshoot_s: float) -> tuple[float, float]:
    """Start and end in seconds, inside the recording."""
    end = duration_s if segment.end_s == TO_END else segment.end_s
    if segment.start_s < 0 or segment.start_s >= min(end, duration_s):
        raise AudioError(
            f"the segment from {segment.start_s} s to {end} s lies outside the recording of "
            f"{duration_s:.3f} s; correct it"
        )
    if end > duration_s + max_overshoot_s:
        raise AudioError(
            f"the segment ends at {end} s, but the recording at {duration_s:.3f} s; correct it, or "
            "raise --max-overshoot"
        )
    return segment.start_s, min(end, duration_s)


if __name__ == "__main__":
    run(main)
