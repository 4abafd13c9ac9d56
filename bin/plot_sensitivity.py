#!/usr/bin/env python3
"""Draw how an output of a model depends on its inputs (Fig. 3 of [G12], Fig. 3 of [G13]).

Usage: plot_sensitivity.py [options] MODEL_DIR FEATS_RSPECIFIER UTT_ID PICTURE

e.g.: plot_sensitivity.py --phones=ah,p --phn=FAKS0/SI943.PHN exp/ctc scp:data/dev/feats.scp \\
        faks0_si943 sensitivity.png
      plot_sensitivity.py --text=ark:data/dev/text --label=12 exp/transducer \\
        scp:data/dev/feats.scp faks0_si943 sensitivity.svg

[G12] is A. Graves, Sequence Transduction with RNNs, 2012; [G13] is A. Graves, A. Mohamed and
G. Hinton, Speech Recognition with Deep RNNs, 2013.

CTC: the picture shows the signed derivative of the log-odds of --phones, each in the frame where
the network emits it, with respect to the filter bank.

Transducer: the picture shows ln αβ over the lattice with a crosshair at the point (t, u), which
--frame and --label choose. Below is the magnitude of the derivative of ln Pr(k|t, u), where k is
--token, with respect to the filter bank; on the left is that with respect to the one-hot inputs of
the predictor. Bars show the most probable tokens at this point, of the joint output and of each
network alone.

Derivatives include the paths through the time derivatives (deltas) of the features. With respect to
ln energy, they are in nats per unit of ln energy. PICTURE ends in .png or .svg.

See also: plot_lattice.py, plot_posteriors.py, train_ctc.py, train_transducer.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import options_from_fields, run
from pipeline.errors import UsageError
from pipeline.plots.plot_options import PictureOptions


def main(
    model_dir: Annotated[Path, Argument(help="directory of a CTC model or a transducer")],
    rspecifier: Annotated[
        str, Argument(metavar="FEATS_RSPECIFIER", help="features, or recordings (--from-audio)")
    ],
    utt_id: Annotated[str, Argument(help="utterance to draw")],
    picture: Annotated[Path, Argument(help="picture to write, .png or .svg")],
    options: PictureOptions,
    phones: Annotated[
        str, Option(help="CTC: outputs to differentiate, such as ah,p; empty: three of them")
    ] = "",
    phn: Annotated[
        str, Option(help="CTC: segmentation in a .PHN file of TIMIT; empty: that of --ctm")
    ] = "",
    ctm: Annotated[
        str, Option(help="CTC: segmentation in a CTM file, ignored with --phn; empty: none")
    ] = "",
    frame: Annotated[
        int, Option(help="transducer: encoder frame t, from 0; -1: the best path's at --label")
    ] = -1,
    label: Annotated[
        int, Option(help="transducer: labels u emitted so far; -1: half, or the path's at --frame")
    ] = -1,
    token: Annotated[
        str, Option(help="transducer: token k to differentiate; empty: the next in the target")
    ] = "",
    floor: Annotated[
        float, Option(help="transducer: range of the colours below the largest ln αβ, in nats")
    ] = 60.0,
) -> int:
    from pipeline.models.model_dir import ModelDir
    from pipeline.plots.figures import check_picture, save
    from pipeline.plots.segments import read_times
    from pipeline.plots.sensitivity import compute_sensitivity, draw_sensitivity
    from pipeline.plots.sensitivity_ctc import compute_ctc_sensitivity, draw_ctc_sensitivity
    from pipeline.plots.utterance import load_utterance

    check_picture(picture)
    directory = ModelDir.open(model_dir)
    refuse(
        directory.kind,
        {"ctc": [phones, phn, ctm], "transducer": [frame != -1, label != -1, token]},
    )
    utterance = load_utterance(directory, rspecifier, utt_id, options)
    if directory.kind == "ctc":
        segments, where = read_times(phn, ctm, utt_id, utterance.sample_rate)
        found = compute_ctc_sensitivity(utterance, [p for p in phones.split(",") if p])
        figure = draw_ctc_sensitivity(
            utterance, found, segments=segments, segments_label=where, title=options.title
        )
    else:
        sensitivity = compute_sensitivity(
            utterance,
            utterance.targets(beam=options.beam),
            frame=None if frame == -1 else frame,
            label=None if label == -1 else label,
            token=utterance.token_id(token) if token else None,
        )
        figure = draw_sensitivity(utterance, sensitivity, title=options.title, floor=floor)
    save(figure, picture)
    return 0


def refuse(kind: str, options: dict[str, list[object]]) -> None:
    """Raise UsageError if an option was given that applies to the other kind of model."""
    for other, values in options.items():
        if other != kind and any(values):
            raise UsageError(
                f"an option applies only to a {other} model, but this is a {kind} model; see --help"
            )


if __name__ == "__main__":
    run(options_from_fields(main))
