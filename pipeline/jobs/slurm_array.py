"""Arrays of jobs on a Slurm cluster: submitting, finding again, querying and cancelling them.

It needs only the standard library and Slurm's programs sbatch, squeue and scancel. Every array has
a name that no other command has: by it an array is found if sbatch's answer is not understood, and
only jobs of that name are asked about and cancelled.
"""

import contextlib
import hashlib
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.files import locked, write_bytes, write_text
from pipeline.jobs.command_line import Settings, Usage
from pipeline.jobs.slurm_output import Number, Task, arrays, lines_of, numbers, tasks

ANSWER_S = 120.0  # time after which a question to Slurm counts as not answered
TASK = """\
#!/usr/bin/env bash
# Made by slurm.py: what each task of the array runs.
cd {folder} || exit 1
unset SLURM_EXPORT_ENV
job=${{SLURM_ARRAY_TASK_ID:-{first}}}
command={command} log={log}
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


class Missing(Unreachable):
    """A program of Slurm is not installed here."""


def call(*command: str, seconds: float | None = ANSWER_S) -> str:
    """The output of one of Slurm's programs.

    Args:
        command: the program and its arguments.
        seconds: time for an answer; None waits for ever.

    Raises:
        Unreachable: the program fails, is missing or does not answer in time; the message is that
            of the program.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False,
            timeout=seconds, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise Missing(
            f"{command[0]}: not found; is Slurm installed here? run.py runs jobs on this machine"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"{command[0]}: no answer after {error.timeout:.0f} s") from error
    except OSError as error:
        raise Unreachable(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        said = "\n".join(lines_of(done.stderr) or lines_of(done.stdout))
        raise Unreachable(said or f"{command[0]} ended with {done.returncode}")
    return done.stdout


class Submission:
    """A submitted array of jobs, with a record of it beside the logs.

    Attributes:
        jobs: the numbers of its jobs.
        id: Slurm's number of the array; empty before it is known.
        cluster: the name of its cluster, if sbatch named one; otherwise empty.
        title: its name, the same for every array of this command and of no other.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.id, self.cluster = settings, "", ""
        self.jobs: list[int] = []
        where = Path(settings.substitute(settings.log, "all"))
        self.folder = where.parent / "q"
        self.base = self.folder / where.name
        text = json.dumps([os.getcwd(), settings.log, settings.command, settings.name])
        self.key = hashlib.sha256(text.encode()).hexdigest()
        # Slurm's programs take some signs, such as a comma, as their own.
        name = re.sub(r"[^\w.+-]", "_", where.name.removesuffix(".log"), flags=re.ASCII)
        self.title = f"{name[:100]}.{self.key[:12]}"

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
            Unreachable: Slurm does not answer.
        """
        earlier = self._earlier()
        if earlier is None:
            return False
        self.cluster, title = earlier["cluster"], earlier["title"]
        # If there is no number, the earlier run was killed while submitting.
        number = earlier["id"] or find_by_title(title, self.cluster)
        active = bool(number) and is_active(number, title, self.cluster)
        if earlier["key"] != self.key:
            if active:
                raise Usage(
                    f"{self.settings.log}: array {number} of another command still writes to this "
                    f"log; wait for it, or run scancel {number}"
                )
            return False
        if not number or (not active and self.settings.options["pick"] != "all"):
            return False
        self.id, self.jobs = number, earlier["jobs"]
        return True

    def _earlier(self) -> dict[str, Any] | None:
        """The record of an earlier run; None if there is none."""
        settings = self.settings
        usual: dict[str, Any] = {"key": self.key, "id": "", "cluster": "", "title": self.title}
        usual["jobs"] = list(range(settings.first, settings.last + 1))
        try:
            found = json.loads(self.record.read_text(encoding="utf-8"))
            whole = {**usual, **found, "jobs": [int(job) for job in found["jobs"]]}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError):
            return usual  # damaged: by the title it is seen whether an array runs
        return whole if all(isinstance(whole[name], str) for name in _TEXTS) else usual

    def submit(self, jobs: list[int], words: Sequence[str]) -> None:
        """Submit the array.

        Args:
            jobs: the numbers of its jobs.
            words: the command that submits, with its options.

        Raises:
            Unreachable: it cannot be submitted, or its number is not found out; nothing of it runs
                then, or the message says how to end what may run.
        """
        settings, self.jobs, clusters = self.settings, jobs, clusters_of(words)
        self.cluster = clusters[0] if len(clusters) == 1 else ""
        for job in jobs:  # remove the logs of older runs
            Path(settings.log_of(job)).unlink(missing_ok=True)
            os.makedirs(os.path.dirname(settings.log_of(job)) or ".", exist_ok=True)
        script = Path(f"{self.base}.sh")
        write_bytes(
            script,
            TASK.format(
                folder=shlex.quote(os.getcwd()),
                first=settings.first,
                command='"$job"'.join(map(shlex.quote, settings.parts(settings.command))),
                log='"$job"'.join(map(shlex.quote, settings.parts(settings.log))),
                threads=settings.number("num-threads", 1),
            ).encode(errors="surrogateescape"),
        )
        self._write()
        words = [*words, "--parsable", "--open-mode=append", f"--job-name={self.title}"]
        words.append(f"--output={self._output()}")
        if settings.name:
            at_once = settings.options["max-jobs-run"]
            limit = f"%{settings.number('max-jobs-run', 1)}" if at_once else ""
            words.append(f"--array={ranges(jobs)}{limit}")
        try:
            found = numbers(call(*words, str(script), seconds=None))
        except Missing:
            self.record.unlink(missing_ok=True)
            raise
        except Unreachable as error:
            hint = "; use fewer jobs, or raise MaxArraySize" if "array" in str(error) else ""
            # sbatch may fail to hear of an array that Slurm has taken.
            self._look_up(f"{error}{hint}", clusters)
        else:
            if len(found) == 1:
                self.id, self.cluster = found[0].id, found[0].cluster or self.cluster
            else:
                problem = f"{words[0]}: its output does not tell the number of the array"
                remedy = "let it print what --parsable asks for, on a line of its own"
                self._look_up(f"{problem}; {remedy}", clusters, found)
        self._write()

    def _look_up(self, problem: str, clusters: Sequence[str], among: Sequence[Number] = ()) -> None:
        """Find out the number of the array that was just submitted, by its name.

        Args:
            problem: why the number is not known.
            clusters: the clusters to ask.
            among: the numbers that sbatch may have meant; empty if there is none.

        Raises:
            Unreachable: there is no such array, and nothing of its name runs; or Slurm does not
                answer, and the record stays so that the next run looks again.
        """
        named = [number.cluster for number in among if number.cluster]
        for cluster in dict.fromkeys([*named, *(clusters or [""])]):
            try:
                found = find_by_title(self.title, cluster, {number.id for number in among})
                if not found:
                    call("scancel", *_of(cluster), f"--name={self.title}", f"--user={os.getuid()}")
            except Unreachable as error:
                raise Unreachable(
                    f"{problem}\n{error}\nif an array of the name {self.title} runs, the same "
                    f"command finds it later, and scancel --name={self.title} ends it"
                ) from error
            if found:
                self.id, self.cluster = found, cluster
                return
        self.record.unlink(missing_ok=True)
        raise Unreachable(problem)

    def _output(self) -> str:
        """Where Slurm writes what a task says before its log is open, with its number to come."""
        whole, number = os.path.abspath(self.base), "a" if self.settings.name else "j"
        if "\\" in whole:  # with a backslash in it, sbatch fills in nothing
            return "/dev/null"
        place = whole.replace("%", "%%") if "%" in whole else self.base
        return f"{place}.%{number}.out"

    def _write(self) -> None:
        content = {"key": self.key, "id": self.id, "jobs": self.jobs, "title": self.title}
        content["cluster"] = self.cluster
        write_text(self.record, json.dumps(content) + "\n")

    def tasks(self) -> dict[int, Task]:
        """Job number (0 without an array) -> its state; empty if Slurm does not know the array.

        If Slurm knows an array of this name under another number, that number is taken.

        Raises:
            Unreachable: Slurm does not answer.
        """
        found = tasks_of(self.id, self.title, self.cluster)
        if not found and (other := find_by_title(self.title, self.cluster, active=True)):
            self.id = other
            self._write()
            return tasks_of(self.id, self.title, self.cluster)
        return found

    def cancel_job(self, job: int) -> None:
        """Cancel one job that `tasks` has shown to be of this array."""
        number = f"{self.id}_{job}" if self.settings.name else self.id
        with contextlib.suppress(Unreachable):  # with --name, scancel may cancel the whole array
            call("scancel", number, *_of(self.cluster))

    def cancel(self) -> None:
        """Cancel the array, wait up to 15 s for its end, and remove the record.

        Raises:
            Unreachable: Slurm does not answer, so the array may run on; the record stays.
        """
        with contextlib.suppress(Unreachable):
            self.tasks()  # which corrects a number that is not ours
        for number in ([self.id], []):  # and whatever has its name
            with contextlib.suppress(Unreachable):
                user = f"--user={os.getuid()}"
                call("scancel", *number, *_of(self.cluster), f"--name={self.title}", user)
        end = time.monotonic() + 15
        while is_active(self.id, self.title, self.cluster) and time.monotonic() < end:
            time.sleep(0.3)
        self.record.unlink(missing_ok=True)


