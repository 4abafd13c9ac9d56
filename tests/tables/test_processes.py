"""Pipes, standard streams, kills, full disks and memory, in processes of their own."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import TableError
from pipeline.tables import (
    MatrixReader,
    MatrixWriter,
    RandomAccessReader,
    TextReader,
    TextWriter,
    open_input,
    read_matrix,
)

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def start(code: str, *arguments: object, **streams: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, **streams)  # type: ignore[call-overload]


@pytest.fixture
def ark(tmp_path: Path) -> Path:
    """An archive larger than a pipe's buffer: 50 matrices of 80 kB."""
    path = tmp_path / "a.ark"
    with MatrixWriter(f"ark:{path}") as writer:
        for number in range(50):
            writer.write(f"u{number:02}", np.full((200, 100), number, dtype=np.float32))
    return path


# ---- pipes to read from ------------------------------------------------------------------------


def test_a_good_pipe(ark: Path) -> None:
    assert len(list(MatrixReader(f"ark:cat {ark} |"))) == 50
    assert len(list(MatrixReader(f"ark:gzip -c {ark} | gunzip -c |"))) == 50


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("exit 3", "failed with status 3"),
        ("false", "failed with status 1"),
        ("cat {ark}; exit 4", "failed with status 4"),
        ("cat {ark}.gone | cat", "failed with status 1"),
        ("head -c 1000 {ark}; exit 5", "failed with status 5 (then: "),
        ("cat {ark}; kill -9 $$", "was killed by signal 9"),
        ("no-such-program {ark}", "failed with status 127"),
    ],
)
def test_a_failing_pipe_is_an_error(command: str, why: str, ark: Path) -> None:
    with pytest.raises(TableError) as error:
        list(MatrixReader(f"ark:{command.format(ark=ark)} |"))
    assert why in str(error.value)
    assert command.format(ark=ark) in str(error.value)


def test_a_failing_pipe_under_p_is_counted(ark: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = MatrixReader(f"ark,p:cat {ark}; exit 4 |")
    assert len(list(reader)) == 50
    assert reader.skipped == 1
    assert "failed with status 4" in caplog.text


def test_a_failing_pipe_of_an_scp(ark: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="failed with status 1"):
        list(MatrixReader(f"scp:cat {tmp_path}/none.scp |"))
    scp = tmp_path / "b.scp"
    scp.write_text(f"u1 tail -c +5 {ark}; exit 6 |\nu2 tail -c +5 {ark} |\n")
    reader = MatrixReader(f"scp,p:{scp}", allow_pipes=True)
    assert [key for key, _ in reader] == ["u2"]
    with pytest.raises(TableError, match=r'b\.scp:1: key "u1": .*failed with status 6'):
        list(MatrixReader(f"scp:{scp}", allow_pipes=True))


def test_stopping_early_is_no_failure(ark: Path) -> None:
    for _, value in MatrixReader(f"ark:cat {ark} |"):
        assert value.shape == (200, 100)
        break
    assert read_matrix(f"tail -c +5 {ark} |").shape == (200, 100)
    with RandomAccessReader(f"ark:cat {ark} |") as reader:
        assert "u01" in reader
    with open_input(f"cat {ark} {ark} {ark} |") as stream:
        assert stream.read(3) == b"u00"


def test_an_inner_head_is_no_failure(ark: Path) -> None:
    path = f"{ark}.txt"
    Path(path).write_text("".join(f"u{n} x\n" for n in range(100_000)))
    assert len(list(TextReader(f"ark:cat {path} | head -n 3 |"))) == 3


def fail_while_reading(command: str) -> None:
    with open_input(command) as stream:
        assert stream.readline() == b"a\n"
        raise TableError("stop")


def test_a_failure_ends_an_endless_command() -> None:
    begun = time.monotonic()
    with pytest.raises(TableError, match="stop"):
        fail_while_reading("echo a; exec sleep 60 |")
    assert time.monotonic() - begun < 30


# ---- pipes to write to -------------------------------------------------------------------------


def write_much(wspecifier: str) -> None:
    with MatrixWriter(wspecifier) as writer:
        for number in range(50):
            writer.write(f"u{number}", np.ones((200, 100)))


def test_a_good_writer_pipe(ark: Path, tmp_path: Path) -> None:
    with TextWriter(f"ark:| sort -r > {tmp_path}/out") as writer:
        for key in "abc":
            writer.write(key, "x")
    assert (tmp_path / "out").read_text() == "c x\nb x\na x\n"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("| cat > /dev/null; exit 3", "| cat > /dev/null; exit 3 failed with status 3; run it"),
        ("| exit 4", "failed with status 4"),
        ("| false | cat", "failed with status 1"),
        ("| head -c 10 > /dev/null; exit 5", "failed with status 5"),
    ],
)
def test_a_failing_writer_pipe_is_an_error(command: str, why: str) -> None:
    with pytest.raises(TableError) as error:
        write_much(f"ark:{command}")
    assert why in str(error.value)


def test_a_writer_pipe_that_wants_no_more() -> None:
    with pytest.raises(BrokenPipeError):
        write_much("ark:| head -c 10 > /dev/null")


