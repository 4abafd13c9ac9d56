#!/usr/bin/env python3
"""Run a command, or an array of jobs in parallel, on this machine, each with a log.

Usage: run.py [options] [JOB=1:N] LOG PROGRAM [ARGUMENT ...]

With NAME=FIRST:LAST (any name; or NAME=JOB) one job runs for each number, and NAME is replaced by
it wherever it stands in LOG, PROGRAM and ARGUMENTs. A job is one line for bash:

  | || && ; & > >> < 2>&1 2>FILE ( )  as words of their own, escaped from the calling shell, act
                                      as they do in bash
  words of blanks, quotes or signs    stay one word; $ in them is for the job's shell to expand

It runs with set -e -o pipefail: a job fails if any of its commands fails, also within a pipe. Its
log begins with the command and ends with how long it took and how it ended. Exits with 0 if all
jobs did, 1 if any failed, 2 on wrong usage, 130 or 143 if stopped, which ends all jobs.

Options, before or after JOB=1:N:
  --max-jobs-run N, -tc N   jobs at a time; default: the processors, with --gpu the GPUs over N
  --gpu N                   GPUs of each job, in CUDA_VISIBLE_DEVICES; default 0
  --num-threads N           only told in the log
  --pick WHICH              all, failed or incomplete (several with commas), by existing logs
  --mem 4G, --time 1:00:00, --config FILE and any other --OPTION VALUE: for clusters, ignored here

e.g.: run.py JOB=1:4 exp/log/count.JOB.log wc -l data/split4/JOB/text '>' exp/count.JOB

See also: split_data.py, once.py
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time

RAW = re.compile(r"[|&;(){}!]|\|\||&&|\|&|(?:\d*|&)(?:<|>>?)(?:&\d+|&-|[^\s<>|&;()\"']*)")
PLAIN = re.compile(r"(?:[\w@%+=:,./^-]|\$\w|\$\{\w+\})+")
ENDED = re.compile(r"^# (?:Ended \(code|Finished at .* with status) (\d+)", re.MULTILINE)
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_S = 3.0  # between asking jobs to stop and killing them
LAST_LINES = 10  # of a failed job's log that are shown


class Usage(Exception):
    """What was typed is wrong."""


class Stopped(Exception):
    """A signal asked to stop; its number is the argument."""


class Settings:
    """What was typed: options, the array, the log and the command."""

    def __init__(self, words):
        self.options = {"max-jobs-run": "", "gpu": "0", "num-threads": "1", "pick": "all"}
        self.name, self.first, self.last = "", 1, 1
        words = self._take_options(list(words))
        if words and (match := re.fullmatch(r"([A-Za-z_]\w*)=(\d+)(?::(\d+))?", words[0])):
            self.name, self.first = match[1], int(match[2])
            self.last = int(match[3] or match[2])
            words = self._take_options(words[1:])
        if len(words) < 2:
            raise Usage("expected [JOB=1:N] LOG PROGRAM [ARGUMENT ...]; see run.py --help")
        self.log, self.command = words[0], " ".join(map(quote, words[1:]))
        if not 1 <= self.first <= self.last:
            what = f"{self.first}:{self.last}"
            raise Usage(f"{self.name}={what}: job numbers start at 1 or above and go up")
        if self.last > self.first and self.name not in self.log:
            raise Usage(f"{self.log}: all jobs would write this log; put {self.name} in its name")

    def _take_options(self, words):
        while words and words[0].startswith("-"):
            name, equals, value = words.pop(0).lstrip("-").replace("_", "-").partition("=")
            if name in ("help", "h"):
                print(__doc__.strip())
                raise SystemExit(0)
            if not equals:
                count = 2 if name == "pe" else 1  # Grid Engine's -pe NAME SLOTS
                if len(words) < count:
                    raise Usage(f"--{name} needs a value")
                value, words = words[0], words[count:]
            self.options["max-jobs-run" if name == "tc" else name] = value
        return words

    def number(self, option, least):
        """A whole number that an option gives."""
        value = self.options[option]
        if not value.isdecimal() or int(value) < least:
            raise Usage(f"--{option} takes a whole number from {least}, not {value!r}")
        return int(value)

    def substitute(self, text, job):
        """``text`` with the array's name replaced by a job's number."""
        return text.replace(self.name, str(job)) if self.name else text

    def log_of(self, job):
        """The log of a job."""
        return self.substitute(self.log, job)


def quote(word):
    """``word`` as it stands in the job's line for bash."""
    if RAW.fullmatch(word) or PLAIN.fullmatch(word):
        return word
    if '"' in word or word.endswith("\\"):
        return shlex.quote(word)
    return f'"{word}"'


def now():
    """The time as ``date`` writes it."""
    return time.strftime("%a %b %e %H:%M:%S %Z %Y")


# ---- which jobs --------------------------------------------------------------------------------


def pick(settings):
    """The numbers of the jobs to run."""
    wanted = settings.options["pick"].split(",")
    if unknown := set(wanted) - {"all", "failed", "incomplete"}:
        raise Usage(f"--pick {min(unknown)}: choose all, failed or incomplete")
    jobs = range(settings.first, settings.last + 1)
    return [job for job in jobs if "all" in wanted or state(settings.log_of(job)) in wanted]


def state(log):
    """``done``, ``failed`` or ``incomplete``, as the end of a log tells."""
    try:
        with open(log, "rb") as stream:
            stream.seek(-min(4096, os.fstat(stream.fileno()).st_size), os.SEEK_END)
            codes = ENDED.findall(stream.read().decode(errors="replace"))
    except OSError:
        return "incomplete"
    return "incomplete" if not codes else "done" if int(codes[-1]) == 0 else "failed"