_TEXTS = ("key", "id", "cluster", "title")  # of a record


def ranges(jobs: Sequence[int]) -> str:
    """The numbers 1, 2, 3, 7 as ``1-3,7``."""
    parts: list[list[int]] = []
    for job in jobs:
        if parts and parts[-1][1] == job - 1:
            parts[-1][1] = job
        else:
            parts.append([job, job])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def clusters_of(words: Sequence[str]) -> list[str]:
    """The clusters that a command of sbatch may choose from; empty means the usual one."""
    for number, word in enumerate(words):
        if match := re.fullmatch(r"(?:--clusters?=|-M)(.+)", word):
            return match[1].split(",")
        if word in ("-M", "--clusters", "--cluster") and words[number + 1 :]:
            return words[number + 1].split(",")
    return [name for name in os.environ.get("SBATCH_CLUSTERS", "").split(",") if name]


def _of(cluster: str) -> list[str]:
    return ["-M", cluster] if cluster else []


def _squeue(cluster: str, *words: str) -> str:
    """The output of squeue about all states; empty if Slurm does not know the job."""
    try:
        return call("squeue", *_of(cluster), "-h", "-t", "all", *words)
    except Unreachable as error:
        if "Invalid job id" in str(error):
            return ""
        raise


def tasks_of(array: str, title: str, cluster: str = "") -> dict[int, Task]:
    """Job number (0 without an array) -> its state; empty if Slurm does not know the array.

    Args:
        array: Slurm's number.
        title: the name of the array; an array of that number and another name is not known.
        cluster: its cluster; empty means the usual one.

    Raises:
        Unreachable: Slurm does not answer.
    """
    text = _squeue(cluster, "-r", "-j", array, f"--name={title}", "-o", "%K %T %r")
    found = tasks(text)
    if not found:
        for line in lines_of(text):
            if re.search(r"\berror\b", line, re.IGNORECASE) and "Invalid job id" not in line:
                raise Unreachable(line)
    return found


def find_by_title(
    title: str, cluster: str = "", among: Collection[str] = (), *, active: bool = False
) -> str:
    """Slurm's number of this user's newest array with this name; empty if there is none.

    Args:
        title: the name.
        cluster: its cluster; empty means the usual one.
        among: the numbers to prefer.
        active: whether an array that has ended does not count.

    Raises:
        Unreachable: Slurm does not answer.
    """
    found = arrays(_squeue(cluster, "-u", str(os.getuid()), "-n", title, "-o", "%F %T"))
    rest = [number for number in found if found[number] or not active]
    wanted = [number for number in rest if number in among] or rest
    return max(wanted, key=lambda number: (found[number], int(number)), default="")


def is_active(array: str, title: str, cluster: str = "") -> bool:
    """Whether any job of an array runs or will run. Raises Unreachable if Slurm does not answer."""
    return any(task.is_active for task in tasks_of(array, title, cluster).values())
