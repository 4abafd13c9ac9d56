"""A private Slurm on this host: munged, slurmctld and several slurmd, without systemd.

Debian's packages slurmctld, slurmd, slurm-client and munge are enough; it needs root.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
CONFIG = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/sock
SlurmctldPort={port}
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=15
SlurmctldTimeout=15
InactiveLimit=0
KillWait=3
MinJobAge=3600
JobRequeue=1
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
SrunPortRange={low}-{high}
"""


def missing() -> str:
    """Why there can be no cluster here; empty if there can."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    absent = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if absent:
        return f"no {', '.join(absent)} (apt install slurmctld slurmd slurm-client munge)"
    return "" if os.geteuid() == 0 else "starting a private Slurm needs root"


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    for first in range(27000, 60000, 500):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise OSError("no free ports")


class Cluster:
    """Nodes n1 … nN of a partition ``main``; ``environment`` is for programs that use it."""

    def __init__(self, folder: Path, *, nodes: int = 2, cpus: int = 2) -> None:
        self.folder, self.nodes = folder, [f"n{n + 1}" for n in range(nodes)]
        self.host = socket.gethostname().partition(".")[0]
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
        }
        for name in ("run", "log", "state", "spool", "munge"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for parent in [folder, *folder.parents]:
            if parent.stat().st_mode & 0o1 == 0:
                parent.chmod(parent.stat().st_mode | 0o11)  # the user munge passes through
        port = free_ports(10)
        text = CONFIG.format(
            host=self.host, folder=folder, port=port, low=port + 200, high=port + 400
        )
        for number, node in enumerate(self.nodes, start=1):
            text += f"NodeName={node} NodeHostname={self.host} NodeAddr=127.0.0.1 "
            text += f"Port={port + number} CPUs={cpus} RealMemory=4000 State=UNKNOWN\n"
            (folder / "spool" / node).mkdir(exist_ok=True)
        text += f"PartitionName=main Nodes={','.join(self.nodes)} Default=YES State=UP\n"
        (folder / "slurm.conf").write_text(text)

    def start(self) -> None:
        """Start the daemons and wait until all nodes are idle."""
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o400)
        shutil.chown(munge, "munge", "munge")
        shutil.chown(munge / "key", "munge", "munge")
        files = [f"--{name}-file={munge}/{name}" for name in ("key", "pid", "log", "seed")]
        user = ["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups"]
        self.call(*user, "/usr/sbin/munged", "--force", f"--socket={munge}/sock", *files)
        self.call("slurmctld", "-f", str(self.folder / "slurm.conf"))
        for node in self.nodes:
            self.start_node(node)
        self.wait_for("idle")

    def start_node(self, node: str) -> None:
        """Start one slurmd."""
        self.call("slurmd", "-N", node, "-f", str(self.folder / "slurm.conf"))

    def stop(self) -> None:
        """Cancel what runs and end the daemons."""
        self.call("scancel", "-u", "root", check=False)
        time.sleep(0.5)
        run = self.folder / "run"
        pids = [*run.glob("slurmd.*.pid"), run / "slurmctld.pid", self.folder / "munge" / "pid"]
        for path in pids:
            if path.exists():
                subprocess.run(["kill", path.read_text().strip()], check=False)

    def call(self, *command: str, check: bool = True) -> str:
        """Run a program of the cluster; its output."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def wait_for(self, *states: str, seconds: float = 30.0) -> None:
        """Until every node is in one of these states."""
        end = time.monotonic() + seconds
        found = ""
        while time.monotonic() < end:
            found = self.call("sinfo", "-h", "-N", "-o", "%T", check=False)
            if len(found.split()) == len(self.nodes) and set(found.split()) <= set(states):
                return
            time.sleep(0.1)
        raise AssertionError(f"nodes are {found.split()}, not {states}")

    def tasks(self, *fields: str) -> list[list[str]]:
        """A row a task of all jobs, e.g. of "%F %K %T %N"."""
        form = "|".join(fields)
        text = self.call("squeue", "-h", "-r", "-t", "all", "-o", form)
        return [line.split("|") for line in text.splitlines()]
