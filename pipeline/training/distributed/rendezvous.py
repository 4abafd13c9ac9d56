"""The rendezvous of the processes of a training: they find each other through a shared store.

torchrun keeps one store over all restarts and gives a process no number of its restart that is the
same on all machines, so a key found in the store may come from a process that has ended. The
processes therefore first agree on a name for this rendezvous, and then use only keys below it.
"""

import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from pipeline.training.distributed.launcher import ProcessInfo

PAUSE = 0.02  # seconds; a signal interrupts short sleeps, but not a wait within torch


def rendezvous(process: ProcessInfo, timeout: timedelta) -> Any:
    """Wait for all processes, and return a store that only they use.

    Raises:
        RuntimeError: the store cannot be reached or its port is in use, or some processes do not
            come in time.
    """
    store = dist.TCPStore(  # type: ignore[attr-defined]
        process.address,
        process.port,
        process.size,
        process.rank == 0 and not process.hosted,
        timeout=timeout,
        wait_for_workers=False,
    )
    name = agree_on_name(store, process.rank, process.size, timeout.total_seconds())
    return dist.PrefixStore(f"rendezvous/{name}", store)  # type: ignore[attr-defined]


def agree_on_name(store: Any, rank: int, size: int, seconds: float) -> str:
    """A new name for this rendezvous, the same in all processes.

    Rank 0 writes an invitation with a random name; every other rank answers it with a random name
    of its own; rank 0 then lists the answers. An invitation left from before a restart may have a
    list as well, but this process's answer is not in it, so the process waits for a new invitation.

    Raises:
        RuntimeError: some processes do not come in time.
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
