"""Features, decoding and scoring as arrays on a real Slurm, and everything that can go wrong."""

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.tables import MatrixReader, MatrixWriter

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).resolve().parents[2]
SLOW = """\
#!/usr/bin/env python3
# decode_ctc.py, with a pause before each utterance, and a note after it.
import os, runpy, time
import pipeline.decoding.recogniser as module
recognise = module.Recogniser.recognise
def slowly(self, utt_id, *rest, **options):
    time.sleep(float(os.environ["PAUSE"]))
    found = recognise(self, utt_id, *rest, **options)
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(utt_id + "\\n")
    return found
module.Recogniser.recognise = slowly
runpy.run_path(os.environ["DECODE"], run_name="__main__")
"""


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small demo corpus with its features and a CTC model; $DEMO_WORK if there is one."""
    if given := os.environ.get("DEMO_WORK"):
        return Path(given)
    work = tmp_path_factory.mktemp("demo")
    recipe, conf = ROOT / "egs/timit/run.sh", ROOT / "egs/timit/conf/smoke.conf"
    command = ["bash", str(recipe), "--config", str(conf), "--work", str(work), "--stop-stage", "4"]
    subprocess.run(command, check=True, capture_output=True)
    return work


def keys(table: Path) -> list[str]:
    """The first words of a file's lines."""
    return [line.split()[0] for line in table.read_text().splitlines()]


