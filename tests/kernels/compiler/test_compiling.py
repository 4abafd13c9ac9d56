"""Where compiled kernels are kept: by the state of the sources and what may be written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from numba.core.caching import CacheImpl

from pipeline.kernels import engines
from pipeline.kernels.compiler import compiling
from pipeline.kernels.compiler.compiling import Doubles, array_kernel, kernel

KERNELS = Path(compiling.__file__).parents[1]
fresh_folder = compiling.cache_folder.__wrapped__  # as a new process finds it


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the kernels' sources, which a test may change."""
    copy = tmp_path / "kernels"
    shutil.copytree(KERNELS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(compiling, "__file__", str(copy / "compiler" / "compiling.py"))
    monkeypatch.setattr(compiling._config, "CACHE_DIR", "")
    return copy


def may_write(monkeypatch: pytest.MonkeyPatch, *, allowed: bool) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: allowed)


def test_the_folder_is_one_for_each_state_of_the_sources(sources: Path) -> None:
    """Whatever a source is called and wherever below kernels/ it lies."""
    first = fresh_folder()
    assert fresh_folder() == first
    seen = {first}
    changed = [
        "compiler/simd.py",
        "recurrent/cpu.py",
        "recurrent/plain.py",
        "search/heap.py",
        "engines.py",
    ]
    for name in changed:
        with (sources / name).open("a") as file:
            file.write("# changed\n")
        seen.add(fresh_folder())
    assert len(seen) == 1 + len(changed)
    (sources / "new").mkdir()
    (sources / "new" / "any_name.py").write_text("x = 1\n")
    assert fresh_folder() not in seen


def test_moved_code_is_another_state(sources: Path) -> None:
    """Two sources that change their names are compiled again."""
    first = fresh_folder()
    (sources / "recurrent/cpu.py").rename(sources / "recurrent/on_cpu.py")
    assert fresh_folder() != first


def test_another_version_of_the_compiler(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fresh_folder()
    monkeypatch.setattr(compiling.numba, "__version__", "9.9.9")
    assert fresh_folder() != first


def test_beside_the_sources_where_one_may_write(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write(monkeypatch, allowed=True)
    assert fresh_folder().parent == sources / "compiler" / "__pycache__"


@pytest.mark.parametrize("named", [True, False], ids=["XDG_CACHE_HOME", "home"])
def test_else_in_the_users_cache(
    named: bool, sources: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    may_write(monkeypatch, allowed=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if named:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    else:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    base = tmp_path / ("cache" if named else "home/.cache")
    assert fresh_folder().parent == base / "pipeline-asr"


def test_where_numba_is_told_first(
    sources: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    may_write(monkeypatch, allowed=True)
    monkeypatch.setattr(compiling._config, "CACHE_DIR", str(tmp_path / "told"))
    assert fresh_folder().parent == tmp_path / "told"


def test_asking_makes_no_folder(sources: Path) -> None:
    assert not fresh_folder().exists()


def twice(x: Doubles, size: int) -> None:
    for i in range(size):
        x[i] *= 2


def twice_an_array(x):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        x[i] *= 2


@pytest.mark.parametrize("place", ["free", "blocked", "nowhere"])
def test_kernels_are_kept_in_their_folder_or_not_at_all(
    place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """numba's other folders know of one source only: what they keep may be out of date."""
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "cache" if place == "free" else tmp_path / "file" / "below"
    monkeypatch.setattr(compiling, "cache_folder", lambda: folder)
    if place == "nowhere":
        monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    before = compiling._config.CACHE_DIR
    x = np.arange(3.0)
    kernel(twice)[torch.float64](x, 3)
    assert x.tolist() == [0.0, 2.0, 4.0]
    array_kernel(twice_an_array)(x)
    assert x.tolist() == [0.0, 4.0, 8.0]
    assert before == compiling._config.CACHE_DIR  # numba's other users keep their own
    kept = {path.name.partition("-")[0].rpartition(".")[2] for path in folder.rglob("*.nbi")}
    assert kept == ({"twice", "twice_an_array"} if place == "free" else set())


def test_importing_makes_nothing(tmp_path: Path) -> None:
    """Kernels are compiled, and their folder is written to, when one is called."""
    modules = [kinds["cpu"] for kinds in engines.ENGINES.values()]
    done = subprocess.run(
        [sys.executable, "-c", f"import {', '.join(modules)}"],
        cwd=KERNELS.parents[1],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
