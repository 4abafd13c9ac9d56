"""slurm.py with stand-ins for the programs of Slurm; tests/slurm uses a real Slurm."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.jobs.command_line import Usage
from pipeline.jobs.slurm_array import clusters_of, ranges
from pipeline.jobs.slurm_options import SlurmOptions

SLURM = Path(__file__).resolve().parents[2] / "utils" / "slurm.py"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """The stand-ins' folder of states; the programs are in ``programs``."""
    folder = tmp_path / "fake"
    (tmp_path / "programs").mkdir()
    folder.mkdir()
    program = Path(__file__).with_name("fake_slurm.py")
    for name in ("sbatch", "squeue", "scancel"):
        text = program.read_text().replace("__file__", repr(str(program)))
        (tmp_path / "programs" / name).write_text(text)
        (tmp_path / "programs" / name).chmod(0o755)
    return folder


@pytest.fixture
def environment(fake: Path, tmp_path: Path) -> dict[str, str]:
    path = os.pathsep.join([str(tmp_path / "programs"), str(Path(sys.executable).parent)])
    return {**os.environ, "FAKE": str(fake), "PATH": f"{path}:{os.environ['PATH']}"}


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    (tmp_path / "here").mkdir()

    def call(*words: str, **more: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(SLURM), *words],
            cwd=tmp_path / "here",
            env={**environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return call


@pytest.fixture
def run(start: Callable[..., "subprocess.Popen[str]"]) -> Run:
    def call(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        with start(*words, **more) as process:
            out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    return call


def calls(fake: Path, name: str) -> list[str]:
    """What was called with this name."""
    lines = (fake / "calls").read_text().splitlines() if (fake / "calls").exists() else []
    return [line for line in lines if line.startswith(name)]


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_an_array_with_logs_as_run_py_writes_them(run: Run, fake: Path, tmp_path: Path) -> None:
    (tmp_path / "here" / "path.sh").write_text("export word=sourced\n")
    done = run("JOB=1:3", "log/x.JOB.log", "echo", "job", "JOB", "$word", "|", "cat")
    assert (done.returncode, done.stdout) == (0, "")
    assert re.fullmatch(r"slurm.py: submitted job 1, 3 tasks, as x.all.\w{12}\n", done.stderr)
    log = (tmp_path / "here" / "log" / "x.2.log").read_text()
    assert re.fullmatch(
        r"# echo job 2 \$word \| cat\n# Started at .*\n# Running on n1, Slurm job 1, attempt 1\n#\n"
        r"job 2 sourced\n# Accounting: time=\d+ threads=1\n# Ended \(code 0\) at .*, elapsed time "
        r"\d+ seconds\n",
        log,
    )
    (submitted,) = calls(fake, "sbatch")
    assert "--array=1-3 " in submitted
    assert not (tmp_path / "here" / "log" / "q" / "x.all.log.json").exists()


def test_words_stay_words_and_signs_act(run: Run, tmp_path: Path) -> None:
    show = "import sys; print(ascii(sys.argv[1:]))"
    words = ["a b", "it's", '"x"', "<blk>", "$HOME", "é", "ark:copy x ark:- |", "JOB"]
    assert run("x.log", sys.executable, "-c", show, *words).returncode == 0
    expected = [*words[:4], os.environ["HOME"], *words[5:]]
    assert ascii(expected) in (tmp_path / "here" / "x.log").read_text()
    assert run("J=7", "d/J.log", "echo", "J", ">", "out.J").returncode == 0
    assert (tmp_path / "here" / "out.7").read_text() == "7\n"


def test_options_reach_sbatch(run: Run, fake: Path) -> None:
    options = ["--mem", "4G", "--time=1:00:00", "--num-threads", "3", "--gpu", "2", "-tc", "5"]
    assert run(*options, "--partition", "p", "JOB=2:3", "x.JOB.log", "true").returncode == 0
    (line,) = calls(fake, "sbatch")
    for word in (
        *("--export=PATH", "--mem=4G", "--time=1:00:00", "--cpus-per-task=3", "--gres=gpu:2"),
        *("--partition=p", "--array=2-3%5"),
    ):
        assert f" {word} " in line


def test_failures_are_named_with_what_to_do(run: Run, tmp_path: Path) -> None:
    done = run("JOB=1:4", "x.JOB.log", "echo", "reason", "JOB", ";", "test", "JOB", "-gt", "2")
    assert done.returncode == 1
    lines = done.stderr.splitlines()[1:]
    assert lines[0] == "---- end of x.1.log:"
    assert "reason 1" in lines
    assert "slurm.py: JOB 1-2: code 1" in lines
    assert (
        f"slurm.py: to run a job by hand: cd {tmp_path}/here && echo reason 1 ; test 1 -gt 2"
        in lines
    )
    assert lines[-1] == "slurm.py: 2 / 4 failed, log is in x.*.log"


def test_failed_jobs_are_named_in_order_whichever_failed_first(run: Run) -> None:
    words = ("sleep", "$((4-JOB))", ";", "test", "JOB", "-gt", "2")
    done = run("JOB=1:3", "x.JOB.log", *words)
    assert "slurm.py: JOB 1-2: code 1" in done.stderr.splitlines()


def test_only_what_failed_is_run_again(run: Run, fake: Path, tmp_path: Path) -> None:
    words = ("JOB=1:3", "x.JOB.log", "echo", "JOB", ">>", "out", ";", "test", "-e", "ok.JOB")
    (tmp_path / "here" / "ok.2").touch()
    assert run(*words).returncode == 1
    for job in (1, 3):
        (tmp_path / "here" / f"ok.{job}").touch()
    assert run("--pick", "failed", *words).returncode == 0
    assert "--array=1,3 " in calls(fake, "sbatch")[1]
    assert sorted((tmp_path / "here" / "out").read_text().split()) == ["1", "1", "2", "3", "3"]
    done = run("--pick", "failed,incomplete", *words)
    assert (done.returncode, done.stderr) == (0, "slurm.py: there is no job to run\n")


def test_killed_and_started_again_it_finds_its_array(start, run: Run, fake: Path) -> None:
    words = ("JOB=1:2", "x.JOB.log", "while", "test", "!", "-e", "go", ";", "do", "sleep", "0.1")
    words = (*words, ";", "done", ";", "echo", "JOB", ">>", "out")
    with start(*words) as first:
        wait_for(lambda: list(fake.glob("*.pid")))
        first.send_signal(signal.SIGKILL)
    here = fake.parent / "here"
    with start(*words) as second:
        err = iter(second.stderr.readline, "")
        assert "array 1 of this command was already submitted; waiting for it" in next(err)
        (here / "go").touch()
        assert second.wait(30) == 0
    assert len(calls(fake, "sbatch")) == 1
    assert sorted((here / "out").read_text().split()) == ["1", "2"]
    assert run(*words).returncode == 0  # anew, since that one was waited for
    assert len(calls(fake, "sbatch")) == 2


def test_killed_while_submitting(run: Run, fake: Path) -> None:
    words = ("JOB=1:2", "log/x.JOB.log", "echo", "JOB", ">>", "out")
    with_record = fake.parent / "here" / "log" / "q" / "x.all.log.json"
    assert run(*words).returncode == 0
    name = (fake / "1.name").read_text()
    # As if the first had been killed before it wrote down the array's number.
    key = re.search(r"\.(\w{12})$", name)
    assert key is not None
    from pipeline.jobs.command_line import Settings
    from pipeline.jobs.slurm_array import Submission

    os.chdir(fake.parent / "here")
    submission = Submission(Settings(words))
    assert submission.title == name
    submission.jobs = [1, 2]
    submission._write()
    assert with_record.exists()
    done = run(*words)
    assert (done.returncode, "array 1 of this command" in done.stderr) == (0, True)
    assert len(calls(fake, "sbatch")) == 1


@pytest.mark.parametrize(
    ("signum", "code", "name"), [(signal.SIGINT, 130, "SIGINT"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_signal_cancels(start, fake: Path, signum: int, code: int, name: str) -> None:
    with start("JOB=1:2", "x.JOB.log", "sleep", "60") as process:
        wait_for(lambda: len(list(fake.glob("*.pid"))) == 2)
        process.send_signal(signum)
        _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert f"slurm.py: stopped by {name}; cancelling job 1" in err
    assert {(fake / f"1_{n}").read_text() for n in (1, 2)} == {"CANCELLED None"}


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (
            "TIMEOUT TimeLimit",
            "JOB 1: code 143, TIMEOUT; give more --time; finished utterances are",
        ),
        ("OUT_OF_MEMORY None", "JOB 1: code 143, OUT_OF_MEMORY; give more --mem"),
        ("CANCELLED None", "JOB 1: code 143, CANCELLED; run the same command again"),
        ("PENDING launch failed requeued held", "JOB 1: held by Slurm (launch failed requeued h"),
    ],
)
def test_why_a_job_ended(start, fake: Path, state: str, says: str) -> None:
    with start("JOB=1:2", "x.JOB.log", "test", "JOB", "-eq", "2", "||", "sleep", "60") as process:
        log = fake.parent / "here" / "x.1.log"
        wait_for(lambda: (fake / "1_1.pid").exists() and log.exists())
        time.sleep(0.2)
        (fake / "1_1").write_text("COMPLETING None")
        os.killpg(int((fake / "1_1.pid").read_text()), signal.SIGTERM)
        wait_for(lambda: "# Ended" in log.read_text())
        (fake / "1_1").write_text(state)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert says in err


def test_what_slurm_forgot_is_told_by_the_logs(start, fake: Path, tmp_path: Path) -> None:
    with start("JOB=1:2", "x.JOB.log", "sleep", "1") as process:
        wait_for(lambda: len(list(fake.glob("*.pid"))) == 2)
        (fake / "1.job").unlink()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


def test_a_cluster_that_does_not_answer_is_asked_again(start, fake: Path) -> None:
    with start("JOB=1:2", "x.JOB.log", "sleep", "1") as process:
        wait_for(lambda: len(list(fake.glob("*.pid"))) == 2)
        (fake / "broken").write_text("squeue: error: Unable to contact slurm controller")
        time.sleep(1.5)
        assert process.poll() is None
        (fake / "broken").unlink()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


def test_what_cannot_be_submitted(run: Run, fake: Path, environment: dict[str, str]) -> None:
    (fake / "broken").write_text("sbatch: error: Invalid job array specification")
    done = run("JOB=1:2000", "x.JOB.log", "true")
    assert done.returncode == 1
    assert "ERROR (slurm.py) sbatch: error: Invalid job array" in done.stderr
    assert "use fewer jobs, or raise MaxArraySize" in done.stderr
    done = run("x.log", "true", PATH=str(Path(sys.executable).parent) + ":/usr/bin:/bin")
    if not Path("/usr/bin/sbatch").exists():
        assert "ERROR (slurm.py) sbatch: not found; is Slurm installed here?" in done.stderr


def test_the_log_of_one_job_is_shown(run: Run) -> None:
    done = run("x.log", "echo", "one", ";", "echo", "two", SHOW_OUTPUT="true")
    assert done.stderr.splitlines()[1:] == ["one", "two"]


def test_help_and_usage(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Run a command, or an array of jobs, on a Slurm cluster")
    assert (run("x.log").returncode, run("JOB=1:2", "x.log", "true").returncode) == (2, 2)
    done = run("--pick", "some", "x.log", "true")
    assert (done.returncode, "must be all, failed or incomplete" in done.stderr) == (2, True)
    done = run("--nice", "7", "x.log", "true")
    assert done.returncode == 2
    assert (
        "--nice 7: this option is not described in the default configuration; add a line such as"
        in done.stderr
    )


# ---- configuration -------------------------------------------------------------------------------


def test_a_configuration_in_kaldis_form(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text(
        "# ours\ncommand sbatch --export=PATH -A lab\noption mem=* --mem-per-cpu $0\n"
        "option mem=0  # nothing\noption gpu=0 -p shared\noption gpu=* -p gpu --gres=gpu:$0\n"
        "default gpu=0\noption max_jobs_run=*\n"
    )
    options = SlurmOptions(str(tmp_path / "slurm.conf"))
    assert options.command == ["sbatch", "--export=PATH", "-A", "lab"]
    given = {"max-jobs-run": "3", "pick": "all", "num-threads": "1", "gpu": "0"}
    assert options.arguments({**given, "mem": "2G"}) == ["-p", "shared", "--mem-per-cpu", "2G"]
    assert options.arguments({**given, "gpu": "2"}) == ["-p", "gpu", "--gres=gpu:2"]
    assert options.arguments({**given, "mem": "0"}) == ["-p", "shared"]
    message = r"--num-threads 4: this option is not described in .*slurm.conf; add a line"
    with pytest.raises(Usage, match=message):
        options.arguments({**given, "num-threads": "4"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("option mem --mem\n", r"slurm.conf:1: expected command …, option NAME=VALUE"),
        ("option mem=* --mem\n", "has no line with a command"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_configuration(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "slurm.conf").write_text(text)
    with pytest.raises(Usage, match=message):
        SlurmOptions(str(tmp_path / "slurm.conf"))


def test_numbers_of_jobs() -> None:
    assert ranges([1, 2, 3, 7, 9, 10]) == "1-3,7,9-10"
    assert ranges([]) == ""


# ---- what sites print beside Slurm's answers -----------------------------------------------------


@pytest.fixture
def wrap(fake: Path, tmp_path: Path) -> Callable[[str, str], None]:
    """Put a site's own script, in which ``real`` is the program, in place of one of Slurm's."""

    def put(name: str, script: str) -> None:
        (tmp_path / "real").mkdir(exist_ok=True)
        (tmp_path / "programs" / name).replace(tmp_path / "real" / name)
        text = f'#!/bin/bash\nreal() {{ "{tmp_path}/real/{name}" "$@"; }}\n{script}\n'
        (tmp_path / "programs" / name).write_text(text)
        (tmp_path / "programs" / name).chmod(0o755)

    return put


SITES = {
    "before": 'echo "Welcome to the Example6 Supercomputer (login2)"; real "$@"',
    "numbers": 'printf "Universit\\xe9 6\\n2026\\n"; real "$@"; echo 77',
    "cluster": 'echo "$(real "$@");alpha"',
    "nothing": 'real "$@" > /dev/null',
    "another": 'real "$@" > /dev/null; echo 4711',
    "fails": 'real "$@" > /dev/null; echo "sbatch: error: Socket timed out" >&2; exit 1',
}


@pytest.mark.parametrize("site", ["numbers", "cluster", "nothing", "another", "fails"])
def test_the_number_of_the_array_whatever_a_site_prints(
    run: Run, fake: Path, wrap: Callable, site: str
) -> None:
    for name in ("3.job", "3.name"):  # another's jobs
        (fake / name).write_text("other")
    (fake / "3_0").write_text("RUNNING None")
    for number in (1, 2):
        (fake / f"{number}.job").write_text("")
    wrap("sbatch", SITES[site])
    done = run("JOB=1:2", "x.JOB.log", "echo", "JOB")
    assert done.returncode == 0, done.stderr
    asked = calls(fake, "squeue")[-1]
    assert " -j 4 " in asked or " -n x.all." in asked
    assert (" -M alpha " in asked) == (site == "cluster")
    assert (fake / "3_0").read_text() == "RUNNING None"
    assert not [line for line in calls(fake, "scancel") if " 3" in line]


@pytest.mark.parametrize("site", ["before", "another"])
def test_ctrl_c_cancels_ours_alone_by_number_and_name(
    start, fake: Path, wrap: Callable, site: str
) -> None:
    wrap("sbatch", SITES[site])
    with start("JOB=1:2", "x.JOB.log", "sleep", "60") as process:
        wait_for(lambda: len(list(fake.glob("*.pid"))) == 2)
        assert process.stderr.readline().startswith("slurm.py: submitted job ")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert {(fake / f"1_{n}").read_text() for n in (1, 2)} == {"CANCELLED None"}
    for line in calls(fake, "scancel"):
        assert line.split()[1] in ("1", "4711", "-M") or line.startswith("scancel --name=")
        assert " --name=x.all." in line


def test_ctrl_c_while_slurm_does_not_answer(start, run: Run, fake: Path) -> None:
    words = ("JOB=1:2", "x.JOB.log", "sleep", "2")
    with start(*words) as process:
        wait_for(lambda: len(list(fake.glob("*.pid"))) == 2)
        (fake / "broken").write_text("slurm_load_jobs error: Unable to contact slurm controller")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, "job 1 may run on: the same command finds it" in err) == (130, True)
    (fake / "broken").unlink()
    done = run(*words)
    assert (done.returncode, "array 1 of this command" in done.stderr) == (0, True)


def test_the_cluster_that_the_configuration_names_is_asked(run: Run, fake: Path) -> None:
    conf = fake.parent / "slurm.conf"
    conf.write_text("command sbatch -M alpha\ndefault gpu=0\noption gpu=0\n")
    done = run("--config", str(conf), "x.log", "true")
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("squeue -M alpha ") for line in calls(fake, "squeue"))
    for words in ("-M a,b", "-Ma,b", "--clusters=a,b", "--clusters a,b", "--cluster=a,b"):
        assert clusters_of(["sbatch", *words.split()]) == ["a", "b"]
    assert clusters_of(["sbatch", "--mem=1G"]) == []


def test_no_number_and_no_such_array_is_refused(run: Run, fake: Path, wrap: Callable) -> None:
    wrap("sbatch", "echo 2026 is a good year")
    done = run("JOB=1:2", "log/x.JOB.log", "true")
    assert done.returncode == 1
    assert "ERROR (slurm.py) sbatch: its output does not tell the number" in done.stderr
    assert not (fake.parent / "here" / "log" / "q" / "x.all.log.json").exists()
    (line,) = calls(fake, "scancel")  # by the name alone, if squeue did not show it
    assert line.startswith("scancel --name=x.all.")


def test_an_array_that_squeue_cannot_show_now_is_found_later(
    run: Run, fake: Path, wrap: Callable
) -> None:
    wrap("sbatch", SITES["nothing"])
    wrap("squeue", f'if [ -e "{fake}/down" ]; then echo "squeue: error: no answer" >&2; exit 1; fi')
    (fake / "down").touch()
    done = run("x.log", "sleep", "1")
    assert done.returncode == 1
    assert "the same command finds it later, and scancel --name=x.all." not in done.stderr
    assert "the same command finds it later, and scancel --name=x." in done.stderr
    assert (fake.parent / "here" / "q" / "x.log.json").exists()
    done = run("x.log", "sleep", "1")
    assert (done.returncode, "ERROR (slurm.py) squeue: error: no answer" in done.stderr) == (
        1,
        True,
    )
    (fake / "down").unlink()
    (fake.parent / "real" / "squeue").replace(fake.parent / "programs" / "squeue")
    done = run("x.log", "sleep", "1")
    assert (done.returncode, "array 1 of this command" in done.stderr) == (0, True)
    assert len(calls(fake, "sbatch")) == 1


def test_squeue_with_a_banner_or_an_error_on_its_output(
    run: Run, fake: Path, wrap: Callable
) -> None:
    failing = f'if [ ! -e "{fake}/once" ]; then touch "{fake}/once"; echo "error: busy"; exit; fi'
    wrap("squeue", f'{failing}\necho "Login 2 OK"; echo "1 NODES down"; real "$@"; echo "2 hints"')
    done = run("JOB=1:2", "x.JOB.log", "echo", "JOB")
    assert (done.returncode, "lost" in done.stderr) == (0, False)


@pytest.mark.parametrize(
    ("state", "ends", "says"),
    [
        ("SPECIAL_EXIT None", True, "JOB 1: held by Slurm (SPECIAL_EXIT)"),
        ("PENDING JobHeldUser", False, "job 1: JOB 1: JobHeldUser; see scontrol show job"),
        ("FLYING None", False, "job 1: JOB 1: FLYING, a state unknown to slurm.py; see"),
    ],
)
def test_no_state_waits_without_a_word(
    start, fake: Path, state: str, ends: bool, says: str
) -> None:
    words = ("JOB=1:2", "x.JOB.log", "while", "test", "!", "-e", "go", ";", "do", "sleep", "0.1")
    with start(*words, ";", "done") as process:
        wait_for(lambda: len(list(fake.glob("*.pid"))) == 2)
        (fake / "1_1").write_text(state)
        asked = len(calls(fake, "squeue"))
        wait_for(lambda: len(calls(fake, "squeue")) > asked + 1)
        (fake.parent / "here" / "go").touch()
        if not ends:
            (fake / "1_1").write_text("COMPLETED None")
        _, err = process.communicate(timeout=30)
    assert process.returncode == int(ends)
    assert says in err


def test_a_job_that_slurm_never_finishes_tidying_up(start, fake: Path) -> None:
    with start("x.log", "sleep", "0.5") as process:
        wait_for(lambda: list(fake.glob("*.pid")))
        (fake / "1_0").write_text("COMPLETING None")
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


# ---- odd names and numbers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "log", "whole"),
    [
        ("a,b JOBS it's", "log,%j/JOB 'x' (1).JOB.log", True),
        ('JOB "q"\\u', "l/x.JOB.log", False),
        ("p%a%j $HOME `x` ü;&", "x=JOB,2.log", True),
    ],
)
def test_odd_characters_in_logs_and_folders(
    environment: dict[str, str], fake: Path, tmp_path: Path, folder: str, log: str, whole: bool
) -> None:
    here = tmp_path / folder
    here.mkdir()
    words = ["JOB=1:2", f"{here}/{log}" if whole else log, "echo", "job", "JOB"]
    done = subprocess.run(
        [sys.executable, str(SLURM), *words], cwd=here, env=environment, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "\njob 2\n" in (here / log.replace("JOB", "2")).read_text()
    (line,) = calls(fake, "sbatch")
    title = re.search(r"--job-name=(.*?) --output=", line)
    assert title is not None
    assert re.fullmatch(r"[\w.+-]+\.\w{12}", title[1])


def test_bytes_that_are_no_text(environment: dict[str, str], fake: Path, tmp_path: Path) -> None:
    words = [sys.executable, str(SLURM), b"x\xff.log", "echo", b"\xfe"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


ODD = ["²", "2**31-1", "9" * 30, "9" * 5000, "-1", "1e3", "0x10", "٣", "nan", "1.5", " 1", "1_000"]


@pytest.mark.parametrize("program", ["run.py", "slurm.py"])
def test_odd_numbers_are_refused_at_once(
    environment: dict[str, str], fake: Path, tmp_path: Path, program: str
) -> None:
    script = (
        "import sys, runpy, io, contextlib\n"
        "main = runpy.run_path(sys.argv[1])['main']\n"
        "for words in map(str.split, sys.stdin.read().split('\\n')):\n"
        "    print(main([w.replace('~', ' ') for w in words]))\n"
    )
    options = ("--num-threads", "--max-jobs-run", "--gpu", "-tc")
    lines = [f"{o} {odd.replace(' ', '~')} x.log true" for o in options for odd in ODD]
    arrays = (
        "1:10**18",
        f"1:{10**18}",
        "1:²",
        "1:" + "9" * 5000,
        "0",
        "2:1",
        "1:",
        "a:b",
        "",
        "1-4",
    )
    arrays = (*arrays, "1:2000000", "-1:4", "1:٣", "٣", "1.5")
    lines += [f"JOB={value} x.JOB.log true" for value in arrays]
    done = subprocess.run(
        [sys.executable, "-c", script, str(SLURM.with_name(program))],
        input="\n".join(lines), cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False, timeout=30,
    )  # fmt: skip
    assert done.stdout.split() == ["2"] * len(lines), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("ERROR") == len(lines)
    assert not list(tmp_path.glob("*.log"))
