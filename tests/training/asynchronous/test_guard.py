"""torchrun ends all when one process fails, but not when a worker is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.training.asynchronous.guard import main

ROOT = Path(__file__).resolve().parents[3]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4")


@pytest.mark.parametrize(
    ("role", "is_killed", "ends", "status"),
    [
        ("worker", True, 0, 0),
        ("other", True, 0, 137),
        ("worker", False, 3, 3),
        ("other", False, 0, 0),
    ],
)
def test_only_a_killed_worker_counts_as_well(role, is_killed, ends, status, capsys) -> None:
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    pid = os.fork()
    if pid == 0:
        if is_killed:
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(ends)
    try:
        assert main("train_ctc.py", pid, role) == status
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    killed = f"WARNING (train_ctc.py) process {pid} of this training was killed by signal 9\n"
    assert capsys.readouterr().err == (killed if is_killed else "")


def workers(model: Path) -> list[int]:
    """Process ids of the trainings into a directory, the last rank last."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
            environ = (folder / "environ").read_text().split("\0")
        except OSError:
            continue
        if str(model) in words and "torch.distributed.run" not in words:
            rank = next(word for word in environ if word.startswith("RANK="))
            found[rank] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


@pytest.mark.slow
def test_torchrun_goes_on_when_a_worker_is_killed(toy: object, tmp_path: Path) -> None:
    model = tmp_path / "model"
    options = ("--epochs=60", "--patience=0", "--batch-size=1", "--learning-rate=0.01", "--async")
    command = [*TORCHRUN, str(ROOT / "bin" / "train_ctc.py"), *options]
    command += map(str, toy.arguments(model))
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environ["PIPELINE_KERNELS"] = "plain"
    run = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 90.0
        while not (model / "metrics.jsonl").exists():
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)
        found = workers(model)
        assert len(found) == 4
        os.kill(found[-1], signal.SIGKILL)
        said = run.communicate(timeout=90)[1]
    finally:
        run.kill()
    assert run.returncode == 0, said
    assert "worker2 is lost" in said
    assert f"process {found[-1]} of this training was killed by signal 9" in said
    facts = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    assert [line["asynchronous"]["utterances"] for line in facts] == [4] * 60
