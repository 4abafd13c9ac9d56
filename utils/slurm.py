#!/usr/bin/env python3
"""Run a command, or an array of jobs, on a Slurm cluster, and wait for it. Arguments as run.py's.

Usage: slurm.py [options] [JOB=1:N] LOG PROGRAM [ARGUMENT ...]

One job array is submitted; each of its tasks goes to this folder, sources ./path.sh if it is there,
and runs the command with NAME of NAME=FIRST:LAST replaced by its number, as run.py does. The log
has run.py's form. While it waits it tells how many jobs are done, running, failed and waiting. What
was submitted stands beside the logs in q/: killed and started again with the same command, it finds
its array and goes on waiting. Ctrl-C cancels the array. Exits with 0 if all jobs did, 1 if any
failed, 2 on wrong usage, 130 or 143 if stopped.

Options, before or after JOB=1:N:
  --mem 4G, --time 1:00:00  of each job
  --num-threads N, --gpu N  of each job
  --max-jobs-run N, -tc N   jobs at a time
  --pick WHICH              all, failed or incomplete (several with commas), by existing logs
  --partition, --account, --qos, --constraint, --nodes, --tasks-per-node VALUE   as sbatch has them
  --config FILE             what options mean to sbatch, in the form of Kaldi's slurm.conf; default
                            conf/slurm.conf if it is there: "command sbatch --export=PATH", "option
                            mem=* --mem=$0", "default gpu=0" …
With SHOW_OUTPUT=true in the environment the log of a single job is also shown as it grows.

e.g.: slurm.py --mem 2G --time 0:30:00 JOB=1:50 exp/log/decode.JOB.log decode_ctc.py exp/ctc \\
        scp:data/split50utt/JOB/feats.scp ark,t:exp/hyp.JOB

See also: run.py, split_data.py, decode.sh
"""

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
from pipeline.jobs.slurm_array import Submission, Unreachable, ranges, tasks_of
from pipeline.jobs.slurm_options import SlurmOptions

LOG_DELAY_S = 20.0  # that a file may take to be seen from here after its job ended
LOST_S = 60.0  # that Slurm may not know a job it was given, before we believe it
TELL_S = 30.0  # between two lines of progress


class Stopped(Exception):
    """A signal asked to stop; its number is the argument."""


def say(text):
    """A line on standard error."""
    print(f"slurm.py: {text}", file=sys.stderr, flush=True)


# ---- waiting -----------------------------------------------------------------------------------


class Watch:
    """Waits until all jobs of an array have ended.

    A job has ended well if its log says so, whatever Slurm remembers: the record of a job may be
    lost, its output is not.
    """

    def __init__(self, submission):
        self.submission, self.settings = submission, submission.settings
        self.failed = {}  # job -> why
        self.done = set()
        self._waiting_since = {}
        self._told, self._told_at = "", time.monotonic()

    def run(self):
        """Wait. Raises Stopped if a signal asks to."""
        begun = time.monotonic()
        while True:
            try:
                tasks = tasks_of(self.submission.id)
            except Unreachable as error:
                self._tell(f"Slurm does not answer ({error}); still trying")
            else:
                for job in self.submission.jobs:
                    self._look(job, tasks.get(job if self.settings.name else 0))
                self._tell(self._counts(tasks))
                if len(self.done) + len(self.failed) == len(self.submission.jobs):
                    return
            time.sleep(min(10.0, 0.3 + 0.05 * (time.monotonic() - begun)))

    def _look(self, job, task):
        """Find out whether a job has ended, and how."""
        if job in self.done or job in self.failed:
            return
        if task is not None and task.is_held:
            self.submission.cancel_job(job)
            self.failed[job] = f"held by Slurm ({task.reason})"
            return
        if task is not None and task.is_active:
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
            self.failed[job] = f"code {code}" + (f", {state}" if state in _TOLD else "")
        elif time.monotonic() - since >= patience:
            self.failed[job] = state or "Slurm lost it"

    def _counts(self, tasks):
        active = [task for task in tasks.values() if task.is_active]
        running = sum(task.state != "PENDING" for task in active)
        ended = len(self.done) + len(self.failed)
        waiting = max(0, len(self.submission.jobs) - ended - running)
        reasons = Counter(task.reason for task in active if task.state == "PENDING")
        why = f" ({reasons.most_common(1)[0][0]})" if reasons and not running else ""
        text = f"{len(self.done)} done, {running} running, {len(self.failed)} failed"
        return f"job {self.submission.id}: {text}, {waiting} waiting{why}"

    def _tell(self, text):
        if text != self._told and time.monotonic() - self._told_at >= TELL_S:
            self._told, self._told_at = text, time.monotonic()
            say(text)


