"""What a network says in each frame: Pr(k|t) of a CTC model, Pr(k|t, u) of a transducer.

Of a CTC network ([G13] eq. 14) each frame has one distribution. A transducer ([G13] eq. 18) has one
at each point of its lattice; shown are those along the most probable path for the target. Where
that path stays in a frame to emit labels, its points share the frame's time evenly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import DataError, UsageError
from pipeline.kernels.search.ctc import ctc_align
from pipeline.nn.layers import log_softmax
from pipeline.nn.models import BLANK, CtcModel, TransducerModel
from pipeline.plots.figures import COLOURS, GREY, new_figure, style, time_axes, width_for
from pipeline.plots.filter_bank import draw_spectrogram
from pipeline.plots.lattice import compute_lattice
from pipeline.plots.lettering import shown
from pipeline.plots.segments import Segment
from pipeline.plots.sensitivity_ctc import find_spikes
from pipeline.plots.token_rows import FONT, count_rows, draw_strip, find_places, make_strip
from pipeline.plots.utterance import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
LOWEST_PEAK = 0.1  # a token that never comes above has no line


@dataclass(frozen=True)
class Posteriors:
    """Distributions over time, and when the target's tokens are emitted."""

    times_s: Array  # (S,), rising
    probs: Array  # (S, V)
    targets: tuple[int, ...]
    spans: list[Segment]  # of the targets


def compute_posteriors(subject: Subject, targets: Sequence[int]) -> Posteriors:
    """Distributions of a CTC model, or of a transducer on the best path for ``targets``.

    Raises:
        DataError: no path emits these targets.
    """
    try:
        if isinstance(subject.model, CtcModel):
            return _of_ctc(subject, subject.model, targets)
        return _of_transducer(subject, subject.model, targets)
    except ValueError as error:
        raise DataError(f"{subject.utt_id}: {error}; is this the text of the utterance?") from error


def _of_ctc(subject: Subject, model: CtcModel, targets: Sequence[int]) -> Posteriors:
    with torch.inference_mode():
        features = torch.from_numpy(subject.inputs)[None]
        log_probs, _ = model(features, torch.tensor([len(subject.inputs)]))
    rows = log_probs[0].numpy()
    times = (np.arange(len(rows), dtype=np.float64) + 0.5) * subject.step_s
    spans = ctc_align(rows, list(targets), blank=BLANK)
    return Posteriors(times, np.exp(rows), tuple(targets), spans_of(subject, targets, spans))


def _of_transducer(subject: Subject, model: TransducerModel, targets: Sequence[int]) -> Posteriors:
    path = compute_lattice(model, subject.inputs, targets).path
    with torch.inference_mode():
        features = torch.from_numpy(subject.inputs)[None]
        encoded, _ = model.encoder(features, torch.tensor([len(subject.inputs)]))
        ids = torch.tensor([list(targets)], dtype=torch.int64)
        predicted = model.predictor(ids, torch.tensor([len(targets)]))
        rows = model.joiner.project_encoder(encoded)[0]
        columns = model.joiner.project_predictor(predicted)[0]
        t, u, times = path_points(path, len(rows))
        probs = log_softmax(model.joiner(rows[t], columns[u])).exp().numpy()
    spans = spans_of(subject, targets, [(frame, frame + 1) for frame in path])
    return Posteriors(times * subject.step_s, probs, tuple(targets), spans)


