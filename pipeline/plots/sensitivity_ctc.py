"""How chosen outputs of a CTC network depend on the filter bank, as in Fig. 3 of [G13].

[G13] is A. Graves, A. Mohamed and G. Hinton, Speech Recognition with Deep RNNs, 2013. The
differentiated scalar is the sum of the log-odds ln (Pr(k|t) / (1 - Pr(k|t))) over the chosen
outputs: tokens k (eq. 14) at the frames t where the network emits them. Log-odds are used because
the logarithm of a probability near 1 hardly changes, d ln Pr = (1 - Pr) d log-odds, so that its
derivatives would be invisible beside those of less certain outputs. The derivatives are exact
(autograd through the network and the deltas). They are taken with respect to each log filter-bank
energy and drawn with their sign.
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
from pipeline.plots.token_rows import TokenRows, draw_token_rows, make_token_rows
from pipeline.plots.utterance import PlottedUtterance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
SILENCES = {"sil", "pau", "h#", "epi", "#h", "spn"}
A_FEW = 3  # number of outputs that are chosen by default


@dataclass(frozen=True)
class Spike:
    """An emitted token, which is the most probable one in some consecutive frames."""

    token: int
    frame: int  # the encoder frame with the highest probability of the token


@dataclass(frozen=True)
class CtcSensitivity:
    """Derivatives of the sum of the log-odds of the chosen spikes."""

    spikes: list[Spike]  # all spikes of the utterance
    chosen: list[int]  # the numbers of the chosen spikes
    to_inputs: Array  # (T', R), with respect to the values in the spectrogram


def need_ctc(utterance: PlottedUtterance) -> CtcModel:
    """The model of an utterance. Raises ModelError unless it is a CTC model."""
    if not isinstance(utterance.model, CtcModel):
        raise ModelError(
            f"{utterance.directory.path}: is a {utterance.directory.kind} model; give a ctc model"
        )
    return utterance.model


def find_spikes(probs: Array) -> list[Spike]:
    """Find the emitted tokens, each at the frame in which it is most probable.

    A token is emitted in consecutive frames in which it is the most probable one.

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


def choose_spikes(
    spikes: Sequence[Spike], phones: Sequence[str], utterance: PlottedUtterance
) -> list[int]:
    """The numbers of all spikes of these phones; without phones, of a few that are not silence.

    Raises:
        UsageError: the model has no such token.
        DataError: the network emits none of the phones, or nothing at all.
    """
    if phones:
        wanted = {utterance.token_id(phone) for phone in phones}
    else:
        silent = {n for n, s in enumerate(utterance.directory.tokens.symbols) if s in SILENCES}
        wanted = {spike.token for spike in spikes} - silent or {s.token for s in spikes}
    numbers = [n for n, spike in enumerate(spikes) if spike.token in wanted]
    if not numbers:
        emitted = " ".join(utterance.symbols([s.token for s in spikes])) or "nothing"
        what = " or ".join(phones) or "a token"
        raise DataError(
            f"{utterance.utt_id}: {what} is never the most probable output; the network emits "
            f"{emitted}; choose from these with --phones"
        )
    if phones:
        return numbers
    places = np.linspace(0, len(numbers) - 1, A_FEW + 2)[1:-1].round().astype(int)
    return sorted({numbers[place] for place in places})


def compute_ctc_sensitivity(
    utterance: PlottedUtterance, phones: Sequence[str] = ()
) -> CtcSensitivity:
    """Compute the derivatives of the outputs of these phones; without phones, of a few outputs.

    Raises:
        UsageError, DataError: as for `choose_spikes`.
        ModelError: the model is not a CTC model.
    """
    model = need_ctc(utterance)
    features = torch.from_numpy(utterance.inputs)[None].requires_grad_()
    log_probs, _ = model(features, torch.tensor([len(utterance.inputs)]))
    spikes = find_spikes(log_probs[0].detach().numpy())
    chosen = choose_spikes(spikes, phones, utterance)
    picked = [spikes[n] for n in chosen]
    (gradient,) = torch.autograd.grad(log_odds(log_probs[0], picked).sum(), features)
    static = to_static(gradient[0].numpy(), utterance.scales, utterance.front_end)
    return CtcSensitivity(spikes, chosen, static[:, utterance.bank.columns])


