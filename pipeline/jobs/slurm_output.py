"""Reads what Slurm's programs print, amid whatever a site's wrappers print beside it.

Banners, warnings, colours, carriage returns and lines of other columns are passed over.
"""

import re
from typing import NamedTuple

ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT", "RECONFIG_FAIL"),
}  # states of jobs that will not run any more
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "POWER_UP_NODE"}  # before a start
GIVEN_UP = {"SPECIAL_EXIT", "REQUEUE_HOLD", "RESV_DEL_HOLD", "LAUNCH_FAILED"}  # until released
PAUSED = {"STOPPED", "SUSPENDED"}  # of a job that has begun
ENDING = {"COMPLETING", "STAGE_OUT"}  # the command has ended, Slurm still tidies up
RUNNING = {"RUNNING", "RESIZING", "SIGNALING", "UPDATE_DB", "EXPEDITING"}
KNOWN = ENDED | WAITING | GIVEN_UP | PAUSED | ENDING | RUNNING

_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]"
)
_PARSABLE = re.compile(r"([0-9]{1,10})(?:;([^\s;]+))?")
_IN_WORDS = re.compile(r"Submitted batch job ([0-9]{1,10})(?: on cluster (\S+))?")
_TASK = re.compile(r"([0-9]{1,10}|N/A)\s+([A-Z][A-Z_]+)(?:\s+(.*))?")
_ARRAY = re.compile(r"([0-9]{1,10})(?:\s+([A-Z][A-Z_]+))?")


class Task(NamedTuple):
    """The state of a job, as reported by Slurm."""

    state: str
    reason: str

    @property
    def is_active(self) -> bool:
        """Whether the job runs or will run."""
        return self.state not in ENDED

    @property
    def is_held(self) -> bool:
        """Whether Slurm has given up starting the job and waits for an administrator."""
        why = ("launch failed requeued held", "JobHoldMaxRequeue", "DependencyNeverSatisfied")
        return self.state in GIVEN_UP or (
            self.is_active and any(words in self.reason for words in why)
        )

    @property
    def obstacle(self) -> str:
        """What keeps the job from going on until a person acts; empty if nothing does."""
        if self.state in PAUSED:
            return self.state
        if self.state == "PENDING" and re.search(r"JobHeld|[Hh]eld state", self.reason):
            return self.reason
        return "" if self.state in KNOWN else f"{self.state}, a state unknown to slurm.py"


class Number(NamedTuple):
    """Slurm's number of an array, and its cluster if there are several; empty otherwise."""

    id: str
    cluster: str = ""


def lines_of(text: str) -> list[str]:
    """The lines of a program's output, without colours, control characters and blank lines."""
    lines = (line.strip() for line in re.split(r"[\r\n]+", _CONTROL.sub("", text)))
    return [line for line in lines if line]


def numbers(text: str) -> list[Number]:
    """The lines that may be the answer of ``sbatch --parsable``: ``123`` or ``123;cluster``."""
    found = []
    for line in lines_of(text):
        match = _PARSABLE.fullmatch(line) or _IN_WORDS.fullmatch(line)
        if match and 0 < int(match[1]) < 1 << 32:
            found.append(Number(str(int(match[1])), match[2] or ""))
    return list(dict.fromkeys(found))


def tasks(text: str) -> dict[int, Task]:
    """Job number (0 without an array) -> its state, from lines ``NUMBER STATE REASON``.

    A line with a state of Slurm takes precedence over one with an unknown word in its place.
    """
    found: dict[int, Task] = {}
    for line in lines_of(text):
        if match := _TASK.fullmatch(line):
            job = 0 if match[1] == "N/A" else int(match[1])
            if job not in found or match[2] in KNOWN:
                found[job] = Task(match[2], match[3] or "")
    return found


def arrays(text: str) -> dict[str, bool]:
    """Slurm's number -> whether a task of it is active, from lines ``NUMBER STATE``."""
    rows = [match for line in lines_of(text) if (match := _ARRAY.fullmatch(line))]
    found: dict[str, bool] = {}
    for row in [row for row in rows if row[2]] or rows:
        if not row[2] or row[2] in KNOWN:
            found[row[1]] = found.get(row[1], False) or row[2] not in ENDED
    return found
