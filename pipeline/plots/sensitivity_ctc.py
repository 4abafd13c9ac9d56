"""How chosen outputs of a CTC network hang on the filter bank, [G13] Fig. 3.

The scalar that is differentiated is the sum of the log-odds ln (Pr(k|t) / (1 - Pr(k|t))) over the
chosen outputs: k, of [G13] eq. 14, at the frame t where the network emits it. Log-odds, because an
output that is nearly sure hardly moves in its logarithm, d ln Pr = (1 - Pr) d log-odds, and would
be invisible beside an unsure one. Derivatives are exact (autograd through the network and the
differences in time), taken to each log filter-bank energy, and drawn with their sign.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import DataError, ModelError
from pipeline.nn.models import BLANK, CtcModel
from pipeline.plots.figures import (
    RED,
    colour_bar,
    new_figure,
    show_matrix,
    style,
    time_axes,
    width_for,
)
from pipeline.plots.filter_bank import draw_spectrogram, frequency_axis, to_static
from pipeline.plots.segments import Segment
from pipeline.plots.token_rows import Strip, draw_strip, make_strip
from pipeline.plots.utterance import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
SILENCES = {"sil", "pau", "h#", "epi", "#h", "spn"}
A_FEW = 3  # outputs that are chosen unless someone says which


@dataclass(frozen=True)
class Spike:
    """A token that the network emits: it is the most probable one around a frame."""

    token: int
    frame: int  # of the network, where it is most probable


@dataclass(frozen=True)
class CtcSensitivity:
    """Derivatives of the sum of the log-odds of the chosen spikes."""

    spikes: list[Spike]  # of the utterance
    chosen: list[int]  # numbers of spikes
    to_inputs: Array  # (T', R), to what the spectrogram shows


def need_ctc(subject: Subject) -> CtcModel:
    """The subject's model. Raises ModelError for another kind."""
    if not isinstance(subject.model, CtcModel):
        raise ModelError(
            f"{subject.directory.path}: a {subject.directory.kind} model; a ctc model is needed"
        )
    return subject.model


def find_spikes(probs: Array) -> list[Spike]:
    """Runs of frames whose most probable token is the same and not ∅, at their best frame.

    Args:
        probs: Pr(k|t) or ln Pr(k|t), (T, V).
    """
    best = probs.argmax(axis=1)
    edges = np.flatnonzero(np.diff(best)) + 1
    found = []
    for run in np.split(np.arange(len(best)), edges):
        token = int(best[run[0]])
        if token != BLANK:
            found.append(Spike(token, int(run[probs[run, token].argmax()])))
    return found


def choose_spikes(spikes: Sequence[Spike], phones: Sequence[str], subject: Subject) -> list[int]:
    """Numbers of all spikes of these phones; without phones, of a few that are no silence.

    Raises:
        UsageError: the model has no such token.
        DataError: the network emits none of them here, or nothing at all.
    """
    if phones:
        wanted = {subject.token_id(phone) for phone in phones}
    else:
        silent = {n for n, s in enumerate(subject.directory.tokens.symbols) if s in SILENCES}
        wanted = {spike.token for spike in spikes} - silent or {s.token for s in spikes}
    numbers = [n for n, spike in enumerate(spikes) if spike.token in wanted]
    if not numbers:
        emitted = " ".join(subject.symbols([s.token for s in spikes])) or "nothing"
        what = " or ".join(phones) or "a token"
        raise DataError(
            f"{subject.utt_id}: {what} is nowhere the most probable output; the network emits "
            f"{emitted}; choose of these with --phones"
        )
    if phones:
        return numbers
    places = np.linspace(0, len(numbers) - 1, A_FEW + 2)[1:-1].round().astype(int)
    return sorted({numbers[place] for place in places})


