"""Killed, slow and troubled processes: the others go on, or all end with one clear error."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = ("--epochs=3", "--patience=0", "--batch-size=1", "--learning-rate=0.01", "--async")
Start = Callable[..., list]

TROUBLED = """
import os, runpy, signal, sys, time
import torch
from pipeline.training.loop import Trainer

gradient, count = Trainer._gradient, 0

def troubled(self, batch, noise):
    global count
    count += 1
    found = gradient(self, batch, noise)
    rank = int(os.environ["RANK"])
    {trouble}
    return found

Trainer._gradient = troubled
sys.argv[0] = {program!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def troubled(tmp_path: Path) -> Callable[..., str]:
    """train_ctc.py, with something done after each gradient: ``count`` of ``rank``."""

    def make(trouble: str, name: str = "train_ctc.py") -> str:
        path = tmp_path / name
        program = str(ROOT / "bin" / name)
        path.write_text(TROUBLED.format(trouble=trouble, program=program))
        return str(path)

    return make


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def ends(ranks: list, seconds: float = 60.0) -> list[int | None]:
    return [rank.wait(seconds) for rank in ranks]


def utterances(model: Path) -> list[int]:
    """How many utterances were trained in each epoch, by the coordinator's and the shards' counts.

    With batches of one, every update of a shard is an utterance.
    """
    found = lines(model)
    counted = [line["asynchronous"]["utterances"] for line in found]
    for line in found:
        for seen in line["asynchronous"]["staleness"]:
            assert sum(seen.values()) == line["asynchronous"]["utterances"]
    return counted


def test_the_others_go_on_without_a_killed_worker(
    toy: object, start: Start, troubled: Callable[..., str], tmp_path: Path
) -> None:
    program = troubled("if rank == 3 and count == 2: os.kill(os.getpid(), signal.SIGKILL)")
    model = tmp_path / "model"
    ranks = start(program, toy.arguments(model, *OPTIONS, "--shards=1"), 4)
    assert ends(ranks) == [0, 0, 0, -9]
    assert "worker2 is lost" in ranks[0].said
    assert "1 workers go on, and 1 utterances that it had are given to others" in ranks[0].said
    assert utterances(model) == [4, 4, 4]
    assert sum(line["asynchronous"]["items_given_back"] for line in lines(model)) == 1
    assert lines(model)[-1]["asynchronous"]["lost"] == ["worker2"]


@pytest.mark.slow
def test_all_workers_killed(
    toy: object, start: Start, troubled: Callable[..., str], tmp_path: Path
) -> None:
    program = troubled("if count == 2: os.kill(os.getpid(), signal.SIGKILL)")
    ranks = start(program, toy.arguments(tmp_path / "model", *OPTIONS), 4)
    assert ends(ranks) == [1, 1, -9, -9]
    assert ranks[0].said.count("ERROR") == 1
    assert "all workers are lost" in ranks[0].said


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_all_end_soon_without_a_shard_or_without_the_coordinator(
    rank: int, toy: object, start: Start, tmp_path: Path
) -> None:
    options = (*OPTIONS, "--epochs=10000", "--shards=2")
    ranks = start("train_ctc.py", toy.arguments(tmp_path / "model", *options), 4)
    ranks[0].wait_until(lambda: "epoch 2:" in ranks[0].said)
    os.kill(ranks[rank].pid, signal.SIGKILL)
    begun = time.monotonic()
    found = ends(ranks)
    assert time.monotonic() - begun < 25.0
    assert found == [-9 if n == rank else 1 for n in range(4)]
    if rank == 1:
        assert ranks[0].said.count("ERROR") == 1
        assert "shard1 is lost" in ranks[0].said
        assert "the same command continues" in ranks[0].said
        assert [other.said for other in ranks[2:]] == ["", ""]


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_all_end_and_the_command_continues_with_the_same_bytes(
    kill: int, toy: object, start: Start, together: Callable, tmp_path: Path
) -> None:
    options = ("--epochs=30", "--patience=0", "--batch-size=1", "--optimizer=adam", "--async")
    options = (*options, "--weight-noise=0.02", "--save-every=0.01", "--shards=2", "--average=0.5")
    model = tmp_path / "model"
    ranks = start("train_ctc.py", toy.arguments(model, *options), 4)
    ranks[0].wait_until(lambda: "epoch 3:" in ranks[0].said)
    for rank in reversed(ranks):
        os.kill(rank.pid, kill)
    assert ends(ranks) == ([-9] * 4 if kill == signal.SIGKILL else [143] * 4)
    said = together("train_ctc.py", toy.arguments(model, *options), 4)
    assert "continuing after epoch" in said[0]
    together("train_ctc.py", toy.arguments(tmp_path / "whole", *options), 4)
    whole = (tmp_path / "whole" / "final.safetensors").read_bytes()
    assert (model / "final.safetensors").read_bytes() == whole
    assert [line["epoch"] for line in lines(model)] == list(range(1, 31))
    assert {line["asynchronous"]["utterances"] for line in lines(model)} == {4}


@pytest.mark.slow
def test_a_worker_that_gets_a_signal_leaves_the_others_its_work(
    toy: object, start: Start, tmp_path: Path
) -> None:
    options = (*OPTIONS, "--epochs=40")
    ranks = start("train_ctc.py", toy.arguments(tmp_path / "model", *options), 4)
    ranks[0].wait_until(lambda: "epoch 2:" in ranks[0].said)
    os.kill(ranks[3].pid, signal.SIGTERM)
    assert ends(ranks) == [0, 0, 0, 143]
    assert "worker2 ends after a signal; 1 workers go on" in ranks[0].said
    assert utterances(tmp_path / "model") == [4] * 40


@pytest.mark.slow
def test_a_slow_worker_does_not_hold_the_others(
    toy: object, start: Start, troubled: Callable[..., str], tmp_path: Path
) -> None:
    """The slow one takes a second for each of its utterances, and the others do 40 meanwhile."""
    program = troubled("if rank == 3: time.sleep(1.0)")
    options = (*OPTIONS, "--epochs=20")
    ranks = start(program, toy.arguments(tmp_path / "model", *options), 4)
    assert ends(ranks) == [0, 0, 0, 0]
    assert utterances(tmp_path / "model") == [4] * 20
    shares = [line["asynchronous"]["workers"] for line in lines(tmp_path / "model")]
    quick, slow = (
        sum(share.get(name, {}).get("utterances", 0) for share in shares)
        for name in ("worker1", "worker2")
    )
    assert quick + slow == 80
    assert slow <= 20  # one an epoch at most: it holds an epoch's end, but never the others
    waited = sum(share.get("worker1", {}).get("waiting_seconds", 0) for share in shares)
    seconds = sum(line["seconds"] for line in lines(tmp_path / "model"))
    assert waited < seconds


NAN = "[p.grad.fill_(float('nan')) for p in self.parameters if p.grad is not None]"


def test_nan_is_refused_once_and_others_try_again(
    toy: object, start: Start, troubled: Callable[..., str], tmp_path: Path
) -> None:
    program = troubled(f"if rank == 3 and count == 2: {NAN}")
    ranks = start(program, toy.arguments(tmp_path / "model", *OPTIONS), 4)
    assert ends(ranks) == [0, 0, 0, 0]
    assert "WARNING (train_ctc.py) shard1 refused the gradient of worker2, of s" in ranks[0].said
    assert utterances(tmp_path / "model") == [4, 4, 4]
    assert sum(line["asynchronous"]["refused"] for line in lines(tmp_path / "model")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 2])
