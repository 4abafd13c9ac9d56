"""slurm.conf, whose lines may be wrong in any way, and which Kaldi's slurm.pl reads too."""

import re
import shlex
from pathlib import Path
from random import Random

import pytest

from pipeline.jobs.command_line import Usage
from pipeline.jobs.slurm_options import DEFAULT, SlurmOptions

ROOT = Path(__file__).resolve().parents[2]
GIVEN = {"gpu": "0", "num-threads": "1", "pick": "all"}  # what slurm.py has without options


def by_slurm_pl(text: str, given: dict[str, str]) -> list[str]:
    """What Kaldi's slurm.pl makes of a configuration, line after line; ValueError if it refuses."""
    options, exact, replaced, command = dict(given), {}, {}, ""
    for raw in text.splitlines():
        line = re.sub(r"\s*#.*", "", raw)
        if not line:
            continue
        if found := re.match(r"command (.+)", line):
            command = found[1]
        elif found := re.fullmatch(r"option ([^=]+)=\* (.+)", line):
            if found[1] in options:
                replaced[found[1]] = found[2].replace("$0", options[found[1]])
        elif found := re.fullmatch(r"option ([^=]+)=(\S+)\s?(.*)", line):
            if found[1] in options:
                exact[found[1], found[2]] = found[3]
        elif found := re.match(r"default (\S+)=(\S+)", line):
            options.setdefault(found[1], found[2])
        else:
            raise ValueError(f"unable to parse line {raw!r}")
    words = []
    for name, value in options.items():
        if (name, value) in exact:
            words += shlex.split(exact[name, value])
        elif name in replaced:
            words += shlex.split(replaced[name])
        else:
            raise ValueError(f"option {name} is not described, or {value!r} is not allowed")
    assert command
    return words


def printed() -> str:
    """The configuration in docs/cluster.md."""
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"```\n(command .*?)```", page, re.DOTALL)
    return str(found)


@pytest.mark.parametrize("text", [printed(), DEFAULT], ids=["docs", "default"])
@pytest.mark.parametrize(
    "given",
    [{}, {"mem": "2G"}, {"time": "1:00:00", "num-threads": "4"}, {"gpu": "1"}, {"gpu": "0"}],
    ids=str,
)
def test_slurm_pl_reads_it_as_slurm_py_does(tmp_path: Path, text: str, given: dict) -> None:
    (tmp_path / "slurm.conf").write_text(text)
    ours = SlurmOptions(str(tmp_path / "slurm.conf")).arguments({**GIVEN, **given})
    theirs = by_slurm_pl(text, {name.replace("-", "_"): value for name, value in given.items()})
    plain = "--cpus-per-task=1"  # what a job has anyway
    assert sorted({*ours} - {plain}) == sorted({*theirs} - {plain})


def test_slurm_pl_refuses_a_default_after_its_options() -> None:
    lines = printed().splitlines()
    lines.sort(key=lambda line: line.startswith("default"))
    with pytest.raises(ValueError, match="gpu is not described"):
        by_slurm_pl("\n".join(lines), {})


# ---- lines that are wrong ------------------------------------------------------------------------

GOOD = ["# ours", "command sbatch --export=PATH", "default gpu=0", "option mem=* --mem=$0", ""]
WRONG = [
    'command sbatch --comment="lab', "command sbatch it's", "command sbatch \\", "command",
    'command ""', "option mem=* --mem='$0", 'option gpu=* "--gres=gpu:$0', "option mem=4G \\",
    "option mem --mem=$0", "option =* --mem", "option mem= --mem", "option mem =* --mem",
    "option mem=*--mem=$0", "option", "default gpu", "default gpu=", "defualt gpu=0", "mem=4G",
    "commandsbatch", "command sbatch\x1b[0m", 'command sbatch "a#b"',
    "command sbatch\rdefault gpu=0",
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_line_is_named(tmp_path: Path, wrong: str) -> None:
    random, file = Random(wrong), tmp_path / "my slurm.conf"
    at = random.randrange(len(GOOD) + 1)
    lines = [*GOOD[:at], wrong, *GOOD[at:]]
    ends = random.choice(["\n", "\r\n"])
    file.write_bytes(ends.join(lines).encode())
    with pytest.raises(Usage, match=re.escape(f"{file}:{at + 1}: ")):
        SlurmOptions(str(file))


@pytest.mark.parametrize("seed", range(40))
def test_any_line_is_read_or_named(tmp_path: Path, seed: int) -> None:
    random, file = Random(seed), tmp_path / "slurm.conf"
    signs = ["command", "option", "default", "mem", "gpu", "=", "*", " ", '"', "'", "\\", "#", "$0"]
    signs += ["\t", "\x00", "é", "\u2028", "\x85", "\ufeff", "--mem", "0", "\r"]
    lines = ["".join(random.choices(signs, k=random.randrange(12))) for _ in range(5)]
    file.write_bytes("\n".join(["command sbatch", *lines]).encode())
    said = str(file)
    try:
        SlurmOptions(str(file)).arguments({**GIVEN, "mem": random.choice(["1", "'", '"', "\\"])})
    except Usage as error:
        said = str(error)
    assert str(file) in said


def test_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_bytes(b"command sbatch\n# caf\xe9\n")
    with pytest.raises(Usage, match=r"slurm.conf:2: not UTF-8"):
        SlurmOptions(str(tmp_path / "slurm.conf"))
    (tmp_path / "slurm.conf").write_bytes(b"\xef\xbb\xbfcommand sbatch\r\noption mem=* -m $0\r\n")
    options = SlurmOptions(str(tmp_path / "slurm.conf"))
    assert options.arguments({"mem": "1G"}) == ["-m", "1G"]


def test_a_value_with_a_quote_names_option_and_line(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text("command sbatch\noption comment=* --comment=$0\n")
    options = SlurmOptions(str(tmp_path / "slurm.conf"))
    with pytest.raises(Usage, match=r"--comment it's: .*slurm.conf:2: a quote is not closed"):
        options.arguments({"comment": "it's"})
    with pytest.raises(Usage, match=r"--nice 7: .* to .*slurm.conf"):
        options.arguments({"nice": "7"})