class Here:
    """A folder to work in: data/test of 11 utterances, exp/ctc, path.sh, and a slow decoder."""

    def __init__(self, folder: Path, demo: Path, environment: dict[str, str]) -> None:
        self.folder, self.notes = folder, folder / "notes"
        self.processes: list[subprocess.Popen[str]] = []
        shutil.copytree(demo / "exp" / "ctc", folder / "exp" / "ctc", symlinks=True)
        for old in (folder / "exp" / "ctc").glob("decode_*"):
            shutil.rmtree(old)
        (folder / "slow_ctc.py").write_text(SLOW)
        (folder / "slow_ctc.py").chmod(0o755)
        path = f"{folder}:{ROOT}/bin:{ROOT}/utils:{environment['PATH']}"
        self.environment = {**environment, "PATH": path, "PYTHONPATH": str(ROOT)}
        self.pause(0.0)
        ids = keys(demo / "data" / "test" / "utt2spk")[::3]
        (folder / "ids").write_text("\n".join(ids) + "\n")
        self.utt_ids = ids
        self.run("subset_data_dir.py", "--utt-list", "ids", demo / "data" / "test", "data/test")

    def pause(self, seconds: float) -> None:
        """How long each utterance takes from now on."""
        names = {"PAUSE": seconds, "NOTES": self.notes, "DECODE": ROOT / "bin" / "decode_ctc.py"}
        names["PYTHONPATH"] = ROOT
        if cache := os.environ.get("NUMBA_CACHE_DIR"):
            names["NUMBA_CACHE_DIR"] = cache
        self.environment.update({name: str(value) for name, value in names.items()})
        lines = [f"export {name}={value}" for name, value in names.items()]
        (self.folder / "path.sh").write_text("\n".join(lines) + "\n")

    def start(self, *command: object) -> "subprocess.Popen[str]":
        """Start a program of bin/ or utils/ in a session of its own."""
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def end(self) -> None:
        """Leave nothing running."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def run(self, *command: object, status: int = 0) -> str:
        """Run a program; what it said on standard error."""
        process = self.start(*command)
        _, err = process.communicate(timeout=300)
        assert process.returncode == status, err
        return err

    def decode(self, *options: object) -> list[object]:
        """The command that decodes data/test in 4 jobs."""
        where = ("slow_ctc.py", "exp/ctc", "data/test", "decode")
        return ["decode.sh", "--nj", 4, "--cmd", "slurm.py", *options, *where]

    def decoded(self) -> Counter[str]:
        """How often each utterance was decoded to its end."""
        return Counter(self.notes.read_text().split()) if self.notes.exists() else Counter()

    def hypotheses(self) -> list[str]:
        """Whose hypotheses there are."""
        return keys(self.folder / "decode" / "hyp.txt")


@pytest.fixture
def here(tmp_path: Path, demo: Path, cluster) -> Iterator[Here]:
    found = Here(tmp_path, demo, cluster.environment)
    yield found
    found.end()
    cluster.call("scancel", "-u", "root", check=False)
    for node in cluster.nodes:  # Slurm drains one whose job died strangely
        cluster.call("scontrol", "update", f"nodename={node}", "state=resume", check=False)
    cluster.wait_for("idle")


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, demo: Path) -> bytes:
    """hyp.txt by one job on this machine."""
    here = Here(tmp_path_factory.mktemp("reference"), demo, dict(os.environ))
    here.run("decode.sh", "--nj", 1, "slow_ctc.py", "exp/ctc", "data/test", "decode")
    return (here.folder / "decode" / "hyp.txt").read_bytes()


def wait(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Until ``condition``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def running(cluster) -> list[list[str]]:
    """[job, array, task, node] of each task that runs."""
    rows = cluster.tasks("%A", "%F", "%K", "%N", "%T")
    return [row[:4] for row in rows if row[4] == "RUNNING"]


def steps(job: str) -> list[str]:
    """Process numbers of what looks after a job on its node."""
    command = ["pgrep", "-f", f"slurmstepd: \\[{job}.batch\\]"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()


def check(here: Here, reference: bytes, *, again: int = 0) -> None:
    """All hypotheses are right, and at most ``again`` utterances were decoded a second time."""
    counts = here.decoded()
    assert (here.folder / "decode" / "hyp.txt").read_bytes() == reference
    assert set(counts) == set(here.utt_ids)
    assert sum(counts.values()) <= len(here.utt_ids) + again, counts


def test_features_decoding_and_scores_as_arrays(here: Here, demo: Path, reference: bytes) -> None:
    conf = [f"--{name}={ROOT}/egs/timit/conf/{name}.conf" for name in ("fbank", "delta")]
    for name, cmd, jobs in (("slurm", "slurm.py --max-jobs-run 3", 5), ("local", "run.py", 2)):
        shutil.copytree(here.folder / "data" / "test", here.folder / "data" / name)
        (here.folder / "data" / name / "feats.scp").unlink()
        options = ["--conf", conf[0][8:], "--delta-conf", conf[1][8:], "--nj", jobs, "--cmd", cmd]
        here.run("make_feats.sh", *options, f"data/{name}", f"feats/{name}")
    ours, theirs = (
        dict(MatrixReader(f"scp:{here.folder}/data/{n}/feats.scp")) for n in ("slurm", "local")
    )
    assert list(ours) == here.utt_ids == list(theirs)
    assert all(np.array_equal(ours[utt_id], theirs[utt_id]) for utt_id in ours)
    here.run(*here.decode("--nj", 50))
    check(here, reference)
    assert len(list((here.folder / "decode" / "log").glob(".done.*"))) == len(here.utt_ids)
    here.run("decode.sh", "--nj", 1, "slow_ctc.py", "exp/ctc", "data/test", "one")
    phone_map = f"--options=--map={ROOT}/egs/timit/conf/phones.60-48-39.map"
    here.run("score.sh", "--cmd", "slurm.py", phone_map, "data/test", "decode", "data/test", "one")
    for name in ("wer", "alignments", "wer_details/per_spk"):
        texts = [(here.folder / d / "scoring" / name).read_bytes() for d in ("decode", "one")]
        assert texts[0] == texts[1]
    for name in ("nbest", "hyp.ctm"):
        assert (here.folder / "decode" / name).read_bytes() == (
            here.folder / "one" / name
        ).read_bytes()
    err = here.run(*here.decode("--nj", 50))  # all is done
    assert "failed" not in err
    assert sum(here.decoded().values()) == 2 * len(here.utt_ids)


def test_a_task_killed_with_sigkill(here: Here, cluster, reference: bytes) -> None:
    here.pause(1.0)
    process = here.start(*here.decode())
    wait(lambda: len(here.decoded()) >= 2)
    (step,) = steps(running(cluster)[0][0])
    subprocess.run(["pkill", "-KILL", "-P", step], check=True)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "1 / 4 failed, log is in decode/log/decode.*.log" in err
    assert "by hand: cd " in err
    assert not (here.folder / "decode" / "hyp.txt").exists()
    here.pause(0.0)
    here.run(*here.decode())
    check(here, reference, again=1)


def test_a_node_set_down_in_the_middle(here: Here, cluster, reference: bytes) -> None:
    here.pause(1.0)
    process = here.start(*here.decode())
    try:
        wait(lambda: len(here.decoded()) >= 2)
        lost = [row[0] for row in running(cluster) if row[3] == "n1"]
        assert lost
        cluster.call("scontrol", "update", "nodename=n1", "state=down", "reason=test")
        here.pause(0.0)
        for job in lost:  # Slurm waits two minutes before it starts them again
            wait(lambda job=job: [job, "PENDING"] in cluster.tasks("%A", "%T"))
            wait(lambda job=job: not steps(job))
        time.sleep(1.0)
        for job in lost:
            cluster.call("scontrol", "update", f"jobid={job}", "StartTime=now")
        _, err = process.communicate(timeout=180)
    finally:
        cluster.call("scontrol", "update", "nodename=n1", "state=resume", check=False)
    assert process.returncode == 0, err
    check(here, reference, again=len(lost))


def test_a_full_time(here: Here, reference: bytes) -> None:
    here.pause(25.0)
    err = here.run(
        "decode.sh", "--nj", 2, "--cmd", "slurm.py --time 1", *here.decode()[5:], status=1
    )
    assert "TIMEOUT; give more --time; finished utterances are kept" in err
    before = here.decoded()
    assert sum(before.values()) >= 2
    here.pause(0.0)
    here.run("decode.sh", "--nj", 2, "--cmd", "slurm.py --time 10", *here.decode()[5:])
    check(here, reference)


def test_a_failing_utterance(here: Here, reference: bytes) -> None:
    bad = here.utt_ids[5]
    table = dict(MatrixReader(f"scp:{here.folder}/data/test/feats.scp"))
    table[bad] = np.full_like(table[bad], np.nan)
    scp = here.folder / "data" / "test" / "feats.scp"
    with MatrixWriter(f"ark,scp:{here.folder}/bad.ark,{scp}") as writer:
        for utt_id, matrix in table.items():
            writer.write(utt_id, matrix)
    err = here.run(*here.decode(), status=1)
    assert f"{bad}: " in err
    assert "1 / 4 failed" in err
    here.run(*here.decode("--skip-bad", "true"))
    assert here.hypotheses() == [utt_id for utt_id in here.utt_ids if utt_id != bad]
    good = [x for x in reference.splitlines() if x.split()[0].decode() != bad]
    assert (here.folder / "decode" / "hyp.txt").read_bytes().splitlines() == good
    assert set(here.decoded().values()) == {1}


def test_a_submitting_command_killed_and_started_again(
    here: Here, cluster, reference: bytes
) -> None:
    here.pause(1.0)
    process = here.start(*here.decode())
    wait(lambda: len(here.decoded()) >= 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    arrays = {row[1] for row in running(cluster)}
    err = here.run(*here.decode())
    assert f"array {min(arrays)} of this command was already submitted; waiting for it" in err
    check(here, reference)
    assert set(here.decoded().values()) == {1}


def test_another_command_does_not_write_over_a_running_one(here: Here, cluster) -> None:
    first = here.start("slurm.py", "JOB=1:2", "log/x.JOB.log", "sleep", "60")
    wait(lambda: len(running(cluster)) == 2)
    err = here.run("slurm.py", "JOB=1:2", "log/x.JOB.log", "true", status=2)
    assert "of another command still writes to this log; wait for it, or run scancel" in err
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 130
    assert not running(cluster)
    here.run("slurm.py", "JOB=1:2", "log/x.JOB.log", "true")


@pytest.mark.parametrize("how", ["scancel", "ctrl-c"])
def test_an_array_cancelled(here: Here, cluster, reference: bytes, how: str) -> None:
    here.pause(1.0)
    process = here.start(*here.decode())
    wait(lambda: len(here.decoded()) >= 2)
    if how == "scancel":
        cluster.call("scancel", running(cluster)[0][1])
    else:
        os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    if how == "scancel":
        assert process.returncode == 1, err
        assert "CANCELLED; run the same command again" in err
    else:
        assert process.returncode != 0
        assert "stopped by SIGINT; cancelling job" in err
    wait(lambda: not running(cluster))
    here.pause(0.0)
    here.run(*here.decode())
    check(here, reference, again=4)


def test_options_reach_slurm(here: Here, cluster) -> None:
    (here.folder / "conf").mkdir()
    conf = here.folder / "conf" / "slurm.conf"
    conf.write_text("command sbatch --export=PATH\noption time=* --time=$0 --comment=said\n")
    process = here.start(
        "slurm.py", "--time", "7", "-tc", "1", "JOB=3:5", "x.JOB.log", "sleep", "3"
    )
    wait(lambda: running(cluster))
    rows = [row for row in cluster.tasks("%K", "%l", "%k", "%T") if row[2] == "said"]
    assert sorted(row[:2] for row in rows) == [["3", "7:00"], ["4", "7:00"], ["5", "7:00"]]
    assert [row[3] for row in rows].count("RUNNING") == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    err = here.run("slurm.py", "--mem", "1G", "x.log", "true", status=2)
    assert (
        "--mem 1G: this option is not described in conf/slurm.conf; add a line such as 'option"
        in err
    )
    conf.write_text("command sbatch --partition=none\n")
    err = here.run("slurm.py", "x.log", "true", status=1)
    assert "ERROR (slurm.py)" in err
    assert "invalid partition" in err.lower()


@pytest.mark.parametrize("folder", ["a,b JOBS it's", 'p%j "q"\\x'])
def test_odd_folders_and_a_site_that_talks(cluster, tmp_path: Path, folder: str) -> None:
    """A banner of digits around sbatch's answer, and a folder that sbatch would read in its way."""
    (tmp_path / folder).mkdir()
    script = f'#!/bin/sh\necho "5 news"; echo 2026; {shutil.which("sbatch")} "$@"; echo "6 hints"\n'
    (tmp_path / "sbatch").write_text(script)
    (tmp_path / "sbatch").chmod(0o755)
    path = f"{tmp_path}:{ROOT}/utils:{cluster.environment['PATH']}"
    environment = {**cluster.environment, "PATH": path, "PYTHONPATH": str(ROOT)}
    for log in ("log/x.JOB.log", f"{tmp_path}/{folder}/l/x.JOB.log"):
        command = ["slurm.py", "JOB=1:2", log, "echo", "job", "JOB"]
        done = subprocess.run(
            command, cwd=tmp_path / folder, env=environment, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        inside = log.removeprefix(f"{tmp_path}/{folder}/")
        assert "\njob 2\n" in (tmp_path / folder / inside.replace("JOB", "2")).read_text()
