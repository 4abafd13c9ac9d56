"""Translates Kaldi's options of a job (--mem, --gpu …) to those of sbatch.

The translation is described by a file in the form of Kaldi's slurm.conf::

    command sbatch --export=PATH           the command that submits a job
    option mem=* --mem-per-cpu=$0          --mem 4G becomes --mem-per-cpu=4G
    option gpu=0                           --gpu 0 is left out
    option gpu=* -p gpu --gres=gpu:$0
    default gpu=0                          the value of an option that is not given

``-`` and ``_`` in names mean the same. A line with the value takes precedence over ``*``, and a
later line over an earlier one.
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
default gpu=0
default num_threads=1
"""
OURS = ("max-jobs-run", "pick", "config", "max-restarts")  # options that are not for sbatch
_LINE = re.compile(r"(command)\s+(.+)|(option|default)\s+(\w[\w-]*)=(\S+)\s*(.*)")


class SlurmOptions:
    """The translation that a file describes.

    Args:
        path: the file; None means ``conf/slurm.conf`` if it exists, otherwise ``DEFAULT``.

    Raises:
        Usage: the file cannot be read, or a line is malformed; names the line.
    """

    def __init__(self, path: str | None = None) -> None:
        usual = Path("conf/slurm.conf")
        self.command: list[str] = []
        self._options: dict[tuple[str, str], str] = {}
        self._defaults: dict[str, str] = {}
        if path is None and not usual.exists():
            self.path = "the default configuration"
            self._read(DEFAULT.splitlines())
            return
        self.path = path or str(usual)
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
            content = line.partition("#")[0].strip()
            if not content:
                continue
            match = _LINE.fullmatch(content)
            if match is None:
                what = "command …, option NAME=VALUE … or default NAME=VALUE"
                raise Usage(f"{self.path}:{number}: expected {what}, not {content!r}")
            if match[1]:
                self.command = shlex.split(match[2])
            elif match[3] == "option":
                self._options[_same(match[4]), match[5]] = match[6].strip()
            else:
                self._defaults[_same(match[4])] = match[5]

    def arguments(self, options: Mapping[str, str]) -> list[str]:
        """The arguments of sbatch for these options.

        Raises:
            Usage: no line describes an option; the message shows how to add one.
        """
        wanted = dict(self._defaults)
        wanted.update({_same(n): v for n, v in options.items() if n not in OURS and v != ""})
        words: list[str] = []
        for name, value in wanted.items():
            shown = name.replace("_", "-")
            if (name, value) in self._options:
                words += shlex.split(self._options[name, value].replace("$0", value))
            elif (name, "*") in self._options:
                words += shlex.split(self._options[name, "*"].replace("$0", value))
            elif value != self._defaults.get(name) and (name, value) not in _HARMLESS:
                raise Usage(
                    f"--{shown} {value}: this option is not described in {self.path}; add a line "
                    f"such as 'option {name}=* --{shown}=$0' to conf/slurm.conf"
                )
        return words


_HARMLESS = {("gpu", "0"), ("num_threads", "1")}  # what jobs get without any option


def _same(name: str) -> str:
    return name.replace("-", "_")
