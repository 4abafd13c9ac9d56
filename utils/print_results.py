#!/usr/bin/env python3
"""Print a table of models: weights, error rates with their counts, and the papers' numbers.

Usage: print_results.py [--title TEXT] [--paper NAME=TEXT …] NAME=MODEL_DIR …

e.g.: print_results.py --title "TIMIT" --paper "ctc=18.6 [G13]" ctc=exp/ctc

The rates are those of MODEL_DIR/decode_*/scoring/wer, with the 95 % intervals of score.json beside
it. A prediction network, which decodes nothing, is shown with the next-token error and log-loss of
its best epoch.

See also: score.py, compare_wer.py, make_report.py, show_model.py
"""

import hashlib
import json
import struct
from math import prod
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import run
from pipeline.errors import DataError, ModelError, UsageError


def count_weights(path: Path) -> int:
    """Number of weights in a safetensors file, from its header alone."""
    try:
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(size, path.stat().st_size)))
        return sum(prod(t["shape"]) for name, t in header.items() if name != "__metadata__")
    except (OSError, struct.error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path}: cannot read these weights ({error}); train the model") from error


def rates(directory: Path) -> list[tuple[str, str]]:
    """(set, rate with its counts) of every scored decode directory, else of the best epoch."""
    found = []
    for wer in sorted(directory.glob("decode_*/scoring/wer")):
        line = wer.read_text().partition("\n")[0]
        if not line.startswith("%WER"):
            raise DataError(f"{wer}: no error rate; make it again with score.py")
        check_current(wer.parent)
        line = f"%PER{line[4:]}{interval(wer.parent / 'score.json')}"
        found.append((wer.parent.parent.name.removeprefix("decode_"), line))
    if not found and (directory / "metrics.jsonl").exists():
        found.append(("dev", best_epoch(directory / "metrics.jsonl")))
    return found


def check_current(scoring: Path) -> None:
    """Raise DataError if the hypotheses have changed since they were scored."""
    score, hyp = scoring / "score.json", scoring.parent / "hyp.txt"
    if not score.exists() or not hyp.exists():
        return
    try:
        digest = json.loads(score.read_text(encoding="utf-8")).get("hyp_digest")
    except (ValueError, AttributeError) as error:
        raise DataError(f"{score}: no score ({error!r}); make it again with score.py") from error
    if digest not in (None, hashlib.sha256(hyp.read_bytes()).hexdigest()):
        raise DataError(f"{hyp}: decoded anew since it was scored; run score.py again")


def interval(path: Path) -> str:
    """The 95 % interval of a score, if score.py left one."""
    if not path.exists():
        return ""
    try:
        ends = json.loads(path.read_text(encoding="utf-8"))["interval"]
        return f", 95 % in {ends['low']:.1f} to {ends['high']:.1f}"
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no score ({error!r}); make it again with score.py") from error


def best_epoch(path: Path) -> str:
    """The scores of the best epoch of a training."""
    try:
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        best = next(line for line in reversed(lines) if line["best"])
        return f"next token wrong {best['dev_per']:.1f} %, {best['dev_bits']:.2f} bits a token"
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise DataError(f"{path}: no best epoch ({error!r}); train the model again") from error


def named(items: list[str], what: str) -> dict[str, str]:
    """``["a=b"]`` -> ``{"a": "b"}``."""
    for item in items:
        if "=" not in item:
            raise UsageError(f"{what} is NAME=…, not {item!r}")
    return dict(item.split("=", 1) for item in items)


def main(
    models: Annotated[list[str], Argument(metavar="NAME=MODEL_DIR…", help="what to show")],
    title: Annotated[str, Option(help="line above the table")] = "",
    paper: Annotated[list[str] | None, Option(help="NAME=TEXT, the published number")] = None,
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
