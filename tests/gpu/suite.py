#!/usr/bin/env python3
"""The rest of the first part: the tests of the kernels on the device, and memcheck beside them.

Usage: suite.py FOLDER

The tests are shared among processes, since most of their time is Triton's compiler's.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from part import IS_INTERPRETED, ROOT, Part, run_part

HERE = Path(__file__).resolve().parent
KERNELS = ROOT / "tests" / "kernels"
FILES = [
    *("recurrent/test_lstm_cuda.py", "recurrent/test_lstm_engines.py", "recurrent/test_lstm.py"),
    *("ctc/test_ctc_cuda.py", "ctc/test_ctc_loss.py"),
    *("transducer/test_transducer_cuda.py", "transducer/test_transducer_engines.py"),
    *("transducer/test_transducer_loss.py", "transducer/test_joint_loss.py"),
]
FEW = ["ctc/test_ctc_cuda.py"]  # in the interpreter: the test suite runs the others there
SANITIZER = "/usr/local/cuda/bin/compute-sanitizer"
MOST_SHARES = 8


def start_tests(share: int, shares: int, log: Path) -> "subprocess.Popen[bytes]":
    """Start one share of the tests."""
    files = [str(KERNELS / name) for name in (FEW if IS_INTERPRETED else FILES)]
    options = ["-p", "no:cacheprovider", "-p", "share_of_tests", "-W", "default", "-rfE"]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{HERE}:{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        "SHARE_OF_TESTS": f"{share}/{shares}",
        "OMP_NUM_THREADS": "1",
    }
    with open(log, "wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *files],
            cwd=ROOT,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )


def start_memcheck(log: Path) -> "subprocess.Popen[bytes] | None":
    """Start the smallest problems under compute-sanitizer; None where it is not installed."""
    program = shutil.which("compute-sanitizer") or shutil.which(SANITIZER)
    if program is None or IS_INTERPRETED:
        return None
    options = ["--tool", "memcheck", "--error-exitcode", "99", "--target-processes", "all"]
    with open(log, "wb") as stream:
        return subprocess.Popen(
            [program, *options, sys.executable, str(HERE / "right.py"), "--smallest"],
            env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},  # each tensor by itself
            stdout=stream,
            stderr=subprocess.STDOUT,
        )


def tests(part: Part) -> None:
    """Both, at the same time."""
    memcheck_log = part.folder / "memcheck.log"
    memcheck = start_memcheck(memcheck_log)
    shares = 1 if IS_INTERPRETED else max(1, min(MOST_SHARES, (os.cpu_count() or 2) // 2))
    logs = [part.folder / f".tests.{n}.log" for n in range(shares)]
    processes = [start_tests(n, shares, log) for n, log in enumerate(logs)]
    statuses = [process.wait() for process in processes]
    output = "".join(log.read_text(errors="replace") for log in logs)
    (part.folder / "tests.log").write_text(output)
    for log in logs:
        log.unlink()
    counts = {
        word: sum(map(int, re.findall(rf"(\d+) {word}", output)))
        for word in ("passed", "failed", "skipped", "error")
    }
    text = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    part.say(f"\nTests of the kernels: {text or 'none ran'}.")
    part.record("tests", counts)
    for line in re.findall(r"^(?:FAILED|ERROR) (.*)", output, re.MULTILINE)[:20]:
        part.fail(f"test {line[:200]}")
    if not counts["passed"] or any(statuses):
        part.fail(f"the tests ended with {statuses}; see tests.log")
    if memcheck is None:
        part.say("\nmemcheck: not run, no compute-sanitizer or no GPU.")
    else:
        tell_memcheck(part, memcheck.wait(), memcheck_log.read_text(errors="replace"))


def tell_memcheck(part: Part, status: int, output: str) -> None:
    """What compute-sanitizer says."""
    summary = re.findall(r"ERROR SUMMARY: .*", output)
    if "Device not supported" in output or "LibraryNotLoaded" in output:
        part.say("\nmemcheck: this machine does not let compute-sanitizer see the device.")
    elif status == 0 and summary:
        part.say(f"\nmemcheck of every program's smallest problem: {summary[-1]}.")
    else:
        last = (summary or output.strip().splitlines() or ["no output"])[-1]
        part.fail(f"memcheck ended with {status}: {last}; see memcheck.log")
    part.record("memcheck", summary[-1] if summary else status)


if __name__ == "__main__":
    run_part("tests", "Right: the tests of the kernels", [("tests", tests)])
