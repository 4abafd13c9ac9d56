"""The speeds that README promises; run with -m bench on a machine with nothing else to do."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def table(program: str) -> list[list[str]]:
    """Cells of the rows that a measuring program prints."""
    done = subprocess.run(
        [sys.executable, str(HERE / program), "--rounds=5"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.bench
@pytest.mark.parametrize(
    "program",
    [
        "bench_lstm.py",
        "bench_lstmp.py",
        "bench_deep_speech2.py",
        "bench_loss.py",
        "bench_training.py",
        "bench_search.py",
        "bench_ctc_search.py",
    ],
)
def test_floors_are_met(program: str) -> None:
    rows = table(program)
    missed = [" | ".join(row) for row in rows if row[-1] != "yes"]
    assert rows
    assert not missed, "\n".join(missed)


@pytest.mark.bench
def test_time_grows_no_faster_than_the_arithmetic() -> None:
    for what, time, arithmetic in table("bench_growth.py"):
        assert float(time.split()[0]) < 1.35 * float(arithmetic.split()[0]), what


@pytest.mark.parametrize(
    "program",
    [
        "bench_lstm.py",
        "bench_deep_speech2.py",
        "bench_loss.py",
        "bench_training.py",
        "bench_growth.py",
        "bench_search.py",
        "bench_ctc_search.py",
        "bench_streaming.py",
        "bench_async.py",
        "bench_sgd.py",
    ],
)
def test_a_measuring_program_explains_itself(program: str) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / program), "--help"], capture_output=True, text=True, check=True
    )
    assert any(f"--{name}" in done.stdout for name in ("rounds", "minutes", "seeds"))
