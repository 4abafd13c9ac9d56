"""Fixtures that start several processes of one training, as torchrun does."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Rank:
    """One of the processes of a training."""

    pid: int
    log: Path
    server: "Server"

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait(self, seconds: float = 60.0) -> int | None:
        return self.server.ask({"wait": self.pid, "seconds": seconds})

    def wait_until(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + 60.0
        while not happened():
            assert time.monotonic() < end, self.said
            time.sleep(0.005)


class Server:
    """The process that forks the ranks, see fork_server.py."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "TORCH_CPP_LOG_LEVEL": "ERROR",  # see pipeline/environment.py
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, request: dict[str, object]) -> int | None:
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.process.stdin.close()
    assert server.process.wait(10) == 0
    server.process.stdout.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def start(server: Server, tmp_path: Path) -> Callable[..., list[Rank]]:
    """Start a program in ``count`` processes, or only the ranks in ``only``."""
    logs = tmp_path / "logs"
    logs.mkdir()

    def start(
        program: str,
        arguments: list[object],
        count: int = 2,
        *,
        only: tuple[int, ...] = (),
        per_rank: Callable[[int], list[str]] = lambda rank: [],
        kernels: str = "plain",
    ) -> list[Rank]:
        known = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        shared = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "WORLD_SIZE": str(count),
            "PIPELINE_KERNELS": kernels,
        }
        number, found = len(list(logs.iterdir())), []
        for place, rank in enumerate(only or range(count)):
            log = logs / f"{number + place}.log"
            log.touch()
            request = {
                "program": str(ROOT / "bin" / program),
                "arguments": [*per_rank(rank), *map(str, arguments)],
                "environ": {**known, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                "log": str(log),
            }
            found.append(Rank(server.ask(request), log, server))
        return found

    return start


@pytest.fixture
def together(start: Callable[..., list[Rank]]) -> Callable[..., list[str]]:
    """Run a program to its end in ``count`` processes, and return what each wrote."""

    def run(program: str, arguments: list[object], count: int = 2, **how: object) -> list[str]:
        ranks = start(program, arguments, count, **how)
        ends = [rank.wait(120.0) for rank in ranks]
        assert ends == [0] * count, [rank.said for rank in ranks]
        return [rank.said for rank in ranks]

    return run
