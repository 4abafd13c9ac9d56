"""Rank, number of processes and rendezvous address under torchrun and in a Slurm step."""

import dataclasses
import os
import socket
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.training.distributed import launcher
from pipeline.training.distributed.launcher import (
    ProcessInfo,
    find_process,
    first_node,
    local_rank,
    rendezvous_port,
)

BATCH = {"SLURM_JOB_ID": "71", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
STEP = {
    **BATCH,
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
}
TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "9",
}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only gpu03 and this machine have addresses."""

    def look_up(name: str, port: None) -> list[int]:
        if name not in ("gpu03", "127.0.0.1"):
            raise socket.gaierror
        return [1]

    monkeypatch.setattr(launcher.socket, "getaddrinfo", look_up)


def test_alone() -> None:
    assert find_process({}) == ProcessInfo(rank=0, size=1, local_rank=0)
    assert find_process({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}) == ProcessInfo()


def test_the_variables_of_torchrun() -> None:
    process = ProcessInfo(rank=1, size=2, local_rank=1, address="a", port=9)
    assert find_process(TORCHRUN) == process
    hosted = find_process({**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "True"})
    assert hosted == dataclasses.replace(process, hosted=True)


def test_torchrun_within_a_step_has_precedence() -> None:
    assert find_process({**STEP, **TORCHRUN}) == find_process(TORCHRUN)
    assert find_process({**STEP, "WORLD_SIZE": "1"}).size == 1  # also how to train alone in a step


def test_the_variables_of_a_slurm_step() -> None:
    process = ProcessInfo(
        rank=3, size=4, local_rank=1, address="gpu03", port=rendezvous_port(71, 2)
    )
    assert find_process(STEP) == process


def test_a_batch_script_is_one_process() -> None:
    assert find_process(BATCH) == ProcessInfo()


@pytest.mark.parametrize("step", ["4294967290", "4294967291"])
def test_an_interactive_shell_is_one_process(step: str) -> None:
    assert find_process({**STEP, "SLURM_STEP_ID": step}) == ProcessInfo()


def test_a_step_of_one_task_is_one_process() -> None:
    assert find_process({**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}).size == 1


def test_a_step_on_one_node_has_its_rendezvous_there() -> None:
    process = find_process({**STEP, "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "odd"})
    assert process.address == "127.0.0.1"


def test_another_address_and_port_can_be_named() -> None:
    process = find_process({**STEP, "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "4711"})
    assert (process.address, process.port) == ("10.0.0.7", 4711)


def test_ports_differ_between_jobs_and_steps() -> None:
    ports = {rendezvous_port(job, step) for job in range(100, 120) for step in range(5)}
    assert len(ports) == 100
    assert min(ports) >= 20000
    assert max(rendezvous_port(n, 0) for n in range(0, 40000, 77)) < 30000


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n7", "n1"),
        ("n[1-3,7]", "n1"),
        ("gpu[03-05,9]-ib,login", "gpu03-ib"),
        ("rack[2-3]n[08-09]", "rack2n08"),
        ("a,b[2-3]", "a"),
        ("", ""),
    ],
)
def test_the_first_node_of_a_list(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


def test_a_node_without_a_host_name_has_the_address_that_slurm_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\necho "NodeName=$4 Arch=x86_64 NodeAddr=127.0.0.1 Port=1"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert find_process({**STEP, "SLURM_STEP_NODELIST": "n[1-2]"}).address == "127.0.0.1"


def test_a_node_without_any_address_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"name 'n1' of this step's first node.*set MASTER_ADDR"):
        find_process({**STEP, "SLURM_STEP_NODELIST": "n[1-2]"})


@pytest.mark.parametrize("name", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_half_an_environment_is_an_error(name: str) -> None:
    environ = {key: value for key, value in TORCHRUN.items() if key != name}
    with pytest.raises(UsageError, match=f"WORLD_SIZE is 2, but {name} is not set"):
        find_process(environ)


@pytest.mark.parametrize("value", ["", "two", "-1", "1.5"])
def test_a_variable_must_be_a_number(value: str) -> None:
    with pytest.raises(UsageError, match=r"WORLD_SIZE must be a whole number"):
        find_process({**TORCHRUN, "WORLD_SIZE": value})


def test_the_gpu_is_the_local_rank() -> None:
    assert local_rank({}) == 0
    assert local_rank(TORCHRUN) == 1
    assert local_rank(STEP) == 1
    assert local_rank({**STEP, "LOCAL_RANK": "5"}) == 5
    assert local_rank({**BATCH, "SLURM_LOCALID": "3"}) == 0
