#!/usr/bin/env python3
"""Print a table of models: weights, error rates with their counts, and the papers' numbers.

Usage: print_results.py [--title TEXT] [--paper NAME=TEXT …] NAME=MODEL_DIR …

e.g.: print_results.py --title "TIMIT" --paper "ctc=18.6 [G13]" ctc=exp/ctc

Every MODEL_DIR/decode_* that score.py has scored is a line: the error rate under the name that
the score carries (%PER of phones, %WER of words, %CER of characters), its counts, and its 95 %
interval; the %CER that score.py --with-cer counts beside the %WER is another line. A model that
has decoded nothing, as a prediction network, is shown with the error rates and the log-loss of its
best epoch.

See also: print_scores.py, score.py, compare_wer.py, make_report.py, show_model.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import json
import struct
from math import prod
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import run
from pipeline.errors import ModelError, UsageError
from pipeline.scoring.results import best_epoch, read_metrics, read_score, read_wer

ITEM_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1, "BOOL": 1}


def count_weights(path: Path) -> int:
    """Number of weights in a safetensors file, from its header alone."""
    try:
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(size, path.stat().st_size)))
        tensors = [t for name, t in header.items() if name != "__metadata__"]
        held = sum(prod(t["shape"]) * ITEM_BYTES[t["dtype"]] for t in tensors)
        if held != path.stat().st_size - 8 - size:
            raise ValueError("damaged: the shapes of its tensors do not fit its length")
        return sum(prod(t["shape"]) for t in tensors)
    except RecursionError:
        raise ModelError(f"{path}: cannot read these weights (nested too deeply)") from None
    except (OSError, struct.error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path}: cannot read these weights ({error}); train the model") from error


def rates(directory: Path) -> list[tuple[str, str]]:
    """(set, rate with its counts) of every scored decode directory, else of the best epoch."""
    found = []
    for scoring in sorted(directory.glob("decode_*/scoring")):
        score = read_score(scoring.parent)
        for line, interval in score.lines(read_wer(scoring.parent)):
            if interval:
                level, ends = interval.level, (interval.low, interval.high)
                line += f", {100 * level:.3g} % in {ends[0]:.1f} to {ends[1]:.1f}"
            found.append((scoring.parent.name.removeprefix("decode_"), line))
    if not found and (directory / "metrics.jsonl").exists():
        best = best_epoch(read_metrics(directory))
        error = f"{best.metric} {best.error_rate:.1f} %, "
        error += "".join(f"{name} {rate:.1f} %, " for name, rate in best.others.items())
        error += f"{best.dev_bits:.2f} bits a token"
        found.append(("dev", error))
    return found


def named(items: list[str], what: str) -> dict[str, str]:
    """``["a=b"]`` -> ``{"a": "b"}``."""
    for item in items:
        if "=" not in item:
            raise UsageError(f"{what} is NAME=…, not {item!r}")
    return dict(item.split("=", 1) for item in items)


def main(
    models: Annotated[
        list[str], Argument(metavar="NAME=MODEL_DIR…", help="models to show, with their names")
    ],
    title: Annotated[str, Option(help="title above the table; empty: none")] = "",
    paper: Annotated[
        list[str] | None,
        Option(help="published number of a model as NAME=TEXT, may be repeated; default: none"),
    ] = None,
) -> int:
    papers = named(paper or [], "--paper")
    if title:
        print(f"\n{title}")
    print(f"\n{'model':12}{'weights':>12}   {'set':6}error rate")
    for name, path in named(models, "a model").items():
        weights = f"{count_weights(Path(path) / 'final.safetensors'):,}"
        for number, (which, rate) in enumerate(rates(Path(path))):
            left = f"{name:12}{weights:>12}" if number == 0 else " " * 24
            print(f"{left}   {which:6}{rate}")
        if name in papers:
            print(f"{'':27}{'paper':6}{papers[name]}")
    print()
    return 0


if __name__ == "__main__":
    run(main)
