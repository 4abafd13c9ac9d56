"""How the output of a transducer at a point of its lattice depends on the speech and on earlier
labels, as in Fig. 3 of [G12].

[G12] is A. Graves, Sequence Transduction with RNNs, 2012; [G13] is A. Graves, A. Mohamed and G.
Hinton, Speech Recognition with Deep RNNs, 2013. The differentiated scalar is ln Pr(k|t, u), eq. 13
of [G12] or eq. 18 of [G13], for one token k at one point; the default is the next token of the
target sequence. The derivatives are exact (autograd through the joiner, both networks and the
deltas). They are taken with respect to each log filter-bank energy, and to each element of the
one-hot vectors that the predictor reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.nn.joiner import SumJoiner
from pipeline.nn.layers import log_softmax
from pipeline.nn.models import TransducerModel
from pipeline.plots.figures import (
    BLUE,
    GREEN,
    RED,
    colour_bar,
    label_rows,
    new_figure,
    power_of_ten,
    show_matrix,
    style,
    time_axes,
    width_for,
)
from pipeline.plots.filter_bank import draw_spectrogram, frequency_axis, to_static
from pipeline.plots.lattice import Lattice, compute_lattice, draw_log_map, need_transducer
from pipeline.plots.lettering import MOST, shown
from pipeline.plots.utterance import PlottedUtterance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
STRONGEST = 6  # number of labels in a bar graph
TICKS = 4  # largest number of ticks on the axis of tokens
WEAKEST = 1e-6  # probability at which bars begin
DECADES = 1e3  # ratio of the strongest derivative to the weakest that is drawn differently from 0


@dataclass(frozen=True)
class Sensitivity:
    """Derivatives and distributions at the point (t, u)."""

    lattice: Lattice
    targets: tuple[int, ...]  # U token ids
    frame: int  # t, the encoder frame, from 0
    label: int  # u, the number of labels emitted so far
    token: int  # k
    log_prob: float  # ln Pr(k|t, u)
    to_inputs: Array  # (T', R), d ln Pr(k|t, u) / d value in the spectrogram
    to_labels: Array  # (U, K), d ln Pr(k|t, u) / d one-hot vector of each label
    output: Array  # (V,), Pr(·|t, u)
    encoder_alone: Array  # (V,), see `_alone`
    predictor_alone: Array  # (V,)


def compute_sensitivity(
    utterance: PlottedUtterance,
    targets: Sequence[int],
    *,
    frame: int | None = None,
    label: int | None = None,
    token: int | None = None,
) -> Sensitivity:
    """Compute the derivatives of ln Pr(k|t, u).

    Args:
        utterance: the utterance.
        targets: U token ids.
        frame: t, from 0; None for the frame in which the most probable path emits label u + 1.
        label: u, 0 … U; None for half of U, or for that of the most probable path at ``frame``.
        token: k; None for y_{u+1}, or ∅ at u = U.

    Raises:
        UsageError: the point lies outside the lattice.
        ModelError: the model is not a transducer.
    """
    model = need_transducer(utterance)
    lattice = compute_lattice(model, utterance.inputs, targets)
    lattice.check()
    t, u = _point(lattice, frame, label)
    k = token if token is not None else [*targets, 0][u]
    features = torch.from_numpy(utterance.inputs)[None].requires_grad_()
    encoded, _ = model.encoder(features, torch.tensor([len(utterance.inputs)]))
    ids = torch.tensor([list(targets)], dtype=torch.int64)
    one_hot = model.predictor.one_hot(ids).requires_grad_()
    predicted = model.predictor.read(one_hot, torch.tensor([len(targets)]))
    rows = model.joiner.project_encoder(encoded)[0]
    columns = model.joiner.project_predictor(predicted)[0]
    log_probs = log_softmax(model.joiner(rows[t], columns[u]))
    to_inputs, to_labels = torch.autograd.grad(log_probs[k], [features, one_hot])
    static = to_static(to_inputs[0].numpy(), utterance.scales, utterance.front_end)
    encoder_alone, predictor_alone = _alone(model, rows.detach(), columns.detach(), t, u)
    return Sensitivity(
        lattice,
        tuple(targets),
        t,
        u,
        k,
        float(log_probs[k].detach()),
        static[:, utterance.bank.columns],
        to_labels[0].numpy(),
        log_probs.detach().exp().numpy(),
        encoder_alone,
        predictor_alone,
    )


def _point(lattice: Lattice, frame: int | None, label: int | None) -> tuple[int, int]:
    """The point (t, u); a coordinate that is None is taken from the most probable path."""
    frames, width = lattice.log_alpha.shape
    if frame is not None and not 0 <= frame < frames:
        raise UsageError(f"--frame must be an encoder frame, 0 … {frames - 1}, or -1, not {frame}")
    if label is not None and not 0 <= label < width:
        raise UsageError(f"--label must be 0 … {width - 1} emitted labels, or -1, not {label}")
    path = lattice.path
    if label is None:
        label = width // 2 if frame is None else int(np.searchsorted(path, frame))
        label = min(label, width - 1)
    if frame is None:
        frame = [*path, frames - 1][label]
    return frame, label


def _alone(
    model: TransducerModel, rows: Tensor, columns: Tensor, t: int, u: int
) -> tuple[Array, Array]:
    """The distributions (V,) of the encoder alone and of the predictor alone at (t, u).

    For the joiner of [G12] they are the softmax of f_t and of g_u, the two terms of eq. 12. The
    joiner of [G13] has no such terms; it is given the mean of the other network over the utterance
    in place of the vector at the point.
    """
    with torch.no_grad():
        if isinstance(model.joiner, SumJoiner):
            encoder, predictor = rows[t], columns[u]
        else:
            encoder = model.joiner(rows[t], columns.mean(dim=0))
            predictor = model.joiner(rows.mean(dim=0), columns[u])
        return encoder.softmax(dim=-1).numpy(), predictor.softmax(dim=-1).numpy()


# ---- drawing -------------------------------------------------------------------------------------


@style()
def draw_sensitivity(
    utterance: PlottedUtterance, found: Sensitivity, *, title: str = "", floor: float = 60.0
) -> "Figure":
    """Draw the lattice with a crosshair, the derivatives below and on the left of it, and bars.

    Args:
        utterance: the utterance.
        found: the result of `compute_sensitivity`.
        title: the title above the picture.
        floor: the range of the colours below the largest ln αβ, in nats.

    Raises:
        DataError: eq. 19 does not hold for the lattice.
    """
    found.lattice.check()
    height = min(6.0, max(3.0, 0.075 * (len(found.targets) + 1)))
    name = shown(utterance.symbols([found.token])[0])
    head = (title or utterance.name) + (
        f"\nat t = {found.frame} ({(found.frame + 0.5) * utterance.step_s:.2f} s), "
        f"u = {found.label}: Pr({name}|t, u) = {np.exp(found.log_prob):.3g}"
    )
    width = max(7.0, width_for(utterance.end_s, len(found.targets)) - 3.0)
    figure = new_figure(5.4 + width, height + 4.4, head)
    grid = figure.add_gridspec(
        3,
        3,
        width_ratios=(1.7, 1.7, width),
        height_ratios=(height, 1.7, 1.7),
    )
    to_labels, one_hot, lattice = (figure.add_subplot(grid[0, column]) for column in range(3))
    spectrogram, to_inputs = (figure.add_subplot(grid[row, 2]) for row in (1, 2))
    _draw_lattice(lattice, utterance, found, floor)
    _draw_labels(to_labels, one_hot, utterance, found, height)
    draw_spectrogram(spectrogram, utterance.spectrogram, utterance.bank, utterance.length_s)
    _draw_to_inputs(to_inputs, utterance, found)
    for axes in (spectrogram, to_inputs):
        axes.axvline((found.frame + 0.5) * utterance.step_s, color="white", linewidth=0.6)
    time_axes([lattice, spectrogram, to_inputs], utterance.end_s)
    bars = grid[1:, :2].subgridspec(1, 3)
    _draw_bars([figure.add_subplot(bars[0, n]) for n in range(3)], utterance, found)
    return figure


def _draw_lattice(
    axes: "Axes", utterance: PlottedUtterance, found: Sensitivity, floor: float
) -> None:
    values = found.lattice.log_product
    draw_log_map(axes, values, utterance.end_s, label="ln α(t, u) β(t, u)", floor=floor)
    axes.set_yticks([])
    axes.axvline((found.frame + 0.5) * utterance.step_s, color="white", linewidth=0.8)
    axes.axhline(found.label, color="white", linewidth=0.8)


def _draw_labels(
    to_labels: "Axes",
    one_hot: "Axes",
    utterance: PlottedUtterance,
    found: Sensitivity,
    height: float,
) -> None:
    """Draw the inputs of the predictor: row u is the one-hot vector of y_u, zeros for u = 0."""
    count, width = found.to_labels.shape
    inputs, strength = np.zeros((2, width, count + 1))
    inputs[np.array(found.targets, dtype=int) - 1, np.arange(1, count + 1)] = 1.0
    strength[:, 1:] = np.abs(found.to_labels).T
    image = show_matrix(one_hot, inputs, width, colours="Greys", limits=(0.0, 1.0))
    top = float(strength.max()) or 1.0
    limits = (top / DECADES, top)
    image = show_matrix(to_labels, strength, width, colours="magma", limits=limits, log=True)
    colour_bar(to_labels, image, "|d ln Pr / d input|", below=True, place="top")
    ticks = np.unique(np.linspace(1, width, TICKS).round().astype(int))
    for axes, colour in ((one_hot, "black"), (to_labels, "white")):
        axes.axhline(found.label + 0.5, color=colour, linewidth=0.6, linestyle="--")
        axes.set_xticks(ticks - 0.5, ticks.tolist(), fontsize=7)  # column k - 1 is token k
    one_hot.set_yticks([])
    one_hot.set_xlabel("token k\npredictor's inputs", fontsize=8)
    to_labels.set_xlabel("token k\nsensitivity to inputs", fontsize=8)
    names = ["∅", *utterance.symbols(found.targets)]
    label_rows(to_labels, names, inches=height, ylabel="labels emitted, u")


def _draw_to_inputs(axes: "Axes", utterance: PlottedUtterance, found: Sensitivity) -> None:
    values = np.abs(found.to_inputs)
    top = float(values.max()) or 1.0
    limits = (top / DECADES, top)
    image = show_matrix(axes, values, utterance.length_s, colours="magma", limits=limits, log=True)
    label = f"|d ln Pr(k|t, u)\n/ d {utterance.bank.derivative}|"
    colour_bar(axes, image, label, below=True)
    frequency_axis(axes, utterance.bank)


def _draw_bars(axes: Sequence["Axes"], utterance: PlottedUtterance, found: Sensitivity) -> None:
    """Draw the most probable tokens of the three distributions at the point as bars."""
    assert isinstance(utterance.model, TransducerModel)
    plain = isinstance(utterance.model.joiner, SumJoiner)
    note = "" if plain else "\npredictor's mean", "" if plain else "\nencoder's mean"
    groups = (
        (found.output, BLUE, "Pr(k|t, u)" + ("" if plain else "\n")),
        (found.encoder_alone, RED, "encoder" + (", exp f" if plain else f" and{note[0]}")),
        (found.predictor_alone, GREEN, "predictor" + (", exp g" if plain else f" and{note[1]}")),
    )
    for one, (probs, colour, what) in zip(axes, groups, strict=True):
        strongest = np.argsort(-probs, kind="stable")[:STRONGEST]
        one.barh(range(len(strongest)), probs[strongest], color=colour)
        names = [shown(name, MOST / 2) for name in utterance.symbols(strongest.tolist())]
        one.set_yticks(range(len(strongest)), names, fontsize=8)
        one.invert_yaxis()
        one.set_xscale("log")
        one.set_xlim(WEAKEST, 1.0)
        ticks = (WEAKEST, WEAKEST**0.5, 1.0)
        one.set_xticks(ticks, [power_of_ten(tick) for tick in ticks], fontsize=7)
        one.minorticks_off()
        one.set_title(what, fontsize=8, color=colour)
        for side in ("top", "right"):
            one.spines[side].set_visible(False)
    axes[1].set_xlabel("probability", fontsize=8)
