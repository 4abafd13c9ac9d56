"""The comparison of synchronous, asynchronous and Hogwild training: what it reads and draws."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    sys.path.insert(0, str(HERE))
    spec = importlib.util.spec_from_file_location("bench_sgd", HERE / "bench_sgd.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(HERE))
    return module


def finished(work: Path, name: str, *losses: float) -> None:
    """A training that need not be made again."""
    model = work / name
    model.mkdir(parents=True)
    (model / "final.safetensors").touch()
    lines = [
        {"epoch": n + 1, "dev_loss": loss, "dev_error_rate": 10.0, "metric": "PER", "updates": 5,
         "seconds": 2.0 + n, "asynchronous": {"staleness": [{"0": 1, "2": 3}]}}
        for n, loss in enumerate(losses)
    ]  # fmt: skip
    (model / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def test_updates_and_seconds_are_added_up(bench: ModuleType, tmp_path: Path) -> None:
    finished(tmp_path, "hogwild_0", 3.0, 2.0, 1.0)
    lines = bench.read(tmp_path / "hogwild_0")
    assert [line["all_updates"] for line in lines] == [5, 10, 15]
    assert [line["all_seconds"] for line in lines] == [2.0, 5.0, 9.0]


def test_finished_trainings_make_a_table_and_a_picture(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    for seed, loss in enumerate((1.0, 2.0)):
        finished(tmp_path, f"hogwild_{seed}", 3.0, loss)
        finished(tmp_path, f"one_process_{seed}", 3.0, loss - 0.5)
    words = ["--work", str(tmp_path), "--seeds=2", "--ways", "one process", "Hogwild"]
    words += ["--picture", str(tmp_path / "curves.png"), "model.toml", "tokens.txt", "train", "dev"]
    monkeypatch.setattr(sys, "argv", ["bench_sgd.py", *words])
    assert bench.main() == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].startswith("| training | dev loss | dev PER |")
    assert rows[2].startswith("| one process | 1.000 (0.500 to 1.500) |")
    assert rows[3].startswith("| Hogwild | 1.500 (1.000 to 2.000) |")
    assert rows[3].endswith("| 10 | 5 (5 to 5) | 1.50 |")
    assert (tmp_path / "curves.png").stat().st_size > 10_000
