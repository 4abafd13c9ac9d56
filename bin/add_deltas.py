#!/usr/bin/env python3
"""Append time derivatives (deltas) to features.

Usage: add_deltas.py [options] FEATS_RSPECIFIER FEATS_WSPECIFIER

e.g.: add_deltas.py --delta-order=2 scp:fbank.scp ark:-

See also: compute_fbank_feats.py, compute_mfcc_feats.py, apply_cmvn.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, options_from_fields, progress, run
from pipeline.errors import FeatureError
from pipeline.frontend.feature_options import DeltaOptions


@options_from_fields
def main(
    feats_rspecifier: Annotated[
        str, Argument(metavar="FEATS_RSPECIFIER", help="features to read, (frames, columns)")
    ],
    feats_wspecifier: Annotated[
        str,
        Argument(metavar="FEATS_WSPECIFIER", help="features to write: (order + 1) x the columns"),
    ],
    options: DeltaOptions,
    allow_pipes: Annotated[
        bool, Option("--allow-pipes/--no-allow-pipes", help="run the commands of scp entries")
    ] = False,
    allow_empty: Annotated[
        bool, Option("--allow-empty/--no-allow-empty", help="succeed if there are no features")
    ] = False,
) -> int:
    """Write each utterance's features with their deltas."""
    from pipeline.frontend.deltas import add_deltas, truncated
    from pipeline.frontend.spectra import check_features
    from pipeline.tables import MatrixReader, MatrixWriter

    reader = MatrixReader(feats_rspecifier, allow_pipes=allow_pipes)
    tally = Tally(permissive=reader.permissive, allow_empty=allow_empty, source=feats_rspecifier)
    with MatrixWriter(feats_wspecifier) as writer:
        for utt_id, feats in progress(reader):
            try:
                check_features(feats)
                feats = truncated(feats, options.truncate)
                feats = add_deltas(feats, order=options.delta_order, window=options.delta_window)
            except FeatureError as error:
                tally.fail(utt_id, error)
                continue
            writer.write(utt_id, feats)
            tally.ok()
        tally.require_some()
    tally.failed += reader.skipped
    return tally.finish()


if __name__ == "__main__":
    run(main)
