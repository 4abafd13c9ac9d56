#!/usr/bin/env python3
"""Normalise features to mean 0 and, with --norm-vars, variance 1.

Usage: apply_cmvn.py [options] STATS_RSPECIFIER|STATS_RXFILENAME FEATS_RSPECIFIER FEATS_WSPECIFIER

Statistics in a plain file are used for all utterances. In a table they are looked up by utterance,
or, with --utt2spk, by speaker.

e.g.: apply_cmvn.py --norm-vars=true train/cmvn.mat scp:test/feats.scp ark:-
e.g.: apply_cmvn.py --utt2spk=ark:test/utt2spk scp:test/cmvn.scp scp:test/feats.scp ark:-

See also: compute_cmvn_stats.py, add_deltas.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from pipeline.cli import Tally, progress, run
from pipeline.data.file_kinds import whole_number
from pipeline.errors import DataError, FeatureError, UsageError
from pipeline.tables.specifiers import is_specifier

if TYPE_CHECKING:
    from pipeline.frontend.cmvn import CmvnStats


def main(
    stats: Annotated[
        str,
        Argument(
            metavar="STATS_RSPECIFIER|STATS_RXFILENAME",
            help="CMVN statistics of compute_cmvn_stats.py",
        ),
    ],
    feats_rspecifier: Annotated[
        str, Argument(metavar="FEATS_RSPECIFIER", help="features to read, (frames, columns)")
    ],
    feats_wspecifier: Annotated[
        str, Argument(metavar="FEATS_WSPECIFIER", help="normalised features to write")
    ],
    norm_means: Annotated[
        bool, Option("--norm-means/--no-norm-means", help="subtract the mean")
    ] = True,
    norm_vars: Annotated[
        bool, Option("--norm-vars/--no-norm-vars", help="divide by the standard deviation")
    ] = False,
    reverse: Annotated[
        bool, Option("--reverse/--no-reverse", help="undo the normalisation instead")
    ] = False,
    utt2spk: Annotated[
        str, Option(help="rspecifier of each utterance's speaker; empty: statistics by utterance")
    ] = "",
    skip_dims: Annotated[
        str, Option(help="columns to leave as they are, from 0, such as 13:14; empty: none")
    ] = "",
    allow_pipes: Annotated[
        bool, Option("--allow-pipes/--no-allow-pipes", help="run the commands of scp entries")
    ] = False,
) -> int:
    from pipeline.tables import MatrixReader, MatrixWriter

    if norm_vars and not norm_means:
        raise UsageError("--norm-vars needs --norm-means; leave off --norm-means=false")
    skipped = [whole_number(dim) for dim in skip_dims.split(":")] if skip_dims else []
    if min(skipped, default=0) < 0:
        raise UsageError(f"--skip-dims takes whole numbers between colons, not {skip_dims!r}")
    stats_of = _stats_of(stats, utt2spk)
    reader = MatrixReader(feats_rspecifier, allow_pipes=allow_pipes)
    tally = Tally(permissive=reader.permissive, source=feats_rspecifier)
    with MatrixWriter(feats_wspecifier) as writer:
        for utt_id, feats in progress(reader):
            try:
                feats = (
                    stats_of(utt_id)
                    .without(tuple(skipped))
                    .apply(feats, norm_means=norm_means, norm_vars=norm_vars, reverse=reverse)
                )
            except DataError as error:
                tally.fail(utt_id, f"{error} (statistics: {stats})")
                continue
            writer.write(utt_id, feats)
            tally.ok()
        tally.require_some()
    tally.failed += reader.skipped
    return tally.finish()


def _stats_of(stats: str, utt2spk: str) -> "Callable[[str], CmvnStats]":
    """A function that gives the statistics for normalising an utterance."""
    from pipeline.frontend.cmvn import CmvnStats
    from pipeline.tables import RandomAccessReader, read_matrix

    if not is_specifier(stats):
        if utt2spk:
            raise UsageError(f"--utt2spk needs a table of statistics; did you mean ark:{stats}?")
        try:
            everyone = CmvnStats(read_matrix(stats))
        except FeatureError as error:
            raise FeatureError(f"{stats}: {error}") from error
        return lambda utt_id: everyone
    table = RandomAccessReader(stats, kind="matrix")
    speakers = RandomAccessReader(utt2spk, kind="text") if utt2spk else None

    def look_up(utt_id: str) -> CmvnStats:
        if speakers is not None and utt_id not in speakers:
            raise FeatureError(f"has no speaker in {utt2spk}; add one there")
        key = utt_id if speakers is None else speakers[utt_id]
        if key not in table:
            raise FeatureError(f"{stats} has no statistics of {key}; compute them again")
        return CmvnStats(table[key])

    return look_up


if __name__ == "__main__":
    run(main)
