"""once.py: a step is run if, and only if, something that decides its result has changed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ONCE = Path(__file__).resolve().parents[2] / "utils" / "once.py"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def once(tmp_path) -> Run:
    """Run once.py in ``tmp_path``."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ONCE), *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def step(once, tmp_path) -> Run:
    """A step that copies ``in`` to ``out`` and counts in ``count`` how often it ran."""
    (tmp_path / "in").write_text("1\n")
    (tmp_path / "copy.sh").write_text("echo ran >> count\ncp in out\n")

    def run(*more: str, command: str = "copy.sh") -> subprocess.CompletedProcess[str]:
        return once("--inputs", "in", "--outputs", "out", "done/copy", "bash", command, *more)

    return run


def runs(folder: Path) -> int:
    return (folder / "count").read_text().count("ran") if (folder / "count").exists() else 0


def test_what_is_done_is_skipped_and_said(step, tmp_path):
    assert step().returncode == 0
    again = step()
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr == "LOG (once.py) already done: copy\n"
    assert runs(tmp_path) == 1


def test_the_stamp_says_what_was_run(step, tmp_path):
    step()
    stamp = json.loads((tmp_path / "done" / "copy").read_text())
    assert stamp["command"] == ["bash", "copy.sh"]
    assert stamp["inputs"].keys() == {"in"}
    assert stamp["outputs"].keys() == {"out"}


def test_a_changed_input_runs_it_again(step, tmp_path):
    step()
    (tmp_path / "in").write_text("2\n")
    step()
    assert (tmp_path / "out").read_text() == "2\n"
    assert runs(tmp_path) == 2


def test_times_alone_change_nothing(step, tmp_path):
    step()
    os.utime(tmp_path / "in", (1, 1))
    os.utime(tmp_path / "out", (1, 1))
    step()
    assert runs(tmp_path) == 1


def test_a_changed_command_runs_it_again(step, tmp_path):
    step()
    step("--beam=3")
    step("--beam=3")
    assert runs(tmp_path) == 2


@pytest.mark.parametrize("damage", ["lost", "cut", "replaced by a directory"])
def test_a_damaged_output_runs_it_again(step, tmp_path, damage):
    step()
    out = tmp_path / "out"
    if damage == "cut":
        out.write_text("")
    else:
        out.unlink()
    if damage.startswith("replaced"):
        out.mkdir()
        (tmp_path / "copy.sh").write_text("echo ran >> count; rm -r out; cp in out\n")
    assert step().returncode == 0
    assert out.read_text() == "1\n"
    assert runs(tmp_path) == 2


@pytest.mark.parametrize(
    "options",
    [["--nj=7"], ["--nj", "7"], ["--cmd=slurm.py"], ["--device", "cuda"], ["--threads=4"]],
)
def test_options_that_change_no_result_do_not_count(step, tmp_path, options):
    step("--nj=2", "--x=1")
    step(*options, "--x=1")
    assert runs(tmp_path) == 1
    step(*options, "--x=2")
    assert runs(tmp_path) == 2


def test_what_runs_the_command_does_not_count(once, step, tmp_path):
    (tmp_path / "via.sh").write_text('echo "$1" >> via; shift; exec "$@"\n')
    step()
    again = once(
        *("--inputs", "in", "--outputs", "out", "--via", "bash via.sh 'a b'"),
        *("done/copy", "bash", "copy.sh"),
    )
    assert (again.returncode, runs(tmp_path)) == (0, 1)
    (tmp_path / "in").write_text("2\n")
    again = once(
        *("--inputs=in", "--outputs=out", "--via=bash via.sh 'a b'"),
        *("done/copy", "bash", "copy.sh"),
    )
    assert (again.returncode, runs(tmp_path)) == (0, 2)
    assert (tmp_path / "via").read_text() == "a b\n"


def test_an_scp_stands_for_the_files_it_names(once, tmp_path):
    (tmp_path / "a.ark").write_text("1")
    (tmp_path / "x.scp").write_text("u1 a.ark:5\nu2 a.ark:9[0:3]\nu3 cat a.ark |\n")
    run = lambda: once("--inputs=scp:x.scp", "stamp", "bash", "-c", "echo ran >> count")  # noqa: E731
    run()
    run()
    assert runs(tmp_path) == 1
    (tmp_path / "a.ark").write_text("12")
    run()
    assert runs(tmp_path) == 2
    (tmp_path / "x.scp").write_text("u1 a.ark:5\n")
    run()
    assert runs(tmp_path) == 3
    (tmp_path / "x.scp").unlink()
    done = run()
    assert (done.returncode, "scp:x.scp: missing" in done.stderr) == (1, True)


