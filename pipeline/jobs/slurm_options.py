"""Translates Kaldi's options of a job (--mem, --gpu …) to those of sbatch.

The translation is described by a file in the form of Kaldi's slurm.conf::

    command sbatch --export=PATH           the command that submits a job
    default gpu=0                          the value of an option that is not given
    option mem=* --mem-per-cpu=$0          --mem 4G becomes --mem-per-cpu=4G
    option gpu=0                           --gpu 0 is left out
    option gpu=* -p gpu --gres=gpu:$0

``-`` and ``_`` in names mean the same. A line with the value takes precedence over ``*``, and a
later line over an earlier one. Kaldi's slurm.pl reads the same file if a ``default`` stands before
the ``option`` lines of its name, and refuses it otherwise.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.jobs.command_line import Usage
from pipeline.plain_text import read_lines

DEFAULT = """\
command sbatch --export=PATH
default gpu=0
default num_threads=1
option mem=* --mem=$0
option mem=0
option num_threads=* --cpus-per-task=$0
option gpu=* --gres=gpu:$0
option gpu=0
option time=* --time=$0
option partition=* --partition=$0
option account=* --account=$0
option qos=* --qos=$0
option constraint=* --constraint=$0
option nodes=* --nodes=$0
option tasks_per_node=* --ntasks-per-node=$0
"""
OURS = ("max-jobs-run", "pick", "config", "max-restarts")  # options that are not for sbatch
_LINE = re.compile(r"(command)\s+(.+)|(option|default)\s+(\w[\w-]*)=(\S+)\s*(.*)")


class SlurmOptions:
    """The translation that a file describes.

    Args:
        path: the file; None means ``conf/slurm.conf`` if it exists, otherwise ``DEFAULT``.

    Attributes:
        path: the file in words.
        command: the program that submits, and its first arguments.
        command_place: the file and line of the command; empty if no file was read.

    Raises:
        Usage: the file cannot be read, or a line is malformed; names the line.
    """

    def __init__(self, path: str | None = None) -> None:
        usual = Path("conf/slurm.conf")
        self.command: list[str] = []
        self.command_place = ""
        self._options: dict[tuple[str, str], tuple[str, str]] = {}  # (name, value) -> words, place
        self._defaults: dict[str, str] = {}
        if path is None and not usual.exists():
            self.path, self._file = "the default configuration", str(usual)
            self._read(DEFAULT.splitlines())
            self.command_place = ""
            return
        self.path = self._file = str(usual) if path is None else path
        try:
            self._read(read_lines(self.path, PipelineError))
        except PipelineError as error:
            raise Usage(f"--config {error}") from error
        except OSError as error:
            raise Usage(f"--config {self.path}: cannot be read: {error.strerror}") from error
        if not self.command:
            raise Usage(f"{self.path}: has no line with a command; add one, such as command sbatch")

    def _read(self, lines: list[str]) -> None:
        for number, line in enumerate(lines, start=1):
            content, place = line.partition("#")[0].strip(), f"{self.path}:{number}"
            if not content:
                continue
            match = _LINE.fullmatch(content)
            if match is None or not content.replace("\t", " ").isprintable():
                what = "command …, option NAME=VALUE … or default NAME=VALUE"
                raise Usage(f"{place}: expected {what}, not {content!r}")
            if match[1]:
                self.command, self.command_place = _words(match[2], place), place
                if not self.command[0]:
                    raise Usage(f"{place}: the command is empty; write one, such as command sbatch")
            elif match[3] == "option":
                if match[5].startswith("*") and match[5] != "*":
                    raise Usage(f"{place}: expected a blank after *, not {match[5]!r}")
                _words(match[6], place)  # so that a quote that does not end is told now
                self._options[_same(match[4]), match[5]] = match[6].strip(), place
            else:
                self._defaults[_same(match[4])] = match[5]

    def arguments(self, options: Mapping[str, str]) -> list[str]:
        """The arguments of sbatch for these options.

        Raises:
            Usage: no line describes an option, and the message shows how to add one; or a value
                has a quote that its line does not close.
        """
        wanted = dict(self._defaults)
        wanted.update({_same(n): v for n, v in options.items() if n not in OURS and v != ""})
        words: list[str] = []
        for name, value in wanted.items():
            shown = name.replace("_", "-")
            found = self._options.get((name, value)) or self._options.get((name, "*"))
            if found:
                text, place = found
                words += _words(text.replace("$0", value), f"--{shown} {value}: {place}")
            elif value != self._defaults.get(name) and (name, value) not in _HARMLESS:
                raise Usage(
                    f"--{shown} {value}: this option is not described in {self.path}; add a line "
                    f"such as 'option {name}=* --{shown}=$0' to {self._file}"
                )
        return words


_HARMLESS = {("gpu", "0"), ("num_threads", "1")}  # what jobs get without any option


def _same(name: str) -> str:
    return name.replace("-", "_")


def _words(text: str, place: str) -> list[str]:
    """The words of a part of a line as a shell takes them. Raises Usage for an open quote."""
    try:
        return shlex.split(text)
    except ValueError:
        raise Usage(
            f"{place}: a quote is not closed, or a backslash ends the line, in {text!r}; correct "
            "it (# begins a comment, even within quotes)"
        ) from None
