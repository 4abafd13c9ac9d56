#!/usr/bin/env python3
"""Align the tokens of texts with their features: the id of a token for every frame, as in ali.scp.

Usage: align_tokens.py [options] MODEL_DIR FEATS_RSPECIFIER TEXT_RSPECIFIER ALI_WSPECIFIER

e.g.: align_tokens.py exp/ctc scp:data/train/feats.scp ark:data/train/text \\
        ark,scp:data/train/ali.ark,data/train/ali.scp

The path is the most probable one that spells the tokens, by a CTC model or a transducer. Frames of
blanks go to the tokens beside them: the boundary of two tokens lies in the middle between the last
frame of one and the first frame of the other, and what comes before the first token or after the
last one belongs to it. A token has at least one frame. The ids are those of MODEL_DIR/tokens.txt.

See also: ctm_to_ali.py, train_framewise.py, align_text.py, train_ctc.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument

from pipeline.cli import Tally, options_from_fields, run
from pipeline.decoding.decode_options import AlignOptions
from pipeline.errors import DataError, PipelineError
from pipeline.tables import IntegersWriter, MatrixReader, TextReader, parse_rspecifier


def main(
    model_dir: Annotated[
        Path, Argument(help="model directory of train_ctc.py or train_transducer.py")
    ],
    rspecifier: Annotated[str, Argument(metavar="FEATS_RSPECIFIER", help="features to align")],
    text_rspecifier: Annotated[str, Argument(metavar="TEXT_RSPECIFIER", help="texts to align")],
    wspecifier: Annotated[
        str, Argument(metavar="ALI_WSPECIFIER", help="alignments to write, vectors of integers")
    ],
    options: AlignOptions,
) -> int:
    from pipeline.decoding.token_alignment import TokenAligner

    aligner = TokenAligner(model_dir, options)
    texts = dict(TextReader(text_rspecifier, allow_pipes=options.allow_pipes))
    permissive = parse_rspecifier(rspecifier).permissive
    tally = Tally(permissive=permissive, source=rspecifier)
    reader = MatrixReader(rspecifier, allow_pipes=options.allow_pipes)
    with IntegersWriter(wspecifier) as writer:
        for utt_id, features in reader:
            try:
                if utt_id not in texts:
                    raise DataError(f"{text_rspecifier} lacks its text")
                labels = aligner.align(utt_id, features, texts[utt_id])
            except PipelineError as error:
                tally.fail(utt_id, str(error).removeprefix(f"{utt_id}: "))
                continue
            writer.write(utt_id, labels)
            tally.ok()
        tally.require_some()
    tally.failed += reader.skipped
    return tally.finish()


if __name__ == "__main__":
    run(options_from_fields(main))
