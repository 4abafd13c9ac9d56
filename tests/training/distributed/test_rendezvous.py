"""Processes find each other, and ignore what ended processes have left in the same store."""

import threading
import time

import pytest
import torch.distributed as dist

from pipeline.training.distributed.rendezvous import agree_on_name


@pytest.fixture
def store() -> dist.HashStore:
    return dist.HashStore()


def all_of(store: dist.HashStore, ranks: list[int], size: int, seconds: float = 5.0) -> list:
    """The name that each of these ranks agrees on, or its error; they start in this order."""
    found: dict[int, object] = {}

    def run(rank: int) -> None:
        try:
            found[rank] = agree_on_name(store, rank, size, seconds)
        except RuntimeError as error:
            found[rank] = str(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    return [found[rank] for rank in ranks]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_all_agree_in_any_order(store: dist.HashStore, order: list[int]) -> None:
    assert len(set(all_of(store, order, 3))) == 1


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_a_second_rendezvous_has_another_name(store: dist.HashStore, order: list[int]) -> None:
    first, again = all_of(store, [0, 1], 2), all_of(store, order, 2)
    assert len({*first, *again}) == 2


def test_a_late_process_does_not_join_an_earlier_rendezvous(store: dist.HashStore) -> None:
    all_of(store, [0, 1], 2)
    assert all_of(store, [1], 2, 0.1) == ["timed out"]


def test_an_invitation_of_an_ended_process_is_left_for_a_newer_one(store: dist.HashStore) -> None:
    assert all_of(store, [0], 2, 0.1) == ["timed out"]
    assert all_of(store, [1], 2, 0.1) == ["timed out"]  # it has answered the old invitation, too
    late = all_of(store, [1, 0], 2)
    assert late[0] == late[1]


def test_another_number_of_processes_can_use_the_same_store(store: dist.HashStore) -> None:
    all_of(store, [0, 1, 2], 3)
    assert len(set(all_of(store, [1, 0], 2))) == 1
