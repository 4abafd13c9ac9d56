"""Output distributions over time: Pr(k|t) of a CTC model, Pr(k|t, u) of a transducer.

[G13] is A. Graves, A. Mohamed and G. Hinton, Speech Recognition with Deep RNNs, 2013. A CTC network
(eq. 14) has one distribution in each frame. A transducer (eq. 18) has one at each point of its
lattice; those on the most probable path of the target sequence are shown. If this path emits labels
in a frame, its points share the time of the frame evenly.
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
from pipeline.plots.token_rows import (
    FONT,
    count_rows,
    draw_token_rows,
    find_places,
    make_token_rows,
)
from pipeline.plots.utterance import PlottedUtterance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
LOWEST_PEAK = 0.1  # tokens whose probability never exceeds this are not drawn


@dataclass(frozen=True)
class Posteriors:
    """Distributions over time, and the times of the target tokens."""

    times_s: Array  # (S,), ascending
    probs: Array  # (S, V)
    targets: tuple[int, ...]
    spans: list[Segment]  # the times of the targets


def compute_posteriors(utterance: PlottedUtterance, targets: Sequence[int]) -> Posteriors:
    """The distributions of a CTC model, or of a transducer on the best path of ``targets``.

    Raises:
        DataError: no path emits these targets.
    """
    try:
        if isinstance(utterance.model, CtcModel):
            return _of_ctc(utterance, utterance.model, targets)
        return _of_transducer(utterance, utterance.model, targets)
    except ValueError as error:
        raise DataError(
            f"{utterance.utt_id}: {error}; is this the text of the utterance?"
        ) from error


def _of_ctc(utterance: PlottedUtterance, model: CtcModel, targets: Sequence[int]) -> Posteriors:
    with torch.inference_mode():
        features = torch.from_numpy(utterance.inputs)[None]
        log_probs, _ = model(features, torch.tensor([len(utterance.inputs)]))
    rows = log_probs[0].numpy()
    times = (np.arange(len(rows), dtype=np.float64) + 0.5) * utterance.step_s
    spans = ctc_align(rows, list(targets), blank=BLANK)
    return Posteriors(times, np.exp(rows), tuple(targets), spans_of(utterance, targets, spans))


def _of_transducer(
    utterance: PlottedUtterance, model: TransducerModel, targets: Sequence[int]
) -> Posteriors:
    path = compute_lattice(model, utterance.inputs, targets).path
    with torch.inference_mode():
        features = torch.from_numpy(utterance.inputs)[None]
        encoded, _ = model.encoder(features, torch.tensor([len(utterance.inputs)]))
        ids = torch.tensor([list(targets)], dtype=torch.int64)
        predicted = model.predictor(ids, torch.tensor([len(targets)]))
        rows = model.joiner.project_encoder(encoded)[0]
        columns = model.joiner.project_predictor(predicted)[0]
        t, u, times = path_points(path, len(rows))
        probs = log_softmax(model.joiner(rows[t], columns[u])).exp().numpy()
    spans = spans_of(utterance, targets, [(frame, frame + 1) for frame in path])
    return Posteriors(times * utterance.step_s, probs, tuple(targets), spans)


def path_points(
    path: Sequence[int], frames: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """The points (t, u) of a path through the lattice, and their times in frames, (T + U,) each.

    Args:
        path: the frame of each label, in ascending order.
        frames: number T of frames.
    """
    emitted = np.bincount(np.asarray(path, dtype=np.int64), minlength=frames)
    t = np.repeat(np.arange(frames), emitted + 1)
    first = np.cumsum(emitted + 1) - (emitted + 1)  # the first point of each frame
    place = np.arange(len(t)) - first[t]
    return t, np.arange(len(t)) - t, t + (place + 0.5) / (emitted[t] + 1)


def spans_of(
    utterance: PlottedUtterance, tokens: Sequence[int], spans: Sequence[tuple[int, int]]
) -> list[Segment]:
    """Tokens with their times, from the first encoder frame of each and the one after its last."""
    step = utterance.step_s
    return [
        Segment(first * step, end * step, name)
        for (first, end), name in zip(spans, utterance.symbols(list(tokens)), strict=True)
    ]


def recognised_spans(utterance: PlottedUtterance, *, beam: int = 10) -> list[Segment]:
    """The best hypothesis of the model, with the times of its tokens."""
    found = utterance.recognise(beam=beam)
    return spans_of(utterance, found.hyps[0].tokens, found.spans)


# ---- drawing -------------------------------------------------------------------------------------


@style()
def draw_posteriors(
    utterance: PlottedUtterance,
    found: Posteriors,
    *,
    hyp: Sequence[Segment] = (),
    segments: Sequence[Segment] = (),
    segments_label: str = "segments",
    title: str = "",
    strongest: int = 0,
) -> "Figure":
    """Draw curves, the tokens of target and hypothesis at their times, and the spectrogram.

    Args:
        utterance: the utterance.
        found: the result of `compute_posteriors`.
        hyp: the hypothesis of the model.
        segments: another segmentation, which is drawn as boxes.
        segments_label: the name of that segmentation.
        title: the title above the picture.
        strongest: number of tokens with the highest peaks to draw; 0 for all with a peak above 0.1.

    Raises:
        UsageError: ``strongest`` is negative.
    """
    if strongest < 0:
        raise UsageError(f"--strongest must be 0 or more, not {strongest}")
    first = "ref" if utterance.reference is not None else "hyp"
    shown_tokens: list[tuple[str, Sequence[Segment], bool]] = [(first, found.spans, False)]
    if hyp and utterance.reference is not None:
        shown_tokens.append(("hyp", hyp, False))
    if segments:
        shown_tokens.append((segments_label, segments, True))
    width = width_for(utterance.end_s, len(found.targets))
    scale = 0.85 * width / utterance.end_s
    token_rows = [
        make_token_rows(tokens, name, boxes=boxes, inches_a_second=scale, end_s=utterance.end_s)
        for name, tokens, boxes in shown_tokens
    ]
    ratios = [2.4, *(rows.inches for rows in token_rows), 1.8]
    figure = new_figure(width, 1.2 + sum(ratios), title or utterance.name)
    axes = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
    _draw_curves(axes[0], utterance, found, strongest, scale)
    for one, rows in zip(axes[1:], token_rows, strict=False):
        draw_token_rows(one, rows)
    draw_spectrogram(axes[-1], utterance.spectrogram, utterance.bank, utterance.length_s)
    time_axes(list(axes), utterance.end_s)
    return figure


def strongest_tokens(probs: Array, count: int) -> list[int]:
    """The ``count`` tokens with the highest peaks, without the blank; all above 0.1 for 0."""
    peaks = probs.max(axis=0)
    peaks[BLANK] = 0.0
    ranked = [int(k) for k in np.argsort(-peaks, kind="stable") if k != BLANK]
    return ranked[:count] if count else [k for k in ranked if peaks[k] >= LOWEST_PEAK]


def _draw_curves(
    axes: "Axes", utterance: PlottedUtterance, found: Posteriors, count: int, inches_a_second: float
) -> None:
    """Draw a curve for each token, and above it the names of emitted tokens."""
    times, probs = found.times_s, found.probs
    axes.plot(times, probs[:, BLANK], color=GREY, linewidth=0.7)
    colour_of = {}
    for number, token in enumerate(sorted(strongest_tokens(probs, count))):
        colour_of[token] = colour = COLOURS[number % len(COLOURS)]
        axes.plot(times, probs[:, token], color=colour, linewidth=1.1)
        axes.fill_between(times, probs[:, token], color=colour, alpha=0.25, linewidth=0)
    spikes = [spike for spike in find_spikes(probs) if spike.token in colour_of]
    names = [shown(name) for name in utterance.symbols([spike.token for spike in spikes])]
    middles = [float(times[spike.frame]) for spike in spikes]
    places = find_places(names, middles, inches_a_second, utterance.end_s)
    for spike, name, place in zip(spikes, names, places, strict=True):
        if place is not None:
            colour, at = colour_of[spike.token], (place.time_s, 1.08 + 0.12 * place.row)
            axes.text(*at, name, color=colour, fontsize=FONT, ha="center", va="center")
    axes.set_ylim(0.0, 1.04 + 0.12 * max(3, count_rows(places)))
    axes.set_yticks([0.0, 0.5, 1.0])
    axes.set_ylabel(
        "Pr(k|t)" if isinstance(utterance.model, CtcModel) else "Pr(k|t, u) on the path"
    )
    axes.set_title("grey: ∅", loc="right", fontsize=8, color=GREY)