def path_points(
    path: Sequence[int], frames: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """The points (t, u) of a path through the lattice and their times in frames, (T + U,) each.

    Args:
        path: the frame of each label, not falling.
        frames: T.
    """
    emitted = np.bincount(np.asarray(path, dtype=np.int64), minlength=frames)
    t = np.repeat(np.arange(frames), emitted + 1)
    first = np.cumsum(emitted + 1) - (emitted + 1)  # of each frame's points
    place = np.arange(len(t)) - first[t]
    return t, np.arange(len(t)) - t, t + (place + 0.5) / (emitted[t] + 1)


def spans_of(
    subject: Subject, tokens: Sequence[int], spans: Sequence[tuple[int, int]]
) -> list[Segment]:
    """Tokens with their times: first frame of the network and the one after the last."""
    step = subject.step_s
    return [
        Segment(first * step, end * step, name)
        for (first, end), name in zip(spans, subject.symbols(list(tokens)), strict=True)
    ]


def heard_spans(subject: Subject, *, beam: int = 10) -> list[Segment]:
    """What the model hears, with its times."""
    heard = subject.heard(beam=beam)
    return spans_of(subject, heard.hyps[0].tokens, heard.spans)


# ---- drawing -------------------------------------------------------------------------------------


@style()
def draw_posteriors(
    subject: Subject,
    found: Posteriors,
    *,
    hyp: Sequence[Segment] = (),
    segments: Sequence[Segment] = (),
    segments_label: str = "segments",
    title: str = "",
    strongest: int = 0,
) -> "Figure":
    """Curves, the tokens of the target and of the hypothesis at their places, the spectrogram.

    Args:
        subject: the utterance.
        found: what `compute_posteriors` gave for it.
        hyp: what the model hears.
        segments: a segmentation from elsewhere; drawn as boxes.
        segments_label: what it is.
        title: above the picture.
        strongest: tokens that have a line, those of the highest peaks; 0: all that peak above 0.1.

    Raises:
        UsageError: fewer than none.
    """
    if strongest < 0:
        raise UsageError(f"--strongest must be 0 or more, not {strongest}")
    first = "ref" if subject.reference is not None else "hyp"
    rows: list[tuple[str, Sequence[Segment], bool]] = [(first, found.spans, False)]
    if hyp and subject.reference is not None:
        rows.append(("hyp", hyp, False))
    if segments:
        rows.append((segments_label, segments, True))
    width = width_for(subject.end_s, len(found.targets))
    scale = 0.85 * width / subject.end_s
    strips = [
        make_strip(tokens, name, boxes=boxes, inches_a_second=scale, end_s=subject.end_s)
        for name, tokens, boxes in rows
    ]
    ratios = [2.4, *(strip.inches for strip in strips), 1.8]
    figure = new_figure(width, 1.2 + sum(ratios), title or subject.name)
    axes = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
    _draw_curves(axes[0], subject, found, strongest, scale)
    for one, strip in zip(axes[1:], strips, strict=False):
        draw_strip(one, strip)
    draw_spectrogram(axes[-1], subject.spectrogram, subject.bank, subject.length_s)
    time_axes(list(axes), subject.end_s)
    return figure


def strongest_tokens(probs: Array, count: int) -> list[int]:
    """Tokens without the blank, the highest peak first; ``count`` of them, or 0: all above 0.1."""
    peaks = probs.max(axis=0)
    peaks[BLANK] = 0.0
    ranked = [int(k) for k in np.argsort(-peaks, kind="stable") if k != BLANK]
    return ranked[:count] if count else [k for k in ranked if peaks[k] >= LOWEST_PEAK]


def _draw_curves(
    axes: "Axes", subject: Subject, found: Posteriors, count: int, inches_a_second: float
) -> None:
    """A line a token; above stand the names of those that are the most probable of all."""
    times, probs = found.times_s, found.probs
    axes.plot(times, probs[:, BLANK], color=GREY, linewidth=0.7)
    colour_of = {}
    for number, token in enumerate(sorted(strongest_tokens(probs, count))):
        colour_of[token] = colour = COLOURS[number % len(COLOURS)]
        axes.plot(times, probs[:, token], color=colour, linewidth=1.1)
        axes.fill_between(times, probs[:, token], color=colour, alpha=0.25, linewidth=0)
    spikes = [spike for spike in find_spikes(probs) if spike.token in colour_of]
    names = [shown(name) for name in subject.symbols([spike.token for spike in spikes])]
    middles = [float(times[spike.frame]) for spike in spikes]
    places = find_places(names, middles, inches_a_second, subject.end_s)
    for spike, name, place in zip(spikes, names, places, strict=True):
        if place is not None:
            colour, at = colour_of[spike.token], (place.time_s, 1.08 + 0.12 * place.row)
            axes.text(*at, name, color=colour, fontsize=FONT, ha="center", va="center")
    axes.set_ylim(0.0, 1.04 + 0.12 * max(3, count_rows(places)))
    axes.set_yticks([0.0, 0.5, 1.0])
    axes.set_ylabel("Pr(k|t)" if isinstance(subject.model, CtcModel) else "Pr(k|t, u) on the path")
    axes.set_title("grey: ∅", loc="right", fontsize=8, color=GREY)
