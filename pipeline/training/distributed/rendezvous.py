"""Where the processes of a training find each other: a small store of names that all of them see.

torchrun keeps one store over all restarts, and tells those of its agents that began to restart
from those that only noticed by different numbers. So a name that a process finds there may be one
of the dead. What is written here is under a name of this meeting alone, which all have agreed on.
"""

import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from pipeline.training.distributed.launcher import Place

PAUSE = 0.02  # seconds; short sleeps let a signal through, a wait of torch's would not


def meet(place: Place, wait: timedelta) -> Any:
    """A store for these processes and this time only, when all of them are there.

    Raises:
        RuntimeError: nobody answers at the address, it is taken, or not all come within this time.
    """
    store = dist.TCPStore(  # type: ignore[attr-defined]
        place.address,
        place.port,
        place.size,
        place.rank == 0 and not place.hosted,
        timeout=wait,
        wait_for_workers=False,
    )
    meeting = agree(store, place.rank, place.size, wait.total_seconds())
    return dist.PrefixStore(f"meeting/{meeting}", store)  # type: ignore[attr-defined]


def agree(store: Any, rank: int, size: int, seconds: float) -> str:
    """The name of the meeting.

    The first process invites by a new name, each other one answers with a new name of its own, and
    the first writes down who answered. An old invitation has a list, too, but not with this answer.

    Raises:
        RuntimeError: not all come within this time.
    """
    own, end = uuid.uuid4().hex, time.monotonic() + seconds
    if rank > 0:
        return _answer(store, rank, own, end)
    answers = [f"answer/{own}/{other}" for other in range(1, size)]
    store.set("invitation", own)
    _until(lambda: not answers or store.check(answers), end)
    store.set(f"present/{own}", ",".join(store.get(name).decode() for name in answers))
    return own


def _answer(store: Any, rank: int, own: str, end: float) -> str:
    answered = ""

    def is_expected() -> bool:
        nonlocal answered
        if not store.check(["invitation"]):
            return False
        invitation = store.get("invitation").decode()
        if invitation != answered:
            store.set(f"answer/{invitation}/{rank}", own)
            answered = invitation
        present = f"present/{invitation}"
        return store.check([present]) and own in store.get(present).decode().split(",")

    _until(is_expected, end)
    return answered


def _until(happened: Callable[[], bool], end: float) -> None:
    while not happened():
        if time.monotonic() >= end:
            raise RuntimeError("timed out")
        time.sleep(PAUSE)
