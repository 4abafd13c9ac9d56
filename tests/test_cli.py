"""Command lines: both notations of Kaldi, options files, exit statuses, the last line."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import pytest
from typer import Argument, Option

from pipeline import cli
from pipeline.cli import Tally, execute, options_from_fields, progress
from pipeline.errors import ConfigError, DataError, SpecifierError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, level = logging.getLogger(), cli.log.level
    handlers = list(root.handlers)
    yield
    root.handlers[:] = handlers
    cli.log.setLevel(level)


class Toy:
    """A command that records its arguments."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.error: BaseException | None = None
        self.status: int | None = 0
        self.given: dict[str, object] = {}
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        self.given = {}

        def main(
            source: Annotated[str, Argument()],
            num_bins: Annotated[int, Option(help="bins", min=1)] = 23,
            rate: Annotated[float, Option(help="Hz")] = 16.0,
            name: Annotated[str, Option(help="a word")] = "",
            use_energy: Annotated[bool, Option("--use-energy/--no-use-energy")] = True,
            raw: Annotated[bool, Option("--raw/--no-raw")] = False,
        ) -> int | None:
            """Toy."""
            self.given = dict(locals())
            self.given.pop("self")
            if self.error is not None:
                raise self.error
            cli.log.debug("fine detail")
            cli.log.info("a word")
            cli.log.warning("take care")
            return self.status

        status = execute(main, list(arguments), "toy.py")
        self.out, self.err = self.capsys.readouterr()
        return status


@pytest.fixture
def toy(capsys: pytest.CaptureFixture[str]) -> Toy:
    return Toy(capsys)


# ---- dialects ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--num-bins=40"], {"num_bins": 40}),
        (["--num-bins", "40"], {"num_bins": 40}),
        (["--num_bins=40"], {"num_bins": 40}),
        (["--num_bins", "40"], {"num_bins": 40}),
        (["--Num_Bins=40"], {"num_bins": 40}),
        (["--num-bins=40", "--num-bins=41"], {"num_bins": 41}),
        (["--rate=-1.5e3"], {"rate": -1500.0}),
        (["--rate", "-1"], {"rate": -1.0}),
        (["--name=A_b=C"], {"name": "A_b=C"}),
        (["--name="], {"name": ""}),
        (["--name", "--raw"], {"name": "--raw"}),
        (["--use-energy=false"], {"use_energy": False}),
        (["--use_energy=false"], {"use_energy": False}),
        (["--use-energy=true"], {"use_energy": True}),
        (["--use-energy", "false"], {"use_energy": False}),
        (["--use-energy", "true"], {"use_energy": True}),
        (["--no-use-energy"], {"use_energy": False}),
        (["--no_use_energy"], {"use_energy": False}),
        (["--raw"], {"raw": True}),
        (["--raw=True"], {"raw": True}),
        (["--raw=T"], {"raw": True}),
        (["--raw=1"], {"raw": True}),
        (["--raw=F"], {"raw": False}),
        (["--raw", "--no-raw"], {"raw": False}),
        (["--raw=true", "--raw=false"], {"raw": False}),
        (["--raw", "false", "--num-bins", "2"], {"raw": False, "num_bins": 2}),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_dialects(toy: Toy, arguments: list[str], expected: dict[str, object], first: bool) -> None:
    assert toy(*([*arguments, "in.ark"] if first else ["in.ark", *arguments])) == 0, toy.err
    defaults = {"num_bins": 23, "rate": 16.0, "name": "", "use_energy": True, "raw": False}
    assert toy.given == {"source": "in.ark", **defaults, **expected}


def test_a_flag_leaves_the_next_argument_alone(toy: Toy) -> None:
    assert toy("--raw", "in.ark") == 0
    assert toy.given["raw"] is True
    assert toy.given["source"] == "in.ark"


@pytest.mark.parametrize("source", ["-", "ark:-", "scp:a b|", "a=b"])
def test_arguments_are_taken_as_they_are(toy: Toy, source: str) -> None:
    assert toy(source) == 0
    assert toy.given["source"] == source


