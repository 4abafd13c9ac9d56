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
With SHOW_OUTPUT=true in the environment the log of a single job is also shown as it grows. Jobs
that are asked to stop have $RUN_GRACE_S seconds (30), in which a training saves its state.

e.g.: run.py JOB=1:4 exp/log/count.JOB.log wc -l data/split4/JOB/text '>' exp/count.JOB

See also: slurm.py, split_data.py, once.py
"""

import os
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
GRACE_S = float(os.environ.get("RUN_GRACE_S", "30"))  # from asking jobs to stop to killing them


class Stopped(Exception):
    """A signal asked to stop; its number is the argument."""


# ---- which jobs --------------------------------------------------------------------------------


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
    """Show the end of the first failed log, how to run that job by hand, and which logs to read."""
    first = settings.log_of(failed[0])
    print(f"---- end of {first}:\n{last_lines(first)}\n----", file=sys.stderr)
    print(f"run.py: by hand: {by_hand(settings, failed[0])}", file=sys.stderr)
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
    except HelpWanted:
        print((__doc__ or "").strip())
        return 0
    except Usage as error:
        print(f"ERROR (run.py) {error}", file=sys.stderr)
        return 2
    if not jobs:
        print("run.py: no job to run", file=sys.stderr)
    try:
        for job in jobs:
            os.makedirs(os.path.dirname(settings.log_of(job)) or ".", exist_ok=True)
        with shown_log(settings):
            failed = Runner(settings).run(jobs, free)
    except Stopped as stopped:
        name = signal.Signals(stopped.args[0]).name
        print(f"run.py: stopped by {name}, and all jobs with it", file=sys.stderr)
        return 128 + stopped.args[0]
    except OSError as error:
        print(f"ERROR (run.py) {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    if failed:
        report(settings, failed, len(jobs))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
