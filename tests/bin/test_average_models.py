"""average_models.py: the mean of weights as a model that decodes."""

import shutil
from pathlib import Path

import pytest
import torch

from pipeline.models.model_dir import ModelDir
from pipeline.models.weights import read_weights


@pytest.fixture
def epochs(toy, execute, tmp_path) -> Path:
    options = ("--epochs=4", "--keep-epochs=3", "--optimizer=adam", "--learning-rate=0.01")
    done = execute("train_ctc.py", *toy.arguments(tmp_path / "ctc", *options))
    assert done.status == 0, done.err
    return tmp_path / "ctc"


def mean(files: list[Path]) -> dict[str, torch.Tensor]:
    sets = [read_weights(file) for file in files]
    return {name: torch.stack([s[name] for s in sets]).mean(dim=0) for name in sets[0]}


def assert_same(path: Path, wanted: dict[str, torch.Tensor]) -> None:
    found = read_weights(path / "final.safetensors")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor)


def test_the_last_epochs_of_a_model(epochs, toy, execute, tmp_path):
    done = execute("average_models.py", "--last=2", epochs, tmp_path / "average")
    assert done.status == 0, done.err
    assert "Done 2 sets of weights, 0 failed" in done.err
    assert_same(tmp_path / "average", mean(ModelDir.open(epochs).epoch_paths()[-2:]))
    listed = (tmp_path / "average" / "averaged_from").read_text().splitlines()
    assert [Path(line).name for line in listed] == [
        "epoch-0003.safetensors",
        "epoch-0004.safetensors",
    ]
    decode = (tmp_path / "average", f"scp:{toy.dev}/feats.scp", f"ark,t:{tmp_path}/hyp")
    assert execute("decode_ctc.py", *decode).status == 0


def test_several_models(epochs, toy, execute, tmp_path):
    other = toy.arguments(tmp_path / "other", "--epochs=1", "--seed=7")
    assert execute("train_ctc.py", *other).status == 0
    done = execute("average_models.py", epochs, tmp_path / "other", tmp_path / "both")
    assert done.status == 0, done.err
    finals = [epochs / "final.safetensors", tmp_path / "other" / "final.safetensors"]
    assert_same(tmp_path / "both", mean(finals))


def test_what_cannot_be_averaged_is_named(epochs, toy, trained, execute, tmp_path):
    def fails(status: int, text: str, *arguments: object) -> None:
        done = execute("average_models.py", *arguments)
        assert (done.status, text in done.err) == (status, True), done.err
        assert not (tmp_path / "out").exists()

    fails(2, "expected MODEL_DIR … OUT_DIR", epochs)
    fails(2, "already exists", epochs, epochs)
    fails(2, "--last must be 0 or more", "--last=-1", epochs, tmp_path / "out")
    fails(1, "has the weights of 3 epochs, not of 9", "--last=9", epochs, tmp_path / "out")
    fails(1, "another architecture", epochs, trained / "transducer", tmp_path / "out")
    fails(1, "not a model directory", tmp_path / "nowhere", tmp_path / "out")
    half = shutil.copytree(epochs, tmp_path / "half")
    (half / "final.safetensors").unlink()
    fails(1, "training has not finished", half, tmp_path / "out")
