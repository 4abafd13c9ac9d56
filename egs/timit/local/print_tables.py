#!/usr/bin/env python3
"""Print Table 1 of both papers, our networks beside theirs.

Usage: print_tables.py TABLE:ROW:PAPER=MODEL_DIR …

e.g.: print_tables.py "G13:CTC-3l-250h:18.6=exp/tables/ctc_3l_250h_train_ctc_noise"

TABLE is G12 or G13, PAPER what the paper says. Error rates are those of
MODEL_DIR/decode_test/scoring/wer and decode_{dev,held_out}; log-losses, epochs and a prediction
network's next-phone errors those of the best epoch in metrics.jsonl.

See also: run_tables.sh, utils/print_results.py
"""

import json
from pathlib import Path
from typing import Annotated, Any

from typer import Argument

from pipeline.cli import run
from pipeline.errors import DataError, UsageError

TITLES = {
    "G12": "[G12] Table 1: A. Graves, 2012",
    "G13": "[G13] Table 1: A. Graves, A. Mohamed, G. Hinton, 2013",
}


NOTE = """
best, of: best epoch of the last phase and how many it had; bits: log-loss a token on the dev or
held-out set. A prediction network's dev % are wrong next tokens."""


def per(directory: Path, sets: tuple[str, ...]) -> str:
    """Error rate in percent of the first of these sets that was decoded."""
    for name in sets:
        wer = directory / f"decode_{name}" / "scoring" / "wer"
        if wer.exists():
            return wer.read_text().split()[1]
    return ""


def best_epoch(directory: Path) -> dict[str, Any]:
    """The line of the best epoch, and how many epochs were trained."""
    path = directory / "metrics.jsonl"
    try:
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        best: dict[str, Any] = next(line for line in reversed(lines) if line["best"])
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise DataError(f"{path}: no best epoch ({error!r}); train the model again") from error
    return {**best, "epochs": len(lines)}


def weights(directory: Path) -> int:
    """Number of weights, by the architecture in config.json."""
    from pipeline.models.model_dir import ModelDir
    from pipeline.nn.layers import count_weights
    from pipeline.nn.models import build_model

    config = ModelDir.open(directory).config
    assert config.num_tokens is not None
    return count_weights(build_model(config, num_tokens=config.num_tokens))


def parsed(result: str) -> tuple[str, str, str, Path]:
    """Table, row, the paper's number, and our model."""
    label, _, directory = result.rpartition("=")
    table, row, paper = [*label.split(":", 2), "", ""][:3]
    if table not in TITLES or not row or not directory:
        raise UsageError(f"a result is G12|G13:ROW:PAPER=MODEL_DIR, not {result!r}")
    return table, row, paper, Path(directory)


def main(
    results: Annotated[list[str], Argument(metavar="TABLE:ROW:PAPER=MODEL_DIR…", help="rows")],
) -> int:
    rows = [parsed(result) for result in results]
    for table, title in TITLES.items():
        of_table = [row for row in rows if row[0] == table]
        if not of_table:
            continue
        print(f"\n{title}\n")
        print(f"{'network':20}{'weights':>11}{'best':>6}{'of':>5}{'bits':>7}"
              f"{'dev %':>8}{'test %':>8}   paper")  # fmt: skip
        for _, row, paper, directory in of_table:
            best = best_epoch(directory)
            dev = per(directory, ("dev", "held_out")) or f"{best['dev_per']:.2f}"
            test = per(directory, ("test",)) or "-"
            print(f"{row:20}{weights(directory):>11,}{best['epoch']:>6}{best['epochs']:>5}"
                  f"{best['dev_bits']:>7.2f}{dev:>8}{test:>8}   {paper}")  # fmt: skip
    print(NOTE)
    return 0


if __name__ == "__main__":
    run(main)