def test_two_dashes_end_the_options(toy: Toy) -> None:
    assert toy("--raw", "--", "--num_bins=3") == 0
    assert toy.given["source"] == "--num_bins=3"
    assert toy("--", "--verbose=3") == 0
    assert toy.given["source"] == "--verbose=3"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["in.ark", "--num-bin=3"], "No such option: --num-bin"),
        (
            ["in.ark", "--num-bins=many"],
            "Invalid value for '--num-bins': Input should be a valid integer",
        ),
        (["in.ark", "--num-bins=0"], "'--num-bins': Input should be greater than or equal to 1"),
        (["in.ark", "--num-bins"], "--num-bins"),
        (["in.ark", "--raw=maybe"], "--raw must be true or false, not 'maybe'"),
        (["in.ark", "more.ark"], "unexpected extra argument"),
        ([], "Missing argument"),
        (["in.ark", "--verbose=loud"], "--verbose takes a whole number, not 'loud'"),
        (["in.ark", "--verbose"], "--verbose takes a whole number"),
        (["in.ark", "--print-args=maybe"], "--print-args must be true or false"),
        (["in.ark", "--config"], "--config needs a file"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2_and_a_message(toy: Toy, arguments: list[str], said: str) -> None:
    assert toy(*arguments) == 2
    assert said.lower() in toy.err.lower()
    assert "Traceback" not in toy.err
    assert toy.out == ""
    assert not toy.given


def test_the_nearest_option_is_named(toy: Toy) -> None:
    assert toy("in.ark", "--use-enrgy=true") == 2
    assert "--use-energy" in toy.err


# ---- options files -------------------------------------------------------------------------------


@pytest.fixture
def conf(tmp_path: Path) -> Callable[..., str]:
    def write(text: str, name: str = "a.conf") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


def test_an_options_file(toy: Toy, conf: Callable[..., str]) -> None:
    path = conf(
        "# a comment\n\n--num-bins=40  # of the paper\n  --use_energy=false\n--name=a b\n--raw\n"
    )
    assert toy(f"--config={path}", "in.ark") == 0, toy.err
    assert toy.given["num_bins"] == 40
    assert toy.given["use_energy"] is False
    assert toy.given["name"] == "a b"
    assert toy.given["raw"] is True


@pytest.mark.parametrize("before", [True, False])
def test_the_command_line_wins(toy: Toy, conf: Callable[..., str], before: bool) -> None:
    path = conf("--num-bins=40\n--use-energy=false\n--name=file\n")
    typed = ["--num_bins", "7", "--use-energy=true"]
    read = ["--config", path]
    assert toy(*(typed + read if before else read + typed), "in.ark") == 0
    assert (toy.given["num_bins"], toy.given["use_energy"]) == (7, True)
    assert toy.given["name"] == "file"


def test_of_two_options_files_the_second_wins(toy: Toy, conf: Callable[..., str]) -> None:
    one, two = conf("--num-bins=1\n--name=one\n"), conf("--num-bins=2\n", "b.conf")
    assert toy(f"--config={one}", f"--config={two}", "in.ark") == 0
    assert (toy.given["num_bins"], toy.given["name"]) == (2, "one")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--raw\n--use-enrgy=true\n", "2: unknown option --use-enrgy; did you mean --use-energy?"),
        ("--qqqqq=1\n", "1: unknown option --qqqqq"),
        ("# one\nnum-bins=3\n", "2: expected --name=value, not 'num-bins=3'"),
        ("--num-bins 3\n", "1: expected --name=value, not '--num-bins 3'"),
    ],
)
def test_a_wrong_options_file_names_the_line(
    toy: Toy, conf: Callable[..., str], text: str, said: str
) -> None:
    path = conf(text)
    assert toy(f"--config={path}", "in.ark") == 2
    assert toy.err == f"ERROR (toy.py) {path}:{said}\n"


def test_a_wrong_value_in_an_options_file(toy: Toy, conf: Callable[..., str]) -> None:
    assert toy(f"--config={conf('--num-bins=many')}", "in.ark") == 2
    assert "Invalid value for '--num-bins'" in toy.err
    assert "a.conf:1: " in toy.err
    for text, said in (("--raw=maybe", "--raw must be"), ("--name", "--name needs a value")):
        path = conf(f"# one\n{text}")
        assert toy(f"--config={path}", "in.ark") == 2
        assert toy.err.startswith(f"ERROR (toy.py) {path}:2: {said}")


def test_an_error_about_a_value_names_where_it_was_read(toy: Toy, conf: Callable[..., str]) -> None:
    path = conf("--rate=3\n--no-use-energy\n")
    for option, said in (("--rate", f"{path}:1: "), ("--use-energy", f"{path}:2: ")):
        toy.error = ConfigError(f"{option} must be another")
        assert toy(f"--config={path}", "in.ark") == 2
        assert toy.err == f"ERROR (toy.py) {said}{option} must be another\n"
    toy.error = ConfigError("--rate must be another")
    assert toy(f"--config={path}", "--rate=4", "in.ark") == 2  # the command line decided it
    assert toy.err == "ERROR (toy.py) --rate must be another\n"


def test_an_options_file_that_cannot_be_read(toy: Toy, tmp_path: Path) -> None:
    missing = tmp_path / "none.conf"
    assert toy(f"--config={missing}", "in.ark") == 2
    assert f"{missing}: cannot read this options file: No such file or directory" in toy.err
    assert toy(f"--config={tmp_path}", "in.ark") == 2
    assert "Is a directory" in toy.err
    binary = tmp_path / "binary.conf"
    binary.write_bytes(b"\xff\xfe--raw")
    assert toy(f"--config={binary}", "in.ark") == 2
    assert f"{binary}: is UTF-16; convert it" in toy.err


