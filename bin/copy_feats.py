#!/usr/bin/env python3
"""Copy features, from one archive or form (binary, text, compressed) to another.

Usage: copy_feats.py [options] FEATS_RSPECIFIER FEATS_WSPECIFIER

Usage: copy_feats.py [options] FEATS_RXFILENAME FEATS_WXFILENAME

Binary features keep their precision, float32 or float64. Compressed features and text are read as
float32.

e.g.: copy_feats.py ark:feats.ark ark,t:-

e.g.: copy_feats.py --compress=true scp:feats.scp ark,scp:small.ark,small.scp

e.g.: copy_feats.py --binary=false cmvn.mat -

See also: feat_to_len.py, add_deltas.py, compute_fbank_feats.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import contextlib
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, progress, run
from pipeline.errors import UsageError
from pipeline.tables.specifiers import is_specifier


def main(
    source: Annotated[
        str, Argument(metavar="FEATS_RSPECIFIER|FEATS_RXFILENAME", help="features to read")
    ],
    target: Annotated[
        str, Argument(metavar="FEATS_WSPECIFIER|FEATS_WXFILENAME", help="features to write")
    ],
    compress: Annotated[
        bool,
        Option("--compress/--no-compress", help="compress to 8 or 16 bits per value, with loss"),
    ] = False,
    compression_method: Annotated[
        int,
        Option(
            min=1,
            max=7,
            help="method of --compress: 1 automatic, 2 speech, 3 16-bit, 4 integers (16-bit), "
            "5 8-bit, 6 0…255, 7 0…1",
        ),
    ] = 1,
    binary: Annotated[
        bool,
        Option("--binary/--no-binary", help="write a single file in binary; for tables: ark,t:"),
    ] = True,
    write_num_frames: Annotated[
        str, Option(help="wspecifier for the lengths in frames; empty: they are not written")
    ] = "",
    allow_pipes: Annotated[
        bool, Option("--allow-pipes/--no-allow-pipes", help="run the commands of scp entries")
    ] = False,
) -> int:
    """Copy a table, or one matrix."""
    if is_specifier(source) != is_specifier(target):
        table, other = (source, target) if is_specifier(source) else (target, source)
        raise UsageError(f"{table} is a table but {other} is a file; name two tables or two files")
    method = compression_method if compress else 0
    if is_specifier(source):
        return _copy_table(source, target, method, write_num_frames, allow_pipes)
    if write_num_frames:
        raise UsageError("--write-num-frames applies only to tables; leave it off")
    from pipeline.tables import read_matrix, write_matrix

    write_matrix(target, read_matrix(source), text=not binary, compression_method=method)
    return 0


def _copy_table(
    rspecifier: str, wspecifier: str, method: int, lengths: str, allow_pipes: bool
) -> int:
    from pipeline.tables import MatrixReader, MatrixWriter, NumberWriter

    reader = MatrixReader(rspecifier, allow_pipes=allow_pipes)
    tally = Tally(permissive=reader.permissive, source=rspecifier)
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(MatrixWriter(wspecifier, compression_method=method))
        counts = stack.enter_context(NumberWriter(lengths)) if lengths else None
        for utt_id, feats in progress(reader):
            writer.write(utt_id, feats)
            if counts is not None:
                counts.write(utt_id, str(len(feats)))
            tally.ok()
        tally.require_some()
    tally.failed += reader.skipped
    return tally.finish()


if __name__ == "__main__":
    run(main)
