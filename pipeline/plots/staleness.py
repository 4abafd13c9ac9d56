"""Asynchronous training: how stale gradients are, epoch by epoch, and what the workers do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ModelError
from pipeline.plots.figures import BLUE, ORANGE, RED, SKY, colour_bar, new_figure, style
from pipeline.scoring.asynchronous import Asynchronous, Staleness, together, total
from pipeline.scoring.results import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from numpy.typing import NDArray

PANELS = 4  # of shards; more shards than these share the last one
SINGLE = 12  # so many values of staleness have a row each; else rows get wider upwards
NAMED = 24  # so many workers are named
DOTTED = 40  # so many epochs have gaps between them and dots on the curve

Epochs = Mapping[int, Asynchronous]  # by their numbers


def read_asynchronous(directory: Path) -> dict[int, Asynchronous]:
    """The finished epochs of an asynchronous training.

    Raises:
        ModelError: nothing is trained yet, or not asynchronously.
        DataError: a damaged ``metrics.jsonl``. Names the line.
    """
    epochs = {epoch.number: epoch.asynchronous for epoch in read_metrics(directory)}
    found = {number: epoch for number, epoch in epochs.items() if epoch is not None}
    if not found:
        raise ModelError(
            f"{directory}/metrics.jsonl: has no staleness; give a model that was trained by --async"
        )
    return found


def panels_of(epochs: Epochs) -> dict[str, dict[int, Staleness]]:
    """Panel -> epoch -> staleness: a panel for each shard, but at most `PANELS`."""
    count = max(len(epoch.staleness) for epoch in epochs.values())
    alone = count if count <= PANELS else PANELS - 1
    panels = {
        f"shard {shard + 1}": {
            number: together(epoch.staleness[shard : shard + 1]) for number, epoch in epochs.items()
        }
        for shard in range(alone)
    }
    if alone < count:
        panels[f"shards {alone + 1}–{count}"] = {
            number: together(epoch.staleness[alone:]) for number, epoch in epochs.items()
        }
    return panels


def rows_for(largest: int) -> list[tuple[int, int]]:
    """The smallest and the largest staleness of each row: 0, 1, 2 …, or 0, 1, 2, 3–4, 5–8 …"""
    if largest < SINGLE:
        return [(late, late) for late in range(max(largest, 2) + 1)]
    rows = [(0, 0), (1, 1)]
    while rows[-1][1] < largest:
        rows.append((rows[-1][1] + 1, 2 * rows[-1][1]))
    return rows


def shares(
    panel: Mapping[int, Staleness], rows: Sequence[tuple[int, int]]
) -> "NDArray[np.float64]":
    """(rows, epochs): percent of an epoch's pushes; NaN for an epoch that is not there."""
    first, last = min(panel), max(panel)
    values = np.full((len(rows), last - first + 1), np.nan)
    for number, seen in panel.items():
        if seen.pushes:
            counts = [sum(seen.counts.get(late, 0) for late in range(a, b + 1)) for a, b in rows]
            values[:, number - first] = 100.0 * np.array(counts) / seen.pushes
    return values


# ---- drawing -------------------------------------------------------------------------------------


@style()
def draw_staleness(epochs: Epochs, *, title: str = "") -> "Figure":
    """Above, the staleness of the epochs, a panel for each shard; below, all workers' speed.

    Args:
        epochs: of one training.
        title: above the picture.
    """
    found = total(list(epochs.values()))
    height = 1.0 + (0.24 * len(found.workers) if len(found.workers) <= NAMED else 2.4)
    figure = new_figure(9.0, 3.1 + height + 0.3 * bool(title), title)
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=(3.1, height))
    _draw_shards(parts[0, 0], panels_of(epochs))
    _draw_workers(parts[1, 0], found)
    return figure


def _draw_shards(figure: "SubFigure", panels: Mapping[str, Mapping[int, Staleness]]) -> None:
    from matplotlib.colors import PowerNorm

    rows = rows_for(max(seen.largest for panel in panels.values() for seen in panel.values()))
    edges = np.arange(len(rows) + 1) - 0.5
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for one, (name, panel) in zip(axes, panels.items(), strict=True):
        values = shares(panel, rows)
        image = one.pcolormesh(
            min(panel) - 0.5 + np.arange(values.shape[1] + 1),
            edges,
            np.ma.masked_invalid(values),
            cmap="Blues",
            norm=PowerNorm(0.5, 0.0, 100.0),
            edgecolors="white" if values.shape[1] <= DOTTED else "face",
            linewidth=0.6 if values.shape[1] <= DOTTED else 0.0,
        )
        _draw_means(one, panel, rows)
        seen = together(panel.values())
        one.set_title(f"{name}: mean {seen.mean:.2f}" if seen.pushes else name)
        one.set_xlabel("epoch")
        one.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        one.tick_params(length=2.5)
    axes[0].set_yticks(range(len(rows)), [str(a) if a == b else f"{a}–{b}" for a, b in rows])
    axes[0].set_ylabel("staleness (updates), line: mean")
    colour_bar(axes[-1], image, "pushes of the epoch (%)")


def _draw_means(
    axes: "Axes", panel: Mapping[int, Staleness], rows: Sequence[tuple[int, int]]
) -> None:
    """The mean of each epoch, at its height among rows of different width."""
    from matplotlib.patheffects import withStroke

    limits = [-0.5, *(high + 0.5 for _, high in rows)]
    numbers = [number for number, seen in panel.items() if seen.pushes]
    means = [panel[number].mean for number in numbers]
    axes.plot(
        numbers,
        np.interp(means, limits, np.arange(len(limits)) - 0.5),
        "o-" if len(numbers) <= DOTTED else "-",
        color=RED,
        linewidth=1.5,
        markersize=3,
        path_effects=[withStroke(linewidth=3.0, foreground="white")],
    )


def _draw_workers(figure: "SubFigure", found: Asynchronous) -> None:
    speed, time = figure.subplots(1, 2, sharey=True)
    names, workers = list(found.workers), list(found.workers.values())
    rows, named = range(len(names)), len(names) <= NAMED
    height = 0.7 if named else 1.0
    bars = speed.barh(rows, [worker.speed for worker in workers], color=BLUE, height=height)
    waiting = [100.0 * worker.share_waiting for worker in workers]
    computing = [100.0 - share for share in waiting]
    time.barh(rows, waiting, color=ORANGE, height=height, label="waiting for others")
    time.barh(rows, computing, left=waiting, color=SKY, height=height, label="computing")
    time.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8, frameon=False)
    time.set_xlim(0.0, 100.0)
    time.set_xlabel("time (%)")
    speed.set_xlabel("steps a second")
    speed.margins(x=0.12)
    speed.set_ylim(max(1, len(names)) - 0.5, -0.5)
    if named:
        speed.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
        _write_percents(time, waiting)
        speed.set_yticks(rows, [f"{n}, lost" if n in found.lost else n for n in names])
        for name, label in zip(names, speed.get_yticklabels(), strict=True):
            label.set_color(RED if name in found.lost else "black")
    else:
        speed.set_ylabel(f"{len(names)} workers")
    for axes in (speed, time):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0, labelleft=named and axes is speed)


def _write_percents(axes: "Axes", values: Sequence[float]) -> None:
    """Write numbers beside the ends of bars, or into long ones."""
    for row, value in enumerate(values):
        left = value < 85.0
        axes.annotate(
            f"{value:.0f} %",
            (value, row),
            xytext=(3.0 if left else -3.0, 0.0),
            textcoords="offset points",
            ha="left" if left else "right",
            va="center_baseline",
            fontsize=8,
        )
