"""How a transducer's output at a point of its lattice hangs on what it hears and has said,
[G12] Fig. 3.

The scalar that is differentiated is ln Pr(k|t, u), [G12] eq. 13 or [G13] eq. 18, for one token k at
one point: by default the token by which the target's most probable path leaves the point. Its
derivatives are exact (autograd through joiner, both networks and the differences in time), taken
to each log filter-bank energy and to each element of the one-hot vectors that the predictor reads.
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
    new_figure,
    power_of_ten,
    show_matrix,
    style,
    time_axes,
    token_rows,
    width_for,
)
from pipeline.plots.filter_bank import draw_spectrogram, frequency_axis, to_static
from pipeline.plots.lattice import Lattice, compute_lattice, draw_log_map, need_transducer
from pipeline.plots.lettering import MOST, shown
from pipeline.plots.utterance import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
STRONGEST = 6  # labels a bar graph
TICKS = 4  # at most, of the tokens' axis
WEAKEST = 1e-6  # probability where bars begin
DECADES = 1e3  # from the strongest derivative to the weakest that is told from 0


@dataclass(frozen=True)
class Sensitivity:
    """What hangs on what at the point (t, u)."""

    lattice: Lattice
    targets: tuple[int, ...]  # U token ids
    frame: int  # t, from 0, of the network's frames
    label: int  # u, labels emitted before
    token: int  # k
    log_prob: float  # ln Pr(k|t, u)
    to_inputs: Array  # (T', R): d ln Pr(k|t, u) / d what the spectrogram shows
    to_labels: Array  # (U, K): d ln Pr(k|t, u) / d the one-hot vector of each label
    output: Array  # (V,): Pr(·|t, u)
    encoder_alone: Array  # (V,), see `_alone`
    predictor_alone: Array  # (V,)


def compute_sensitivity(
    subject: Subject,
    targets: Sequence[int],
    *,
    frame: int | None = None,
    label: int | None = None,
    token: int | None = None,
) -> Sensitivity:
    """Derivatives of ln Pr(k|t, u).

    Args:
        subject: the utterance.
        targets: U token ids.
        frame: t, from 0; None: where the most probable path emits label u + 1.
        label: u, 0 … U; None: half of U, or where the most probable path is at ``frame``.
        token: k; None: y_{u+1}, or ∅ at u = U.

    Raises:
        UsageError: a point outside the lattice.
        ModelError: not a transducer.
    """
    model = need_transducer(subject)
    lattice = compute_lattice(model, subject.inputs, targets)
    lattice.check()
    t, u = _point(lattice, frame, label)
    k = token if token is not None else [*targets, 0][u]
    features = torch.from_numpy(subject.inputs)[None].requires_grad_()
    encoded, _ = model.encoder(features, torch.tensor([len(subject.inputs)]))
    ids = torch.tensor([list(targets)], dtype=torch.int64)
    one_hot = model.predictor.one_hot(ids).requires_grad_()
    predicted = model.predictor.read(one_hot, torch.tensor([len(targets)]))
    rows = model.joiner.project_encoder(encoded)[0]
    columns = model.joiner.project_predictor(predicted)[0]
    log_probs = log_softmax(model.joiner(rows[t], columns[u]))
    to_inputs, to_labels = torch.autograd.grad(log_probs[k], [features, one_hot])
    static = to_static(to_inputs[0].numpy(), subject.scales, subject.front_end)
    encoder_alone, predictor_alone = _alone(model, rows.detach(), columns.detach(), t, u)
    return Sensitivity(
        lattice,
        tuple(targets),
        t,
        u,
        k,
        float(log_probs[k].detach()),
        static[:, subject.bank.columns],
        to_labels[0].numpy(),
        log_probs.detach().exp().numpy(),
        encoder_alone,
        predictor_alone,
    )


def _point(lattice: Lattice, frame: int | None, label: int | None) -> tuple[int, int]:
    """(t, u), what is not given being taken from the most probable path."""
    frames, width = lattice.log_alpha.shape
    if frame is not None and not 0 <= frame < frames:
        raise UsageError(f"--frame is 0 … {frames - 1} of the network's frames, or -1, not {frame}")
    if label is not None and not 0 <= label < width:
        raise UsageError(f"--label is 0 … {width - 1} labels emitted before, or -1, not {label}")
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
    """What each network says by itself at (t, u), as distributions (V,).

    [G12]: softmax of f_t and of g_u, the two terms of eq. 12, each alone. The output network of
    [G13] has no such terms: there the joiner is given the other network's mean over the utterance
    in the place of its vector at the point.
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
    subject: Subject, found: Sensitivity, *, title: str = "", floor: float = 60.0
) -> "Figure":
    """The lattice with a crosshair; what the point hangs on below and at its left; bars.

    Args:
        subject: the utterance.
        found: what `compute_sensitivity` gave for it.
        title: above the picture.
        floor: nats below the largest ln αβ that still differ in colour.

    Raises:
        DataError: the lattice fails eq. 19.
    """
    found.lattice.check()
    height = min(6.0, max(3.0, 0.075 * (len(found.targets) + 1)))
    name = shown(subject.symbols([found.token])[0])
    head = (title or subject.name) + (
        f"\nat t = {found.frame} ({(found.frame + 0.5) * subject.step_s:.2f} s), "
        f"u = {found.label}: Pr({name}|t, u) = {np.exp(found.log_prob):.3g}"
    )
    width = max(7.0, width_for(subject.end_s, len(found.targets)) - 3.0)
    figure = new_figure(5.4 + width, height + 4.4, head)
    grid = figure.add_gridspec(
        3,
        3,
        width_ratios=(1.7, 1.7, width),
        height_ratios=(height, 1.7, 1.7),
    )
    to_labels, one_hot, lattice = (figure.add_subplot(grid[0, column]) for column in range(3))
    spectrogram, to_inputs = (figure.add_subplot(grid[row, 2]) for row in (1, 2))
    _draw_lattice(lattice, subject, found, floor)
    _draw_labels(to_labels, one_hot, subject, found, height)
    draw_spectrogram(spectrogram, subject.spectrogram, subject.bank, subject.length_s)
    _draw_to_inputs(to_inputs, subject, found)
    for axes in (spectrogram, to_inputs):
        axes.axvline((found.frame + 0.5) * subject.step_s, color="white", linewidth=0.6)
    time_axes([lattice, spectrogram, to_inputs], subject.end_s)
    bars = grid[1:, :2].subgridspec(1, 3)
    _draw_bars([figure.add_subplot(bars[0, n]) for n in range(3)], subject, found)
    return figure