def test_an_exception_does_not_end_the_pipe_as_if_whole(tmp_path: Path) -> None:
    done = tmp_path / "done"
    with pytest.raises(ZeroDivisionError), TextWriter(f"ark:| cat && touch {done}") as writer:
        writer.write("a", str(1 // 0))
    assert not done.exists()


def test_the_list_of_an_archive_may_go_to_a_pipe(tmp_path: Path) -> None:
    ark, out = tmp_path / "m.ark", tmp_path / "out"
    with pytest.raises(ZeroDivisionError), TextWriter(f"ark,scp:{ark},| cat") as writer:
        writer.write("a", str(1 // 0))
    assert not ark.exists()
    with TextWriter(f"ark,scp:{ark},| sort -r > {out} && ls {ark} > {out}.ls") as writer:
        writer.write("a", "x")
        writer.write("b", "y")
    assert out.read_text() == f"b {ark}:6\na {ark}:2\n"


# ---- standard streams --------------------------------------------------------------------------

COPY = """
import sys
from pipeline.tables import MatrixReader, MatrixWriter
with MatrixWriter(sys.argv[2]) as writer:
    for key, value in MatrixReader(sys.argv[1]):
        writer.write(key, value)
"""

GENERATE = """
import sys
import numpy as np
from pipeline.tables import MatrixWriter
with MatrixWriter(sys.argv[1]) as writer:
    for number in range(int(sys.argv[2])):
        writer.write(f"u{number:06}", np.full((1000, 250), number, dtype=np.float32))
        print(number, file=sys.stderr, flush=True)
"""

MEMORY = """
import resource, sys
from pipeline.tables import MatrixReader, ShapeReader
reader = ShapeReader("ark:-") if sys.argv[1] == "shape" else MatrixReader("ark:-")
peak, count = [], 0
for key, value in reader:
    count += 1
    peak.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(count, peak[-1] - peak[2])
"""


def test_standard_streams(ark: Path) -> None:
    data = ark.read_bytes()
    first = start(COPY, f"ark:{ark}", "ark:-", stdout=subprocess.PIPE)
    second = start(COPY, "ark:-", "ark,f:-", stdin=first.stdout, stdout=subprocess.PIPE)
    assert first.stdout is not None
    first.stdout.close()
    assert second.communicate()[0] == data
    assert first.wait() == 0
    with ark.open("rb") as stdin:  # a file as standard input
        third = start(COPY, "ark:-", "ark:-", stdin=stdin.fileno(), stdout=subprocess.PIPE)
        assert third.communicate()[0] == data


@pytest.mark.parametrize("reader", ["matrix", "shape"])
def test_reading_takes_constant_memory(reader: str) -> None:
    source = start(
        GENERATE, "ark:-", 300, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )  # 300 MB
    sink = start(MEMORY, reader, stdin=source.stdout, stdout=subprocess.PIPE)
    assert source.stdout is not None
    source.stdout.close()
    count, growth = sink.communicate()[0].split()
    assert source.wait() == sink.returncode == 0
    assert int(count) == 300
    assert int(growth) < 60_000  # kB


# ---- kills and full disks ----------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_writer_leaves_no_final_file(number: signal.Signals, tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, lambda *a: exit(143))\n" + GENERATE
    wspecifier = f"ark,scp:{tmp_path}/m.ark,{tmp_path}/m.scp"
    writer = start(code, wspecifier, 1_000_000, stderr=subprocess.PIPE)
    assert writer.stderr is not None
    for _ in range(5):
        assert writer.stderr.readline()
    writer.send_signal(number)
    writer.stderr.close()
    assert writer.wait() != 0
    left = {path.name for path in tmp_path.iterdir()}
    if number == signal.SIGKILL:
        host = os.uname().nodename
        names = {f".m.{kind}.tmp.{host}.{writer.pid}" for kind in ("ark", "scp")}
        assert {name.rpartition(".")[0] for name in left} == names
    else:
        assert left == set()


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10**7, 10**7))\n"
    writer = start(limit + GENERATE, f"ark:{tmp_path}/m.ark", 100, stderr=subprocess.PIPE)
    errors = writer.communicate()[1].decode()
    assert writer.returncode == 1
    assert f"OSError: [Errno 27] File too large: '{tmp_path}/m.ark'" in errors
    assert list(tmp_path.iterdir()) == []


def test_a_stale_temporary_file_is_no_hindrance(tmp_path: Path) -> None:
    stale = tmp_path / f".t.tmp.{os.uname().nodename}.{os.getpid()}"
    stale.write_text("old " * 100)
    with TextWriter(f"ark:{tmp_path}/t") as writer:
        writer.write("a", "x")
    assert (tmp_path / "t").read_text() == "a x\n"
    assert not stale.exists()


def test_what_is_no_regular_file_is_written_in_place(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = subprocess.Popen(["cat", str(fifo)], stdout=subprocess.PIPE)
    with TextWriter(f"ark:{fifo}") as writer:
        writer.write("a", "x")
    assert reader.communicate()[0] == b"a x\n"
    with TextWriter("ark:/dev/null") as writer:
        writer.write("a", "x")
    assert not Path("/dev/null").is_file()


def test_no_descriptors_are_left_open(ark: Path, tmp_path: Path) -> None:
    with MatrixWriter(f"ark,scp:{tmp_path}/m.ark,{tmp_path}/m.scp") as writer:
        for key, value in MatrixReader(f"ark:cat {ark} |"):
            writer.write(key, value[:1])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert len(list(MatrixReader(f"scp:{tmp_path}/m.scp"))) == 50
        for _ in MatrixReader(f"ark:cat {ark} |"):
            break
    assert len(os.listdir("/proc/self/fd")) == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > before
