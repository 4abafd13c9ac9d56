"""run.py: the conventions of Kaldi's run.pl, failures, and that no process outlives it."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[2] / "utils" / "run.py"
DATE = r"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \S+ \d{4}"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run run.py in tmp_path with words that a calling shell would have passed."""

    def call(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(RUN), *words],
            cwd=tmp_path,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return call


def output(log: Path) -> list[str]:
    """The lines of a log between its head and its end."""
    lines = log.read_text().splitlines()
    return lines[lines.index("#") + 1 : -2]


def test_log_format(run: Run, tmp_path: Path) -> None:
    done = run("JOB=1:2", "log/x.JOB.log", "echo", "job", "JOB")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = (tmp_path / "log" / "x.2.log").read_text()
    assert re.fullmatch(
        rf"# echo job 2\n# Started at {DATE}\n#\njob 2\n"
        r"# Accounting: time=\d+ threads=1\n"
        rf"# Ended \(code 0\) at {DATE}, elapsed time \d+ seconds\n",
        text,
    )


def test_any_name_is_replaced_everywhere(run: Run, tmp_path: Path) -> None:
    assert run("LMWT=9:10", "d/LMWT/s.log", "echo", "xLMWTx", ">", "out.LMWT").returncode == 0
    assert (tmp_path / "out.10").read_text() == "x10x\n"
    assert (tmp_path / "d" / "9" / "s.log").exists()


def test_one_job_of_an_array_and_no_array(run: Run, tmp_path: Path) -> None:
    assert run("JOB=3", "x.JOB.log", "echo", "JOB").returncode == 0
    assert output(tmp_path / "x.3.log") == ["3"]
    assert run("y.log", "echo", "JOB").returncode == 0
    assert output(tmp_path / "y.log") == ["JOB"]