def test_a_directory_stands_for_the_files_in_it(once, tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "a").write_text("1")
    run = lambda: once("--inputs=conf", "stamp", "bash", "-c", "echo ran >> count")  # noqa: E731
    run()
    (tmp_path / "conf" / ".hidden").write_text("x")
    run()
    assert runs(tmp_path) == 1
    (tmp_path / "conf" / "b").write_text("")
    run()
    assert runs(tmp_path) == 2
    (tmp_path / "conf" / "b").rename(tmp_path / "conf" / "c")
    run()
    assert runs(tmp_path) == 3


def test_a_large_file_is_known_by_size_and_time(once, tmp_path):
    (tmp_path / "in").write_bytes(bytes(5 << 20))
    run = lambda: once("--inputs", "in", "stamp", "bash", "-c", "echo ran >> count")  # noqa: E731
    run()
    run()
    assert runs(tmp_path) == 1
    os.utime(tmp_path / "in", (1, 1))
    run()
    assert runs(tmp_path) == 2


def test_a_failing_command_leaves_no_stamp_and_gives_its_status(step, tmp_path):
    step()
    (tmp_path / "in").write_text("2\n")
    (tmp_path / "copy.sh").write_text("echo ran >> count; exit 7\n")
    assert step().returncode == 7
    assert not (tmp_path / "done" / "copy").exists()
    (tmp_path / "in").write_text("1\n")  # as it was when the step was done
    assert step().returncode == 7
    assert runs(tmp_path) == 3


def test_a_command_that_leaves_out_an_output(once, tmp_path):
    done = once("--outputs", "x,y", "stamp", "touch", "y")
    assert done.returncode == 1
    assert "ERROR (once.py) touch did not make x" in done.stderr
    assert not (tmp_path / "stamp").exists()


def test_an_input_that_is_missing(once, tmp_path):
    done = once("--inputs", "a/b,c", "stamp", "touch", "ran")
    assert done.returncode == 1
    assert "ERROR (once.py) a/b, c: missing; run the earlier stages" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_damaged_stamp_is_no_stamp(step, tmp_path):
    step()
    (tmp_path / "done" / "copy").write_bytes(b"\xff{")
    assert step().returncode == 0
    assert runs(tmp_path) == 2


def test_no_command(once, tmp_path):
    done = once("stamp", "no-such-command")
    assert (done.returncode, done.stderr) == (127, "ERROR (once.py) no-such-command: not found\n")
    (tmp_path / "file").write_text("")
    done = once("stamp", "./file")
    assert (done.returncode, done.stderr) == (126, "ERROR (once.py) ./file: Permission denied\n")


def test_a_stamp_that_cannot_be_written(once, tmp_path):
    (tmp_path / "stamp").mkdir()
    done = once("stamp", "true")
    assert done.returncode != 0
    assert "ERROR (once.py)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["stamp"], ["--inputs"], ["--nonsense", "a", "b"]])
