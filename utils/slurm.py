#!/usr/bin/env python3
"""Run a command, or an array of jobs, on a Slurm cluster, with the arguments of run.py.

Usage: slurm.py [options] [JOB=1:N] LOG PROGRAM [ARGUMENT ...]

All jobs are submitted as one job array. Each of its tasks changes to this folder, sources ./path.sh
if it exists, and runs the command with NAME of NAME=FIRST:LAST replaced by its number, as run.py
does. Logs have the form of those of run.py. slurm.py waits for all jobs and reports the numbers of
done, running, failed and waiting jobs. The array is recorded in the folder q beside the logs: if
slurm.py is killed and started again with the same command, it finds its array and continues to wait
for it. Ctrl-C cancels the array. slurm.py exits with 0 if all jobs succeeded, 1 if any failed, 2
for wrong usage, and 130 or 143 if it was stopped.

Options, before or after JOB=1:N:
  --mem 4G, --time 1:00:00  memory and time limit of each job
  --num-threads N, --gpu N  number of threads and of GPUs of each job
  --max-jobs-run N, -tc N   number of parallel jobs
  --pick WHICH              jobs to run, by their logs: all, failed or incomplete, or several of
                            these with commas; default: all
  --partition, --account, --qos, --constraint, --nodes, --tasks-per-node VALUE   options of sbatch
  --config FILE             translation of options to those of sbatch, in the form of Kaldi's
                            slurm.conf, such as "command sbatch --export=PATH", "option mem=*
                            --mem=$0", "default gpu=0"; default: conf/slurm.conf if it exists
With SHOW_OUTPUT=true in the environment the log of a single job is also shown while it grows.

e.g.: slurm.py --mem 2G --time 0:30:00 JOB=1:50 exp/log/decode.JOB.log decode_ctc.py exp/ctc \\
        scp:data/split50utt/JOB/feats.scp ark,t:exp/hyp.JOB

See also: run.py, split_data.py, decode.sh
"""

import pipeline.environment  # isort: skip  # noqa: F401

import shutil
import signal
import sys
import time
from collections import Counter

from pipeline.jobs.command_line import (
    HelpWanted,
    Settings,
    Usage,
    by_hand,
    exit_code,
    last_lines,
    pick,
    shown_log,
)
from pipeline.jobs.slurm_array import Submission, Unreachable, ranges
from pipeline.jobs.slurm_options import SlurmOptions
from pipeline.jobs.slurm_output import ENDING, PAUSED, WAITING

LOG_DELAY_S = 20.0  # time for the log of an ended job to become visible here
LOST_S = 60.0  # time after which a job that Slurm does not know counts as lost
REPORT_S = 30.0  # time between two lines of progress
ENDING_S = 300.0  # time after which a job that Slurm does not finish tidying up counts as ended


class Stopped(Exception):
    """A signal has stopped this program; the argument is the number of the signal."""


def say(text):
    """Print a line on standard error."""
    print(f"slurm.py: {text}", file=sys.stderr, flush=True)


# ---- waiting -----------------------------------------------------------------------------------


class Watch:
    """Waits until all jobs of an array have ended.

    A job has succeeded if its log ends with the exit status 0, whatever Slurm reports, because the
    record of a job may be lost, but not its output.
    """

    def __init__(self, submission):
        self.submission, self.settings = submission, submission.settings
        self.failed = {}  # job -> reason
        self.done = set()
        self._waiting_since, self._ending_since, self._told = {}, {}, set()
        self._reported, self._reported_at = "", time.monotonic()

    def run(self):
        """Wait for all jobs. Raises Stopped if a signal arrives."""
        begun = time.monotonic()
        while True:
            try:
                tasks = self.submission.tasks()
            except Unreachable as error:
                self._report(f"Slurm does not answer ({error}); still trying")
            else:
                for job in self.submission.jobs:
                    self._look(job, tasks.get(job if self.settings.name else 0))
                self._tell_obstacles(tasks)
                self._report(self._counts(tasks))
                if len(self.done) + len(self.failed) == len(self.submission.jobs):
                    return
            time.sleep(min(10.0, 0.3 + 0.05 * (time.monotonic() - begun)))

    def _look(self, job, task):
        """Determine whether a job has ended, and with what result."""
        if job in self.done or job in self.failed:
            return
        if task is not None and task.is_held:
            self.submission.cancel_job(job)
            why = [x for x in (task.state, task.reason) if x not in ("PENDING", "None", "")]
            self.failed[job] = f"held by Slurm ({', '.join(why)})"
            return
        if task is not None and task.is_active and not self._lingers(job, task):
            self._waiting_since.pop(job, None)
            return
        state = task.state if task else None
        code = exit_code(self.settings.log_of(job))
        if code == 0:
            self.done.add(job)
            return
        since = self._waiting_since.setdefault(job, time.monotonic())
        patience = LOST_S if state is None else LOG_DELAY_S if state == "COMPLETED" else 0.0
        if code is not None:
            self.failed[job] = f"code {code}" + (f", {state}" if state in _REASONS else "")
        elif time.monotonic() - since >= patience:
            self.failed[job] = state or "lost by Slurm"

    def _lingers(self, job, task):
        """Whether a job has ended as far as its log says, or long ago, but Slurm still ends it."""
        if task.state not in ENDING:
            self._ending_since.pop(job, None)
            return False
        since = self._ending_since.setdefault(job, time.monotonic())
        done = exit_code(self.settings.log_of(job)) == 0
        return done or time.monotonic() - since >= ENDING_S

    def _tell_obstacles(self, tasks):
        """Say once, at once, which jobs will not go on until a person acts."""
        found = {}
        for job, task in tasks.items():
            if task.obstacle and job not in self.done and job not in self.failed:
                found.setdefault(task.obstacle, []).append(job)
        for obstacle, jobs in found.items():
            if obstacle not in self._told:
                self._told.add(obstacle)
                which = f"{self.settings.name} {ranges(sorted(jobs))}" if self.settings.name else ""
                advice = "see scontrol show job; slurm.py waits; Ctrl-C cancels the array"
                say(f"job {self.submission.id}: {which or 'it'}: {obstacle}; {advice}")

    def _counts(self, tasks):
        active = [task for task in tasks.values() if task.is_active]
        running = sum(task.state not in WAITING for task in active)
        paused = Counter(task.obstacle for task in active if task.state in PAUSED)
        ended = len(self.done) + len(self.failed)
        waiting = max(0, len(self.submission.jobs) - ended - running)
        reasons = Counter(task.reason for task in active if task.state in WAITING)
        why = f" ({reasons.most_common(1)[0][0]})" if reasons and not running else ""
        why += "".join(f", {count} of the running {state}" for state, count in paused.items())
        text = f"{len(self.done)} done, {running} running, {len(self.failed)} failed"
        return f"job {self.submission.id}: {text}, {waiting} waiting{why}"

    def _report(self, text):
        if text != self._reported and time.monotonic() - self._reported_at >= REPORT_S:
            self._reported, self._reported_at = text, time.monotonic()
            say(text)