def compute_ctc_sensitivity(subject: Subject, phones: Sequence[str] = ()) -> CtcSensitivity:
    """Derivatives of the outputs of these phones, or of a few.

    Raises:
        UsageError, DataError: as `choose_spikes`.
        ModelError: not a CTC model.
    """
    model = need_ctc(subject)
    features = torch.from_numpy(subject.inputs)[None].requires_grad_()
    log_probs, _ = model(features, torch.tensor([len(subject.inputs)]))
    spikes = find_spikes(log_probs[0].detach().numpy())
    chosen = choose_spikes(spikes, phones, subject)
    picked = [spikes[n] for n in chosen]
    (gradient,) = torch.autograd.grad(log_odds(log_probs[0], picked).sum(), features)
    static = to_static(gradient[0].numpy(), subject.scales, subject.front_end)
    return CtcSensitivity(spikes, chosen, static[:, subject.bank.columns])


def log_odds(log_probs: Tensor, spikes: Sequence[Spike]) -> Tensor:
    """ln (Pr(k|t) / (1 - Pr(k|t))) of each spike, (S,), of ln Pr, (T, V)."""
    rows = log_probs[[spike.frame for spike in spikes]]
    own = torch.tensor([[spike.token] for spike in spikes])
    others = rows.scatter(1, own, -torch.inf).logsumexp(dim=1)
    return rows.gather(1, own)[:, 0] - others


# ---- drawing -------------------------------------------------------------------------------------


@style()
def draw_ctc_sensitivity(
    subject: Subject,
    found: CtcSensitivity,
    *,
    segments: Sequence[Segment] = (),
    segments_label: str = "segments",
    title: str = "",
) -> "Figure":
    """Outputs, the chosen ones in red; derivatives; filter bank; segmentation.

    Args:
        subject: the utterance.
        found: what `compute_ctc_sensitivity` gave for it.
        segments: its segmentation, if there is one; segments named as a chosen phone are red.
        segments_label: what it is.
        title: above the picture.
    """
    width = width_for(subject.end_s, len(found.spikes))
    outputs, by_hand = _strips(subject, found, segments, segments_label, width)
    heights = [outputs.inches, 2.2, 2.0] + ([by_hand.inches] if by_hand else [])
    figure = new_figure(width, 1.4 + sum(heights), title or subject.name)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    draw_strip(axes[0], outputs)
    to_inputs, spectrogram = axes[1:3]
    top = float(np.percentile(np.abs(found.to_inputs), 99.8)) or 1.0
    image = show_matrix(
        to_inputs, found.to_inputs, subject.length_s, colours="RdBu_r", limits=(-top, top)
    )
    label = f"d Σ log-odds of outputs\n/ d {subject.bank.derivative}"
    colour_bar(to_inputs, image, label, below=True, above=True)
    frequency_axis(to_inputs, subject.bank)
    draw_spectrogram(spectrogram, subject.spectrogram, subject.bank, subject.length_s)
    for number in found.chosen:
        middle = outputs.segments[number].middle_s
        to_inputs.axvline(middle, color=RED, linewidth=0.7, linestyle=":")
    if by_hand:
        draw_strip(axes[3], by_hand)
    time_axes(list(axes), subject.end_s)
    if by_hand:
        axes[3].tick_params(bottom=True)
    return figure


def _strips(
    subject: Subject,
    found: CtcSensitivity,
    segments: Sequence[Segment],
    segments_label: str,
    width: float,
) -> tuple[Strip, Strip | None]:
    """The outputs, and the segmentation if there is one, in a picture ``width`` inches wide."""
    end, step = subject.end_s, subject.step_s
    scale = 0.85 * width / end
    names = subject.symbols([spike.token for spike in found.spikes])
    marks = [
        Segment(spike.frame * step, (spike.frame + 1) * step, name)
        for spike, name in zip(found.spikes, names, strict=True)
    ]
    outputs = make_strip(
        marks, "outputs", boxes=False, inches_a_second=scale, end_s=end, chosen=found.chosen
    )
    if not segments:
        return outputs, None
    red = {names[number] for number in found.chosen}
    chosen = [n for n, segment in enumerate(segments) if segment.token in red]
    by_hand = make_strip(
        segments, segments_label, boxes=True, inches_a_second=scale, end_s=end, chosen=chosen
    )
    return outputs, by_hand
