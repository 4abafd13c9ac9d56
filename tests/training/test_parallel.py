"""Two processes that train together, as torchrun starts them: the same as one, to rounding."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.model_dir import ModelDir, read_weights
from pipeline.training.parallel import World

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = (
    *("--epochs=3", "--patience=0", "--batch-size=3", "--optimizer=sgd", "--learning-rate=0.01"),
    *("--weight-noise=0.02", "--input-noise=0.1", "--speed=0.1", "--clip-norm=5", "--average=0.9"),
    *("--schedule=linear", "--stop-on=per"),
)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def together(program: str, arguments: list[object], count: int = 2) -> list[str]:
    """Run a program in processes as torchrun would; what each wrote to stderr."""
    shared = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "bin" / program), *map(str, arguments)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, errors
    return errors


@pytest.mark.parametrize("kind", ["ctc", "predictor", "transducer"])
def test_two_processes_give_what_one_gives(
    kind: str, toy: object, execute: Callable[..., object], tmp_path: Path
) -> None:
    """Batches of three of four utterances: one process has less to do, and once nothing."""
    options = (*OPTIONS, "--ctc-weight=0.3") if kind == "transducer" else OPTIONS
    done = execute(f"train_{kind}.py", *toy.arguments(tmp_path / "one", *options))
    assert done.status == 0, done.err
    errors = together(f"train_{kind}.py", toy.arguments(tmp_path / "two", *options))
    assert "on cpu, 2 processes" in errors[0]
    assert "epoch" not in errors[1]
    one, two = (ModelDir.open(tmp_path / name) for name in ("one", "two"))
    mine, theirs = read_weights(two.weights_path), read_weights(one.weights_path)
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor, rtol=1e-4, atol=1e-6)
    lines = [
        [json.loads(line) for line in (d.path / "metrics.jsonl").read_text().splitlines()]
        for d in (one, two)
    ]
    for a, b in zip(*lines, strict=True):
        for key in ("train_loss", "dev_loss", "dev_per"):
            assert b[key] == pytest.approx(a[key], rel=1e-4)
    assert json.loads((two.path / "provenance.json").read_text())["processes"] == 2


def test_two_processes_go_on_where_two_stopped(
    toy: object, execute: Callable[..., object], tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    together("train_ctc.py", toy.arguments(whole, *OPTIONS))
    together("train_ctc.py", toy.arguments(parts, *OPTIONS[1:], "--epochs=3", "--save-every=0"))
    state = "checkpoints/last.pt"
    assert (whole / "final.safetensors").read_bytes() == (parts / "final.safetensors").read_bytes()
    # From the state before the last epoch's end the same end is reached again.
    (parts / state).unlink()
    (parts / "final.safetensors").unlink()
    together("train_ctc.py", toy.arguments(parts, *OPTIONS[1:], "--epochs=3", "--save-every=0"))
    assert (whole / "final.safetensors").read_bytes() == (parts / "final.safetensors").read_bytes()


def test_one_process_alone_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = World()
    assert (world.size, world.rank, world.is_first) == (1, 0, True)
    assert world.share([1, 2, 3]) == [1, 2, 3]
    assert world.sum([1.5, 2.0]) == [1.5, 2.0]
    assert world.gather("a") == ["a"]
    world.wait()
    world.leave()
