"""Forward and backward variables of a transducer over its lattice, as in Fig. 2 of [G12].

[G12] is A. Graves, Sequence Transduction with RNNs, 2012. Frames t are counted from 0 here and from
1 in the paper; labels u are counted from 0 in both. A lattice is drawn only if eq. 19 of [G12]
holds on each of its diagonals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import DataError, ModelError, UsageError
from pipeline.kernels.transducer.align import best_alignment
from pipeline.nn.layers import log_softmax
from pipeline.nn.models import BLANK, TransducerModel
from pipeline.plots.figures import (
    colour_bar,
    label_rows,
    new_figure,
    show_matrix,
    style,
    time_axes,
    width_for,
)
from pipeline.plots.filter_bank import draw_spectrogram
from pipeline.plots.utterance import PlottedUtterance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
TOLERANCE = 1e-9  # tolerance of eq. 19 in nats, times |ln Pr(y|x)| if that is above 1
LOGITS = 1 << 22  # number of logits to compute at a time


@dataclass(frozen=True)
class Lattice:
    """The lattice of an utterance and a target sequence ([G12] section 2.4), in nats."""

    log_alpha: Array  # (T, U+1), ln α(t, u), eq. 16
    log_beta: Array  # (T, U+1), ln β(t, u), eq. 18
    log_null: Array  # (T, U+1), ln ∅(t, u), eq. 15
    log_label: Array  # (T, U), ln y(t, u), eq. 14

    @property
    def log_likelihood(self) -> float:
        """ln Pr(y|x), eq. 17."""
        return float(self.log_alpha[-1, -1] + self.log_null[-1, -1])

    @property
    def log_product(self) -> Array:
        """ln α(t, u) β(t, u), (T, U+1), for all paths of the target that pass through (t, u)."""
        return self.log_alpha + self.log_beta

    @property
    def path(self) -> list[int]:
        """The frames of the U labels on the most probable path."""
        return best_alignment(self.log_null, self.log_label)

    def diagonals(self) -> Array:
        """The logarithm of the right side of eq. 19 for every n, (T + U,)."""
        t, u = np.indices(self.log_alpha.shape)
        sums = np.full(sum(self.log_alpha.shape) - 1, -np.inf)
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            np.logaddexp.at(sums, (t + u).ravel(), self.log_product.ravel())
        return sums

    def check(self) -> float:
        """Check eq. 19: on every diagonal, the sum of αβ is Pr(y|x).

        Returns:
            The largest difference of the logarithms in nats.

        Raises:
            DataError: the difference exceeds `TOLERANCE`, or a value is not a number.
        """
        total = self.log_likelihood
        if not np.isfinite(total):
            raise DataError("Pr(y|x) is 0 or not a number; are the weights of the model finite?")
        errors = np.abs(self.diagonals() - total)
        worst = int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
        if not errors[worst] <= TOLERANCE * max(1.0, abs(total)):
            raise DataError(
                f"eq. 19 of [G12] does not hold: on the diagonal t + u = {worst} αβ sums to "
                f"exp({self.diagonals()[worst]:.9g}), but Pr(y|x) is exp({total:.9g}); the "
                "forward and backward variables are inconsistent, so they are not drawn"
            )
        return float(errors[worst])


def compute_lattice(model: TransducerModel, inputs: Array, targets: Sequence[int]) -> Lattice:
    """Compute the lattice of an utterance in float64.

    Args:
        model: the transducer, in float64.
        inputs: (T', F), normalised features; the encoder reduces them to T frames.
        targets: U token ids.
    """
    with torch.inference_mode():
        features = torch.from_numpy(inputs)[None]
        encoded, _ = model.encoder(features, torch.tensor([len(inputs)]))
        ids = torch.tensor([list(targets)], dtype=torch.int64)
        predicted = model.predictor(ids, torch.tensor([len(targets)]))
        rows = model.joiner.project_encoder(encoded)[0]
        columns = model.joiner.project_predictor(predicted)[0]
        null, label = _arrows(model, rows, columns, ids[0])
    return forward_backward(null, label)


def _arrows(
    model: TransducerModel, rows: torch.Tensor, columns: torch.Tensor, targets: torch.Tensor
) -> tuple[Array, Array]:
    """ln ∅(t, u), (T, U+1), and ln y(t, u), (T, U), computed for some frames at a time."""
    at_a_time = max(1, LOGITS // (len(columns) * model.num_tokens))
    nulls, labels = [], []
    for part in torch.split(rows, at_a_time):
        log_probs = log_softmax(model.joiner(part[:, None, :], columns[None, :, :]))
        nulls.append(log_probs[:, :, BLANK])
        places = targets[None, :, None].expand(len(part), -1, 1)
        labels.append(log_probs[:, :-1].gather(2, places)[:, :, 0])
    return torch.cat(nulls).numpy(), torch.cat(labels).numpy()


def forward_backward(null: Array, label: Array) -> Lattice:
    """Compute the forward and backward variables by eq. 16 and 18 of [G12], diagonal by diagonal.

    Args:
        null: ln ∅(t, u), (T, U+1).
        label: ln y(t, u), (T, U).
    """
    frames, width = null.shape
    # One more row and column on each side, with probability 0, so that edges need no special case.
    alpha = np.full((frames + 1, width + 1), -np.inf)
    beta = np.full((frames + 1, width + 1), -np.inf)
    up = np.full((frames, width + 1), -np.inf)
    up[:, 1:width] = label  # up[t, u + 1] = ln y(t, u)
    alpha[1, 1] = 0.0
    beta[-2, -2] = null[-1, -1]
    for n in range(1, frames + width - 1):
        u = np.arange(max(0, n - frames + 1), min(width, n + 1))
        t = n - u
        came = np.where(t > 0, alpha[t, u + 1] + null[t - 1, u], -np.inf)
        alpha[t + 1, u + 1] = np.logaddexp(came, alpha[t + 1, u] + up[t, u])
    for n in reversed(range(frames + width - 2)):
        u = np.arange(max(0, n - frames + 1), min(width, n + 1))
        t = n - u
        beta[t, u] = np.logaddexp(beta[t + 1, u] + null[t, u], beta[t, u + 1] + up[t, u + 1])
    return Lattice(alpha[1:, 1:], beta[:-1, :-1], null, label)


# ---- drawing -------------------------------------------------------------------------------------


def need_transducer(utterance: PlottedUtterance) -> TransducerModel:
    """The model of an utterance. Raises ModelError unless it is a transducer."""
    if not isinstance(utterance.model, TransducerModel):
        raise ModelError(
            f"{utterance.directory.path}: a {utterance.directory.kind} model has no lattice over "
            "(t, u); give a model of train_transducer.py"
        )
    return utterance.model


@style()
def draw_lattice(
    utterance: PlottedUtterance,
    lattice: Lattice,
    targets: Sequence[int],
    *,
    title: str = "",
    floor: float = 60.0,
) -> "Figure":
    """Draw ln α, ln β and ln αβ below each other, and the spectrogram.

    Args:
        utterance: the utterance.
        lattice: the lattice of the utterance and ``targets``.
        targets: U token ids, which are written on the left, the first at the bottom.
        title: the title above the picture.
        floor: the range of the colours below the largest value, in nats.

    Raises:
        DataError: eq. 19 does not hold.
        UsageError: the floor is not above 0.
    """
    lattice.check()
    if not 0.0 < floor < np.inf:
        raise UsageError(f"--floor must be above 0 (nats), not {floor:g}")
    height = min(5.0, max(2.0, 0.05 * (len(targets) + 1)))
    head = title or utterance.name
    total = f"{lattice.log_likelihood:.2f}".replace("-", "−")
    head += f"\nln Pr(y|x) = {total} nats, the sum of αβ over each diagonal t + u"
    figure = new_figure(width_for(utterance.end_s, len(targets)), 3 * height + 2.6, head)
    axes = figure.subplots(4, 1, sharex=True, height_ratios=(height, height, height, 1.5))
    names = ["∅", *utterance.symbols(list(targets))]
    maps = {"ln α(t, u)": lattice.log_alpha, "ln β(t, u)": lattice.log_beta}
    maps["ln α(t, u) β(t, u)"] = lattice.log_product
    for one, (label, values) in zip(axes, maps.items(), strict=False):
        draw_log_map(one, values, utterance.end_s, label=label, floor=floor)
        label_rows(one, names, inches=height, ylabel="labels emitted, u")
    draw_spectrogram(axes[-1], utterance.spectrogram, utterance.bank, utterance.length_s)
    time_axes(list(axes), utterance.end_s)
    return figure


def draw_log_map(axes: "Axes", values: Array, end_s: float, *, label: str, floor: float) -> None:
    """Draw log-probabilities over the lattice.

    Args:
        axes: the axes to draw into.
        values: (T, U+1), in nats.
        end_s: the end of the last frame in seconds.
        label: the label of the colour bar.
        floor: the range of the colours below the largest value, in nats.
    """
    top = float(values.max())
    shown = np.maximum(values, top - floor)  # impossible points have minus infinity
    image = show_matrix(axes, shown, end_s, colours="viridis", limits=(top - floor, top))
    clipped = bool((values < top - floor).any())
    limit = f"\nclipped {floor:g} below the largest" if clipped else ""
    colour_bar(axes, image, f"{label} (nats){limit}", below=clipped)
