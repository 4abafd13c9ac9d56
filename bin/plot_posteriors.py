#!/usr/bin/env python3
"""Draw what a model says in each frame: its distributions over time, over the spectrogram.

Usage: plot_posteriors.py [options] MODEL_DIR FEATS_RSPECIFIER UTT_ID PICTURE

e.g.: plot_posteriors.py --text=ark:data/dev/text --phn=FAKS0/SI943.PHN exp/ctc \\
        scp:data/dev/feats.scp faks0_si943 posteriors.png
      plot_posteriors.py --from-audio exp/transducer scp:wav.scp faks0_si943 posteriors.svg

A line a token, the blank thin and grey. Of a CTC model Pr(k|t), of a transducer Pr(k|t, u) along
the most probable path of the target. Below stand the reference of --text, aligned by the model,
what the model hears, and the segmentation of --phn or --ctm.

See also: plot_lattice.py, plot_sensitivity.py, decode_ctc.py, decode_transducer.py
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import options_from_fields, run
from pipeline.plots.plot_options import PictureOptions


def main(
    model_dir: Annotated[Path, Argument(help="directory of a CTC model or a transducer")],
    rspecifier: Annotated[str, Argument(metavar="FEATS_RSPECIFIER", help="features")],
    utt_id: Annotated[str, Argument(help="the utterance to draw")],
    picture: Annotated[Path, Argument(help="where to: .png or .svg")],
    options: PictureOptions,
    phn: Annotated[str, Option(help="TIMIT's .PHN file of the utterance")] = "",
    ctm: Annotated[str, Option(help="a segmentation, if there is no --phn")] = "",
    strongest: Annotated[int, Option(help="tokens drawn; 0: all that come above 0.1")] = 0,
) -> int:
    from pipeline.models.model_dir import ModelDir
    from pipeline.plots.figures import check_picture, save
    from pipeline.plots.posteriors import compute_posteriors, draw_posteriors, heard_spans
    from pipeline.plots.segments import read_times
    from pipeline.plots.utterance import load_subject

    check_picture(picture)
    subject = load_subject(ModelDir.open(model_dir), rspecifier, utt_id, options)
    segments, where = read_times(phn, ctm, utt_id, subject.sample_rate)
    figure = draw_posteriors(
        subject,
        compute_posteriors(subject, subject.targets(beam=options.beam)),
        hyp=heard_spans(subject, beam=options.beam) if options.text else (),
        segments=segments,
        segments_label=where,
        title=options.title,
        strongest=strongest,
    )
    save(figure, picture)
    return 0


if __name__ == "__main__":
    run(options_from_fields(main))
