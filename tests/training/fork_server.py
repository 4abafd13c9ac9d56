"""Starts programs of ``bin/`` in forks of a process that has imported torch: 1 s each, not 10 s.

Requests are lines of JSON on standard input, answers lines of JSON on standard output:
``{"program": …, "arguments": […], "environ": {…}, "log": FILE}`` is answered by the process id,
``{"wait": PID, "seconds": …}`` by the exit status, negative for a signal, or null if it still runs.
"""

import json
import os
import runpy
import sys
import time

import torch._dynamo
import torch.distributed.nn  # noqa: F401

import pipeline.cli
import pipeline.training.run  # noqa: F401


def run(request: dict) -> None:
    """In the fork: become the program."""
    os.environ.clear()
    os.environ.update(request["environ"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = [request["program"], *request["arguments"]]
    runpy.run_path(request["program"], run_name="__main__")


def wait(pid: int, seconds: float) -> int | None:
    """The exit status of a fork, if it ends in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


while line := sys.stdin.readline():
    request = json.loads(line)
    if "wait" in request:
        answer = wait(request["wait"], request["seconds"])
    elif not (answer := os.fork()):
        run(request)
    print(json.dumps(answer), flush=True)
