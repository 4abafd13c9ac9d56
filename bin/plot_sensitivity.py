#!/usr/bin/env python3
"""Draw what an output of a model hangs on ([G12] Fig. 3, [G13] Fig. 3).

Usage: plot_sensitivity.py [options] MODEL_DIR FEATS_RSPECIFIER UTT_ID PICTURE

e.g.: plot_sensitivity.py --phones=ah,p --phn=FAKS0/SI943.PHN exp/ctc scp:data/dev/feats.scp \\
        faks0_si943 sensitivity.png
      plot_sensitivity.py --text=ark:data/dev/text --label=12 exp/transducer \\
        scp:data/dev/feats.scp faks0_si943 sensitivity.svg

A CTC model: the derivative of the log-odds of --phones, each where the network emits it, to the
filter bank, with its sign. A transducer: ln αβ with a crosshair at the point (t, u) of --frame and
--label, below it the size of the derivative of ln Pr(k|t, u), k being --token, to the filter bank,
at the left that to the predictor's one-hot inputs, and the strongest tokens there of the output
and of each network alone. Derivatives go through the differences in time; those to ln energy are
in nats per unit of ln energy.

See also: plot_lattice.py, plot_posteriors.py, train_ctc.py, train_transducer.py
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import options_from_fields, run
from pipeline.errors import UsageError
from pipeline.plots.plot_options import PictureOptions


def main(
    model_dir: Annotated[Path, Argument(help="directory of a CTC model or a transducer")],
    rspecifier: Annotated[str, Argument(metavar="FEATS_RSPECIFIER", help="features")],
    utt_id: Annotated[str, Argument(help="the utterance to draw")],
    picture: Annotated[Path, Argument(help="where to: .png or .svg")],
    options: PictureOptions,
    phones: Annotated[str, Option(help="CTC: outputs, as ah,p; empty: a few")] = "",
    phn: Annotated[str, Option(help="CTC: TIMIT's .PHN file of the utterance")] = "",
    ctm: Annotated[str, Option(help="CTC: segmentation, if there is no --phn")] = "",
    frame: Annotated[
        int, Option(help="transducer: t, from 0, of the network; -1: on the best path")
    ] = -1,
    label: Annotated[int, Option(help="transducer: u, labels before; -1: half of them")] = -1,
    token: Annotated[str, Option(help="transducer: k; empty: the next of the target")] = "",
    floor: Annotated[float, Option(help="transducer: nats below the largest ln αβ drawn")] = 60.0,
) -> int:
    from pipeline.models.model_dir import ModelDir
    from pipeline.plots.figures import check_picture, save
    from pipeline.plots.segments import read_times
    from pipeline.plots.sensitivity import compute_sensitivity, draw_sensitivity
    from pipeline.plots.sensitivity_ctc import compute_ctc_sensitivity, draw_ctc_sensitivity
    from pipeline.plots.utterance import load_subject

    check_picture(picture)
    directory = ModelDir.open(model_dir)
    refuse(
        directory.kind,
        {"ctc": [phones, phn, ctm], "transducer": [frame != -1, label != -1, token]},
    )
    subject = load_subject(directory, rspecifier, utt_id, options)
    if directory.kind == "ctc":
        segments, where = read_times(phn, ctm, utt_id, subject.sample_rate)
        found = compute_ctc_sensitivity(subject, [p for p in phones.split(",") if p])
        figure = draw_ctc_sensitivity(
            subject, found, segments=segments, segments_label=where, title=options.title
        )
    else:
        sensitivity = compute_sensitivity(
            subject,
            subject.targets(beam=options.beam),
            frame=None if frame == -1 else frame,
            label=None if label == -1 else label,
            token=subject.token_id(token) if token else None,
        )
        figure = draw_sensitivity(subject, sensitivity, title=options.title, floor=floor)
    save(figure, picture)
    return 0


def refuse(kind: str, options: dict[str, list[object]]) -> None:
    """Options of the other kind of model are an error."""
    for other, values in options.items():
        if other != kind and any(values):
            raise UsageError(
                f"an option is for a {other} model, but this one is a {kind}; see --help"
            )


if __name__ == "__main__":
    run(options_from_fields(main))
