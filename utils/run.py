#!/usr/bin/env python3
"""Run a command, or an array of parallel jobs, on this machine, each with a log.

Usage: run.py [options] [JOB=1:N] LOG PROGRAM [ARGUMENT ...]

With NAME=FIRST:LAST (any name; or NAME=NUMBER) a job is run for each number, which replaces NAME
everywhere in LOG, PROGRAM and the ARGUMENTs. A job is one command line for bash:

  | || && ; & > >> < 2>&1 2>FILE ( )  work as in bash if each of them is a word of its own, quoted
                                      for the calling shell
  words with blanks, quotes, symbols  stay one word; the shell of the job expands $ in them

The command line is run with set -e -o pipefail, so a job fails if any of its commands fails, even
within a pipe. Its log begins with the command and ends with the elapsed time and the exit status.
run.py exits with 0 if all jobs succeeded, 1 if any failed, 2 for wrong usage, and 130 or 143 if it
was stopped, which ends all jobs.

Options, before or after JOB=1:N:
  --max-jobs-run N, -tc N   number of parallel jobs; default: one per processor or set of GPUs
  --gpu N                   number of GPUs of each job, set in CUDA_VISIBLE_DEVICES; default: 0
  --num-threads N           number of threads of each job, which is only recorded in the log
  --pick WHICH              jobs to run, by their logs: all, failed or incomplete, or several of
                            these with commas; default: all
  --mem 4G, --time 1:00:00, --config FILE and any other --OPTION VALUE are for clusters and ignored
With SHOW_OUTPUT=true in the environment the log of a single job is also shown while it grows. Jobs
that are stopped have $RUN_GRACE_S seconds (default: 30) to end; a training saves its state then.

e.g.: run.py JOB=1:4 exp/log/count.JOB.log wc -l data/split4/JOB/text '>' exp/count.JOB

See also: slurm.py, split_data.py, once.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import os
import re
import signal
import subprocess
import sys
import time

from pipeline.jobs.command_line import (
    HelpWanted,
    Settings,
    Usage,
    by_hand,
    last_lines,
    now,
    pick,
    shown_log,
)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """A signal has stopped this program; the argument is the number of the signal."""


# ---- which jobs --------------------------------------------------------------------------------


def gpu_names():
    """The GPUs that jobs may use, with the names for CUDA_VISIBLE_DEVICES."""
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
    """The number of processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def grace_s():
    """The time in seconds for stopped jobs to end by themselves. Raises Usage if it is not one."""
    value = os.environ.get("RUN_GRACE_S", "30")
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?", value):
        raise Usage(
            f"the environment variable RUN_GRACE_S must be a number of seconds, not {value!r}"
        )
    return float(value)


def slots(settings, jobs):
    """The environments of the jobs that may run in parallel, one for each; at most ``jobs``."""
    gpus = settings.number("gpu", 0)
    at_once = settings.number("max-jobs-run", 1) if settings.options["max-jobs-run"] else 0
    at_once = min(at_once, jobs)
    if not gpus:
        return [{}] * (at_once or processors())
    names = gpu_names()
    if len(names) < gpus:
        print(
            f"run.py: {gpus} GPUs per job requested, {len(names)} found; jobs run one at a time",
            file=sys.stderr,
        )
        return [{}] * (at_once or 1)
    sets = [",".join(names[i : i + gpus]) for i in range(0, len(names) - gpus + 1, gpus)]
    return [{"CUDA_VISIBLE_DEVICES": s} for s in (sets[:at_once] if at_once else sets)]


# ---- running them ------------------------------------------------------------------------------


class Job:
    """A running job, which is a process group of its own and writes to its log."""

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
        """Write the end of the log, after everything that the job has written."""
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
        """Send a signal to the whole group; returns False if no process of it is left."""
        try:
            os.killpg(self.process.pid, signum)
        except ProcessLookupError:
            return False
        return True


class Runner:
    """Runs jobs in parallel, and ends all of them when a signal arrives.

    The relevant signals are blocked and waited for, so that none arrives at an unsuitable moment.
    Jobs start with the original signal mask of this program.
    """

    def __init__(self, settings, grace):
        self.settings, self.grace, self.running, self.failed = settings, grace, {}, []
        stopping = {s for s in STOP_SIGNALS if signal.getsignal(s) is not signal.SIG_IGN}
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.awaited = stopping | {signal.SIGCHLD}
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, self.awaited)

    def run(self, jobs, free):
        """Run jobs and return the failed ones.

        Args:
            jobs: the numbers of the jobs.
            free: the environments of the jobs that may run in parallel.

        Raises:
            Stopped: a signal arrived; all jobs have ended.
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
        """The jobs that have ended since the last call."""
        ended = []
        for pid, job in list(self.running.items()):
            pid, status = os.waitpid(pid, os.WNOHANG)
            if pid:
                ended.append(self.running.pop(pid))
                if job.finish(os.waitstatus_to_exitcode(status)):
                    self.failed.append(job.number)
        return ended

    def _stop(self):
        """End all running jobs: terminate their process groups, wait, and kill the rest."""
        jobs = list(self.running.values())
        for job in jobs:
            job.signal(signal.SIGTERM)
        end = time.monotonic() + self.grace
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
    """Show the end of the first failed log, the command to run that job by hand, and the logs."""
    first = settings.log_of(failed[0])
    print(f"---- end of {first}:\n{last_lines(first)}\n----", file=sys.stderr)
    print(f"run.py: to run this job by hand: {by_hand(settings, failed[0])}", file=sys.stderr)
    if total == 1:
        print(f"run.py: job failed, log is in {first}", file=sys.stderr)
    else:
        logs = settings.substitute(settings.log, "*")
        print(f"run.py: {len(failed)} / {total} failed, log is in {logs}", file=sys.stderr)


def main(words):
    """Run the jobs of a command line and return the exit status."""
    try:
        settings = Settings(words)
        jobs = pick(settings)
        free, grace = slots(settings, len(jobs)), grace_s()
        settings.number("num-threads", 1)
    except HelpWanted:
        print((__doc__ or "").strip())
        return 0
    except Usage as error:
        print(f"ERROR (run.py) {error}", file=sys.stderr)
        return 2
    if not jobs:
        print("run.py: there is no job to run", file=sys.stderr)
    try:
        for job in jobs:
            os.makedirs(os.path.dirname(settings.log_of(job)) or ".", exist_ok=True)
        with shown_log(settings):
            failed = Runner(settings, grace).run(jobs, free)
    except Stopped as stopped:
        name = signal.Signals(stopped.args[0]).name
        print(f"run.py: stopped by {name}; all jobs were ended", file=sys.stderr)
        return 128 + stopped.args[0]
    except OSError as error:
        print(f"ERROR (run.py) {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    if failed:
        report(settings, failed, len(jobs))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
