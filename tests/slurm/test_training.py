"""Trainings of several processes on a private Slurm: srun, torchrun, losses, requeues."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.models.model_dir import ModelDir
from pipeline.models.weights import load_state, read_weights

pytestmark = [pytest.mark.slurm]

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = (
    *("--epochs=12", "--patience=0", "--batch-size=3", "--learning-rate=0.01", "--optimizer=adam"),
    *("--weight-noise=0.02", "--input-noise=0.1", "--clip-norm=5", "--save-every=0.01"),
)
LONG = (*OPTIONS, "--epochs=60")
BOTH_NODES = ("srun", "-N2", "-n2", "--ntasks-per-node=1")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


class Job:
    """Programs that train on the toy corpus within the cluster."""

    def __init__(self, cluster: object, toy: object, path: Path) -> None:
        self.toy, self.path = toy, path
        self.steps: list[subprocess.Popen[str]] = []
        self.environment = {
            **cluster.environment,
            "PYTHONPATH": str(ROOT),
            "PIPELINE_KERNELS": "plain",
            "OMP_NUM_THREADS": "1",
        }

    def command(self, name: str, options: tuple[str, ...] = OPTIONS) -> list[str]:
        """The training into the directory of this name."""
        program = str(ROOT / "bin" / "train_ctc.py")
        return [program, *map(str, self.toy.arguments(self.path / name, *options))]

    def run(self, *words: str, seconds: float = 180.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
        step = subprocess.Popen(words, env=self.environment, text=True, **pipes)
        self.steps.append(step)
        return step

    def stop(self) -> None:
        """End what a failed test has left."""
        for step in self.steps:
            if step.poll() is None:
                step.terminate()
                step.communicate(timeout=30)

    def weights(self, name: str) -> bytes:
        return (self.path / name / "final.safetensors").read_bytes()

    def state(self, name: str) -> Path:
        """A file that is there from the second checkpoint on."""
        return self.path / name / "checkpoints" / "previous.pt"


@pytest.fixture
def job(cluster: object, toy: object, tmp_path: Path) -> Iterator[Job]:
    job = Job(cluster, toy, tmp_path)
    yield job
    job.stop()


def wait_until(happened: Callable[[], object], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)


def trainers(variable: str) -> dict[int, int]:
    """Process ids of the trainings that run, by rank: RANK or SLURM_PROCID."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
            environ = (folder / "environ").read_text().split("\0")
        except OSError:
            continue
        program = [word for word in words[1:3] if word != "-u"][:1]
        if "python" in words[0] and program and program[0].endswith("train_ctc.py"):
            ranks = [word for word in environ if word.startswith(f"{variable}=")]
            found |= {int(word.partition("=")[2]): int(folder.name) for word in ranks}
    return found


# ---- srun, torchrun, one process -----------------------------------------------------------------


def test_two_nodes_one_node_and_torchrun_give_the_same_bytes(job: Job) -> None:
    nodes = job.run(*BOTH_NODES, sys.executable, *job.command("nodes"))
    assert nodes.returncode == 0, nodes.stderr
    assert "on cpu, 2 processes" in nodes.stderr
    assert nodes.stderr.count("best epoch") == 1
    one = job.run("srun", "-N1", "-n2", sys.executable, *job.command("one"))
    assert one.returncode == 0, one.stderr
    assert "on cpu, 2 processes" in one.stderr
    assert job.weights("one") == job.weights("nodes")
    rendezvous = ("--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:29611", "--rdzv-id=1")
    torchrun = (*TORCHRUN, "--nnodes=2", "--nproc-per-node=1", *rendezvous)
    both = job.run(*BOTH_NODES, *torchrun, *job.command("torchrun"))
    assert both.returncode == 0, both.stderr
    assert job.weights("torchrun") == job.weights("nodes")


