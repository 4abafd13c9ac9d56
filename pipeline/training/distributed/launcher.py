"""Which of the processes that train one model this one is, and where they meet.

torchrun says it in RANK, WORLD_SIZE, LOCAL_RANK; Slurm in the variables of a job step, which only
what ``srun`` starts has. In a batch script outside ``srun`` there is no step, and the training is
one process, however many tasks the job asks for.
"""

import re
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.jobs.job_step import is_step, local_rank, number

FIRST_PORT, PORTS = 20000, 10000  # below those that systems give to outgoing connections
LONGEST_ANSWER = 30.0  # seconds that scontrol has


@dataclass(frozen=True, kw_only=True)
class Place:
    """One process among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those on its machine
    address: str = ""  # where they meet
    port: int = 0
    hosted: bool = False  # there by the launcher; else by the first process


def find_place(environ: Mapping[str, str]) -> Place:
    """By torchrun's variables, else by those of a Slurm step; else one process alone.

    MASTER_ADDR and MASTER_PORT say where the processes of a step meet, in place of the first
    node's name and a port that follows from job and step.

    Raises:
        UsageError: a variable is missing or no number, or the first node has no known address.
    """
    if "WORLD_SIZE" in environ:
        return _of_torchrun(environ)
    if is_step(environ):
        return _of_step(environ)
    return Place(local_rank=local_rank(environ))


def _of_torchrun(environ: Mapping[str, str]) -> Place:
    size = number(environ, "WORLD_SIZE")
    if size <= 1:
        return Place(local_rank=local_rank(environ))
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):  # also of other launchers
        if name not in environ:
            raise UsageError(
                f"WORLD_SIZE is {size}, but {name} is not set; start the command by torchrun or "
                "srun, or unset WORLD_SIZE to train in one process"
            )
    return Place(
        rank=number(environ, "RANK"),
        size=size,
        local_rank=local_rank(environ),
        address=environ["MASTER_ADDR"],
        port=number(environ, "MASTER_PORT"),
        hosted=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _of_step(environ: Mapping[str, str]) -> Place:
    job, step = number(environ, "SLURM_JOB_ID"), number(environ, "SLURM_STEP_ID")
    return Place(
        rank=number(environ, "SLURM_PROCID"),
        size=number(environ, "SLURM_STEP_NUM_TASKS"),
        local_rank=local_rank(environ),
        address=environ.get("MASTER_ADDR") or _address(environ),
        port=number(environ, "MASTER_PORT", str(meeting_port(job, step))),
    )


def meeting_port(job: int, step: int) -> int:
    """A port that steps of one machine do not share, unless 10,000 jobs lie between them."""
    return FIRST_PORT + (job + 101 * step) % PORTS


def _address(environ: Mapping[str, str]) -> str:
    """Of the step's first node, by name, or by what Slurm's configuration says of it."""
    if environ.get("SLURM_STEP_NUM_NODES") == "1":
        return "127.0.0.1"
    node = first_node(environ.get("SLURM_STEP_NODELIST", ""))
    address = node if _resolves(node) else _address_in_slurm(node)
    if not address:
        raise UsageError(
            f"the name {node!r} of this step's first node has no address here; set MASTER_ADDR to "
            "an address of that machine"
        )
    return address


def first_node(nodes: str) -> str:
    """Of a Slurm node list: ``gpu[03-05,9]-ib,login`` begins with ``gpu03-ib``."""
    names = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", names.group() if names else "")


def _resolves(name: str) -> bool:
    try:
        return bool(name) and bool(socket.getaddrinfo(name, None))
    except OSError:
        return False


def _address_in_slurm(node: str) -> str:
    """NodeAddr, where node names are no host names; empty if it is not known either."""
    try:
        done = subprocess.run(
            ["scontrol", "--oneliner", "show", "node", node],
            capture_output=True,
            text=True,
            timeout=LONGEST_ANSWER,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\bNodeAddr=(\S+)", done.stdout)
    return found.group(1) if found and _resolves(found.group(1)) else ""