def test_nan_twice_ends_the_training(
    shards: int, toy: object, start: Start, troubled: Callable[..., str], tmp_path: Path
) -> None:
    program = troubled(f"if 's0-u1' in batch.utt_ids: {NAN}")
    options = (*OPTIONS, f"--shards={shards}")
    ranks = start(program, toy.arguments(tmp_path / "model", *options), shards + 3)
    assert ends(ranks) == [1] * (shards + 3)
    assert ranks[0].said.count("ERROR") == 1
    assert "refused the gradient of worker" in ranks[0].said
    assert "of s0-u1, for the second time" in ranks[0].said
    assert [rank.said for rank in ranks[1:]] == [""] * (shards + 2)


@pytest.mark.slow
def test_bad_features_in_a_worker_are_reported_once(
    toy: object, start: Start, troubled: Callable[..., str], tmp_path: Path
) -> None:
    program = troubled("if count == 2: raise ValueError('no such thing')")
    ranks = start(program, toy.arguments(tmp_path / "model", *OPTIONS), 4)
    assert ends(ranks) == [1, 1, 1, 1]
    assert ranks[0].said.count("ERROR") == 1
    assert "ValueError: no such thing" in ranks[0].said
    assert "worker" in ranks[0].said


def test_a_killed_hogwild_worker(
    toy: object, start: Start, troubled: Callable[..., str], tmp_path: Path
) -> None:
    trouble = "if self.link.worker == 2 and count == 2: os.kill(os.getpid(), signal.SIGKILL)"
    options = (*OPTIONS[:-1], "--async=hogwild", "--workers=2")
    model = tmp_path / "model"
    (rank,) = start(troubled(trouble), toy.arguments(model, *options), 1)
    assert rank.wait(60.0) == 0
    assert "worker2 is lost" in rank.said
    assert utterances(model) == [4, 4, 4]


@pytest.mark.slow
def test_hogwild_ends_with_its_workers_and_continues(
    toy: object, start: Start, together: Callable, tmp_path: Path
) -> None:
    options = ("--epochs=30", "--patience=0", "--optimizer=adam", "--save-every=0.01")
    options = (*options, "--async=hogwild", "--workers=1")
    model = tmp_path / "model"
    (rank,) = start("train_ctc.py", toy.arguments(model, *options), 1)
    rank.wait_until(lambda: "epoch 3:" in rank.said)
    os.kill(rank.pid, signal.SIGKILL)
    assert rank.wait(30.0) == -9
    (said,) = together("train_ctc.py", toy.arguments(model, *options), 1)
    assert "continuing after epoch" in said
    together("train_ctc.py", toy.arguments(tmp_path / "whole", *options), 1)
    whole = (tmp_path / "whole" / "final.safetensors").read_bytes()
    assert (model / "final.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    ("options", "count", "text"),
    [
        (["--async"], 2, "needs 3 processes or more"),
        (["--async", "--shards=3"], 4, "needs 5 processes or more"),
        (["--async=hogwild"], 2, "makes its own processes"),
        (["--shards=2"], 1, "--shards must be left out without --async"),
        (["--workers=3"], 1, "--workers must be left out without --async=hogwild"),
        (["--async=soon"], 1, "--async must be one of false, true, hogwild"),
    ],
)
def test_wrong_numbers_of_processes(
    options: list[str], count: int, text: str, toy: object, start: Start, tmp_path: Path
) -> None:
    ranks = start("train_ctc.py", toy.arguments(tmp_path / "model", *options), count)
    assert ends(ranks) == [2] * count
    assert ranks[0].said.count("ERROR") == 1
    assert text in ranks[0].said
    assert [rank.said for rank in ranks[1:]] == [""] * (count - 1)
