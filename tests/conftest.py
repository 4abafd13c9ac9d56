"""Fixtures that every test may use."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def golden() -> Path:
    """Outputs of the real Kaldi and NIST programs; each folder's README names the command."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def run_bin() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run a program of ``bin/``, ``utils/`` or ``egs/`` as a user would: bytes in, bytes out."""

    def run(
        name: str, *args: object, stdin: bytes | None = None, check: bool = False, **kwargs: object
    ) -> subprocess.CompletedProcess[bytes]:
        program = next(
            p for p in (ROOT / "bin" / name, ROOT / "utils" / name, ROOT / name) if p.exists()
        )
        folders = [Path(sys.executable).parent, ROOT / "bin", ROOT / "utils"]
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": os.pathsep.join([*map(str, folders), os.environ["PATH"]]),
            "LC_ALL": "C.UTF-8",
        }
        done = subprocess.run(
            [sys.executable, str(program), *map(str, args)],
            input=b"" if stdin is None else stdin,
            capture_output=True,
            env=env,
            check=False,
            **kwargs,
        )
        if check:
            assert done.returncode == 0, done.stderr.decode()
        return done

    return run