def log_odds(log_probs: Tensor, spikes: Sequence[Spike]) -> Tensor:
    """The log-odds ln (Pr(k|t) / (1 - Pr(k|t))) of each spike, (S,), from ln Pr, (T, V)."""
    rows = log_probs[[spike.frame for spike in spikes]]
    own = torch.tensor([[spike.token] for spike in spikes])
    others = rows.scatter(1, own, -torch.inf).logsumexp(dim=1)
    return rows.gather(1, own)[:, 0] - others


# ---- drawing -------------------------------------------------------------------------------------


@style()
def draw_ctc_sensitivity(
    utterance: PlottedUtterance,
    found: CtcSensitivity,
    *,
    segments: Sequence[Segment] = (),
    segments_label: str = "segments",
    title: str = "",
) -> "Figure":
    """Draw the outputs, the chosen ones in red; derivatives; filter bank; segmentation.

    Args:
        utterance: the utterance.
        found: the result of `compute_ctc_sensitivity`.
        segments: a segmentation of the utterance, if any; segments of chosen phones are red.
        segments_label: the name of the segmentation.
        title: the title above the picture.
    """
    width = width_for(utterance.end_s, len(found.spikes))
    outputs, by_hand = _token_rows(utterance, found, segments, segments_label, width)
    heights = [outputs.inches, 2.2, 2.0] + ([by_hand.inches] if by_hand else [])
    figure = new_figure(width, 1.4 + sum(heights), title or utterance.name)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    draw_token_rows(axes[0], outputs)
    to_inputs, spectrogram = axes[1:3]
    top = float(np.percentile(np.abs(found.to_inputs), 99.8)) or 1.0
    image = show_matrix(
        to_inputs, found.to_inputs, utterance.length_s, colours="RdBu_r", limits=(-top, top)
    )
    label = f"d Σ log-odds of outputs\n/ d {utterance.bank.derivative}"
    colour_bar(to_inputs, image, label, below=True, above=True)
    frequency_axis(to_inputs, utterance.bank)
    draw_spectrogram(spectrogram, utterance.spectrogram, utterance.bank, utterance.length_s)
    for number in found.chosen:
        middle = outputs.segments[number].middle_s
        to_inputs.axvline(middle, color=RED, linewidth=0.7, linestyle=":")
    if by_hand:
        draw_token_rows(axes[3], by_hand)
    time_axes(list(axes), utterance.end_s)
    if by_hand:
        axes[3].tick_params(bottom=True)
    return figure


def _token_rows(
    utterance: PlottedUtterance,
    found: CtcSensitivity,
    segments: Sequence[Segment],
    segments_label: str,
    width: float,
) -> tuple[TokenRows, TokenRows | None]:
    """The rows of the outputs, and of the segmentation if any, for a width in inches."""
    end, step = utterance.end_s, utterance.step_s
    scale = 0.85 * width / end
    names = utterance.symbols([spike.token for spike in found.spikes])
    marks = [
        Segment(spike.frame * step, (spike.frame + 1) * step, name)
        for spike, name in zip(found.spikes, names, strict=True)
    ]
    outputs = make_token_rows(
        marks, "outputs", boxes=False, inches_a_second=scale, end_s=end, chosen=found.chosen
    )
    if not segments:
        return outputs, None
    red = {names[number] for number in found.chosen}
    chosen = [n for n, segment in enumerate(segments) if segment.token in red]
    by_hand = make_token_rows(
        segments, segments_label, boxes=True, inches_a_second=scale, end_s=end, chosen=chosen
    )
    return outputs, by_hand
