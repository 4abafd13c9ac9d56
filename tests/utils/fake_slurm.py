#!/usr/bin/env python3
"""Stand-ins for sbatch, squeue and scancel, as far as needed here; tasks are local processes.

$FAKE is a folder: JOB_TASK holds a task's state and reason, JOB_TASK.pid its process; ``calls`` is
what was called, ``broken`` what every call fails with.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

FAKE = Path(os.environ["FAKE"])


def tasks(job):
    return sorted(p for p in FAKE.glob(f"{job}_*") if p.suffix == "")


def put(place, text):
    """Write whole: another process may read at any time."""
    temporary = place.with_suffix(f".{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(place)


def sbatch(words):
    job = str(len(list(FAKE.glob("*.job"))) + 1)
    (FAKE / f"{job}.job").write_text("")
    options = dict(w[2:].partition("=")[::2] for w in words if w.startswith("--"))
    (FAKE / f"{job}.name").write_text(options.get("job-name", ""))
    numbers = [None]
    if "array" in options:
        numbers = []
        for part in options["array"].partition("%")[0].split(","):
            first, _, last = part.partition("-")
            numbers += range(int(first), int(last or first) + 1)
    print(job)
    sys.stdout.flush()
    for number in numbers:
        task = FAKE / f"{job}_{number or 0}"
        put(task, "RUNNING None")
        environment = {**os.environ, "SLURM_JOB_ID": job, "SLURMD_NODENAME": "n1"}
        if number is not None:
            environment["SLURM_ARRAY_TASK_ID"] = str(number)
        command = [sys.executable, __file__, "task", str(task), words[-1]]
        subprocess.Popen(
            command, env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def task(words):
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # sbatch is called with signals blocked
    place = Path(words[0])
    child = subprocess.Popen(["bash", words[1]], start_new_session=True)
    put(Path(f"{place}.pid"), str(child.pid))
    code = child.wait()
    if place.read_text().startswith("RUNNING"):
        put(place, "COMPLETED None" if code == 0 else "FAILED NonZeroExitCode")


def squeue(words):
    if "-n" in words:
        names = [p for p in FAKE.glob("*.name") if p.read_text() == words[words.index("-n") + 1]]
        print("\n".join(p.stem for p in names))
        return
    job = words[words.index("-j") + 1]
    if not (FAKE / f"{job}.job").exists():
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    for place in tasks(job):
        print(place.name.partition("_")[2].replace("0", "N/A", 1), place.read_text())


def scancel(words):
    job, _, number = words[0].partition("_")
    for place in tasks(job) if not number else [FAKE / words[0]]:
        if not place.read_text().startswith(("RUNNING", "PENDING")):
            continue
        put(place, "CANCELLED None")
        while not Path(f"{place}.pid").exists():
            time.sleep(0.01)
        os.killpg(int(Path(f"{place}.pid").read_text()), signal.SIGTERM)


name = Path(sys.argv[0]).name
if name.endswith(".py"):
    task(sys.argv[2:])
else:
    with open(FAKE / "calls", "a", errors="surrogateescape") as calls:
        print(name, *sys.argv[1:], file=calls)
    if (FAKE / "broken").exists():
        sys.exit((FAKE / "broken").read_text())
    {"sbatch": sbatch, "squeue": squeue, "scancel": scancel}[name](sys.argv[1:])
