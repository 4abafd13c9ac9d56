#!/usr/bin/env python3
"""Draw the forward and backward variables of a transducer over its lattice (Fig. 2 of [G12]).

Usage: plot_lattice.py [options] MODEL_DIR FEATS_RSPECIFIER UTT_ID PICTURE

e.g.: plot_lattice.py --text=ark:data/dev/text exp/transducer scp:data/dev/feats.scp \\
        faks0_si943 lattice.png
      plot_lattice.py --from-audio exp/transducer scp:wav.scp faks0_si943 lattice.svg

[G12] is A. Graves, Sequence Transduction with RNNs, 2012. From top to bottom the picture shows ln
α(t, u), ln β(t, u) and ln αβ, each in nats over time t and emitted labels u, and the spectrogram.
The target sequence on the left is the reference of --text; without it, it is what the model
recognises. The command fails unless αβ sums to Pr(y|x) on every diagonal (eq. 19), computed in
float64, with a relative tolerance of 1e-9 on the logarithm. PICTURE ends in .png or .svg.

See also: plot_sensitivity.py, plot_posteriors.py, decode_transducer.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import options_from_fields, run
from pipeline.plots.plot_options import PictureOptions


def main(
    model_dir: Annotated[Path, Argument(help="model directory of train_transducer.py")],
    rspecifier: Annotated[
        str, Argument(metavar="FEATS_RSPECIFIER", help="features, or recordings (--from-audio)")
    ],
    utt_id: Annotated[str, Argument(help="utterance to draw")],
    picture: Annotated[Path, Argument(help="picture to write, .png or .svg")],
    options: PictureOptions,
    floor: Annotated[
        float, Option(help="range of the colours below the largest value, in nats")
    ] = 60,
) -> int:
    from pipeline.models.model_dir import ModelDir
    from pipeline.plots.figures import check_picture, save
    from pipeline.plots.lattice import compute_lattice, draw_lattice, need_transducer
    from pipeline.plots.utterance import load_utterance

    check_picture(picture)
    directory = ModelDir.open(model_dir, kind="transducer")
    utterance = load_utterance(directory, rspecifier, utt_id, options)
    targets = utterance.targets(beam=options.beam)
    lattice = compute_lattice(need_transducer(utterance), utterance.inputs, targets)
    save(draw_lattice(utterance, lattice, targets, title=options.title, floor=floor), picture)
    return 0


if __name__ == "__main__":
    run(options_from_fields(main))