_TOLD = {"TIMEOUT", "OUT_OF_MEMORY", "CANCELLED", "NODE_FAIL", "PREEMPTED", "DEADLINE"}
_ADVICE = {
    "TIMEOUT": "give more --time; what was decoded is kept",
    "OUT_OF_MEMORY": "give more --mem",
    "NODE_FAIL": "run the same command again",
    "CANCELLED": "run the same command again",
    "held": "the node may be ill; run the same command again",
}


def report(submission, failed):
    """Show the end of the first failed log, why each job failed, and how to run one by hand."""
    settings, first = submission.settings, min(failed)
    log = settings.log_of(first)
    print(f"---- end of {log}:\n{last_lines(log)}\n----", file=sys.stderr)
    for why in sorted(set(failed.values())):
        jobs = [job for job, reason in failed.items() if reason == why]
        advice = next((text for word, text in _ADVICE.items() if word in why), "")
        which = f"{settings.name} {ranges(jobs)}: " if settings.name else ""
        say(f"{which}{why}{'; ' if advice else ''}{advice}")
    say(f"by hand: {by_hand(settings, first)}")
    if len(submission.jobs) == 1:
        say(f"job failed, log is in {log}")
    else:
        logs = settings.substitute(settings.log, "*")
        say(f"{len(failed)} / {len(submission.jobs)} failed, log is in {logs}")


def stop(signum, frame):
    """A signal's handler."""
    raise Stopped(signum)


def work(settings, words):
    """Submit or find the array, wait for it, and return the exit status."""
    submission = Submission(settings)
    stopping = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) != signal.SIG_IGN]
    for signum in stopping:
        signal.signal(signum, stop)
    watch = Watch(submission)
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, stopping)  # none between sbatch and its record
        if not begin(submission, words):
            return 0
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping)
        with shown_log(settings):
            watch.run()
    except Stopped as stopped:
        for signum in stopping:
            signal.signal(signum, signal.SIG_IGN)
        say(f"stopped by {signal.Signals(stopped.args[0]).name}: cancelling job {submission.id}")
        submission.cancel()
        return 128 + stopped.args[0]
    submission.record.unlink(missing_ok=True)
    if watch.failed:
        report(submission, watch.failed)
    return 1 if watch.failed else 0


def begin(submission, words):
    """Find the array or submit it; False if there is nothing to run."""
    with submission.locked():
        if submission.find():
            say(f"array {submission.id} of this command was submitted before; waiting for it")
            return True
        jobs = pick(submission.settings)
        if not jobs:
            say("no job to run")
            return False
        submission.submit(jobs, words)
    say(f"submitted job {submission.id}, {len(jobs)} tasks, as {submission.title}")
    return True


def main(words):
    """Run what ``words`` say and return the exit status."""
    try:
        settings = Settings(words)
        options = SlurmOptions(settings.options.get("config"))
        arguments = [*options.command, *options.arguments(settings.options)]
        pick(settings)
        settings.number("num-threads", 1)
        settings.number("gpu", 0)
        if settings.options["max-jobs-run"]:
            settings.number("max-jobs-run", 1)
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
