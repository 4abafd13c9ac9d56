#!/usr/bin/env python3
"""Sum features and their squares, from which apply_cmvn.py normalises them.

Usage: compute_cmvn_stats.py [options] FEATS_RSPECIFIER STATS_WSPECIFIER|STATS_WXFILENAME

A plain file gets one matrix over all utterances; a table gets one for each utterance, or, with
--spk2utt, for each speaker. A matrix is 2 x (columns + 1): the first row holds the sums of the
columns and the number of frames, the second the sums of squares and 0.

e.g.: compute_cmvn_stats.py scp:train/feats.scp train/cmvn.mat

e.g.: compute_cmvn_stats.py --spk2utt=ark:train/spk2utt scp:train/feats.scp ark:train/cmvn.ark

See also: apply_cmvn.py, compute_fbank_feats.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from contextlib import nullcontext
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, progress, run
from pipeline.errors import UsageError
from pipeline.tables.specifiers import is_specifier


def main(
    feats_rspecifier: Annotated[
        str, Argument(metavar="FEATS_RSPECIFIER", help="features to read, (frames, columns)")
    ],
    stats: Annotated[
        str,
        Argument(metavar="STATS_WSPECIFIER|STATS_WXFILENAME", help="statistics to write"),
    ],
    spk2utt: Annotated[
        str, Option(help="rspecifier of each speaker's utterances; empty: no sums by speaker")
    ] = "",
    weights: Annotated[
        str, Option(help="rspecifier of a weight for each frame of each utterance; empty: 1")
    ] = "",
    binary: Annotated[
        bool, Option("--binary/--no-binary", help="write a plain file in binary form")
    ] = True,
    allow_pipes: Annotated[
        bool, Option("--allow-pipes/--no-allow-pipes", help="run the commands of scp entries")
    ] = False,
) -> int:
    """Write the statistics of all utterances, of each, or of each speaker."""
    from pipeline.frontend.cmvn_sums import read_speakers, sum_features
    from pipeline.tables import MatrixReader, MatrixWriter, RandomAccessReader, write_matrix

    to_table = is_specifier(stats)
    if spk2utt and not to_table:
        raise UsageError(f"--spk2utt needs a table to write to; did you mean ark:{stats}?")
    speaker_of = read_speakers(spk2utt) if spk2utt else None
    reader = MatrixReader(feats_rspecifier, allow_pipes=allow_pipes)
    tally = Tally(permissive=reader.permissive, source=feats_rspecifier)
    with MatrixWriter(stats) if to_table else nullcontext() as writer:
        each = writer if to_table and speaker_of is None else None
        weight_of = RandomAccessReader(weights, kind="vector") if weights else None
        sums = sum_features(progress(reader), speaker_of, tally, each, weight_of)
        if writer and speaker_of is not None:
            for speaker in dict.fromkeys(speaker_of.values()):
                if speaker in sums:
                    writer.write(speaker, sums[speaker].matrix)
        tally.require_some()
    tally.failed += reader.skipped
    if not to_table and not (tally.failed and not tally.permissive):
        # In float32, as Kaldi writes it.
        write_matrix(stats, sums[""].matrix.astype("float32"), text=not binary)
    return tally.finish()


if __name__ == "__main__":
    run(main)
