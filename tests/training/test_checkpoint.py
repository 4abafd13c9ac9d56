"""Checkpoints with missing or wrong parts: a message that names file and remedy, no other error."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.models.weights import load_state

WRONG = (None, "x", -1, 2**70, float("nan"), [], {}, torch.ones(2, 2), {"a": [1]})


def places(state: object, above: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The ways to every part of a state, at most four keys long."""
    found = [above] if above else []
    if isinstance(state, dict) and len(above) < 4:
        for key in [*state][:3] if above[1:] else state:
            found += places(state[key], (*above, key))
    elif isinstance(state, list) and state and len(above) < 4:
        found += places(state[0], (*above, 0))
    return found


@pytest.fixture
def model(toy, execute, tmp_path: Path) -> Path:
    """A model after an epoch of its training, with one state."""
    done = execute("train_ctc.py", *toy.arguments(tmp_path / "m", "--epochs=1", "--average=0.5"))
    assert done.status == 0, done.err
    return tmp_path / "m"


@pytest.mark.parametrize("way", ["missing", "wrong"])
def test_every_part_of_a_state(toy, execute, model: Path, tmp_path: Path, way: str) -> None:
    last = model / "checkpoints" / "last.pt"
    state = load_state(last)
    (model / "checkpoints" / "previous.pt").unlink(missing_ok=True)
    whole = shutil.copytree(model, tmp_path / "whole")
    tried = 0
    for number, place in enumerate(places(state)):
        shutil.rmtree(model)
        shutil.copytree(whole, model)
        torch.save(changed(last, place, way, number), last)
        arguments = toy.arguments(model, "--epochs=2", "--average=0.5")
        done = execute("train_ctc.py", *arguments)
        assert "unexpected" not in done.err, (place, done.err)
        assert "Traceback" not in done.err, (place, done.err)
        if done.status:
            assert "last.pt: " in done.err, (place, done.err)
            assert "remove " in done.err, (place, done.err)
            tried += 1
    assert tried > 15


def changed(last: Path, place: tuple[object, ...], way: str, number: int) -> object:
    state = load_state(last)
    part: object = state
    for key in place[:-1]:
        part = part[key]  # type: ignore[index]
    if way == "missing":
        del part[place[-1]]  # type: ignore[attr-defined]
    else:
        part[place[-1]] = WRONG[number % len(WRONG)]  # type: ignore[index]
    return state


@pytest.mark.parametrize("content", [b"", b"PK\5\6" + bytes(18), bytes(100_000)])
def test_a_file_that_is_no_state(toy, execute, model: Path, content: bytes) -> None:
    (model / "checkpoints" / "last.pt").write_bytes(content)
    (model / "checkpoints" / "previous.pt").unlink(missing_ok=True)
    done = execute("train_ctc.py", *toy.arguments(model, "--epochs=2", "--average=0.5"))
    assert done.status == 1
    assert "last.pt: damaged checkpoint" in done.err
    assert "remove it to start again" in done.err


def test_another_version(toy, execute: Callable, model: Path) -> None:
    last = model / "checkpoints" / "last.pt"
    torch.save({**load_state(last), "version": 9}, last)
    (model / "checkpoints" / "previous.pt").unlink(missing_ok=True)
    done = execute("train_ctc.py", *toy.arguments(model, "--epochs=2", "--average=0.5"))
    assert done.status == 1
    assert "last.pt: a state of version 9, but this program reads version 1" in done.err
