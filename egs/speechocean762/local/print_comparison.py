#!/usr/bin/env python3
"""Print what compare_encoders.sh has found: a table in Markdown for each kind of units.

Usage: print_comparison.py UNITS:ENCODER=EXP …

e.g.: local/print_comparison.py phone:blstm=compare/fbank/exp_blstm

EXP is the folder of the networks ctc and transducer with their decode_dev, and decode_fused_dev
where a language model was used. Error rates stand with their 95 % intervals; s/epoch is the median
of a training's epochs, and RTF the seconds that encoder and search take for a second of speech.

See also: compare_encoders.sh, utils/print_results.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from statistics import median
from typing import Annotated

from typer import Argument

from pipeline.cli import run
from pipeline.errors import UsageError
from pipeline.scoring.counts import ErrorCounts
from pipeline.scoring.kaldi_forms import rate_text
from pipeline.scoring.results import SavedInterval, read_metrics, read_score, read_speed

SHIFT_S = 0.01  # of a frame
NAMES = {"ctc": "CTC", "transducer": "transducer"}


def weights(directory: Path) -> int:
    """Number of weights, by the architecture in config.json."""
    from pipeline.models.model_dir import ModelDir
    from pipeline.nn.layers import count_weights
    from pipeline.nn.models import build_model

    config = ModelDir.open(directory).config
    assert config.num_tokens is not None
    return count_weights(build_model(config, num_tokens=config.num_tokens))


def shown(total: ErrorCounts, interval: SavedInterval | None) -> str:
    """An error rate in percent with its interval."""
    ends = f" ({interval.low:.1f} to {interval.high:.1f})" if interval else ""
    return f"{rate_text(total.error_rate)}{ends}"


def rates(decoded: Path) -> dict[str, str]:
    """The error rates of a decode directory by their names."""
    score = read_score(decoded)
    found = {score.name: shown(score.total, score.interval)}
    if score.beside:
        found[score.beside.name] = shown(score.beside.total, score.beside.interval)
    return found


def row(name: str, exp: Path, kind: str) -> dict[str, str]:
    """The columns of one network."""
    model = exp / kind
    speed = read_speed(model / "decode_dev")
    cells = {"encoder": name, "trained as": NAMES[kind], "weights": f"{weights(model):,}"}
    cells |= rates(model / "decode_dev")
    if (model / "decode_fused_dev").is_dir():
        fused = rates(model / "decode_fused_dev")
        cells |= {f"{which} with LM": rate for which, rate in fused.items()}
    cells["s/epoch"] = f"{median(epoch.seconds for epoch in read_metrics(model)):.0f}"
    cells["RTF"] = f"{speed.seconds / (speed.frames * SHIFT_S):.4f}"
    return cells


def parsed(result: str) -> tuple[str, str, Path]:
    """Units, encoder and folder."""
    label, _, directory = result.partition("=")
    units, _, name = label.partition(":")
    if not (units and name and directory):
        raise UsageError(f"a result is UNITS:ENCODER=EXP, not {result!r}")
    return units, name, Path(directory)


def main(
    results: Annotated[list[str], Argument(metavar="UNITS:ENCODER=EXP…", help="networks to show")],
) -> int:
    found = [parsed(result) for result in results]
    for units in dict.fromkeys(units for units, _, _ in found):
        rows = [row(name, exp, kind) for of, name, exp in found if of == units for kind in NAMES]
        columns = list(dict.fromkeys(column for cells in rows for column in cells))
        print(f"\n{units}\n")
        print(f"| {' | '.join(columns)} |")
        print(f"|{'---|' * len(columns)}")
        for cells in rows:
            print(f"| {' | '.join(cells.get(column, '') for column in columns)} |")
    return 0


if __name__ == "__main__":
    run(main)