def test_a_batch_script_without_srun_is_one_process(job: Job, execute: Callable) -> None:
    script = job.path / "script"
    words = " ".join(["exec", sys.executable, *job.command("batch")])
    script.write_text(f"#!/bin/sh\necho $SLURM_NTASKS >&2\n{words}\n")
    log = job.path / "log"
    done = job.run("sbatch", "--wait", "-N2", "-n2", f"--output={log}", str(script))
    assert done.returncode == 0, log.read_text()
    assert log.read_text().startswith("2\n")
    assert "processes" not in log.read_text()
    facts = json.loads((job.path / "batch" / "provenance.json").read_text())
    assert facts["processes"] == 1
    nodes = job.run(*BOTH_NODES, sys.executable, *job.command("nodes"))
    assert nodes.returncode == 0, nodes.stderr
    alone, together = (
        read_weights(ModelDir.open(job.path / name).weights_path) for name in ("batch", "nodes")
    )
    for name, tensor in alone.items():
        assert tensor.allclose(together[name], rtol=1e-3, atol=1e-4), name


# ---- losses --------------------------------------------------------------------------------------


def test_a_killed_task_ends_the_step_and_the_same_command_goes_on(job: Job) -> None:
    step = job.start(*BOTH_NODES, sys.executable, *job.command("model", LONG))
    wait_until(job.state("model").exists)
    os.kill(trainers("SLURM_PROCID")[1], signal.SIGKILL)
    began = time.monotonic()
    said = step.communicate(timeout=60)[1]
    assert time.monotonic() - began < 30.0
    assert step.returncode != 0
    assert "rank 0 of 2 on " in said
    assert "lost the connection to another process (" in said
    assert "Traceback" not in said
    again = job.run(*BOTH_NODES, sys.executable, *job.command("model", LONG))
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("continuing after epoch") == 1
    whole = job.run(*BOTH_NODES, sys.executable, *job.command("whole", LONG))
    assert whole.returncode == 0, whole.stderr
    assert job.weights("model") == job.weights("whole")


@pytest.mark.parametrize("victim", [0, 1])
def test_torchrun_restarts_after_a_loss_and_comes_to_the_same_bytes(job: Job, victim: int) -> None:
    rendezvous = (
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint=127.0.0.1:{29621 + victim}",
        "--rdzv-id=2",
    )
    torchrun = (*TORCHRUN, "--nnodes=2", "--nproc-per-node=1", "--max-restarts=2", *rendezvous)
    step = job.start(*BOTH_NODES, *torchrun, *job.command("model", LONG))
    wait_until(job.state("model").exists)
    os.kill(trainers("RANK")[victim], signal.SIGKILL)
    said = step.communicate(timeout=180)[1]
    assert step.returncode == 0, said
    assert "continuing after epoch" in said
    whole = job.run(*BOTH_NODES, sys.executable, *job.command("whole", LONG))
    assert whole.returncode == 0, whole.stderr
    assert job.weights("model") == job.weights("whole")


def test_an_error_is_told_once(job: Job) -> None:
    (job.toy.train / "feats.ark").unlink()
    done = job.run(*BOTH_NODES, sys.executable, *job.command("model"))
    assert done.returncode == 1
    assert done.stderr.count("ERROR (train_ctc.py)") == 1
    assert "feats.ark" in done.stderr


# ---- preemption ----------------------------------------------------------------------------------


def test_a_signal_to_the_step_saves_and_says_how_to_go_on(job: Job, cluster: object) -> None:
    step = job.start(*BOTH_NODES, sys.executable, *job.command("model", LONG))
    wait_until(job.state("model").exists)
    (number,) = cluster.call("squeue", "-h", "-s", "-t", "R", "-o", "%i").split()[-1:]
    cluster.call("scancel", "--signal=TERM", number)
    said = step.communicate(timeout=60)[1]
    assert step.returncode == 143, said
    assert said.count("the same command continues") == 1
    assert load_state(ModelDir.open(job.path / "model").last_path)["progress"]["epoch"] < 60


