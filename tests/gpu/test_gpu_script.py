"""The GPU script as a whole: a part that fails or hangs does not stop the next."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("run.sh")
PYTHON = """#!/usr/bin/env bash
case "$*" in
  *right.py*) echo "right" >> "$OUT/ran"; exit 1 ;;
  *suite.py*) echo "suite" >> "$OUT/ran"; kill -SEGV $$ ;;
  *fast.py*) echo "fast" >> "$OUT/ran"; exec sleep 60 ;;
  *why.py* | *learns.py*) echo "$3" >> "$OUT/ran"; exit 0 ;;
esac
exec {python} "$@"
"""


def run(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "bin").mkdir()
    (tmp_path / "out").mkdir()
    program = tmp_path / "bin" / "python3"
    program.write_text(PYTHON.replace("{python}", sys.executable))
    program.chmod(0o755)
    return subprocess.run(
        [str(tmp_path / "gpu" / "run.sh"), *words],
        env={
            **os.environ,
            "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OUT": str(tmp_path / "out"),
            "TRITON_INTERPRET": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_each_part_runs_whatever_became_of_the_others(tmp_path: Path) -> None:
    root = SCRIPT.parents[2]
    text = SCRIPT.read_text().replace("part fast 130", "part fast 1")
    text = text.replace('cd "$(dirname "$0")/../.."', f'cd "{root}"')
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "run.sh").write_text(text)
    shutil.copymode(SCRIPT, tmp_path / "gpu" / "run.sh")
    done = run(tmp_path, str(tmp_path / "out"))
    assert done.returncode == 1, done.stderr
    ran = (tmp_path / "out" / "ran").read_text().split()
    assert [Path(name).stem for name in ran] == ["right", "suite", "fast", "why", "learns"]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "Triton's interpreter on a CPU" in report
    assert "**BROKEN: tests ended with 139**" in report
    assert "**STOPPED: fast took more than its 4 s**" in report
    assert "Not all is right" in report


def test_it_explains_itself() -> None:
    done = subprocess.run([str(SCRIPT), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "tests/gpu/run.sh [FOLDER]" in done.stdout
