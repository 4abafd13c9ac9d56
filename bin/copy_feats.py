#!/usr/bin/env python3
"""Copy features: between archives and scp files, binary, text and compressed forms.

Usage: copy_feats.py [options] FEATS_RSPECIFIER FEATS_WSPECIFIER

Usage: copy_feats.py [options] FEATS_RXFILENAME FEATS_WXFILENAME

float32 stays float32 and float64 float64; compressed and text features are read as float32.

e.g.: copy_feats.py ark:feats.ark ark,t:-

e.g.: copy_feats.py --compress=true scp:feats.scp ark,scp:small.ark,small.scp

e.g.: copy_feats.py --binary=false cmvn.mat -

See also: feat_to_len.py, add_deltas.py, compute_fbank_feats.py
"""

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
        str, Argument(metavar="FEATS_WSPECIFIER|FEATS_WXFILENAME", help="where to write them")
    ],
    compress: Annotated[
        bool, Option("--compress/--no-compress", help="write 8 or 16 bits a value, lossy")
    ] = False,
    compression_method: Annotated[
        int,
        Option(
            min=1,
            max=7,
            help="with --compress: 1 automatic, 2 speech features, 3 two bytes, 4 two-byte "
            "integers, 5 one byte, 6 integers 0 to 255, 7 values 0 to 1",
        ),
    ] = 1,
    binary: Annotated[
        bool, Option("--binary/--no-binary", help="form of a single file; a table says t or b")
    ] = True,
    write_num_frames: Annotated[
        str, Option(help="table to write lengths to, in frames, e.g. ark,t:utt2num_frames")
    ] = "",
    allow_pipes: Annotated[
        bool, Option("--allow-pipes/--no-allow-pipes", help="run commands that an scp file names")
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
        raise UsageError("--write-num-frames is for tables; leave it off")
    from pipeline.tables import read_matrix, write_matrix

    write_matrix(target, read_matrix(source), text=not binary, compression_method=method)
    return 0


def _copy_table(
    rspecifier: str, wspecifier: str, method: int, lengths: str, allow_pipes: bool
) -> int:
    from pipeline.tables import MatrixReader, MatrixWriter, TextWriter

    reader = MatrixReader(rspecifier, allow_pipes=allow_pipes)
    tally = Tally(permissive=reader.permissive)
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(MatrixWriter(wspecifier, compression_method=method))
        counts = stack.enter_context(TextWriter(lengths)) if lengths else None
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