@pytest.mark.parametrize(
    "words",
    [
        ["a b"],
        ["it's"],
        ['say "x y"'],
        ["'both' \"kinds\""],
        ["*"],
        ["a;b"],
        ["(x)"],
        ["#0"],
        ["<blk>"],
        ["</s>"],
        ["a&b"],
        ["{1,2}"],
        ["~"],
        ["", "x"],
        ["a\\b"],
        ["end\\"],
        ["ark:copy x ark:- |"],
        ["ark,t:a[0:3]"],
        ["é ü"],
        ["two\nlines"],
    ],
)
def test_words_stay_words(run: Run, tmp_path: Path, words: list[str]) -> None:
    show = "import sys; print(ascii(sys.argv[1:]))"
    done = run("x.log", sys.executable, "-c", show, *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.log").read_text().splitlines()[-3] == ascii(words)


def test_escaped_shell_signs_act(run: Run, tmp_path: Path) -> None:
    assert run("x.log", "echo", "b", ";", "echo", "a", "|", "cat", "-n").returncode == 0
    assert output(tmp_path / "x.log") == ["b", "     1\ta"]
    assert run("x.log", "true", "&&", "(", "echo", "a", ")", ">out.1", "2>&1").returncode == 0
    assert (tmp_path / "out.1").read_text() == "a\n"
    assert run("x.log", "cat", "<", "out.1", ">>", "out.1b", "2>", "/dev/null").returncode == 0
    assert (tmp_path / "out.1b").read_text() == "a\n"
    assert run("x.log", "false", "||", "echo", "rescued").returncode == 0
    assert output(tmp_path / "x.log") == ["rescued"]


def test_dollar_is_for_the_jobs_shell(run: Run, tmp_path: Path) -> None:
    assert (
        run("JOB=2", "x.JOB.log", "echo", "$[JOB+1]", "-$NAME-", "$NAME y", NAME="n").returncode
        == 0
    )
    assert output(tmp_path / "x.2.log") == ["3 -n- n y"]


@pytest.mark.parametrize(
    "words",
    [["false", "|", "cat"], ["cat", "|", "false"], ["false", ";", "true"], ["no-such-program"]],
)
def test_a_job_fails_if_any_command_does(run: Run, tmp_path: Path, words: list[str]) -> None:
    done = run("x.log", *words)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "run.py: job failed, log is in x.log"
    assert re.search(r"^# Ended \(code [1-9]\d*\) at", (tmp_path / "x.log").read_text(), re.M)


def test_failures_are_counted_and_the_first_log_shown(run: Run) -> None:
    words = ["echo", "reason", "JOB", ";", "test", "JOB", "-eq", "1"]
    done = run("JOB=1:3", "d/x.JOB.log", *words)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "---- end of d/x.2.log:"
    assert "reason 2" in lines
    assert lines[-1] == "run.py: 2 / 3 failed, log is in d/x.*.log"


def test_a_killed_job_fails_with_the_shells_code(run: Run, tmp_path: Path) -> None:
    assert run("x.log", "kill", "-9", "$$").returncode == 1
    assert "# Ended (code 137) at" in (tmp_path / "x.log").read_text()


def test_kaldis_options_before_and_after_and_unknown_ones(run: Run, tmp_path: Path) -> None:
    before = ["--mem", "4G", "--config", "c.conf", "--num-threads", "3", "-tc", "1", "--new=x"]
    after = ["--time", "1:0:0", "--max-jobs-run", "2", "-pe", "smp", "4", "-l", "a=b"]
    assert run(*before, "JOB=1:2", *after, "x.JOB.log", "echo", "--mem", "1").returncode == 0
    assert output(tmp_path / "x.1.log") == ["--mem 1"]
    assert "threads=3\n" in (tmp_path / "x.1.log").read_text()


def test_no_more_jobs_at_a_time_than_said(run: Run, tmp_path: Path) -> None:
    words = ["mkdir", "busy", ";", "sleep", "0.1", ";", "rmdir", "busy"]
    assert run("--max-jobs-run", "1", "JOB=1:4", "x.JOB.log", *words).returncode == 0
    start = time.monotonic()
    assert run("-tc", "4", "JOB=1:4", "y.JOB.log", "sleep", "0.5").returncode == 0
    assert time.monotonic() - start < 1.9


def test_pick(run: Run, tmp_path: Path) -> None:
    words = ["JOB=1:4", "x.JOB.log", "echo", "x", ">>", "out.JOB", ";", "test", "-e", "ok.JOB"]
    for job in (1, 2):
        (tmp_path / f"ok.{job}").touch()
    assert run(*words).returncode == 1
    (tmp_path / "x.2.log").write_text("# echo x\n# Started at some time\n#\n")
    (tmp_path / "ok.3").touch()
    (tmp_path / "ok.4").touch()
    assert run("--pick", "failed", *words).returncode == 0
    assert run("--pick", "incomplete", *words).returncode == 0
    counts = [len((tmp_path / f"out.{job}").read_text().split()) for job in (1, 2, 3, 4)]
    assert counts == [1, 2, 2, 2]
    done = run("--pick", "failed,incomplete", *words)
    assert (done.returncode, done.stderr) == (0, "run.py: there is no job to run\n")
    (tmp_path / "x.1.log").write_text("# Finished at some time with status 7\n")
    assert run("--pick", "failed", *words).returncode == 0
    assert len((tmp_path / "out.1").read_text().split()) == 2


def test_gpus_are_shared_out(run: Run, tmp_path: Path) -> None:
    words = ["JOB=1:3", "x.JOB.log", "echo", "$CUDA_VISIBLE_DEVICES", ";", "sleep", "0.1"]
    assert run("--gpu", "2", *words, CUDA_VISIBLE_DEVICES="4,5,6,7,8").returncode == 0
    seen = [output(tmp_path / f"x.{job}.log")[0] for job in (1, 2, 3)]
    assert set(seen) == {"4,5", "6,7"}
    assert seen[:2] == ["4,5", "6,7"]
    done = run("--gpu", "1", *words, CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, "1 GPUs per job requested, 0 found" in done.stderr) == (0, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected [JOB=1:N] LOG PROGRAM"),
        (["x.log"], "expected [JOB=1:N] LOG PROGRAM"),
        (["JOB=1:2", "x.log", "true"], "x.log: all jobs would write this log; put JOB in its name"),
        (["JOB=0:2", "x.JOB.log", "true"], "JOB=0:2: job numbers must be 1 or more"),
        (["JOB=3:2", "x.JOB.log", "true"], "JOB=3:2: job numbers must be 1 or more"),
        (["--mem"], "--mem needs a value"),
        (
            ["--max-jobs-run", "0", "x.log", "true"],
            "--max-jobs-run must be a whole number, 1 or more",
        ),
        (["-tc", "many", "x.log", "true"], "--max-jobs-run must be a whole number, 1 or more"),
        (["--gpu", "true", "x.log", "true"], "--gpu must be a whole number, 0 or more"),
        (["--num-threads", "x", "x.log", "true"], "--num-threads must be a whole number"),
        (["--pick", "some", "x.log", "true"], "--pick must be all, failed or incomplete, not some"),
    ],
)
def test_wrong_usage(run: Run, tmp_path: Path, words: list[str], message: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_logs_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("file/x.log", "true")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    (tmp_path / "x.2.log").mkdir()
    done = run("JOB=1:2", "x.JOB.log", "sleep", "50")
    assert done.returncode == 1
    assert "x.2.log: Is a directory" in done.stderr
    assert "# Ended (code 143)" in (tmp_path / "x.1.log").read_text()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_a_signal_ends_whole_process_groups(
    tmp_path: Path, signum: signal.Signals, code: int, trap: str
) -> None:
    (tmp_path / "job.sh").write_text(f"{trap}sleep 97 & echo $! > child.$1; sleep 98; sleep 99\n")
    words = ["-tc", "2", "JOB=1:3", "x.JOB.log", "bash", "job.sh", "JOB", "|", "cat"]
    process = subprocess.Popen(
        [sys.executable, str(RUN), *words],
        cwd=tmp_path,
        env={**os.environ, "RUN_GRACE_S": "2"},
        stderr=subprocess.PIPE,
        text=True,
    )
    children = [tmp_path / "child.1", tmp_path / "child.2"]
    wait_for(lambda: all(c.exists() and c.read_text().strip() for c in children))
    pids = [int(child.read_text()) for child in children]
    assert all(map(is_running, pids))
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == code
    assert f"stopped by {signum.name}" in stderr
    wait_for(lambda: not any(map(is_running, pids)))
    assert "# Ended (code 1" in (tmp_path / "x.1.log").read_text()
    assert not (tmp_path / "x.3.log").exists()


def test_jobs_can_be_interrupted_and_read_nothing(run: Run, tmp_path: Path) -> None:
    show = "import signal, sys; print(signal.pthread_sigmask(0, []), sys.stdin.read())"
    assert run("x.log", sys.executable, "-c", show).returncode == 0
    assert output(tmp_path / "x.log") == ["set() "]


def test_it_starts_at_once_and_imports_no_package() -> None:
    best = min(_seconds("--help") for _ in range(5))
    assert best < 0.1
    source = RUN.read_text()
    assert re.findall(r"^(?:import|from) (?:typer|numpy|pipeline)\S*", source, re.M) == [
        "import pipeline.environment",
        "from pipeline.jobs.command_line",
    ]
    jobs = RUN.parents[1] / "pipeline" / "jobs" / "command_line.py"
    packages = re.findall(r"^(?:import|from) (\w+)", jobs.read_text(), re.M)
    assert set(packages) <= set(sys.stdlib_module_names)


def test_what_a_single_job_says_can_be_shown(run: Run) -> None:
    done = run("x.log", "echo", "one", ";", "sleep", "0.5", ";", "echo", "two", SHOW_OUTPUT="true")
    assert (done.returncode, done.stderr.splitlines()) == (0, ["one", "two"])


def test_a_failed_job_can_be_run_by_hand(run: Run, tmp_path: Path) -> None:
    (tmp_path / "path.sh").write_text("word=right\n")
    done = run("JOB=1:2", "x.JOB.log", "test", "$word", "=", "right", "-a", "JOB", "-ne", "2")
    line = next(x for x in done.stderr.splitlines() if "by hand: " in x)
    command = line.partition("by hand: ")[2]
    assert command.startswith(f"cd {tmp_path} && . ./path.sh && test $word = right -a 1 -ne 2")
    again = subprocess.run(["bash", "-c", command], check=False)
    assert again.returncode == 0


def _seconds(*words: str) -> float:
    """Processor seconds, so that a busy machine does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, str(RUN), *words], capture_output=True, check=True)
    assert done.stdout.startswith(b"Run a command")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


@pytest.mark.parametrize("folder", ["JOB", "JOBS", "myJOB/x"])
def test_the_name_of_the_array_in_the_path_of_this_folder_stays(
    tmp_path: Path, folder: str
) -> None:
    here = tmp_path / folder
    here.mkdir(parents=True)
    words = ["JOB=1:2", f"{here}/l.JOB/x.log", "echo", "JOB", f"{here}/out.JOB", ">", "out.JOB"]
    done = subprocess.run([sys.executable, str(RUN), *words], cwd=here, check=False)
    assert done.returncode == 0
    assert (here / "out.2").read_text() == f"2 {here}/out.2\n"
    assert (here / "l.1" / "x.log").exists()
    words = ["JOB=1:2", f"{here}/x.log", "true"]
    done = subprocess.run([sys.executable, str(RUN), *words], cwd=here, check=False)
    assert done.returncode == 2  # all would write one log
