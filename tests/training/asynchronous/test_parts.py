"""The parts of asynchronous training within one process: work, shards, sets of checkpoints."""

import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ModelError
from pipeline.training.asynchronous.engine import LocalEngine, Lost
from pipeline.training.asynchronous.messages import APPLIED, KNOWN, REFUSED, Item, Push
from pipeline.training.asynchronous.shard import Shard, split_by_size
from pipeline.training.asynchronous.shards import Shards
from pipeline.training.asynchronous.work import WorkQueue
from pipeline.training.train_options import TrainOptions

SGD = TrainOptions(learning_rate=0.5, momentum=0.0)


# ---- work ----------------------------------------------------------------------------------------


def test_items_come_in_order_and_the_next_epoch_begins_before_the_last_item_is_done() -> None:
    queue = WorkQueue(lambda epoch: 2)
    assert [queue.take(1, newest=2) for _ in range(5)] == [
        *(Item(epoch, number) for epoch in (1, 2) for number in (0, 1)),
        None,
    ]
    assert queue.finish(Item(1, 1))
    assert not queue.is_complete
    assert queue.finish(Item(1, 0))
    assert queue.is_complete
    queue.close()
    assert not queue.is_complete
    assert queue.take(1, newest=2) is None
    assert queue.take(1, newest=3) == Item(3, 0)


def test_items_of_a_lost_worker_come_first() -> None:
    queue = WorkQueue(lambda epoch: 3)
    mine, theirs = queue.take(1, newest=1), queue.take(2, newest=1)
    assert queue.give_back(1) == [mine]
    assert queue.take(2, newest=1) == mine
    assert queue.take(2, newest=1) == Item(1, 2)
    assert queue.given_back == 1
    assert queue.finish(theirs)
    assert queue.give_back(2) == [mine, Item(1, 2)]


def test_an_item_counts_once() -> None:
    """Its worker was thought to be lost, and finishes it after all."""
    queue = WorkQueue(lambda epoch: 2)
    item = queue.take(1, newest=1)
    queue.give_back(1)
    assert queue.finish(item)
    assert queue.take(2, newest=1) == Item(1, 1)  # not the same again
    assert not queue.finish(item)
    queue.finish(Item(1, 1))
    queue.close()
    assert not queue.finish(item)


@given(st.lists(st.tuples(st.sampled_from(["take", "finish", "lose"]), st.integers(1, 3))))
def test_whatever_happens_each_item_is_done_once(events: list[tuple[str, int]]) -> None:
    queue = WorkQueue(lambda epoch: 4)
    has: dict[int, list[Item]] = {1: [], 2: [], 3: []}
    counted: Counter[Item] = Counter()
    for what, worker in [*events, *[("take", 1), ("finish", 1)] * 20]:
        if what == "take" and (item := queue.take(worker, newest=1)):
            has[worker].append(item)
        elif what == "finish" and has[worker]:
            counted[has[worker][0]] += queue.finish(has[worker].pop(0))
        elif what == "lose":
            assert queue.give_back(worker) == sorted(has[worker])
            has[worker] = []
    for worker in (2, 3):
        for item in has[worker]:
            counted[item] += queue.finish(item)
    assert counted == {Item(1, n): 1 for n in range(4)}


# ---- shards --------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=30), st.integers(1, 8))
def test_parts_are_balanced(sizes: list[int], count: int) -> None:
    tensors = {f"t{n}": torch.empty(size) for n, size in enumerate(sizes)}
    parts = split_by_size(tensors, count)
    assert sorted(name for part in parts for name in part) == sorted(tensors)
    totals = [sum(tensors[name].numel() for name in part) for part in parts]
    assert max(totals) - min(totals) <= max(sizes)
    for part in parts:
        assert part == [name for name in tensors if name in part]


def make_shard(number: int = 1, value: float = 1.0, **how: object) -> Shard:
    weights = {"model.w": torch.nn.Parameter(torch.full((2,), value))}
    return Shard(number, weights, {}, how.pop("options", SGD), **how)


def push(
    serial: int, *, worker: int = 1, version: int = 0, item: Item | None = None, **more
) -> Push:
    values = {"gradient": [1.0, 2.0], "norm": 1.0, "rate": 0.5, **more}
    gradient = torch.tensor(values["gradient"])
    return Push(worker, serial, 1, item, values["rate"], values["norm"], version, [gradient])


def weights(shard: Shard) -> list[float]:
    return shard.pull().weights[0].tolist()


def test_a_push_is_a_step_of_the_optimiser() -> None:
    shard = make_shard()
    assert shard.push(push(1)) == APPLIED
    assert weights(shard) == [0.5, 0.0]
    assert shard.version == 1


def test_staleness_is_counted_and_may_divide_the_step() -> None:
    shard = make_shard(divide_by_staleness=True)
    shard.push(push(1))
    shard.push(push(1, worker=2))
    shard.push(push(2, version=1))
    assert shard.staleness == {1: {0: 1, 1: 2}}
    assert weights(shard) == [1.0 - 0.5 - 0.25 - 0.25, 1.0 - 1.0 - 0.5 - 0.5]


