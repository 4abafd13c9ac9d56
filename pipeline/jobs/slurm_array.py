"""Arrays of jobs on a Slurm cluster: submitting, finding again, querying and cancelling them.

It needs only the standard library and Slurm's programs sbatch, squeue and scancel.
"""

import contextlib
import getpass
import hashlib
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.files import locked, write_text
from pipeline.jobs.command_line import Settings, Usage

ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
}  # states of jobs that will not run any more
TASK = """\
#!/usr/bin/env bash
# Made by slurm.py: what each task of the array runs.
cd {folder} || exit 1
unset SLURM_EXPORT_ENV
job=${{SLURM_ARRAY_TASK_ID:-{first}}}
command={command} log={log} name={name}
if [ -n "$name" ]; then command=${{command//$name/$job}} log=${{log//$name/$job}}; fi
started=$(date +%s)
{{
  printf '# %s\\n# Started at %s\\n' "${{command//$'\\n'/$'\\n# '}}" "$(date)"
  printf '# Running on %s, Slurm job %s, attempt %s\\n#\\n' \\
    "${{SLURMD_NODENAME:-$HOSTNAME}}" "$SLURM_JOB_ID" "$((${{SLURM_RESTART_COUNT:-0}} + 1))"
}} > "$log" || exit 1
exec >> "$log" 2>&1 < /dev/null
ended() {{
  printf '# Accounting: time=%s threads=%s\\n' "$(($(date +%s) - started))" {threads}
  printf '# Ended (code %s) at %s, elapsed time %s seconds\\n' \\
    "$1" "$(date)" "$(($(date +%s) - started))"
  exit "$1"
}}
if [ -e ./path.sh ]; then . ./path.sh || ended 1; fi
bash -e -o pipefail -c "$command" &
child=$!
trap 'kill -TERM "$child" 2> /dev/null' TERM INT
while
  wait "$child"
  code=$?
  kill -0 "$child" 2> /dev/null
do :; done
ended "$code"
"""


class Unreachable(Exception):
    """Slurm does not answer at the moment, or refuses a request."""


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
        return self.is_active and "launch failed requeued held" in self.reason