def _draw_lattice(axes: "Axes", subject: Subject, found: Sensitivity, floor: float) -> None:
    values = found.lattice.log_product
    draw_log_map(axes, values, subject.end_s, label="ln α(t, u) β(t, u)", floor=floor)
    axes.set_yticks([])
    axes.axvline((found.frame + 0.5) * subject.step_s, color="white", linewidth=0.8)
    axes.axhline(found.label, color="white", linewidth=0.8)


def _draw_labels(
    to_labels: "Axes", one_hot: "Axes", subject: Subject, found: Sensitivity, height: float
) -> None:
    """Row u is the vector that the predictor reads u-th: that of y_u, zeros for u = 0."""
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
        axes.set_xticks(ticks - 0.5, ticks.tolist(), fontsize=7)  # column k - 1 is token k's
    one_hot.set_yticks([])
    one_hot.set_xlabel("token k\npredictor's inputs", fontsize=8)
    to_labels.set_xlabel("token k\nsensitivity to inputs", fontsize=8)
    names = ["∅", *subject.symbols(found.targets)]
    token_rows(to_labels, names, inches=height, ylabel="labels emitted, u")


def _draw_to_inputs(axes: "Axes", subject: Subject, found: Sensitivity) -> None:
    values = np.abs(found.to_inputs)
    top = float(values.max()) or 1.0
    limits = (top / DECADES, top)
    image = show_matrix(axes, values, subject.length_s, colours="magma", limits=limits, log=True)
    label = f"|d ln Pr(k|t, u)\n/ d {subject.bank.derivative}|"
    colour_bar(axes, image, label, below=True)
    frequency_axis(axes, subject.bank)


def _draw_bars(axes: Sequence["Axes"], subject: Subject, found: Sensitivity) -> None:
    """The strongest tokens of the three distributions at the point."""
    assert isinstance(subject.model, TransducerModel)
    plain = isinstance(subject.model.joiner, SumJoiner)
    note = "" if plain else "\npredictor's mean", "" if plain else "\nencoder's mean"
    groups = (
        (found.output, BLUE, "Pr(k|t, u)" + ("" if plain else "\n")),
        (found.encoder_alone, RED, "encoder" + (", exp f" if plain else f" and{note[0]}")),
        (found.predictor_alone, GREEN, "predictor" + (", exp g" if plain else f" and{note[1]}")),
    )
    for one, (probs, colour, what) in zip(axes, groups, strict=True):
        strongest = np.argsort(-probs, kind="stable")[:STRONGEST]
        one.barh(range(len(strongest)), probs[strongest], color=colour)
        names = [shown(name, MOST / 2) for name in subject.symbols(strongest.tolist())]
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
