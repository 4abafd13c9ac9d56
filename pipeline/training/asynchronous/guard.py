"""Lets torchrun go on when a worker is killed.

torchrun ends all processes when one of them fails. A worker that it starts therefore goes on in a
fork, and the process that torchrun watches becomes this small program, which waits for the fork; if
a signal kills a worker, the watched process ends well.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping

PR_SET_PDEATHSIG = 1
FORWARDED = (signal.SIGTERM, signal.SIGINT)


def die_with_parent() -> None:
    """Let this process be killed when its parent ends, whatever ends it (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def protect(environ: Mapping[str, str], *, is_worker: bool) -> None:
    """Under torchrun, go on in a fork; the watched process never returns from here."""
    if "TORCHELASTIC_RUN_ID" not in environ:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    pid = os.fork()
    if pid == 0:
        die_with_parent()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        return
    program = os.path.basename(sys.argv[0])
    words = [sys.executable, "-S", __file__, program, str(pid), "worker" if is_worker else "other"]
    os.execv(sys.executable, words)


def main(program: str, pid: int, role: str) -> int:
    """Wait for a process; returns the exit status of this one."""
    for signum in FORWARDED:
        signal.signal(signum, lambda number, frame: _forward(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    print(
        f"WARNING ({program}) process {pid} of this training was killed by signal {-code}",
        file=sys.stderr,
    )
    return 0 if role == "worker" else 128 - code


def _forward(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return  # it has just ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