# ---- standard options ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "levels"),
    [
        ([], ["LOG", "WARNING"]),
        (["--verbose=0"], ["LOG", "WARNING"]),
        (["--verbose", "1"], ["DEBUG", "LOG", "WARNING"]),
        (["--verbose=-1"], ["WARNING"]),
    ],
)
def test_verbosity(toy: Toy, arguments: list[str], levels: list[str]) -> None:
    assert toy("in.ark", *arguments) == 0
    assert [line.partition(" (toy.py) ")[0] for line in toy.err.splitlines()] == levels
    assert toy.out == ""


def test_print_args(toy: Toy) -> None:
    assert toy("--print-args=true", "--verbose=-2", "--num_bins=3", "in.ark") == 0
    assert toy.err.splitlines()[0] == "toy.py --num-bins=3 in.ark"
    assert toy("--print-args", "false", "--verbose=-2", "in.ark") == 0
    assert "toy.py in.ark" not in toy.err
    assert toy("--print-args", "in.ark") == 0
    assert toy.given["source"] == "in.ark"


def test_help(toy: Toy) -> None:
    assert toy("--help") == 0
    assert toy.err == ""
    assert "--num-bins" in toy.out
    assert "--config=FILE" in toy.out
    assert "--use-energy / --no-use-energy" in toy.out
    assert not toy.given


# ---- exit statuses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (DataError("data/text:3: twice; remove one"), 1, "data/text:3: twice; remove one"),
        (ConfigError("a.toml: no"), 2, "a.toml: no"),
        (SpecifierError("arx:b: no such kind"), 2, "arx:b: no such kind"),
        (FileNotFoundError(2, "No such file or directory", "x"), 1, "x: No such file or directory"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (OSError("something else"), 1, "something else"),
        (MemoryError(), 1, "out of memory; try fewer jobs, a smaller batch or a smaller beam"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_errors_are_one_line(toy: Toy, error: BaseException, status: int, said: str) -> None:
    toy.error = error
    assert toy("in.ark") == status
    assert toy.err == f"ERROR (toy.py) {said}\n"
    assert toy.out == ""


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1), (3, 3)])
def test_what_main_returns_is_the_status(toy: Toy, returned: int | None, status: int) -> None:
    toy.status = returned
    assert toy("in.ark") == status


def test_a_mistake_of_ours_is_not_hidden(toy: Toy) -> None:
    toy.error = ZeroDivisionError("a bug")
    assert toy("in.ark") == 1
    assert "ERROR (toy.py) unexpected ZeroDivisionError: a bug" in toy.err
    assert "Traceback" not in toy.err
    assert toy("--verbose=1", "in.ark") == 1
    assert "Traceback" in toy.err


PROGRAM = '''
"""Toy. Usage: toy.py WHAT"""
import sys, time
from typing import Annotated
from typer import Argument
from pipeline.cli import run
from pipeline.errors import DataError, UsageError

def main(what: Annotated[str, Argument()]) -> int:
    if what == "data":
        raise DataError("data/text:3: twice; remove one")
    if what == "usage":
        raise UsageError("no: do otherwise")
    if what == "wait":
        try:
            print("ready", file=sys.stderr, flush=True)
            time.sleep(30.0)
        finally:
            print("cleaned up", file=sys.stderr, flush=True)
    for n in range({"few": 3, "many": 200_000}.get(what, 0)):
        print("line", n)
    return 0

if __name__ == "__main__":
    run(main)
'''


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "toy.py"
    path.write_text(PROGRAM.lstrip(), encoding="utf-8")
    return path


def start(program: Path, *arguments: str, stdout: object = subprocess.PIPE) -> subprocess.Popen:
    """A process of its own, which heeds an interrupt even if these tests run in the background."""
    return subprocess.Popen(
        [sys.executable, str(program), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["few"], 0, ""),
        (["data"], 1, "ERROR (toy.py) data/text:3: twice; remove one\n"),
        (["usage"], 2, "ERROR (toy.py) no: do otherwise\n"),
        (["few", "--nothing"], 2, None),
    ],
)
def test_statuses_of_a_process(
    program: Path, arguments: list[str], status: int, said: str | None
) -> None:
    process = start(program, *arguments)
    out, err = process.communicate(timeout=20)
    assert process.returncode == status
    assert said is None or err == said
    assert "Traceback" not in err
    assert out == ("line 0\nline 1\nline 2\n" if status == 0 else "")


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [(signal.SIGINT, 130, "ERROR (toy.py) interrupted\n"), (signal.SIGTERM, 143, "")],
)
def test_a_signal_ends_it_after_cleaning_up(
    program: Path, number: int, status: int, said: str
) -> None:
    process = start(program, "wait")
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == status
    assert err == "cleaned up\n" + said