def gpu_names():
    """The GPUs that jobs may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    lines = [line for line in found.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]


def processors():
    """How many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def slots(settings):
    """One environment for each job that may run at a time."""
    gpus = settings.number("gpu", 0)
    at_once = settings.number("max-jobs-run", 1) if settings.options["max-jobs-run"] else 0
    if not gpus:
        return [{}] * (at_once or processors())
    names = gpu_names()
    if len(names) < gpus:
        print(f"run.py: {gpus} GPUs wanted, {len(names)} found; one job at a time", file=sys.stderr)
        return [{}] * (at_once or 1)
    sets = [",".join(names[i : i + gpus]) for i in range(0, len(names) - gpus + 1, gpus)]
    return [{"CUDA_VISIBLE_DEVICES": s} for s in (sets[:at_once] if at_once else sets)]


# ---- running them ------------------------------------------------------------------------------


class Job:
    """A running job: a process group of its own, which writes to its log."""

    def __init__(self, settings, number, slot, mask):
        self.number, self.slot, self.threads = number, slot, settings.number("num-threads", 1)
        self.path, self.start = settings.log_of(number), time.monotonic()
        command = settings.substitute(settings.command, number)
        shown = command.replace("\n", "\n# ")
        self.log = open(self.path, "w", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115  closed in finish
        print(f"# {shown}\n# Started at {now()}\n#", file=self.log, flush=True)
        self.process = subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **slot},
            start_new_session=True,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
        )

    def finish(self, code):
        """Write the end of the log, whose offset the job's writes have moved."""
        self.process.returncode = code
        code = 128 - code if code < 0 else code
        seconds = round(time.monotonic() - self.start)
        self.log.seek(0, os.SEEK_END)
        print(f"# Accounting: time={seconds} threads={self.threads}", file=self.log)
        ended = f"# Ended (code {code}) at {now()}, elapsed time {seconds} seconds"
        print(ended, file=self.log)
        self.log.close()
        return code

    def signal(self, signum):
        """Signal the whole group; False if none of it is left."""
        try:
            os.killpg(self.process.pid, signum)
        except ProcessLookupError:
            return False
        return True


class Runner:
    """Runs jobs, some at a time, and ends them all when a signal comes.

    The signals that matter are blocked and waited for, so that none comes at a bad moment; jobs
    start with the signal mask that this program started with.
    """

    def __init__(self, settings):
        self.settings, self.running, self.failed = settings, {}, []
        stopping = {s for s in STOP_SIGNALS if signal.getsignal(s) is not signal.SIG_IGN}
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.awaited = stopping | {signal.SIGCHLD}
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, self.awaited)

    def run(self, jobs, free):
        """Run ``jobs`` and return those that failed; ``free`` has one item for each at a time.

        Raises:
            Stopped: a signal came; all jobs have ended.
        """
        queue, free = list(reversed(jobs)), list(reversed(free))
        try:
            while queue or self.running:
                while queue and free:
                    job = Job(self.settings, queue.pop(), free.pop(), self.mask)
                    self.running[job.process.pid] = job
                signum = signal.sigwait(self.awaited)
                if signum != signal.SIGCHLD:
                    raise Stopped(signum)
                free += [job.slot for job in self._reap()]
        finally:
            self._stop()
        return sorted(self.failed)

    def _reap(self):
        """The jobs that have ended since the last time."""
        ended = []
        for pid, job in list(self.running.items()):
            pid, status = os.waitpid(pid, os.WNOHANG)
            if pid:
                ended.append(self.running.pop(pid))
                if job.finish(os.waitstatus_to_exitcode(status)):
                    self.failed.append(job.number)
        return ended

    def _stop(self):
        """End what still runs: ask all process groups, wait a little, kill what is left."""
        jobs = list(self.running.values())
        for job in jobs:
            job.signal(signal.SIGTERM)
        end = time.monotonic() + GRACE_S
        while jobs and time.monotonic() < end:
            self._reap()
            jobs = [job for job in jobs if job.signal(0)]
            time.sleep(0.02)
        for job in jobs:
            job.signal(signal.SIGKILL)
        while self.running:
            self._reap()
            time.sleep(0.02)


def report(settings, failed, total):
    """Say which logs to read, and the end of the first of them."""
    first = settings.log_of(failed[0])
    with open(first, errors="replace") as stream:
        lines = [x for x in stream if not x.startswith(("# Accounting", "# Ended"))]
    shown = "".join(lines[-LAST_LINES:]).rstrip("\n")
    print(f"---- end of {first}:\n{shown}\n----", file=sys.stderr)
    if total == 1:
        print(f"run.py: job failed, log is in {first}", file=sys.stderr)
    else:
        logs = settings.substitute(settings.log, "*")
        print(f"run.py: {len(failed)} / {total} failed, log is in {logs}", file=sys.stderr)


def main(words):
    """Run what ``words`` say and return the exit status."""
    try:
        settings = Settings(words)
        jobs, free = pick(settings), slots(settings)
        settings.number("num-threads", 1)
    except Usage as error:
        print(f"ERROR (run.py) {error}", file=sys.stderr)
        return 2
    if not jobs:
        print("run.py: no job to run", file=sys.stderr)
    try:
        for job in jobs:
            os.makedirs(os.path.dirname(settings.log_of(job)) or ".", exist_ok=True)
        failed = Runner(settings).run(jobs, free)
    except Stopped as stopped:
        name = signal.Signals(stopped.args[0]).name
        print(f"run.py: stopped by {name}, and all jobs with it", file=sys.stderr)
        return 128 + stopped.args[0]
    except OSError as error:
        print(f"ERROR (run.py) {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    if failed:
        with contextlib.suppress(OSError):
            report(settings, failed, len(jobs))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
