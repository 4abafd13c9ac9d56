"""Learning curves: loss and error rate of trainings over their epochs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ModelError
from pipeline.plots.figures import COLOURS, new_figure, style
from pipeline.scoring.results import Epoch, best_epoch, fault, read_metrics
from pipeline.seals import read_text, unsealed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Run:
    """A training so far."""

    kind: str  # ctc, predictor or transducer
    epochs: list[Epoch]

    @property
    def best(self) -> Epoch:
        """The epoch whose weights are kept."""
        return best_epoch(self.epochs)


def read_run(directory: Path) -> Run:
    """The curves of a model directory.

    Raises:
        ModelError: no model directory, or nothing is trained yet.
        DataError: a damaged ``metrics.jsonl``. Names the line.
    """
    return Run(_read_kind(directory), read_metrics(directory))


def _read_kind(directory: Path) -> str:
    """What ``config.json`` calls the model."""
    file = directory / "config.json"
    if not directory.is_dir():
        raise ModelError(f"{directory}: no such directory; give a directory of train_*.py")
    try:
        return str(unsealed(read_text(file))["kind"])
    except FileNotFoundError as error:
        raise ModelError(
            f"{file}: missing; give a directory of train_*.py, or put a copy of the file back"
        ) from error
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file}: damaged ({fault(error)}); put a copy back") from error


# ---- drawing -------------------------------------------------------------------------------------


@style()
def draw_training(runs: Mapping[str, Run], *, title: str = "") -> "Figure":
    """Loss and error rate over the epochs.

    Runs that are told by one metric share their panels; predictors, whose loss is in bits, have
    their own.

    Args:
        runs: trainings by their names.
        title: above the picture.
    """
    groups: dict[tuple[bool, str], dict[str, Run]] = {}
    for name, run in runs.items():
        groups.setdefault((run.kind == "predictor", run.best.metric), {})[name] = run
    figure = new_figure(9.0, 1.0 + 3.0 * len(groups), title)
    panels = figure.subplots(len(groups), 2, squeeze=False)
    colour_of = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(runs)}
    for (loss, error), ((bits, metric), group) in zip(
        panels, sorted(groups.items(), key=lambda item: item[0]), strict=True
    ):
        _draw_losses(loss, group, colour_of, 1.0 / math.log(2.0) if bits else 1.0)
        loss.set_ylabel("bits a token" if bits else "loss (nats a token)")
        _draw_errors(error, group, colour_of)
        error.set_ylabel(f"{metric}, dev (%)")
    for axes in panels.flat:
        axes.set_xlabel("epoch")
        axes.grid(visible=True, alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _draw_losses(
    axes: "Axes", runs: Mapping[str, Run], colour_of: Mapping[str, str], unit: float
) -> None:
    for name, run in runs.items():
        numbers = [epoch.number for epoch in run.epochs]
        train = [epoch.train_loss * unit for epoch in run.epochs]
        dev = [epoch.dev_loss * unit for epoch in run.epochs]
        axes.plot(numbers, train, "--", color=colour_of[name], linewidth=1)
        axes.plot(numbers, dev, "-", color=colour_of[name], linewidth=1.5)
        axes.plot(run.best.number, run.best.dev_loss * unit, "o", color=colour_of[name])
    axes.plot([], [], "--", color="black", linewidth=1, label="train")
    axes.plot([], [], "-", color="black", linewidth=1.5, label="dev")
    axes.plot([], [], "o", color="black", label="best epoch")
    axes.set_ylim(_limits([e for run in runs.values() for e in run.epochs], unit))
    axes.legend(fontsize=8)


def _limits(epochs: Sequence[Epoch], unit: float) -> tuple[float, float]:
    """From 0 to what nearly all losses are below: the first epochs may be far above."""
    values = sorted(
        value * unit
        for epoch in epochs
        for value in (epoch.train_loss, epoch.dev_loss)
        if math.isfinite(value)
    )
    if not values:
        return 0.0, 1.0
    return 0.0, 1.08 * max(values[int(0.95 * (len(values) - 1))], 1e-9)


def _draw_errors(axes: "Axes", runs: Mapping[str, Run], colour_of: Mapping[str, str]) -> None:
    for name, run in runs.items():
        numbers = [epoch.number for epoch in run.epochs]
        errors = [epoch.error_rate for epoch in run.epochs]
        best = run.best
        label = f"{name}: {best.error_rate:.1f} % in epoch {best.number}"
        axes.plot(numbers, errors, "-", color=colour_of[name], linewidth=1.5, label=label)
        axes.plot(best.number, best.error_rate, "o", color=colour_of[name])
    axes.set_ylim(bottom=0.0)
    axes.legend(fontsize=8)
