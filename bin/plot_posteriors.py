#!/usr/bin/env python3
"""Draw the output distributions of a model over time, above the spectrogram of an utterance.

Usage: plot_posteriors.py [options] MODEL_DIR FEATS_RSPECIFIER UTT_ID PICTURE

e.g.: plot_posteriors.py --text=ark:data/dev/text --phn=FAKS0/SI943.PHN exp/ctc \\
        scp:data/dev/feats.scp faks0_si943 posteriors.png
      plot_posteriors.py --from-audio exp/transducer scp:wav.scp faks0_si943 posteriors.svg

Each token has a curve; the blank is thin and grey. For a CTC model the curves are Pr(k|t), for a
transducer Pr(k|t, u) along the most probable path of the target sequence. Rows below the curves
show the reference of --text as the model aligns it, the hypothesis of the model, and the
segmentation of --phn or --ctm. PICTURE ends in .png or .svg.

See also: plot_lattice.py, plot_sensitivity.py, decode_ctc.py, decode_transducer.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import options_from_fields, run
from pipeline.plots.plot_options import PictureOptions


def main(
    model_dir: Annotated[Path, Argument(help="directory of a CTC model or a transducer")],
    rspecifier: Annotated[
        str, Argument(metavar="FEATS_RSPECIFIER", help="features, or recordings (--from-audio)")
    ],
    utt_id: Annotated[str, Argument(help="utterance to draw")],
    picture: Annotated[Path, Argument(help="picture to write, .png or .svg")],
    options: PictureOptions,
    phn: Annotated[
        str, Option(help="segmentation in a .PHN file of TIMIT; empty: that of --ctm")
    ] = "",
    ctm: Annotated[
        str, Option(help="segmentation in a CTM file, ignored with --phn; empty: none")
    ] = "",
    strongest: Annotated[
        int, Option(help="number of tokens to draw; 0: all whose probability exceeds 0.1")
    ] = 0,
) -> int:
    from pipeline.models.model_dir import ModelDir
    from pipeline.plots.figures import check_picture, save
    from pipeline.plots.posteriors import compute_posteriors, draw_posteriors, recognised_spans
    from pipeline.plots.segments import read_times
    from pipeline.plots.utterance import load_utterance

    check_picture(picture)
    utterance = load_utterance(ModelDir.open(model_dir), rspecifier, utt_id, options)
    segments, where = read_times(phn, ctm, utt_id, utterance.sample_rate)
    figure = draw_posteriors(
        utterance,
        compute_posteriors(utterance, utterance.targets(beam=options.beam)),
        hyp=recognised_spans(utterance, beam=options.beam) if options.text else (),
        segments=segments,
        segments_label=where,
        title=options.title,
        strongest=strongest,
    )
    save(figure, picture)
    return 0


if __name__ == "__main__":
    run(options_from_fields(main))
