"""What the programs that run jobs share: Kaldi's command line, the form of logs, choosing jobs.

It needs only the standard library, so that these programs start fast and outside an environment.
"""

import contextlib
import os
import re
import shlex
import sys
import threading
import time
from collections.abc import Sequence
from typing import Self

RAW = re.compile(r"[|&;(){}!]|\|\||&&|\|&|(?:\d*|&)(?:<|>>?)(?:&\d+|&-|[^\s<>|&;()\"']*)")
PLAIN = re.compile(r"(?:[\w@%+=:,./^-]|\$\w|\$\{\w+\})+")
ARRAY = re.compile(r"([A-Za-z_]\w*)=([0-9]+)(?::([0-9]+))?", re.ASCII)
# Words that are meant as an array: JOB=1:, JOB=a:b, JOB=1-4, JOB=1..4, JOB=²
LIKE_ARRAY = re.compile(
    r"[A-Za-z_]\w*=(?:(?!.*\.log$)[^/]*:[^/]*|[+-]?\d+(?:\*\*|\.\.|[-,.])?\d*|[^\x00-\x7f]+|)"
)
ENDED = re.compile(r"^# (?:Ended \(code|Finished at .* with status) (\d+)", re.MULTILINE)
MOST = 2**31 - 1  # the largest number that an option or a job may have
MOST_JOBS = 1_000_000  # jobs of an array
LAST_LINES = 10  # lines to show from the log of a failed job


class Usage(Exception):
    """The command line is wrong."""


class HelpWanted(Exception):
    """``--help`` was given."""


