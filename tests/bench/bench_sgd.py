#!/usr/bin/env python3
"""Synchronous, asynchronous and Hogwild training on the same data: loss against updates and time.

Usage: bench_sgd.py --work=DIR [options] ARCHITECTURE TOKENS TRAIN_DIR DEV_DIR [TRAINING_OPTION …]

e.g.: python3 tests/bench/bench_sgd.py --work=exp/sgd --picture=exp/sgd.png conf/demo.toml \\
        data/tokens.txt data/train data/dev --config=conf/demo/train_ctc.conf --epochs=8

Each way of training has two processes that compute gradients, and each seed is a training of its
own by train_ctc.py. Trainings in DIR that are finished are not made again. Prints a table and, with
--picture, draws the dev loss of all trainings.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.plots.figures import COLOURS, new_figure, save, style

PROGRAM = Path(__file__).resolve().parents[2] / "bin" / "train_ctc.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
WAYS = {
    "one process": [sys.executable, str(PROGRAM)],
    "synchronous": [*TORCHRUN, "--nproc-per-node=2", str(PROGRAM)],
    "asynchronous": [*TORCHRUN, "--nproc-per-node=4", str(PROGRAM), "--async"],
    "Hogwild": [sys.executable, str(PROGRAM), "--async=hogwild", "--workers=2"],
}


def train(way: str, seed: int, work: Path, data: Sequence[str], options: Sequence[str]) -> Path:
    """The model directory of one training, which is made or continued."""
    model = work / f"{way.replace(' ', '_').lower()}_{seed}"
    if not (model / "final.safetensors").exists():
        more = ["--verbose=-1", "--device=cpu", "--patience=0", f"--seed={seed}", *options]
        subprocess.run([*WAYS[way], *more, *data, str(model)], check=True)
    return model


def read(model: Path) -> list[dict[str, Any]]:
    """The lines of an epoch each, with sums of updates and seconds."""
    lines = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    updates, seconds = 0, 0.0
    for line in lines:
        updates, seconds = updates + line["updates"], seconds + line["seconds"]
        line["all_updates"], line["all_seconds"] = updates, seconds
    return lines


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and range."""
    mean = statistics.fmean(values)
    return f"{mean:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


@style()
def draw(found: dict[str, list[list[dict[str, Any]]]], title: str) -> Any:
    """Dev loss against updates and against seconds: a thin line a seed, a thick one their mean."""
    figure = new_figure(9.0, 3.8, title)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, key, label in zip(
        panels, ("all_updates", "all_seconds"), ("updates", "seconds"), strict=True
    ):
        for colour, (way, trainings) in zip(COLOURS, found.items(), strict=False):
            for lines in trainings:
                places = [line[key] for line in lines]
                axes.plot(
                    places, [line["dev_loss"] for line in lines], color=colour, lw=0.7, alpha=0.5
                )
            places, means = (
                [statistics.fmean(values) for values in zip(*columns, strict=True)]
                for columns in (
                    [[line[name] for line in lines] for lines in trainings]
                    for name in (key, "dev_loss")
                )
            )
            axes.plot(places, means, color=colour, lw=2.0, label=way)
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        axes.grid(visible=True, alpha=0.3)
    panels[0].set_ylabel("dev loss (nats a token)")
    panels[1].legend()
    return figure


def main() -> int:
    """Train, print the table, draw the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=[*WAYS])
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds of each way")
    parser.add_argument("--picture", type=Path, help="PNG or SVG file of the curves")
    parser.add_argument("--title", default="")
    parser.add_argument("data", nargs=4, metavar="ARCHITECTURE TOKENS TRAIN_DIR DEV_DIR")
    arguments, options = parser.parse_known_args()
    found: dict[str, list[list[dict[str, Any]]]] = {way: [] for way in arguments.ways}
    for seed in range(arguments.seeds):  # in turn, so that what else runs here meets all of them
        for way in arguments.ways:
            model = train(way, seed, arguments.work, arguments.data, options)
            found[way].append(read(model))
    rows = []
    for way, trainings in found.items():
        last = [lines[-1] for lines in trainings]
        late = [line["asynchronous"]["staleness"] for line in last if "asynchronous" in line]
        seen = [int(n) * count for shards in late for s in shards for n, count in s.items()]
        pushes = sum(count for shards in late for s in shards for count in s.values())
        rows.append(
            [
                way,
                spread([line["dev_loss"] for line in last], 3),
                spread([line["dev_error_rate"] for line in last], 2) + " %",
                str(last[0]["all_updates"]),
                spread([line["all_seconds"] for line in last], 0),
                f"{sum(seen) / pushes:.2f}" if pushes else "",
            ]
        )
    metric = found[arguments.ways[0]][0][-1]["metric"]
    header = ["training", "dev loss", f"dev {metric}", "updates", "seconds", "staleness"]
    print(table_of(header, rows))
    if arguments.picture:
        save(draw(found, arguments.title), arguments.picture)
    return 0


def table_of(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
