"""Model directories: they are complete or refused, and are written atomically."""

import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import DataError, FeatureError, ModelError, OutputError
from pipeline.models import model_dir
from pipeline.models.model_dir import ModelDir, is_trained, load_part
from pipeline.models.weights import load_state, load_weights, read_weights, save_state, save_weights
from pipeline.nn.models import build_model
from pipeline.seals import unsealed
from pipeline.tables import write_matrix
from pipeline.text.tokens import Tokens

CPU = torch.device("cpu")


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a trained model that a test may change."""

    def make(kind: str = "ctc") -> Path:
        return Path(shutil.copytree(trained / kind, tmp_path / kind))

    return make


def edit_config(path: Path, **changes: object) -> None:
    data = unsealed((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**data, **changes}))


# ---- complete directories ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ctc", "predictor", "transducer"])
def test_a_trained_directory_opens(trained, kind):
    directory = ModelDir.open(trained / kind, kind=kind)
    assert directory.kind == kind
    assert directory.tokens.symbols == ("<blk>", "a", "b", "c")
    assert directory.options["optimizer"] == "adam"
    assert (directory.cmvn() is None) == (kind == "predictor")
    model = directory.load_model(CPU)
    assert not model.training
    saved = read_weights(directory.weights_path)
    for name, parameter in model.state_dict().items():
        assert torch.equal(parameter, saved[name])


def test_the_front_end_is_that_of_the_training_data(trained):
    front_end = ModelDir.open(trained / "ctc").front_end()
    assert (front_end.dim, front_end.sample_rate) == (6, 16000)


def test_the_permissions_of_files_follow_the_umask(copy):
    path = copy()
    directory = ModelDir.open(path)
    model = directory.load_model(CPU)
    mask = os.umask(0o022)
    try:
        save_weights(model, path / "weights")
        save_state({}, path / "state")
    finally:
        os.umask(mask)
    assert [oct((path / f).stat().st_mode)[-3:] for f in ("weights", "state")] == ["644", "644"]


# ---- incomplete directories ----------------------------------------------------------------------


def test_no_directory(tmp_path):
    with pytest.raises(ModelError, match=r"exp/gone: not a model directory; train a model with"):
        ModelDir.open(tmp_path / "exp/gone")


def test_a_file_where_the_directory_should_be(trained):
    with pytest.raises(ModelError, match=r"config\.json: not a model directory"):
        ModelDir.open(trained / "ctc" / "config.json")


def test_an_incomplete_directory(copy):
    path = copy()
    (path / "config.json").unlink()
    with pytest.raises(ModelError, match=r"ctc: has no readable config\.json; train"):
        ModelDir.open(path)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "null", "[]", "3", '"config"', "{}", "\x00\xff", '{"format_version": 1}'),
        '{"format_version": 1, "model": {}, "options": 3}',
        '{"format_version": 1, "model": [], "options": {}}',
        '{"format_version": 1, "model": {"encoder": {"layers": 1}}, "options": {}}',
        '{"format_version": 1, "model": {"encodr": null}, "options": {}}',
        '{"format_version": 1, "model": {"num_tokens": 4}, "options": {}}',
        '{"format_version": 1, "model": {"num_tokens": 4, "encoder": {"input_dim": 1, "layers": 1, '
        '"cells": 1}, "predictor": {"cells": 1}}, "options": {}}',
    ],
)
def test_a_damaged_config(copy, text):
    path = copy()
    (path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"(?s)ctc/config\.json: damaged \(.+\); restore a copy"):
        ModelDir.open(path)


def test_another_format(copy):
    path = copy()
    edit_config(path, format_version=99, model="of the future")
    with pytest.raises(
        ModelError, match="format 99, but this program reads format 1; use the version"
    ):
        ModelDir.open(path)


def test_tokens_that_are_missing_or_of_another_model(copy):
    path = copy()
    (path / "tokens.txt").write_text("<blk> 0\na 1\nb 2\nc 3\nd 4\n")
    with pytest.raises(ModelError, match=r"5 tokens, but the model has 4 outputs; .* another"):
        ModelDir.open(path)
    (path / "tokens.txt").write_text("<blk> 0\nc 1\nb 2\na 3\n")
    with pytest.raises(ModelError, match=r"tokens\.txt: not the tokens .* trained with"):
        ModelDir.open(path)
    (path / "tokens.txt").unlink()
    with pytest.raises(DataError, match=r"tokens\.txt: cannot read these tokens"):
        ModelDir.open(path)


def test_a_model_of_another_kind(trained):
    with pytest.raises(ModelError, match="a transducer model; a ctc model is needed here"):
        ModelDir.open(trained / "transducer", kind="ctc")


def test_statistics_that_are_missing_or_damaged(copy):
    path = copy()
    (path / "cmvn.ark").unlink()
    with pytest.raises(ModelError, match=r"cmvn\.ark: missing; the model needs it"):
        ModelDir.open(path).cmvn()
    write_matrix(str(path / "cmvn.ark"), np.zeros((2, 5)))
    with pytest.raises(FeatureError, match=r"cmvn\.ark: statistics of 4 columns"):
        ModelDir.open(path).cmvn()
    (path / "cmvn.ark").write_bytes(b"\0BDM ")
    with pytest.raises(DataError, match=r"cmvn\.ark"):
        ModelDir.open(path).cmvn()


def test_a_directory_from_before_cmvn_was_in_the_config(copy):
    path = copy()
    data = unsealed((path / "config.json").read_text())
    del data["cmvn"], data["cmvn_sha256"]
    (path / "config.json").write_text(json.dumps(data))
    assert ModelDir.open(path).cmvn() is not None
    (path / "cmvn.ark").unlink()
    assert ModelDir.open(path).cmvn() is None


def test_no_front_end(copy):
    path = copy()
    shutil.rmtree(path / "front_end")
    with pytest.raises(ModelError, match=r"how its features were made .* use decode_\*\.py"):
        ModelDir.open(path).front_end()


# ---- weights -------------------------------------------------------------------------------------


def test_no_weights_yet(copy):
    path = copy()
    (path / "final.safetensors").unlink()
    with pytest.raises(ModelError, match=r"training has not finished .* to continue it"):
        ModelDir.open(path).load_model(CPU)


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-100], lambda b: b"x" * 99])
def test_damaged_weights(copy, damage):
    path = copy() / "final.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=r"final\.safetensors: cannot read these weights \("):
        ModelDir.open(path.parent).load_model(CPU)


def test_weights_that_do_not_fit_are_all_listed(copy):
    path = copy() / "final.safetensors"
    tensors = load_file(path)
    tensors["output.bias"] = torch.zeros(7)
    tensors["another"] = tensors.pop("output.weight")
    save_file(tensors, path)
    with pytest.raises(ModelError) as error:
        ModelDir.open(path.parent).load_model(CPU)
    for problem in (
        "output.bias: (7,), model has (4,)",
        "another: not in the model",
        "output.weight: not in the file",
    ):
        assert problem in str(error.value)


def test_loading_what_does_not_fit_changes_nothing(trained):
    model = ModelDir.open(trained / "ctc").load_model(CPU)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    wrong = {n: torch.zeros_like(t) for n, t in before.items()} | {"x": torch.zeros(1)}
    with pytest.raises(ModelError):
        load_weights(model, wrong, "here")
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_a_part_is_loaded_by_name_and_the_rest_returned(trained):
    config = ModelDir.open(trained / "transducer").config
    model = build_model(config, num_tokens=4)
    dropped = load_part(model, ModelDir.open(trained / "ctc"), "encoder")
    assert sorted(dropped) == ["output.bias", "output.weight"]
    source = read_weights(trained / "ctc" / "final.safetensors")
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, source[f"encoder.{name}"])
    with pytest.raises(ModelError, match="a ctc model has no predictor; give another model"):
        load_part(model, ModelDir.open(trained / "ctc"), "predictor")


# ---- checkpoints ---------------------------------------------------------------------------------


class Trap:
    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.sign,))


def test_a_checkpoint_runs_no_code(tmp_path):
    sign = tmp_path / "sign"
    writers = {"torch": torch.save, "pickle": lambda x, p: p.write_bytes(pickle.dumps(x))}
    for name, write in writers.items():
        path = tmp_path / name
        write({"model": Trap(sign)}, path)
        with pytest.raises(ModelError, match=r"damaged checkpoint .* remove it to start again"):
            load_state(path)
    assert not sign.exists()


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"x" * 9])
def test_a_damaged_checkpoint(copy, damage):
    path = copy() / "checkpoints" / "last.pt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError) as error:
        load_state(path)
    assert str(error.value).startswith(f"{path}: damaged checkpoint (")
    assert "\n" not in str(error.value)


# ---- writing -------------------------------------------------------------------------------------


def create(path: Path, trained: Path, **changes: object) -> ModelDir:
    source = ModelDir.open(trained / "ctc")
    settings = {"cmvn": source.cmvn(), "front_end": source.path / "front_end", "options": {}}
    return ModelDir.create(path, source.config, source.tokens, **settings | changes)


def test_config_json_is_written_last(trained, tmp_path, monkeypatch):
    seen = []
    real = model_dir.write_text

    def watch(path: Path, text: str) -> None:
        seen.append({p.name for p in path.parent.iterdir()})
        real(path, text)

    monkeypatch.setattr(model_dir, "write_text", watch)
    create(tmp_path / "new", trained)
    assert seen == [{"checkpoints", "cmvn.ark", "front_end", "tokens.txt"}]
    assert not is_trained(tmp_path / "new")


def test_making_it_again_removes_earlier_files(trained, tmp_path):
    path = tmp_path / "new"
    create(path, trained)
    (path / "front_end" / "mfcc.conf").write_text("--num-ceps=6\n")
    create(path, trained)
    assert [p.name for p in (path / "front_end").iterdir()] == ["fbank.conf"]
    create(path, trained, cmvn=None, front_end=None)  # cmvn.ark stays, but is not used
    assert ModelDir.open(path).cmvn() is None
    assert not (path / "front_end").exists()


def test_an_interruption_while_it_is_made_again_leaves_no_config(trained, tmp_path, monkeypatch):
    path = tmp_path / "new"
    create(path, trained)
    monkeypatch.setattr(Tokens, "save", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        create(path, trained)
    assert not (path / "config.json").exists()


def test_a_failed_write_keeps_the_old_file(copy, monkeypatch):
    path = copy() / "checkpoints" / "last.pt"
    before = path.read_bytes()
    files = sorted(p.name for p in path.parent.iterdir())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"last\.pt: cannot be written: No space"):
        save_state({}, path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == files


def test_files_of_a_killed_program_are_overwritten(copy):
    path = copy()
    gone = subprocess.Popen(["true"])
    gone.wait()
    for _ in range(3):
        left = f".last.pt.tmp.{os.uname().nodename}.{gone.pid}"
        (path / "checkpoints" / left).write_bytes(b"half")
        save_state({"a": 1}, path / "checkpoints" / "last.pt")
    assert load_state(path / "checkpoints" / "last.pt") == {"a": 1}
    assert not list(path.glob("checkpoints/.*"))


def test_a_front_end_that_the_network_does_not_read_is_named(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "ctc", tmp_path / "ctc")
    (tmp_path / "ctc" / "front_end" / "fbank.conf").write_text("--num-mel-bins=9\n")
    with pytest.raises(ModelError, match=r"front_end: gives 9 features per frame, but .* reads 6"):
        ModelDir.open(tmp_path / "ctc").front_end()
