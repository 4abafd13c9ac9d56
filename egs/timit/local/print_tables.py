#!/usr/bin/env python3
"""Print Table 1 of both papers, our networks beside theirs.

Usage: print_tables.py TABLE:ROW:PAPER=MODEL_DIR …

e.g.: print_tables.py "G13:CTC-3l-250h:18.6=exp/tables/ctc_3l_250h_train_ctc_noise"

TABLE is G12 or G13, PAPER what the paper says. Error rates are the scores of MODEL_DIR/decode_test
and MODEL_DIR/decode_dev or decode_held_out. Log-losses, epochs and a prediction network's
next-phone errors are those of the best epoch in MODEL_DIR/metrics.jsonl.

See also: run_tables.sh, utils/print_results.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument

from pipeline.cli import run
from pipeline.errors import UsageError
from pipeline.scoring.kaldi_forms import rate_text
from pipeline.scoring.results import best_epoch, read_metrics, read_score

TITLES = {
    "G12": "[G12] Table 1: A. Graves, 2012",
    "G13": "[G13] Table 1: A. Graves, A. Mohamed, G. Hinton, 2013",
}


NOTE = """
best, of: the best epoch of the last phase, and how many epochs that phase had. bits: log-loss of a
token on the dev or the held-out set. A prediction network's dev % is the share of next tokens that
it gets wrong."""


def rate(directory: Path, sets: tuple[str, ...]) -> str:
    """Error rate in percent of the first of these sets that was decoded."""
    for name in sets:
        decoded = directory / f"decode_{name}"
        if decoded.exists():
            return rate_text(read_score(decoded).total.error_rate)
    return ""


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
            epochs = read_metrics(directory)
            best = best_epoch(epochs)
            dev = rate(directory, ("dev", "held_out")) or f"{best.error_rate:.2f}"
            test = rate(directory, ("test",)) or "-"
            print(f"{row:20}{weights(directory):>11,}{best.number:>6}{len(epochs):>5}"
                  f"{best.dev_bits:>7.2f}{dev:>8}{test:>8}   {paper}")  # fmt: skip
    print(NOTE)
    return 0


if __name__ == "__main__":
    run(main)
