"""A sample of what drive.py tries: damaged files and odd values, on every command."""

import subprocess
import sys
from pathlib import Path

import pytest

DRIVE = Path(__file__).with_name("drive.py")


@pytest.mark.parametrize(
    "count", [150, pytest.param(10_000, marks=[pytest.mark.slow])], ids=["sample", "whole"]
)
def test_no_command_ends_badly(count: int) -> None:
    """Each works, or refuses with a message that names the file or the option."""
    done = subprocess.run(
        [sys.executable, str(DRIVE), f"--count={count}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert f"{count} tries" in done.stdout