def test_a_reader_that_leaves_is_no_error_message(program: Path) -> None:
    with start(program, "many") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "line 0\n"
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(timeout=20) == 141


@pytest.mark.parametrize("what", ["few", "many"])
def test_a_full_disk(program: Path, what: str) -> None:
    with open("/dev/full", "w") as full:
        process = start(program, what, stdout=full)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err == "ERROR (toy.py) No space left on device\n"


# ---- Tally ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("done", "failed", "permissive", "status", "line"),
    [
        (3, 0, False, 0, "Done 3 utterances, 0 failed"),
        (3, 1, False, 1, "Done 3 utterances, 1 failed"),
        (3, 1, True, 0, "Done 3 utterances, 1 failed"),
        (0, 2, False, 1, "Done 0 utterances, 2 failed"),
        (0, 2, True, 1, "Done 0 utterances, 2 failed"),
        (0, 0, False, 1, "Done 0 utterances, 0 failed"),
    ],
)
def test_tally(
    caplog: pytest.LogCaptureFixture,
    done: int,
    failed: int,
    permissive: bool,
    status: int,
    line: str,
) -> None:
    caplog.set_level(logging.INFO, "pipeline")
    tally = Tally(permissive=permissive)
    tally.ok()
    tally.ok(done - 1)
    for n in range(failed):
        tally.fail(f"utt{n}", DataError("no frames"))
    assert tally.finish() == status
    messages = caplog.messages
    assert messages[:failed] == [f"utt{n}: no frames" for n in range(failed)]
    assert messages[failed] == line
    nothing = ["nothing was done: no utterances succeeded"]
    assert messages[failed + 1 :] == ([] if done else nothing)


def test_tally_counts_other_things_and_adds_a_word(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline")
    tally = Tally("speakers")
    tally.ok(2)
    assert tally.finish("1250 frames in 0.5 s") == 0
    assert caplog.messages == ["Done 2 speakers, 0 failed, 1250 frames in 0.5 s"]


# ---- progress ------------------------------------------------------------------------------------


def test_progress_says_nothing_of_what_is_short(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "pipeline")
    assert list(progress(iter("abc"))) == ["a", "b", "c"]
    assert caplog.messages == []
    assert capfd.readouterr() == ("", "")


def test_progress_logs_a_line_every_half_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "pipeline")
    clock = iter(range(0, 1000, 12))
    monkeypatch.setattr(cli, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    assert list(progress(range(7), total=7, what="decoded")) == list(range(7))
    assert caplog.messages == ["3 of 7 decoded", "6 of 7 decoded"]  # a look at the clock each


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal_and_leaves_stdout_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    cli.log.setLevel(logging.INFO)
    assert list(progress([1, 2, 3], what="decoded")) == [1, 2, 3]
    assert "decoded" in terminal.getvalue()
    assert capfd.readouterr().out == ""


def test_progress_is_lazy(caplog: pytest.LogCaptureFixture) -> None:
    taken = []

    def items() -> Iterator[int]:
        for n in range(3):
            taken.append(n)
            yield n

    for n in progress(items()):
        assert taken == list(range(n + 1))


# ---- options from dataclasses --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Settings:
    step_size: float = field(default=1e-4, metadata={"help": "how far"})
    keep: bool = field(default=False, metadata={"help": "whether"})
    kind: str = field(default="sgd", metadata={"help": "which"})


def test_fields_become_options(capsys: pytest.CaptureFixture[str]) -> None:
    given: list[object] = []

    @options_from_fields
    def main(source: Annotated[str, Argument()], settings: Settings, *, n: int = 3) -> int:
        """Toy."""
        given.extend([source, settings, n])
        return 0

    assert execute(main, ["in", "--step_size=0.5", "--keep=true", "--n", "4"], "toy.py") == 0
    assert given == ["in", Settings(step_size=0.5, keep=True), 4]
    assert execute(main, ["in"], "toy.py") == 0
    assert given[3:] == ["in", Settings(), 3]
    assert execute(main, ["--help"], "toy.py") == 0
    shown = json.dumps(capsys.readouterr().out)
    assert all(word in shown for word in ("--step-size", "how far", "0.0001", "--keep", "whether"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("",), "an argument is empty; give a name"),
        (("--init=", "x"), "--init is empty; give a path"),
        (("--init", "", "x"), "--init is empty; give a path"),
    ],
)
def test_an_empty_path_is_no_folder(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be the folder that one is in."""

    def main(name: str, init: Path = Path("none")) -> None:
        raise AssertionError

    assert execute(main, list(words), "x.py") == 2
    assert said in capsys.readouterr().err