# States that explain why a job has failed.
_REASONS = {"TIMEOUT", "OUT_OF_MEMORY", "CANCELLED", "NODE_FAIL", "PREEMPTED", "DEADLINE"}
_ADVICE = {
    "TIMEOUT": "give more --time; finished utterances are kept",
    "OUT_OF_MEMORY": "give more --mem",
    "NODE_FAIL": "run the same command again",
    "CANCELLED": "run the same command again",
    "held": "the node may be faulty; run the same command again",
}


def report(submission, failed):
    """Show the end of the first failed log, the reasons, and the command to run a job by hand."""
    settings, first = submission.settings, min(failed)
    log = settings.log_of(first)
    print(f"---- end of {log}:\n{last_lines(log)}\n----", file=sys.stderr)
    for why in sorted(set(failed.values())):
        jobs = sorted(job for job, reason in failed.items() if reason == why)
        advice = next((text for word, text in _ADVICE.items() if word in why), "")
        which = f"{settings.name} {ranges(jobs)}: " if settings.name else ""
        say(f"{which}{why}{'; ' if advice else ''}{advice}")
    say(f"to run a job by hand: {by_hand(settings, first)}")
    if len(submission.jobs) == 1:
        say(f"job failed, log is in {log}")
    else:
        logs = settings.substitute(settings.log, "*")
        say(f"{len(failed)} / {len(submission.jobs)} failed, log is in {logs}")


def stop(signum, frame):
    """Handle a signal."""
    raise Stopped(signum)


def work(settings, words):
    """Find or submit the array, wait for it, and return the exit status."""
    submission = Submission(settings)
    stopping = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) != signal.SIG_IGN]
    for signum in stopping:
        signal.signal(signum, stop)
    watch = Watch(submission)
    try:
        # No signal may arrive between sbatch and the record of the array.
        signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
        if not begin(submission, words):
            return 0
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping)
        with shown_log(settings):
            watch.run()
    except Stopped as stopped:
        for signum in stopping:
            signal.signal(signum, signal.SIG_IGN)
        say(f"stopped by {signal.Signals(stopped.args[0]).name}; cancelling job {submission.id}")
        try:
            submission.cancel()
        except Unreachable as error:
            say(
                f"Slurm does not answer ({error}); job {submission.id} may run on: the same "
                f"command finds it again, and scancel {submission.id} ends it"
            )
        return 128 + stopped.args[0]
    submission.record.unlink(missing_ok=True)
    if watch.failed:
        report(submission, watch.failed)
    return 1 if watch.failed else 0


def begin(submission, words):
    """Find the array or submit it; returns False if there is no job to run."""
    with submission.locked():
        if submission.find():
            say(f"array {submission.id} of this command was already submitted; waiting for it")
            return True
        jobs = pick(submission.settings)
        if not jobs:
            say("there is no job to run")
            return False
        submission.submit(jobs, words)
    say(f"submitted job {submission.id}, {len(jobs)} tasks, as {submission.title}")
    return True


def main(words):
    """Run the jobs of a command line and return the exit status."""
    try:
        settings = Settings(words)
        options = SlurmOptions(settings.options.get("config"))
        arguments = [*options.command, *options.arguments(settings.options)]
        pick(settings)
        settings.number("num-threads", 1)
        settings.number("gpu", 0)
        if settings.options["max-jobs-run"]:
            settings.number("max-jobs-run", 1)
        if options.command_place and not shutil.which(options.command[0]):
            raise Usage(
                f"{options.command_place}: {options.command[0]}: no such program here; correct the "
                "line, or is Slurm not installed?"
            )
        return work(settings, arguments)
    except HelpWanted:
        print((__doc__ or "").strip())
        return 0
    except Usage as error:
        print(f"ERROR (slurm.py) {error}", file=sys.stderr)
        return 2
    except Unreachable as error:
        print(f"ERROR (slurm.py) {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"ERROR (slurm.py) {error.filename}: {error.strerror}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
