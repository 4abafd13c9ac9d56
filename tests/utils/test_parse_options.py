"""parse_options.sh, sourced by a script under set -eu."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PARSE = Path(__file__).resolve().parents[2] / "utils" / "parse_options.sh"
SCRIPT = f"""\
#!/usr/bin/env bash
# toy.sh: shows its options.
#
# Usage: toy.sh [options] WORD...
set -euo pipefail
nj=2         # jobs
cmd=run.py
train_cmd=run.py
clean=false
options=
export lang=en
. {PARSE}
printf '%s|' "$nj" "$cmd" "$train_cmd" "$clean" "$options" "$lang" "$#" "$@"
"""

Toy = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """Run a script that sources parse_options.sh."""
    (tmp_path / "toy.sh").write_text(SCRIPT)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "toy.sh", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return call


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], "2|run.py|run.py|false||en|0|"),
        (
            ["--nj", "4", "--clean=true", "a b", "--nj", "7"],
            "4|run.py|run.py|true||en|3|a b|--nj|7|",
        ),
        (["--train-cmd", "slurm.py --mem 4G"], "2|run.py|slurm.py --mem 4G|false||en|0|"),
        (["--train_cmd=x"], "2|run.py|x|false||en|0|"),
        (
            ["--options", "--beam=3 --x=$HOME `id`"],
            "2|run.py|run.py|false|--beam=3 --x=$HOME `id`|en|0|",
        ),
        (["--options=a=b", "--lang="], "2|run.py|run.py|false|a=b||0|"),
        (["--nj=1", "--", "--nj", "3"], "1|run.py|run.py|false||en|2|--nj|3|"),
        (["-", "--help"], "2|run.py|run.py|false||en|2|-|--help|"),
        (["--nj", "3", ""], "3|run.py|run.py|false||en|1||"),
        (["--options", "--help", "x"], "2|run.py|run.py|false|--help|en|1|x|"),
    ],
)
def test_options_set_variables(toy: Toy, words: list[str], shown: str) -> None:
    done = toy(*words)
    assert (done.returncode, done.stdout, done.stderr) == (0, shown, "")


@pytest.mark.parametrize("words", [["--config", "c.conf"], ["--config=c.conf"]])
def test_config_comes_first_wherever_it_stands(toy: Toy, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "c.conf").write_text("nj=9\nclean=true\n")
    assert toy(*words).stdout == "9|run.py|run.py|true||en|0|"
    assert toy("--nj", "3", *words, "x").stdout == "3|run.py|run.py|true||en|1|x|"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--jobs", "3"],
            "unknown option --jobs; the options are --clean --cmd --lang --nj --options "
            "--train-cmd --config --help",
        ),
        (["--nj"], "--nj needs a value"),
        (["--clean"], "--clean needs a value"),
        (["--clean", "maybe"], "--clean is true or false, not 'maybe'"),
        (["--clean", "--nj", "3"], "--clean is true or false, not '--nj'"),
        (["--clean="], "--clean is true or false, not ''"),
        (["--cmd", ""], "--cmd is empty; give a command, e.g. run.py"),
        (["--train-cmd="], "--train-cmd is empty"),
        (["--PATH", "x"], "unknown option --PATH"),
        (["--=x"], "unknown option --"),
        (["--a b", "x"], "unknown option --a b"),
        (["--a[$(touch made)]", "x"], "unknown option --a[$(touch made)]"),
        (["-n", "3"], "unknown option -n; options begin with --"),
        (["--config", "none"], "none: cannot read this file of --config"),
        (["--config"], "--config needs a value"),
    ],
)
def test_errors_exit_with_2(toy: Toy, tmp_path: Path, words: list[str], message: str) -> None:
    done = toy(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"ERROR (toy.sh) {message}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--nj", "3", "--help"]])
def test_help_is_the_head_of_the_script(toy: Toy, words: list[str]) -> None:
    done = toy(*words)
    assert done.returncode == 0
    assert done.stdout.startswith("toy.sh: shows its options.\n\nUsage: toy.sh [options] WORD...\n")
    assert "--train-cmd" in done.stdout
    assert "set -euo" not in done.stdout


def test_help_message_wins(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "toy.sh").write_text(SCRIPT.replace("nj=2 ", "help_message='My help'; nj=2 "))
    done = toy("--help")
    assert (done.returncode, done.stdout) == (0, "My help\n")


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    script = f"nj=1\nbefore=$(compgen -v; compgen -A function)\n. {PARSE}\n" + (
        'after=$(compgen -v; compgen -A function)\ndiff <(echo "$before") <(echo "$after")\n'
    )
    done = subprocess.run(
        ["bash", "-c", script, "x", "--nj", "3"], capture_output=True, text=True, check=False
    )
    left = {line[2:] for line in done.stdout.splitlines() if line.startswith("> ")}
    assert left <= {"before", "after", "BASH_REMATCH", "PIPESTATUS", "_"}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_config_file_of_any_editor(toy: Toy, tmp_path: Path, mark: str, end: str) -> None:
    (tmp_path / "x.conf").write_bytes((mark + f"nj=5{end}# c{end}--lang=de{end}").encode())
    done = toy("--config", "x.conf")
    assert done.stdout == "5|run.py|run.py|false||de|0|"
    assert ("x.conf: begins with a byte order mark" in done.stderr) == bool(mark)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"nj=5\rlang=de\r", "x.conf:1: holds a carriage return that does not end it"),
        ("nj=5\n".encode("utf-16"), "x.conf: is UTF-16"),
        (b"\x1f\x8b\x08 nj\n", "x.conf: is not a text"),
        ("n\u200bj=5\n".encode(), "x.conf:1: expected name=value"),
    ],
)
def test_a_config_file_that_is_no_text_is_named(
    toy: Toy, tmp_path: Path, data: bytes, what: str
) -> None:
    (tmp_path / "x.conf").write_bytes(data)
    done = toy("--config", "x.conf")
    assert done.returncode == 2
    assert what in done.stderr


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        (b"cmd=x\n", False),
        (b"cmd=x\r\n", True),
        (b"\xef\xbb\xbfcmd=x\n", True),
        ("cmd=é\n".encode(), False),
    ],
)
def test_a_file_that_the_shell_reads_must_be_plain(
    tmp_path: Path, data: bytes, refused: bool
) -> None:
    (tmp_path / "cmd.sh").write_bytes(data)
    recipe = PARSE.with_name("recipe.sh").read_text()
    function = recipe[recipe.index("_plain() {") :].partition("\n}\n")[0]
    script = "_usage_error() { echo refused $1; }\n" + function + "\n}\n_plain cmd.sh\n"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("refused cmd.sh: has carriage returns") == refused
    assert bool(done.stdout) == refused