def test_wrong_usage(once, arguments):
    done = once(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: once.py")


def test_help(once):
    done = once("--help")
    assert done.returncode == 0
    assert "e.g.: once.py" in done.stdout


def test_output_of_the_command_comes_through(once):
    done = once("stamp", "bash", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


# ---- signals -------------------------------------------------------------------------------------


PATIENT = """
trap 'sleep 0.6; echo cleaned > cleaned; exit {status}' INT TERM
touch started
while true; do sleep 0.05; done
"""


@pytest.fixture
def patient(tmp_path) -> Callable[[int], subprocess.Popen[bytes]]:
    """A step that takes its time to clean up, in a process group of its own."""

    def start(status: int) -> subprocess.Popen[bytes]:
        (tmp_path / "patient.sh").write_text(PATIENT.format(status=status))
        command = [sys.executable, str(ONCE), "stamp", "bash", "patient.sh"]
        process = subprocess.Popen(
            command, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True
        )
        end = time.monotonic() + 20
        while not (tmp_path / "started").exists() and time.monotonic() < end:
            time.sleep(0.01)
        return process

    return start


def test_ctrl_c_waits_for_the_command_to_clean_up(patient, tmp_path):
    process = patient(130)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does
    assert process.wait(20) == 130
    assert (tmp_path / "cleaned").exists()
    assert not (tmp_path / "stamp").exists()


def test_termination_is_passed_on(patient, tmp_path):
    process = patient(143)
    process.terminate()
    assert process.wait(20) == 143
    assert (tmp_path / "cleaned").exists()
    assert not (tmp_path / "stamp").exists()


def test_a_command_that_was_killed(once, tmp_path):
    assert once("stamp", "bash", "-c", "kill -KILL $$").returncode == 137
    assert not (tmp_path / "stamp").exists()


# ---- files that kept their size and time ---------------------------------------------------------

LARGE = 5 << 20


def put_back(path: Path, way: str, place: int) -> None:
    """Change one byte of a large file, which keeps its size and time."""
    facts, data = path.stat(), bytearray(path.read_bytes())
    data[place] ^= 1
    if way == "in place":
        with path.open("r+b") as stream:
            stream.seek(place)
            stream.write(data[place : place + 1])
    else:
        other = path.with_name("other")
        other.write_bytes(data)
        if way == "renamed":
            other.replace(path)
        else:
            subprocess.run(["cp", str(other), str(path)], check=True)
            other.unlink()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


KINDS = {"file": "in", "folder": "data", "folder below": "data", "scp": "scp:x.scp"}


@pytest.fixture
def large(tmp_path) -> Callable[[str], Path]:
    """Make a large input of a kind; where its bytes are."""

    def make(kind: str) -> Path:
        path = tmp_path / {"folder": "data/in", "folder below": "data/sub/in"}.get(kind, "in")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1 << 10) * (LARGE >> 10))
        (tmp_path / "x.scp").write_text("u1 in:5\n")
        return path

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["in place", "renamed", "copied"])
def test_another_content_of_the_same_size_and_time_runs_it_again(once, tmp_path, large, kind, way):
    path = large(kind)
    run = lambda: once(f"--inputs={KINDS[kind]}", "stamp", "bash", "-c", "echo ran >> count")  # noqa: E731
    run()
    run()
    assert runs(tmp_path) == 1
    put_back(path, way, LARGE // 3)
    run()
    assert runs(tmp_path) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_of_the_same_content_changes_nothing(once, tmp_path, large, kind):
    """A restored backup has another number and time of change on disk, but the same bytes."""
    path = large(kind)
    run = lambda: once(f"--inputs={KINDS[kind]}", "stamp", "bash", "-c", "echo ran >> count")  # noqa: E731
    run()
    subprocess.run(["cp", "-p", str(path), str(tmp_path / "backup")], check=True)
    (tmp_path / "backup").replace(path)
    path.chmod(0o600)
    run()
    assert runs(tmp_path) == 1


def test_all_content_is_compared_if_that_is_asked_for(once, tmp_path, large):
    path = large("file")
    run = lambda: once("--digest", "--inputs=in", "stamp", "bash", "-c", "echo ran >> count")  # noqa: E731
    run()
    os.utime(path, (1, 1))
    run()
    assert runs(tmp_path) == 1
    put_back(path, "in place", 0)
    run()
    assert runs(tmp_path) == 2


def test_a_stamp_of_an_older_version_is_believed(once, tmp_path, large):
    large("file")
    run = lambda: once("--inputs=in", "stamp", "bash", "-c", "echo ran >> count")  # noqa: E731
    run()
    stamp = json.loads((tmp_path / "stamp").read_text())
    del stamp["marks"]
    (tmp_path / "stamp").write_text(json.dumps(stamp))
    run()
    assert runs(tmp_path) == 1


@pytest.mark.parametrize("value", [None, 3, "x", [], {"in": 3}, {"in": {"content": "x"}}])
def test_a_stamp_with_other_fields_is_no_reason_to_fail(once, tmp_path, large, value):
    large("file")
    run = lambda: once("--inputs=in", "stamp", "bash", "-c", "echo ran >> count")  # noqa: E731
    run()
    stamp = json.loads((tmp_path / "stamp").read_text())
    (tmp_path / "stamp").write_text(json.dumps({**stamp, "marks": value}))
    assert run().returncode == 0


# ---- several at once -----------------------------------------------------------------------------


def test_of_two_at_once_the_second_waits_and_finds_it_done(tmp_path):
    command = [sys.executable, str(ONCE), "--outputs=out", "stamp", "bash", "-c"]
    command += ["echo ran >> count; sleep 0.5; echo 1 > out"]
    both = [
        subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in "ab"
    ]
    said = "".join(process.communicate()[1] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert "already done: stamp" in said
    assert "another process does this step; waiting" in said
    assert runs(tmp_path) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["count", "out", "stamp"]


def test_if_only_it_is_killed_the_next_waits_for_the_command(once, tmp_path):
    (tmp_path / "slow.sh").write_text("echo ran >> count; sleep 1; echo $PPID > out\n")
    command = [sys.executable, str(ONCE), "--outputs=out", "stamp", "bash", "slow.sh"]
    process = subprocess.Popen(command, cwd=tmp_path)
    while not (tmp_path / "count").exists():
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = once("--outputs=out", "stamp", "bash", "slow.sh")
    assert (done.returncode, runs(tmp_path)) == (0, 2)
    assert "waiting" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["count", "out", "slow.sh", "stamp"]
