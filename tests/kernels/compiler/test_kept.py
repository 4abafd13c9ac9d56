"""Kept kernels: a damaged file is compiled anew, what others may have written is not loaded."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("numba")

from pipeline.kernels.compiler import compiling
from pipeline.kernels.compiler.compiling import Doubles, Floats, Kernel, array_kernel, kernel
from pipeline.kernels.compiler.kept import announce, fault, make_folder


def thrice(x: Doubles, size: int) -> None:
    for i in range(size):
        x[i] *= 3


def double_all(x: Floats, count: int) -> None:
    for i in range(count):
        x[i] = 2 * x[i]


def thrice_an_array(x):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        x[i] *= 3


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compiling, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that were compiled, not loaded."""
    seen: list[str] = []
    real = compiling.CFunc._compile_uncached

    def note(self: compiling.CFunc) -> object:
        seen.append(self.__name__)
        return real(self)

    monkeypatch.setattr(compiling.CFunc, "_compile_uncached", note)
    return seen


def call(function: Callable[..., None] = thrice) -> None:
    """As a new process calls it."""
    x = torch.ones(2, dtype=torch.float64)
    kernel_of: Kernel = kernel(function)
    kernel_of[torch.float64](x, 2)
    assert x.tolist() == [3.0, 3.0]


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix in (".nbi", ".nbc"))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "too short": lambda data: data[:7],
    "longer": lambda data: data + b"\0",
    "zeros": lambda data: bytes(len(data)),
    **{f"flip {share}": lambda data, s=share: flipped(data, s) for share in (0.0, 0.3, 0.6, 0.99)},
}


def flipped(data: bytes, share: float) -> bytes:
    changed = bytearray(data)
    changed[int(share * len(data))] ^= 4
    return bytes(changed)


@pytest.mark.parametrize("kind", ["kernel", "array kernel"])
def test_compiling_is_announced_once_and_loading_is_not(
    kind: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def run() -> list[str]:
        announce.cache_clear()
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="pipeline"):
            for dtype in (torch.float64, torch.float32):
                if kind == "kernel":
                    kernel(double_all)[dtype]
                else:
                    array_kernel(thrice_an_array)(torch.ones(2, dtype=dtype).numpy())
        return [record.getMessage() for record in caplog.records]

    assert run() == ["compiling kernels for this processor, once: some seconds"]
    assert run() == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_compiled_anew(
    folder: Path, compiled: list[str], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    call()
    call()
    assert compiled == ["thrice"]
    assert [p.suffix for p in files(folder)] == [".nbc", ".nbi"]
    for number, path in enumerate(files(folder), start=2):
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
        call()
        assert len(compiled) == number
        assert f"{path}: damaged; compiling anew" in caplog.text
        call()
        assert len(compiled) == number  # and it is kept again


def test_a_damaged_file_of_an_array_kernel(folder: Path) -> None:
    for _ in range(3):
        x = torch.ones(2, dtype=torch.float64).numpy()
        array_kernel(thrice_an_array)(x)
        assert x.tolist() == [3.0, 3.0]
        for path in files(folder):
            path.write_bytes(b"")


def test_the_code_of_another_kernel_is_not_taken(folder: Path, compiled: list[str]) -> None:
    """As two processes leave it that write the index at once."""
    call()
    (kept,) = folder.rglob("*.nbc")
    x = torch.ones(2, dtype=torch.float64)

    def twice(x: Doubles, size: int) -> None:
        for i in range(size):
            x[i] *= 2

    kernel(twice)[torch.float64](x, 2)
    (other,) = (p for p in folder.rglob("*.nbc") if p != kept)
    kept.write_bytes(other.read_bytes())
    call()
    assert compiled == ["thrice", "twice", "thrice"]


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777])
def test_a_folder_that_others_may_write_is_not_used(
    folder: Path, compiled: list[str], mode: int
) -> None:
    call()
    folder.chmod(mode)
    before = {path: path.stat().st_mtime_ns for path in files(folder)}
    call()
    assert compiled == ["thrice", "thrice"]
    assert {path: path.stat().st_mtime_ns for path in files(folder)} == before


def test_a_file_that_others_may_write_is_not_loaded(folder: Path, compiled: list[str]) -> None:
    call()
    for number, path in enumerate(files(folder), start=2):
        path.chmod(0o666)
        call()
        assert len(compiled) == number


def test_another_folder_is_used_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setattr(compiling._config, "CACHE_DIR", str(shared))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    found = compiling.cache_folder.__wrapped__()
    assert found.parent == tmp_path / "own" / "pipeline-asr"
    assert f"other users may write {shared}; run chmod go-w on it; using {tmp_path}/own" in (
        caplog.text
    )
    shared.chmod(0o1777)  # as /tmp: nobody can rename what is another's
    assert compiling.cache_folder.__wrapped__().parent == shared


@pytest.mark.parametrize("umask", [0o002, 0o000])
def test_what_we_make_only_we_may_write(folder: Path, compiled: list[str], umask: int) -> None:
    before = os.umask(umask)
    try:
        call()
        call()
        make_folder(folder / "more")
    finally:
        os.umask(before)
    assert compiled == ["thrice"]
    assert fault(folder, beside_sources=True) == ""
    assert fault(folder / "more", beside_sources=False) == ""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_not_used(folder: Path, compiled: list[str]) -> None:
    call()
    os.chown(folder, 12345, 12345)
    call()
    assert compiled == ["thrice", "thrice"]
    assert "belongs to another user" in fault(folder, beside_sources=True)
