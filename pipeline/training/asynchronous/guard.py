"""Lets torchrun go on when a worker is killed.

torchrun ends all processes when one of them fails. A worker that it starts is therefore a fork of
the process that it watches; if the fork is killed by a signal, the watched process ends well.
"""

import logging
import os
import signal
from collections.abc import Mapping

from pipeline.training.asynchronous.hogwild import die_with_parent

log = logging.getLogger("pipeline")


def protect(environ: Mapping[str, str], *, is_worker: bool) -> None:
    """Under torchrun, go on in a fork; the watched process never returns from here."""
    if "TORCHELASTIC_RUN_ID" not in environ:
        return
    pid = os.fork()
    if pid == 0:
        die_with_parent()
        return
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda number, frame: _forward(pid, number))
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0 and is_worker:
        log.error("process %d of this training was killed by signal %d", pid, -code)
        os._exit(0)
    os._exit(128 - code if code < 0 else code)


def _forward(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return  # it has just ended
