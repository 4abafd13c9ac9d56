"""Rank, number of processes and rendezvous address, from the environment that the launcher sets.

torchrun sets RANK, WORLD_SIZE and LOCAL_RANK; Slurm sets the variables of a job step, but only for
processes that ``srun`` starts. A batch script outside ``srun`` has no step: the training is then
one process, however many tasks the job asks for.
"""

import re
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.jobs.job_step import is_step, local_rank, number

FIRST_PORT, PORTS = 20000, 10000  # below the ports that systems use for outgoing connections
SCONTROL_TIMEOUT = 30.0  # seconds


@dataclass(frozen=True, kw_only=True)
class ProcessInfo:
    """One of the processes that train together."""

    rank: int = 0
    size: int = 1  # number of processes
    local_rank: int = 0  # among the processes of its machine
    address: str = ""  # of the rendezvous
    port: int = 0
    hosted: bool = False  # whether the launcher runs the rendezvous store; else rank 0 does


def find_process(environ: Mapping[str, str]) -> ProcessInfo:
    """This process, by the variables of torchrun or of a Slurm step; without them it is alone.

    In a Slurm step the rendezvous is on the first node, at a port that is computed from the
    numbers of job and step; MASTER_ADDR and MASTER_PORT override them.

    Raises:
        UsageError: a variable is missing or not a number, or the first node's address is unknown.
    """
    if "WORLD_SIZE" in environ:
        return _from_torchrun(environ)
    if is_step(environ):
        return _from_step(environ)
    return ProcessInfo(local_rank=local_rank(environ))


def _from_torchrun(environ: Mapping[str, str]) -> ProcessInfo:
    size = number(environ, "WORLD_SIZE")
    if size <= 1:
        return ProcessInfo(local_rank=local_rank(environ))
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):  # other launchers may set only some
        if name not in environ:
            raise UsageError(
                f"WORLD_SIZE is {size}, but {name} is not set; start the command with torchrun or "
                "srun, or unset WORLD_SIZE to train in one process"
            )
    return ProcessInfo(
        rank=number(environ, "RANK"),
        size=size,
        local_rank=local_rank(environ),
        address=environ["MASTER_ADDR"],
        port=number(environ, "MASTER_PORT"),
        hosted=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _from_step(environ: Mapping[str, str]) -> ProcessInfo:
    job, step = number(environ, "SLURM_JOB_ID"), number(environ, "SLURM_STEP_ID")
    return ProcessInfo(
        rank=number(environ, "SLURM_PROCID"),
        size=number(environ, "SLURM_STEP_NUM_TASKS"),
        local_rank=local_rank(environ),
        address=environ.get("MASTER_ADDR") or _address(environ),
        port=number(environ, "MASTER_PORT", str(rendezvous_port(job, step))),
    )


def rendezvous_port(job: int, step: int) -> int:
    """A port that differs between the steps on one machine, unless 10,000 jobs lie between them."""
    return FIRST_PORT + (job + 101 * step) % PORTS


def _address(environ: Mapping[str, str]) -> str:
    """The address of the step's first node: its host name, else its address in Slurm."""
    if environ.get("SLURM_STEP_NUM_NODES") == "1":
        return "127.0.0.1"
    node = first_node(environ.get("SLURM_STEP_NODELIST", ""))
    address = node if _resolves(node) else _address_in_slurm(node)
    if not address:
        raise UsageError(
            f"the name {node!r} of this step's first node cannot be resolved; set MASTER_ADDR to "
            "an address of that machine"
        )
    return address


def first_node(nodes: str) -> str:
    """The first node of a Slurm node list: ``gpu03-ib`` for ``gpu[03-05,9]-ib,login``."""
    names = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", names.group() if names else "")


def _resolves(name: str) -> bool:
    try:
        return bool(name) and bool(socket.getaddrinfo(name, None))
    except OSError:
        return False


def _address_in_slurm(node: str) -> str:
    """The node's NodeAddr, for clusters whose node names are not host names; empty if unknown."""
    try:
        done = subprocess.run(
            ["scontrol", "--oneliner", "show", "node", node],
            capture_output=True,
            text=True,
            timeout=SCONTROL_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\bNodeAddr=(\S+)", done.stdout)
    return found.group(1) if found and _resolves(found.group(1)) else ""
