"""The reader of what asynchronous trainings leave in metrics.jsonl, and its sums."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.scoring.asynchronous import Staleness, WorkerShare, together, total
from pipeline.scoring.results import read_metrics

Make = Callable[..., dict[str, object]]


def write(folder: Path, *lines: dict[str, object]) -> Path:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_an_epoch_is_read_as_it_is_written(asynchronous_epoch: Make, tmp_path: Path) -> None:
    plain = {n: v for n, v in asynchronous_epoch(1).items() if n != "asynchronous"}
    first, second = read_metrics(write(tmp_path, plain, asynchronous_epoch(2, lost=["worker3"])))
    assert first.asynchronous is None
    found = second.asynchronous
    assert found is not None
    assert (found.updates, found.utterances, found.lost) == (8, 16, ("worker3",))
    assert found.staleness == (Staleness({0: 6, 1: 2}), Staleness({0: 4, 3: 4}))
    assert found.workers["worker2"] == WorkerShare(4, 8, 2.0, 1.5, 1.0)
    assert (found.workers["worker2"].speed, found.workers["worker2"].share_waiting) == (2.0, 0.5)


def test_what_is_known_of_staleness() -> None:
    seen = Staleness({0: 6, 1: 2, 9: 0}).plus(Staleness({1: 1, 4: 1}))
    assert (seen.pushes, seen.sum(), seen.sum(power=2), seen.largest) == (10, 7, 19, 4)
    assert seen.mean == pytest.approx(0.7)
    assert math.isnan(Staleness().mean)
    assert Staleness().largest == 0
    assert together([]) == Staleness()


def test_a_training_is_the_sum_of_its_epochs(asynchronous_epoch: Make, tmp_path: Path) -> None:
    """Also where a worker was lost, and was the only one who had anything to do."""
    changes = {"staleness": [{"0": 2}, {"0": 2}], "items_given_back": 2, "lost": ["worker2"]}
    lines = [asynchronous_epoch(1, refused=1), asynchronous_epoch(2, team=1, **changes)]
    lines += [asynchronous_epoch(3, team=10, lost=["worker2"])]
    read = read_metrics(write(tmp_path, *lines))
    found = total([epoch.asynchronous for epoch in read if epoch.asynchronous])
    assert (found.updates, found.given_back, found.refused) == (24, 2, 1)
    assert found.lost == ("worker2",)
    assert found.staleness == (Staleness({0: 14, 1: 4}), Staleness({0: 10, 3: 8}))
    assert [*found.workers][:2] == ["worker1", "worker2"]
    assert [*found.workers][-1] == "worker10"
    assert found.workers["worker1"] == WorkerShare(12, 24, 6.0, 4.5, 1.5)
    assert found.workers["worker2"].share_waiting == 0.5
    assert WorkerShare().speed == WorkerShare().share_waiting == 0.0


WRONG = "a value is of the wrong type"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"updates": -1}, WRONG),
        ({"updates": None}, WRONG),
        ({"staleness": 3}, WRONG),
        ({"staleness": []}, WRONG),
        ({"staleness": [3]}, WRONG),
        ({"staleness": [{"-1": 2}]}, WRONG),
        ({"staleness": [{"0": "many"}]}, WRONG),
        ({"workers": ["worker1"]}, WRONG),
        ({"workers": {"worker1": {"steps": 3}}}, 'it lacks "steps_per_second"'),
        ({"workers": {"worker1": {"steps": 3, "steps_per_second": math.nan}}}, WRONG),
        ({"lost": 2}, WRONG),
    ],
)
def test_damaged_entries_are_named(
    asynchronous_epoch: Make, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    write(tmp_path, asynchronous_epoch(1), asynchronous_epoch(2, **changes))
    with pytest.raises(DataError, match=rf"jsonl:2: not a line of train_\*\.py, {said}; remove it"):
        read_metrics(tmp_path)
    write(tmp_path, {**asynchronous_epoch(1), "asynchronous": []})
    with pytest.raises(DataError, match=rf"jsonl:1: not a line of train_\*\.py, {WRONG}"):
        read_metrics(tmp_path)