class Settings:
    """The parsed command line: options, array of jobs, log and command.

    Attributes:
        options: name -> value; always has ``max-jobs-run``, ``gpu``, ``num-threads`` and ``pick``.
        name: the name of the array, such as JOB; empty if there is no array.
        first, last: the numbers of its first and last job.
        log: the log of a job, with the name of the array in it.
        command: the command as one line for bash, with the name of the array in it.

    Raises:
        Usage: the command line is malformed.
        HelpWanted: ``--help`` was given.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.options = {"max-jobs-run": "", "gpu": "0", "num-threads": "1", "pick": "all"}
        self.name, self.first, self.last = "", 1, 1
        rest = self._take_options(list(words))
        if rest and (match := ARRAY.fullmatch(rest[0])):
            self.name, self.first, self.last = match[1], *_ends(rest[0], match[2], match[3])
            rest = self._take_options(rest[1:])
        elif rest and LIKE_ARRAY.fullmatch(rest[0]):
            raise Usage(f"{rest[0]}: expected whole numbers, as in JOB=1:4 or JOB=3")
        if len(rest) < 2:
            raise Usage("expected [JOB=1:N] LOG PROGRAM [ARGUMENT ...]; see --help")
        if not rest[0]:
            raise Usage("the name of the log is empty; give one, such as log/x.JOB.log")
        self.log, self.command = rest[0], " ".join(map(quote, rest[1:]))
        if not 1 <= self.first <= self.last:
            what = f"{self.first}:{self.last}"
            raise Usage(f"{self.name}={what}: job numbers must be 1 or more, and ascend")
        if self.last > self.first and len(self.parts(self.log)) == 1:
            raise Usage(f"{self.log}: all jobs would write this log; put {self.name} in its name")

    def _take_options(self, words: list[str]) -> list[str]:
        while words and words[0].startswith("-"):
            name, equals, value = words.pop(0).lstrip("-").replace("_", "-").partition("=")
            if name in ("help", "h"):
                raise HelpWanted
            if not equals:
                count = 2 if name == "pe" else 1  # Grid Engine's -pe NAME SLOTS
                if len(words) < count:
                    raise Usage(f"--{name} needs a value")
                value, words = words[0], words[count:]
            self.options["max-jobs-run" if name == "tc" else name] = value
        return words

    def number(self, option: str, least: int) -> int:
        """The value of an option as a whole number.

        Raises:
            Usage: it is no whole number in the digits 0 to 9, less than ``least``, or more than
                `MOST`.
        """
        value = self.options[option]
        if not re.fullmatch("[0-9]+", value) or (len(value) < 20 and int(value) < least):
            raise Usage(f"--{option} must be a whole number, {least} or more, not {value!r}")
        if len(value) >= 20 or int(value) > MOST:
            raise Usage(f"--{option} must be {MOST} or less, not {value[:30]!r}")
        return int(value)

    def substitute(self, text: str, job: object) -> str:
        """``text`` with the name of the array replaced by the number of a job.

        The name within the path of the current folder stays, as in /data/JOBS/exp for JOB.
        """
        return str(job).join(self.parts(text))

    def parts(self, text: str) -> list[str]:
        """The parts of ``text`` between which the number of a job stands."""
        if not self.name:
            return [text]
        here = {os.getcwd(), os.environ.get("PWD") or os.getcwd()}
        kept = [re.escape(folder) for folder in here if self.name in folder]
        parts = [""]
        for word in re.split(f"({'|'.join([*kept, self.name])})", text):
            if word == self.name:
                parts.append("")
            else:
                parts[-1] += word
        return parts

    def log_of(self, job: int) -> str:
        """The log of a job."""
        return self.substitute(self.log, job)


def _ends(word: str, first: str, last: str | None) -> tuple[int, int]:
    """The first and the last job of ``JOB=first:last``. Raises Usage if they are too large."""
    last = last or first
    if max(len(first), len(last)) > 15 or int(last) > MOST:
        raise Usage(f"{word[:60]}: job numbers must be {MOST} or less")
    if int(last) - int(first) >= MOST_JOBS:
        raise Usage(f"{word}: an array has at most {MOST_JOBS} jobs; cut the work into fewer parts")
    return int(first), int(last)


def quote(word: str) -> str:
    """``word`` as it is written into the command line of the job, quoted if necessary."""
    if RAW.fullmatch(word) or PLAIN.fullmatch(word):
        return word
    if '"' in word or word.endswith("\\"):
        return shlex.quote(word)
    return f'"{word}"'


def now() -> str:
    """The current time in the form of ``date``."""
    return time.strftime("%a %b %e %H:%M:%S %Z %Y")


def pick(settings: Settings) -> list[int]:
    """The numbers of the jobs that ``--pick`` selects. Raises Usage for an unknown selection."""
    wanted = settings.options["pick"].split(",")
    if unknown := set(wanted) - {"all", "failed", "incomplete"}:
        raise Usage(f"--pick must be all, failed or incomplete, not {min(unknown)}")
    jobs = range(settings.first, settings.last + 1)
    return [job for job in jobs if "all" in wanted or state(settings.log_of(job)) in wanted]


def state(log: str) -> str:
    """``done``, ``failed`` or ``incomplete``, according to the end of a log."""
    code = exit_code(log)
    return "incomplete" if code is None else "failed" if code else "done"


def exit_code(log: str) -> int | None:
    """The exit status of a job, from its log; None if the log does not have it."""
    try:
        with open(log, "rb") as stream:
            stream.seek(-min(4096, os.fstat(stream.fileno()).st_size), os.SEEK_END)
            codes = ENDED.findall(stream.read().decode(errors="replace"))
    except OSError:
        return None
    return int(codes[-1]) if codes else None


def by_hand(settings: Settings, job: int) -> str:
    """The command line that runs a job again by hand."""
    command = settings.substitute(settings.command, job)
    source = ". ./path.sh && " if os.path.exists("path.sh") else ""
    return f"cd {shlex.quote(os.getcwd())} && {source}{command}"


def last_lines(log: str) -> str:
    """The last lines of the log of a job, without the lines about its end."""
    try:
        with open(log, errors="replace") as stream:
            lines = [x for x in stream if not x.startswith(("# Accounting", "# Ended"))]
    except OSError as error:
        return f"({log}: {error.strerror})"
    return "".join(lines[-LAST_LINES:]).rstrip("\n")


class Follower:
    """Copies new lines of a log to standard error while a ``with`` block runs."""

    def __init__(self, log: str) -> None:
        self._log, self._offset = log, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._over.wait(0.3):
            self._copy()
        self._copy()

    def _copy(self) -> None:
        with contextlib.suppress(OSError), open(self._log, "rb") as stream:
            if os.fstat(stream.fileno()).st_size < self._offset:
                self._offset = 0  # the log was started again
            stream.seek(self._offset)
            data = stream.read()
            data = data[: data.rfind(b"\n") + 1]
            self._offset += len(data)
            for line in data.decode(errors="replace").splitlines():
                if not line.startswith("#"):
                    print(line, file=sys.stderr, flush=True)


def shown_log(settings: Settings) -> contextlib.AbstractContextManager[object]:
    """A context that shows the log of a single job if $SHOW_OUTPUT is ``true``."""
    if os.environ.get("SHOW_OUTPUT") == "true" and settings.first == settings.last:
        return Follower(settings.log_of(settings.first))
    return contextlib.nullcontext()
