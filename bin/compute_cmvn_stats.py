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

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from pipeline.cli import Tally, progress, run
from pipeline.errors import FeatureError, TableError, UsageError
from pipeline.tables.specifiers import is_specifier

if TYPE_CHECKING:
    from pipeline.frontend.cmvn import CmvnStats


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
    binary: Annotated[
        bool, Option("--binary/--no-binary", help="write a plain file in binary form")
    ] = True,
    allow_pipes: Annotated[
        bool, Option("--allow-pipes/--no-allow-pipes", help="run the commands of scp entries")
    ] = False,
) -> int:
    """Write the statistics of all utterances, of each, or of each speaker."""
    from pipeline.tables import MatrixReader, MatrixWriter, write_matrix

    to_table = is_specifier(stats)
    if spk2utt and not to_table:
        raise UsageError(f"--spk2utt needs a table to write to; did you mean ark:{stats}?")
    speaker_of = _speaker_of(spk2utt) if spk2utt else None
    reader = MatrixReader(feats_rspecifier, allow_pipes=allow_pipes)
    tally = Tally(permissive=reader.permissive)
    with MatrixWriter(stats) if to_table else nullcontext() as writer:
        each = writer if to_table and speaker_of is None else None
        sums = _sum(reader, speaker_of, tally, each)
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


def _speaker_of(spk2utt: str) -> dict[str, str]:
    """The speaker of each utterance, in the order of the table."""
    from pipeline.tables import TextReader

    speaker_of: dict[str, str] = {}
    for speaker, utterances in TextReader(spk2utt):
        for utt_id in utterances.split():
            if utt_id in speaker_of:
                raise TableError(f"{spk2utt}: {utt_id} occurs twice; keep it once")
            speaker_of[utt_id] = speaker
    return speaker_of


def _sum(
    reader: Any, speaker_of: dict[str, str] | None, tally: Tally, each: Any
) -> "dict[str, CmvnStats]":
    """Statistics by speaker, or of all utterances under the name "".

    If the writer ``each`` is given, the statistics of every utterance are written to it instead.
    """
    from pipeline.frontend.cmvn import CmvnStats

    sums: dict[str, CmvnStats] = {}
    missing = dict(speaker_of or {})
    dim = 0
    for utt_id, feats in progress(reader):
        group = "" if speaker_of is None else missing.pop(utt_id, None)
        if group is None:
            continue  # spk2utt does not have this utterance
        dim = dim or feats.shape[1]
        total = CmvnStats.zeros(dim) if each or group not in sums else sums[group]
        try:
            total.accumulate(feats)
        except FeatureError as error:
            tally.fail(utt_id, error)
            continue
        if each:
            each.write(utt_id, total.matrix)
        else:
            sums[group] = total
        tally.ok()
    for utt_id in missing:
        tally.fail(utt_id, "is in spk2utt but has no features; compute them, or correct spk2utt")
    return sums


if __name__ == "__main__":
    run(main)