def test_the_gradients_of_an_item_are_taken_once() -> None:
    shard, item = make_shard(), Item(1, 7)
    assert shard.push(push(1, item=item)) == APPLIED
    assert shard.push(push(1, worker=2, item=item)) == KNOWN
    assert weights(shard) == [0.5, 0.0]
    shard.snapshot(2)
    assert shard.push(push(2, item=Item(1, 8))) == KNOWN  # of an epoch that is closed


@pytest.mark.parametrize(
    "bad", [{"norm": float("nan")}, {"norm": float("inf")}, {"gradient": [1.0, float("nan")]}]
)
def test_what_is_not_finite_is_refused(bad: dict) -> None:
    shard = make_shard()
    assert shard.push(push(1, item=Item(1, 0), **bad)) == REFUSED
    assert weights(shard) == [1.0, 1.0]
    assert shard.version == 0
    assert shard.push(push(2, item=Item(1, 0))) == APPLIED


def test_a_snapshot_is_of_the_same_pushes_in_all_shards(tmp_path: Path) -> None:
    """Worker 1 has pushed to the first shard only; worker 2's next push waits."""
    shards = [make_shard(1), make_shard(2)]
    engine = LocalEngine({"shard1": shards[0], "shard2": shards[1]})
    for shard in shards:
        shard.push(push(1, worker=2))
    shards[0].push(push(1))
    hold, late = shards[1].hold, []

    def hold_and_push() -> dict[int, int]:
        found = hold()
        late.append(shards[1].push(push(1)))  # arrives now
        late.append(shards[1].push(push(2, worker=2)))
        return found

    shards[1].hold = hold_and_push
    both = Shards(engine, 2, SimpleNamespace(sets_path=tmp_path))
    both.snapshot(1)
    assert [shard._snapshot["shard_version"] for shard in shards] == [2, 2]
    assert [future.wait() for future in late] == [APPLIED, APPLIED]
    assert [shard.version for shard in shards] == [2, 3]


# ---- sets of checkpoints -------------------------------------------------------------------------


def make_set(folder: Path, count: int = 2) -> tuple[list[Shard], Shards]:
    shards = [make_shard(n + 1) for n in range(count)]
    engine = LocalEngine({f"shard{n + 1}": shard for n, shard in enumerate(shards)})
    return shards, Shards(engine, count, SimpleNamespace(sets_path=folder))


def test_a_set_is_whole_or_does_not_count(tmp_path: Path) -> None:
    shards, both = make_set(tmp_path)
    assert both.load() is None
    for place in range(4):
        for shard in shards:
            shard.push(push(place + 1))
        both.snapshot(1)
        both.write({"place": place})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000003", "000004"]
    (tmp_path / "000004" / "whole.pt").unlink()
    shards, both = make_set(tmp_path)
    assert both.load()["place"] == 2
    assert [shard.version for shard in shards] == [3, 3]
    both.snapshot(1)
    both.write({"place": 3})  # in place of the one that is not whole
    assert make_set(tmp_path)[1].load()["place"] == 3


@pytest.mark.parametrize("file", ["whole.pt", "shard-2.pt"])
def test_a_damaged_set_is_passed_over(file: str, tmp_path: Path, caplog) -> None:
    _, both = make_set(tmp_path)
    for place in range(2):
        both.snapshot(1)
        both.write({"place": place})
    path = tmp_path / "000002" / file
    path.write_bytes(path.read_bytes()[:100])
    assert make_set(tmp_path)[1].load()["place"] == 0
    assert "cannot be used" in caplog.text
    assert "continuing from" in caplog.text
    path = tmp_path / "000001" / file
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="remove it to continue from an older one"):
        make_set(tmp_path)[1].load()


def test_another_number_of_shards_is_an_error(tmp_path: Path) -> None:
    _, both = make_set(tmp_path)
    both.snapshot(1)
    both.write({})
    with pytest.raises(ModelError, match="it is of 2 shards, not 3"):
        make_set(tmp_path, 3)[1].load()


def test_pushes_and_pulls_of_several_threads_do_not_mix() -> None:
    """Every pull sees whole updates: both weights have had the same number of steps."""
    shard, wrong = make_shard(options=TrainOptions(learning_rate=1.0, momentum=0.0)), []

    def work(worker: int) -> None:
        for serial in range(200):
            shard.push(push(serial, worker=worker, gradient=[1.0, 1.0], rate=1.0))
            first, second = weights(shard)
            if first != second:
                wrong.append((first, second))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert weights(shard) == [1.0 - 800.0] * 2


def test_lost_keeps_its_words_between_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(Lost("shard2", "eof")))
    assert (error.who, str(error)) == ("shard2", "shard2 is lost (eof)")
