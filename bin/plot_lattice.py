#!/usr/bin/env python3
"""Draw a transducer's forward and backward variables over its lattice ([G12] Fig. 2).

Usage: plot_lattice.py [options] MODEL_DIR FEATS_RSPECIFIER UTT_ID PICTURE

e.g.: plot_lattice.py --text=ark:data/dev/text exp/transducer scp:data/dev/feats.scp \\
        faks0_si943 lattice.png
      plot_lattice.py --from-audio exp/transducer scp:wav.scp faks0_si943 lattice.svg

From the top: ln α(t, u), ln β(t, u), ln αβ, each in nats over time and labels emitted, and the
spectrogram. The target at the left is the reference of --text or else what the model hears. PICTURE
ends in .png or .svg. Nothing is drawn unless αβ sums to Pr(y|x) on every diagonal (eq. 19), in
float64, to 1e-9 of the logarithm.

See also: plot_sensitivity.py, plot_posteriors.py, decode_transducer.py
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import options_from_fields, run
from pipeline.plots.plot_options import PictureOptions


def main(
    model_dir: Annotated[Path, Argument(help="directory made by train_transducer.py")],
    rspecifier: Annotated[str, Argument(metavar="FEATS_RSPECIFIER", help="features")],
    utt_id: Annotated[str, Argument(help="the utterance to draw")],
    picture: Annotated[Path, Argument(help="where to: .png or .svg")],
    options: PictureOptions,
    floor: Annotated[float, Option(help="nats below the largest value that differ in colour")] = 60,
) -> int:
    from pipeline.models.model_dir import ModelDir
    from pipeline.plots.figures import check_picture, save
    from pipeline.plots.lattice import compute_lattice, draw_lattice, need_transducer
    from pipeline.plots.utterance import load_subject

    check_picture(picture)
    directory = ModelDir.open(model_dir, kind="transducer")
    subject = load_subject(directory, rspecifier, utt_id, options)
    targets = subject.targets(beam=options.beam)
    lattice = compute_lattice(need_transducer(subject), subject.inputs, targets)
    save(draw_lattice(subject, lattice, targets, title=options.title, floor=floor), picture)
    return 0


if __name__ == "__main__":
    run(options_from_fields(main))
