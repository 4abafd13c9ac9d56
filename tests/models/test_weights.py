"""Weights and training states: a flipped bit anywhere is noticed, what has no digest is read."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import ModelError
from pipeline.models.weights import load_state, read_weights, save_state, save_weights


def flips(data: bytes, step: int = 1) -> Iterator[bytes]:
    """``data`` with one of its bits flipped, every ``step`` bits, so that all kinds come."""
    for place in range(0, 8 * len(data), step):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << (place % 8)
        yield bytes(changed)


def test_a_flipped_bit_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "final.safetensors"
    save_weights(torch.nn.Linear(2, 2), path)
    for changed in flips(path.read_bytes(), step=3):
        path.write_bytes(changed)
        with pytest.raises(ModelError, match=r"final\.safetensors: cannot read these weights"):
            read_weights(path)


def test_a_flipped_bit_of_a_state(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_state({"model": {"w": torch.ones(3)}, "progress": {"epoch": 1}}, path)
    for changed in flips(path.read_bytes(), step=29):
        path.write_bytes(changed)
        with pytest.raises(ModelError, match=r"last\.pt: damaged checkpoint"):
            load_state(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_cut_file(tmp_path: Path, share: float) -> None:
    weights, state = tmp_path / "w", tmp_path / "s"
    save_weights(torch.nn.Linear(2, 2), weights)
    save_state({"progress": 1}, state)
    for path in (weights, state):
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelError, match=r"w: cannot read these weights"):
        read_weights(weights)
    with pytest.raises(ModelError, match=r"s: damaged checkpoint"):
        load_state(state)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    for name in ("w", "s"):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(1 << 42)
    with pytest.raises(ModelError, match=r"w: cannot read these weights"):
        read_weights(tmp_path / "w")
    with pytest.raises(ModelError, match=r"s: damaged checkpoint \(its end is missing"):
        load_state(tmp_path / "s")


def test_files_of_other_programs_have_no_digest(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0), "b": torch.zeros(0, dtype=torch.int64)}
    for metadata in (None, {"format": "pt"}, {"hash_of_the_data": "0" * 64, "format": "pt"}):
        save_file(tensors, tmp_path / "w", metadata)
        assert read_weights(tmp_path / "w").keys() == tensors.keys()
    torch.save({"a": 1}, tmp_path / "s")
    assert load_state(tmp_path / "s") == {"a": 1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_any_tensor_has_a_digest(tmp_path: Path, dtype: torch.dtype) -> None:
    model = torch.nn.Module()
    model.register_buffer("one", torch.ones(2, 3, dtype=dtype).t())
    model.register_buffer("none", torch.ones(0, dtype=dtype))
    model.register_buffer("scalar", torch.ones((), dtype=dtype))
    save_weights(model, tmp_path / "w")
    found = read_weights(tmp_path / "w")
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


def test_a_state_is_still_a_zip_file_that_torch_reads(tmp_path: Path) -> None:
    save_state({"a": torch.ones(2)}, tmp_path / "s")
    assert zipfile.ZipFile(tmp_path / "s").testzip() is None
    assert torch.load(tmp_path / "s", weights_only=True)["a"].tolist() == [1.0, 1.0]