@pytest.mark.parametrize("by", ["slurm", "itself"])
def test_a_job_that_is_requeued_goes_on(job: Job, cluster: object, by: str) -> None:
    """Preempted; or told that its time is over, as by ``--signal=TERM@120``."""
    script, log = job.path / "script", job.path / "log"
    words = " ".join(["srun", "--kill-on-bad-exit=1", sys.executable, *job.command("model", LONG)])
    again = 'status=$?; [ $status = 143 ] && scontrol requeue "$SLURM_JOB_ID"; exit $status'
    script.write_text(f"#!/bin/sh\n{words}\n{again}\n")
    flags = ("-N2", "-n2", "--requeue", "--open-mode=append", f"--output={log}")
    number = cluster_job(job, *flags, str(script))
    wait_until(job.state("model").exists)
    if by == "slurm":
        cluster.call("scontrol", "requeue", number)
    else:
        cluster.call("scancel", "--signal=TERM", f"{number}.0")
    wait_until(lambda: state_of(cluster, number) == "PENDING")
    time.sleep(2.0)  # while it still ends, Slurm does not take the next line well
    cluster.call("scontrol", "update", f"jobid={number}", "StartTime=now")
    wait_until(lambda: state_of(cluster, number) in ("COMPLETED", "FAILED"), 180.0)
    assert "continuing after epoch" in log.read_text()
    assert state_of(cluster, number) == "COMPLETED", log.read_text()
    whole = job.run(*BOTH_NODES, sys.executable, *job.command("whole", LONG))
    assert whole.returncode == 0, whole.stderr
    assert job.weights("model") == job.weights("whole")


def cluster_job(job: Job, *words: str) -> str:
    done = job.run("sbatch", "--parsable", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def state_of(cluster: object, number: str) -> str:
    return cluster.call("squeue", "-h", "-t", "all", "-j", number, "-o", "%T").strip()


# ---- asynchronous SGD ----------------------------------------------------------------------------

ELEVEN = ("-N2", "-n11", "--overcommit")  # coordinator, 2 shards, 8 workers
ASYNC = (
    *("--async", "--shards=2", "--patience=0", "--batch-size=1", "--optimizer=adam"),
    *("--learning-rate=0.01", "--weight-noise=0.02", "--save-every=0.01"),
)


@pytest.fixture
def big(job: Job, make_toy: Callable[..., object]) -> Job:
    job.toy = make_toy(job.path / "big", utterances=20)
    return job


def counts(job: Job, name: str) -> list[int]:
    """The numbers of utterances trained in the epochs."""
    lines = (job.path / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["asynchronous"]["utterances"] for line in lines]


def test_eight_workers_and_two_shards_go_on_without_a_killed_worker(big: Job) -> None:
    command = big.command("model", (*ASYNC, "--epochs=20"))
    step = big.start("srun", *ELEVEN, "--kill-on-bad-exit=0", sys.executable, *command)
    wait_until((big.path / "model" / "metrics.jsonl").exists, 180.0)
    os.kill(trainers("SLURM_PROCID")[10], signal.SIGKILL)
    said = step.communicate(timeout=170)[1]
    assert "asynchronous: 8 workers, 2 shards" in said
    assert "worker8 is lost" in said
    assert "7 workers go on" in said
    assert "best epoch" in said
    assert counts(big, "model") == [20] * 20
    assert (big.path / "model" / "final.safetensors").exists()


def test_a_requeued_job_goes_on_from_the_last_whole_set(big: Job, cluster: object) -> None:
    script, log = big.path / "script", big.path / "log"
    command = big.command("model", (*ASYNC, "--epochs=40"))
    words = " ".join(["srun", *ELEVEN, "--kill-on-bad-exit=0", sys.executable, *command])
    script.write_text(f"#!/bin/sh\n{words}\n")
    flags = ("-N2", "-n2", "--requeue", "--open-mode=append", f"--output={log}")
    number = cluster_job(big, *flags, str(script))
    wait_until((big.path / "model" / "metrics.jsonl").exists, 180.0)
    cluster.call("scontrol", "requeue", number)
    wait_until(lambda: state_of(cluster, number) == "PENDING")
    time.sleep(2.0)  # while it still ends, Slurm does not take the next line well
    cluster.call("scontrol", "update", f"jobid={number}", "StartTime=now")
    wait_until(lambda: state_of(cluster, number) in ("COMPLETED", "FAILED"), 180.0)
    assert "continuing after epoch" in log.read_text()
    assert state_of(cluster, number) == "COMPLETED", log.read_text()
    assert counts(big, "model") == [20] * 40
