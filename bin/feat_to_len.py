#!/usr/bin/env python3
"""Write the number of frames of each utterance, or print the number of all frames.

Usage: feat_to_len.py [options] FEATS_RSPECIFIER [LEN_WSPECIFIER]

The lengths are written as lines "utterance frames". Of binary features only the headers are read.

e.g.: feat_to_len.py scp:feats.scp ark,t:utt2num_frames

e.g.: feat_to_len.py scp:feats.scp

See also: copy_feats.py, compute_fbank_feats.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, progress, run


def main(
    rspecifier: Annotated[str, Argument(metavar="FEATS_RSPECIFIER", help="features to read")],
    wspecifier: Annotated[
        str | None,
        Argument(
            metavar="[LEN_WSPECIFIER]",
            help="lengths to write, in frames; default: print their sum",
            show_default=False,
        ),
    ] = None,
    allow_pipes: Annotated[
        bool, Option("--allow-pipes/--no-allow-pipes", help="run the commands of scp entries")
    ] = False,
) -> int:
    """Count frames."""
    from pipeline.tables import NumberWriter, ShapeReader

    reader = ShapeReader(rspecifier, allow_pipes=allow_pipes)
    tally = Tally(permissive=reader.permissive, source=rspecifier)
    total = 0
    if wspecifier is None:
        for _, (frames, _) in progress(reader):
            total += frames
            tally.ok()
        print(total)
    else:
        with NumberWriter(wspecifier) as writer:
            for utt_id, (frames, _) in progress(reader):
                writer.write(utt_id, str(frames))
                total += frames
                tally.ok()
    tally.failed += reader.skipped
    return tally.finish(f"{total} frames")


if __name__ == "__main__":
    run(main)