def call(*command: str) -> str:
    """The output of one of Slurm's programs.

    Raises:
        Unreachable: the program fails or is missing; the message is that of the program.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Unreachable(
            f"{command[0]}: not found; is Slurm installed here? run.py runs jobs on this machine"
        ) from error
    except OSError as error:
        raise Unreachable(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        raise Unreachable(done.stderr.strip() or f"{command[0]} ended with {done.returncode}")
    return done.stdout


class Submission:
    """A submitted array of jobs, with a record of it beside the logs.

    Attributes:
        jobs: the numbers of its jobs.
        id: Slurm's number of the array; empty before it is known.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.id = settings, ""
        self.jobs: list[int] = []
        where = Path(settings.substitute(settings.log, "all"))
        self.folder = where.parent / "q"
        self.base = self.folder / where.name
        text = json.dumps([os.getcwd(), settings.log, settings.command, settings.name])
        self.key = hashlib.sha256(text.encode()).hexdigest()
        self.title = f"{where.name.removesuffix('.log')}.{self.key[:12]}"

    @property
    def record(self) -> Path:
        """The file that records the array until all its jobs have ended."""
        return Path(f"{self.base}.json")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let only one process at a time look for the array and submit it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(Path(f"{self.base}.lock")):
            yield

    def find(self) -> bool:
        """Take over the array that an earlier run of this command submitted.

        Returns:
            Whether there is such an array.

        Raises:
            Usage: the array of another command still writes to these logs.
        """
        try:
            earlier = json.loads(self.record.read_text())
        except (OSError, ValueError):
            return False
        if not earlier["id"]:  # the earlier run was killed while submitting
            earlier["id"] = find_by_title(earlier["title"])
        active = earlier["id"] and is_active(earlier["id"])
        if earlier["key"] != self.key:
            if active:
                raise Usage(
                    f"{self.settings.log}: array {earlier['id']} of another command still writes "
                    f"to this log; wait for it, or run scancel {earlier['id']}"
                )
            return False
        if not earlier["id"] or (not active and self.settings.options["pick"] != "all"):
            return False
        self.id, self.jobs = earlier["id"], earlier["jobs"]
        return True

    def submit(self, jobs: list[int], words: Sequence[str]) -> None:
        """Submit the array. Raises Unreachable with the message of sbatch."""
        settings, self.jobs = self.settings, jobs
        for job in jobs:  # remove the logs of older runs
            Path(settings.log_of(job)).unlink(missing_ok=True)
            os.makedirs(os.path.dirname(settings.log_of(job)) or ".", exist_ok=True)
        script = Path(f"{self.base}.sh")
        write_text(
            script,
            TASK.format(
                folder=shlex.quote(os.getcwd()),
                first=settings.first,
                command=shlex.quote(settings.command),
                log=shlex.quote(settings.log),
                name=shlex.quote(settings.name),
                threads=settings.number("num-threads", 1),
            ),
        )
        self._write()
        words = [*words, "--parsable", "--open-mode=append", f"--job-name={self.title}"]
        words.append(f"--output={self.base}.%{'a' if settings.name else 'j'}.out")
        if settings.name:
            at_once = settings.options["max-jobs-run"]
            limit = f"%{settings.number('max-jobs-run', 1)}" if at_once else ""
            words.append(f"--array={ranges(jobs)}{limit}")
        try:
            found = re.search(r"\d+", call(*words, str(script)))
        except Unreachable as error:
            self.record.unlink(missing_ok=True)
            hint = "; use fewer jobs, or raise MaxArraySize" if "array" in str(error) else ""
            raise Unreachable(f"{error}{hint}") from error
        self.id = found[0] if found else find_by_title(self.title)
        self._write()

    def _write(self) -> None:
        content = {"key": self.key, "id": self.id, "jobs": self.jobs, "title": self.title}
        write_text(self.record, json.dumps(content) + "\n")

    def cancel_job(self, job: int) -> None:
        """Cancel one job of the array."""
        with contextlib.suppress(Unreachable):
            call("scancel", f"{self.id}_{job}" if self.settings.name else self.id)

    def cancel(self) -> None:
        """Cancel the array, wait up to 15 s for its end, and remove the record."""
        with contextlib.suppress(Unreachable):
            call("scancel", self.id)
            end = time.monotonic() + 15
            while time.monotonic() < end and is_active(self.id):
                time.sleep(0.3)
        self.record.unlink(missing_ok=True)


def ranges(jobs: Sequence[int]) -> str:
    """The numbers 1, 2, 3, 7 as ``1-3,7``."""
    parts: list[list[int]] = []
    for job in jobs:
        if parts and parts[-1][1] == job - 1:
            parts[-1][1] = job
        else:
            parts.append([job, job])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def tasks_of(array: str) -> dict[int, Task]:
    """Job number (0 without an array) -> its state; empty if Slurm does not know the array.

    Raises:
        Unreachable: Slurm does not answer.
    """
    try:
        text = call("squeue", "-h", "-r", "-t", "all", "-j", array, "-o", "%K %T %r")
    except Unreachable as error:
        if "Invalid job id" in str(error):
            return {}
        raise
    rows = [line.split(None, 2) for line in text.splitlines()]
    return {
        int(number) if number.isdecimal() else 0: Task(state, " ".join(reason))
        for number, state, *reason in rows
    }


def find_by_title(title: str) -> str:
    """Slurm's number of the job with this name; empty if there is none."""
    with contextlib.suppress(Unreachable):
        lines = call("squeue", "-h", "-t", "all", "-u", getpass.getuser(), "-n", title, "-o", "%F")
        return lines.split()[-1] if lines.split() else ""
    return ""


def is_active(array: str) -> bool:
    """Whether any job of an array runs or will run. Raises Unreachable if Slurm does not answer."""
    return any(task.is_active for task in tasks_of(array).values())
