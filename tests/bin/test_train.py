"""train_ctc.py, train_predictor.py and train_transducer.py as a user meets them."""

import fcntl
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.data_dir import read_map, write_map
from pipeline.frontend.cmvn import CmvnStats
from pipeline.models.model_dir import ModelDir
from pipeline.models.weights import load_state, read_weights
from pipeline.seals import unsealed
from pipeline.tables import read_matrix, write_matrix

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("ctc", "predictor", "transducer")


@pytest.fixture
def train(toy, execute, tmp_path) -> Callable[..., object]:
    """Train on the toy corpus into ``tmp_path/NAME``, by default for three epochs."""

    def run(*options: object, kind: str = "ctc", name: str = "model"):
        given = map(str, options)
        return execute(f"train_{kind}.py", *toy.arguments(tmp_path / name, "--epochs=3", *given))

    return run


def no_traceback(done) -> None:
    assert "Traceback" not in done.err
    assert done.out == ""


def fails(done, status: int, *texts: str) -> None:
    """Check that the command ended with ``status`` and one message that has all ``texts``."""
    assert done.status == status, done.err
    no_traceback(done)
    for text in texts:
        assert text in done.err, done.err


def feats_of(folder: Path) -> dict[str, np.ndarray]:
    return {utt: read_matrix(rx) for utt, rx in read_map(folder / "feats.scp").items()}


def metrics(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


# ---- what comes out ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_directory_is_made(train, tmp_path, kind):
    done = train(kind=kind)
    assert (done.status, done.out) == (0, "")
    assert done.err.splitlines()[-1].endswith("Done 4 training utterances, 0 failed")
    files = {str(p.relative_to(tmp_path / "model")) for p in (tmp_path / "model").rglob("*")}
    common = {"config.json", "tokens.txt", "final.safetensors", "metrics.jsonl", "train.log"}
    common |= {"provenance.json", "checkpoints", "checkpoints/last.pt"}
    common |= {"checkpoints/previous.pt", "checkpoints/best.safetensors", "tensorboard"}
    common |= {f"tensorboard/{p.name}" for p in tmp_path.glob("model/tensorboard/events.out.*")}
    features = {"cmvn.ark", "front_end", "front_end/fbank.conf"} if kind != "predictor" else set()
    assert files == common | features
    assert [line["epoch"] for line in metrics(tmp_path / "model")] == [1, 2, 3]


def test_the_log_is_kept_and_continued(train, tmp_path):
    train("--epochs=1")
    train("--epochs=2")
    log = (tmp_path / "model" / "train.log").read_text()
    assert re.search(r"^\d{4}-\d\d-\d\d .* LOG ctc model, [\d,]+ weights, on cpu$", log, re.M)
    assert log.count("epoch 1: loss") == log.count("epoch 2: loss") == 1
    assert "continuing after epoch 1 of" in log


def test_one_training_does_not_write_to_the_log_of_another(train, tmp_path):
    train(name="one")
    before = (tmp_path / "one" / "train.log").read_text()
    train(name="two")
    assert (tmp_path / "one" / "train.log").read_text() == before


def test_provenance_records_how_the_model_was_made(toy, run_bin, tmp_path):
    arguments = toy.arguments(tmp_path / "model", "--epochs=1", "--seed=5")
    done = run_bin("train_ctc.py", *arguments, check=True)
    assert done.stdout == b""
    facts = json.loads((tmp_path / "model" / "provenance.json").read_text())
    assert facts["command"] == ["train_ctc.py", *map(str, arguments)]
    assert facts["seed"] == 5
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == 1
    assert facts["train_data_sha256"] != facts["dev_data_sha256"]
    assert {"commit", "started", "python", "numpy", "machine", "cores"} <= facts.keys()


def test_options_come_from_a_file_and_the_command_line_wins(train, tmp_path):
    conf = tmp_path / "train.conf"
    conf.write_text("# a comment\n--epochs=1\n--optimizer=adam  # and another\n--seed=3\n")
    assert train(f"--config={conf}", "--seed=4").status == 0
    options = ModelDir.open(tmp_path / "model").options
    assert (options["optimizer"], options["seed"], options["epochs"]) == ("adam", 4, 3)
    conf.write_text("--lerning-rate=1\n")
    fails(train(f"--config={conf}"), 2, f"{conf}:1: unknown option", "did you mean --learning-rate")


def test_a_seed_gives_the_same_bytes_in_any_process(toy, train, run_bin, tmp_path, monkeypatch):
    assert train("--weight-noise=0.05", "--batch-size=2").status == 0
    monkeypatch.setenv("PYTHONHASHSEED", "77")
    options = ("--epochs=3", "--weight-noise=0.05", "--batch-size=2")
    run_bin("train_ctc.py", *toy.arguments(tmp_path / "again", *options), check=True)
    final = (tmp_path / "model" / "final.safetensors").read_bytes()
    assert (tmp_path / "again" / "final.safetensors").read_bytes() == final
    train("--weight-noise=0.05", "--batch-size=2", "--seed=1", name="other")
    assert (tmp_path / "other" / "final.safetensors").read_bytes() != final


# ---- a transducer from both, and retraining ------------------------------------------------------


def test_dropout_is_the_architectures_unless_told_otherwise(train, tmp_path):
    assert train("--dropout=0.5", kind="transducer").status == 0
    config = ModelDir.open(tmp_path / "model").config
    assert (config.encoder.dropout, config.predictor.dropout) == (0.5, 0.5)
    assert train(name="other").status == 0
    assert ModelDir.open(tmp_path / "other").config.encoder.dropout == 0.0
    fails(train("--dropout=1"), 2, "--dropout must be 0 or more and below 1")
    fails(train("--dropout=-0.5"), 2, "--dropout must be 0 or more")


def test_a_transducer_starts_from_both_by_name(trained, train, tmp_path):
    sources = (f"--init-ctc={trained}/ctc", f"--init-predictor={trained}/predictor")
    standing = ("--optimizer=sgd", "--learning-rate=1e-30", "--epochs=1")  # nothing moves
    done = train(*sources, *standing, kind="transducer")
    assert done.status == 0, done.err
    made = read_weights(tmp_path / "model" / "final.safetensors")
    for kind, part in (("ctc", "encoder"), ("predictor", "predictor")):
        source = read_weights(trained / kind / "final.safetensors")
        taken = [name for name in source if name.startswith(f"{part}.")]
        assert taken
        for name in taken:
            assert torch.equal(made[name], source[name]), name
        assert f"{part} from {trained}/{kind}; dropped: output.bias, output.weight" in done.err
    random_ones = sorted(name for name in made if name.startswith("joiner."))
    said = re.search(r"random initial weights: (.*)", done.err)[1].split(", ")
    assert sorted(said) == random_ones
    assert all(0.0 < float(made[name].abs().max()) <= 0.1 for name in random_ones)
    assert "random initial weights" in (tmp_path / "model" / "train.log").read_text()


def test_where_a_transducer_started_is_not_read_again_when_it_goes_on(trained, train, tmp_path):
    source = Path(shutil.copytree(trained / "ctc", tmp_path / "ctc"))
    assert train(f"--init-ctc={source}", "--epochs=1", kind="transducer").status == 0
    shutil.rmtree(source)
    done = train(f"--init-ctc={source}", "--epochs=2", kind="transducer")
    assert done.status == 0, done.err
    assert "continuing after epoch 1" in done.err


def test_where_a_transducer_started_must_not_have_changed(trained, train, tmp_path):
    source = Path(shutil.copytree(trained / "ctc", tmp_path / "ctc"))
    assert train(f"--init-ctc={source}", "--epochs=1", kind="transducer").status == 0
    data = bytearray((source / "final.safetensors").read_bytes())
    data[-1] ^= 1
    (source / "final.safetensors").write_bytes(data)
    done = train(f"--init-ctc={source}", "--epochs=2", kind="transducer")
    fails(done, 1, "was trained with other options or data", "starts_sha256")


@pytest.mark.parametrize("kind", KINDS)
def test_retraining_starts_from_all_weights(trained, train, tmp_path, kind):
    standing = ("--optimizer=sgd", "--learning-rate=1e-30", "--epochs=1", "--weight-noise=0.075")
    assert train(f"--init={trained}/{kind}", *standing, kind=kind).status == 0
    made = read_weights(tmp_path / "model" / "final.safetensors")
    source = read_weights(trained / kind / "final.safetensors")
    assert made.keys() == source.keys()
    assert all(torch.equal(made[name], source[name]) for name in made)


def test_a_source_with_other_tokens_is_refused(toy, trained, train, tmp_path):
    (toy.path / "tokens.txt").write_text("<blk> 0\nc 1\nb 2\na 3\n")
    for option in ("--init-ctc", "--init-predictor", "--init"):
        source = trained / {"--init-ctc": "ctc"}.get(option, "predictor")
        done = train(f"{option}={source}", kind="transducer")
        fails(done, 1, f"{source}/tokens.txt: not the tokens of this training; use the same file")
        assert not (tmp_path / "model" / "final.safetensors").exists()


def test_a_source_that_cannot_serve_is_named(trained, train, tmp_path):
    gone = tmp_path / "gone"
    fails(train(f"--init-ctc={gone}", kind="transducer"), 1, f"{gone}: not a model directory")
    done = train(f"--init-ctc={trained}/predictor", kind="transducer")
    fails(done, 1, "a predictor model has no encoder; give another model")
    done = train(f"--init={trained}/ctc", kind="transducer")
    fails(done, 1, "weights do not fit the model", "output.weight: not in the model")
    half = Path(shutil.copytree(trained / "ctc", tmp_path / "half"))
    (half / "final.safetensors").unlink()
    fails(train(f"--init-ctc={half}", kind="transducer"), 1, f"{half}: training has not finished")


# ---- bad data ------------------------------------------------------------------------------------


def test_a_scp_that_points_nowhere(toy, train):
    path = toy.train / "feats.scp"
    path.write_text(path.read_text().replace("feats.ark", "gone.ark"))
    fails(train(), 1, "gone.ark", "No such file")


def test_a_data_directory_that_is_missing_or_empty(toy, train, tmp_path):
    shutil.rmtree(toy.dev)
    fails(train(), 1, f"{toy.dev}: not a directory")
    toy.dev.mkdir()
    fails(train(), 1, f"{toy.dev}/text")
    (toy.dev / "text").write_text("")
    fails(train(), 1, f"{toy.dev}/text: the file is empty")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("where", ["train", "dev"])
def test_features_with_nan_name_the_utterance_and_frame(toy, train, tmp_path, where):
    feats = feats_of(toy.path / where)
    feats["s1-u2"][3, 1] = np.nan
    toy.write_feats(toy.path / where, feats)
    done = train()
    fails(done, 1, "s1-u2: frame 3 is not finite", "compute these features again")
    assert not (tmp_path / "model" / "final.safetensors").exists()


def test_features_of_another_dimension(toy, train):
    feats = feats_of(toy.dev)
    toy.write_feats(toy.dev, {utt: matrix[:, :4] for utt, matrix in feats.items()})
    fails(train(), 1, "reads 6 per frame")


def test_a_front_end_that_makes_other_features(toy, train, tmp_path):
    (toy.train / "conf" / "fbank.conf").write_text("--num-mel-bins=40\n")
    done = train()
    fails(done, 1, "train/conf: gives 40 features per frame, but the architecture reads 6")
    (toy.train / "conf" / "fbank.conf").unlink()
    fails(train(), 2, "exactly one of fbank.conf")
    (toy.train / "conf" / "fbank.conf").write_text("--num-mel-bean=5\n")
    fails(train(), 2, "fbank.conf:1: unknown option --num-mel-bean")


def test_without_a_front_end_there_is_a_warning(toy, train, tmp_path):
    shutil.rmtree(toy.train / "conf")
    done = train()
    assert done.status == 0
    assert "the model will recognise features only, no recordings" in done.err
    assert not (tmp_path / "model" / "front_end").exists()


def test_text_that_is_missing_for_an_utterance(toy, train, tmp_path):
    text = read_map(toy.train / "text")
    del text["s0-u1"]
    write_map(toy.train / "text", text)
    done = train()
    fails(done, 1, "s0-u1: in feats.scp, not in text", f"run utils/fix_data_dir.py {toy.train}")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["train", "dev"])
def test_an_unknown_phone(toy, train, tmp_path, where, kind):
    text = read_map(toy.path / where / "text")
    write_map(toy.path / where / "text", {**text, "s0-u1": "a axr2 b"})
    done = train(kind=kind)
    fails(done, 1, f'{where}/text:2: s0-u1: unknown phone "axr2"', "train_tokenizer.py")
    assert not (tmp_path / "model").exists()


def test_an_utterance_too_short_for_ctc(toy, train, tmp_path):
    text = read_map(toy.train / "text")
    write_map(toy.train / "text", {**text, "s0-u1": "a a a a " * 9})
    done = train("--skip-short=false")
    fails(done, 1, "1 utterances are too short", "s0-u1:", "71 needed for 36 tokens")
    assert not (tmp_path / "model").exists()
    done = train()
    assert done.status == 0, done.err
    assert "skipping 1 utterances too short" in done.err
    assert "s0-u1: 14 frames, 71 needed for 36 tokens" in done.err
    assert "Done 3 training utterances, 0 failed, 1 too short" in done.err
    assert train(kind="transducer", name="transducer").status == 0


def test_no_statistics(toy, train, tmp_path):
    (toy.train / "cmvn.ark").rename(tmp_path / "elsewhere.ark")
    done = train()
    fails(
        done,
        1,
        f"{toy.train}/cmvn.ark: no such file; make it with compute_cmvn_stats.py "
        f"scp:{toy.train}/feats.scp {toy.train}/cmvn.ark, or give --cmvn=none",
    )
    assert train(f"--cmvn={tmp_path}/elsewhere.ark", name="given").status == 0
    assert train("--cmvn=none", name="none").status == 0
    assert ModelDir.open(tmp_path / "given").cmvn() is not None
    assert ModelDir.open(tmp_path / "none").cmvn() is None
    fails(train("--cmvn=gone.ark", name="gone"), 1, "gone.ark")


def test_statistics_that_do_not_fit(toy, train):
    write_matrix(str(toy.train / "cmvn.ark"), CmvnStats.zeros(9).matrix)
    fails(train(), 1, f"{toy.train}/cmvn.ark: statistics of 9 columns, but the model reads 6")


# ---- bad usage -----------------------------------------------------------------------------------


def test_a_device_that_is_not_there(train, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fails(train("--device=cuda"), 2, "--device=cuda: torch sees no CUDA device; use --device=cpu")
    fails(train("--device=nonsense"), 2, "--device must be one of cpu, cuda, auto")
    assert train("--device=auto").status == 0


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--epochs=0", "--epochs must be 1 or more"),
        ("--epochs=-1", "--epochs must be 1 or more"),
        ("--epochs=many", "--epochs"),
        ("--batch-size=0", "--batch-size must be 1 or more"),
        ("--learning-rate=nan", "--learning-rate must be a finite number"),
        ("--learning-rate=0", "--learning-rate must be above 0"),
        ("--optimizer=Adam", "--optimizer must be one of sgd, adam"),
        ("--stop-on=wer", "--stop-on must be one of loss, error-rate"),
        ("--seed=99999999999999999999", "--seed must be at most 2147483647"),
        ("--skip-short=perhaps", "--skip-short must be true or false"),
        ("--nonsense=1", "--nonsense"),
    ],
)
def test_an_option_that_is_wrong(train, tmp_path, option, said):
    fails(train(option), 2, said)
    assert not (tmp_path / "model").exists()


def test_arguments_that_are_missing(execute, toy):
    done = execute("train_ctc.py", toy.path / "model.toml")
    assert done.status == 2
    assert "Missing argument" in done.err


def test_an_architecture_that_is_wrong(toy, train, tmp_path):
    path = toy.path / "model.toml"
    text = path.read_text()
    path.write_text(text.replace("cells = 16", "cels = 16", 1))
    fails(train(), 2, "encoder.cels: unknown key; did you mean cells?", "encoder.cells: missing")
    path.write_text("num_tokens = 9\n" + text)
    fails(
        train(), 2, "num_tokens = 9, but", "has 4 tokens; the files belong to different experiments"
    )
    path.write_text(text[: text.index("[joiner]")])
    fails(train(kind="transducer"), 2, "a transducer model needs [joiner]; add it")
    path.unlink()
    fails(train(), 2, "model.toml: cannot read this architecture")
    assert not (tmp_path / "model").exists()


def test_tokens_that_are_missing(toy, train):
    (toy.path / "tokens.txt").unlink()
    fails(train(), 1, "tokens.txt: cannot read these tokens", "train_tokenizer.py makes them")


def test_all_unknown_phones_are_listed(toy, train):
    lines = (toy.dev / "text").read_text().splitlines()
    lines = [f"{line} {new}" for line, new in zip(lines, ["x y", "x", "\u200b", "z"], strict=True)]
    (toy.dev / "text").write_text("".join(line + "\n" for line in lines))
    done = train()
    listed = '"x" 2 (U+0078, ', '"y" 1 (U+0079, ', '"<U+200B>" 1 (U+200B, ', '"z" 1 (U+007A, '
    fails(done, 1, 'dev/text:1: s0-u0: unknown phone "x"', "--unk", *listed)


def test_a_phone_map_that_lacks_a_token(train, tmp_path):
    phone_map = tmp_path / "map"
    phone_map.write_text("a\ta\ta\nb\tb\ta\n")
    fails(train(f"--phone-map={phone_map}"), 1, '"c"')
    phone_map.write_text("a\ta\ta\nb\tb\ta\nc\tc\ta\n")
    assert train(f"--phone-map={phone_map}", name="folded").status == 0


# ---- going on ------------------------------------------------------------------------------------


def test_a_directory_of_other_options_or_data_is_refused_with_the_list(toy, train, tmp_path):
    assert train().status == 0
    final = (tmp_path / "model" / "final.safetensors").read_bytes()
    (toy.train / "spk2gender").write_text("s0 m\ns1 f\n")
    done = train("--learning-rate=0.5", "--batch-size=2", "--seed=9", "--cmvn=none")
    fails(
        done,
        1,
        f"{tmp_path}/model: was trained with other options or data; give another directory",
        "learning_rate: 0.0001 before, 0.5 now",
        "batch_size: 1 before, 2 now",
        "seed: 0 before, 9 now",
        "cmvn: '' before, 'none' now",
        "train_data_sha256",
    )
    assert "epochs" not in done.err
    assert (tmp_path / "model" / "final.safetensors").read_bytes() == final


def test_an_architecture_or_kind_that_changed_is_refused(toy, train):
    assert train().status == 0
    fails(train(kind="transducer"), 1, "other options or data", "architecture:")
    path = toy.path / "model.toml"
    path.write_text(path.read_text().replace("cells = 16", "cells = 17"))
    fails(train(), 1, "architecture:", "cells=16", "cells=17")


def test_epochs_patience_threads_and_device_may_change(train):
    assert train("--epochs=1").status == 0
    done = train("--epochs=2", "--patience=4", "--device=auto", "--allow-pipes=true")
    assert done.status == 0, done.err


def test_what_came_to_no_epoch_is_begun_again(toy, train, tmp_path):
    """The advice of an error of the first epoch can be followed in the same directory."""
    feats = feats_of(toy.train)
    toy.write_feats(toy.train, {**feats, "s0-u1": feats["s0-u1"] * np.float32(np.nan)})
    fails(train(), 1, "s0-u1: frame 0 is not finite")
    assert (tmp_path / "model" / "config.json").exists()
    toy.write_feats(toy.train, feats)
    assert train("--learning-rate=0.01", "--cmvn=none").status == 0
    assert ModelDir.open(tmp_path / "model").options["learning_rate"] == 0.01


def test_a_checkpoint_that_is_damaged(train, tmp_path):
    assert train("--epochs=1").status == 0
    last = tmp_path / "model" / "checkpoints" / "last.pt"
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    assert not last.with_name("previous.pt").exists()
    fails(train(), 1, f"{last}: damaged checkpoint", "remove it to start again")
    torch.save({"model": load_state_of(whole, tmp_path)["model"]}, last)
    fails(train(), 1, f'{last}: not a state of this training (it lacks "progress"); remove it')
    torch.save([1, 2], last)
    fails(train(), 1, f"{last}: not a state of this training")
    last.unlink()
    (tmp_path / "model" / "final.safetensors").unlink()
    assert train().status == 0


def load_state_of(data: bytes, folder: Path) -> dict[str, object]:
    (folder / "state").write_bytes(data)
    return load_state(folder / "state")


def test_a_finished_training_without_its_states_is_not_begun_again(train, tmp_path):
    """Continuing would give a different model under the same name."""
    assert train("--epochs=2").status == 0
    final = tmp_path / "model" / "final.safetensors"
    before = final.read_bytes()
    for state in ("last.pt", "previous.pt"):
        (tmp_path / "model" / "checkpoints" / state).unlink()
    fails(train("--epochs=5"), 1, "has finished weights but no checkpoints", "give another")
    assert final.read_bytes() == before
    final.unlink()
    assert train("--epochs=1", "--keep-epochs=9").status == 0
    names = {p.name for p in (tmp_path / "model" / "checkpoints").iterdir()}
    assert names == {"last.pt", "best.safetensors", "epoch-0001.safetensors"}


def test_other_files_in_a_data_directory_do_not_matter(toy, train):
    assert train("--epochs=1").status == 0
    (toy.train / "utt2dur").write_text("s0-u0 1.0\n")
    assert train("--epochs=2").status == 0
    text = (toy.train / "text").read_text()
    (toy.train / "text").write_text(text.replace("a", "b", 1))
    fails(train("--epochs=3"), 1, "train_data_sha256")


def test_the_same_start_by_another_path_is_the_same(trained, train, tmp_path):
    assert train(f"--init={trained}/ctc", "--epochs=1").status == 0
    (tmp_path / "link").symlink_to(trained)
    done = train(f"--init={tmp_path}/link/ctc", "--epochs=2")
    assert done.status == 0, done.err


def test_an_option_that_is_younger_than_the_directory_has_its_default(train, tmp_path):
    assert train("--epochs=1").status == 0
    path = tmp_path / "model" / "config.json"
    data = unsealed(path.read_text())
    del data["options"]["average"]
    path.write_text(json.dumps(data))
    assert train("--epochs=2").status == 0
    fails(train("--epochs=3", "--average=0.9"), 1, "average: 0.0 before, 0.9 now")


def test_a_trained_directory_without_its_config(train, tmp_path):
    assert train("--epochs=1").status == 0
    (tmp_path / "model" / "config.json").unlink()
    fails(train(), 1, "model: has no readable config.json")
    (tmp_path / "model" / "config.json").write_text("{")
    fails(train(), 1, "config.json: damaged")


def test_a_best_epoch_that_is_gone(train, tmp_path):
    assert train().status == 0
    (tmp_path / "model" / "checkpoints" / "best.safetensors").unlink()
    fails(train(), 1, "best.safetensors: cannot read these weights")


def test_two_trainings_in_one_directory(train, tmp_path):
    assert train("--epochs=1").status == 0
    with (tmp_path / "model" / "train.log").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fails(train(), 1, "model: another training writes here; wait for it")
    assert train().status == 0


def test_a_step_of_a_recipe_waits_for_the_training_that_a_killed_run_left(
    train, tmp_path, monkeypatch
):
    (tmp_path / "model").mkdir()
    monkeypatch.setenv("ONCE_STEP", "train_ctc.py")
    with (tmp_path / "model" / "train.log").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        timer = threading.Timer(0.3, lambda: fcntl.flock(other, fcntl.LOCK_UN))
        timer.start()
        done = train("--epochs=1")
        timer.join()
    assert done.status == 0, done.err
    assert "model: another training writes here; waiting for its end" in done.err


def test_a_loss_that_is_not_finite_stops_and_names_utterances(train, tmp_path):
    assert train("--epochs=1", name="good").status == 0
    done = train("--learning-rate=2e9", "--epochs=50", "--patience=0")
    assert done.status == 1
    no_traceback(done)
    assert re.search(
        r"the (loss|gradient) of (s\d-u\d|the dev set after epoch \d+) is not finite", done.err
    )
    assert "lower --learning-rate" in done.err
    assert not (tmp_path / "model" / "final.safetensors").exists()
    last = tmp_path / "model" / "checkpoints" / "last.pt"
    if last.exists():
        state = load_state(last)
        assert all(torch.isfinite(t).all() for t in state["model"].values())


def test_memory_that_runs_out_on_the_device(train, monkeypatch):
    from pipeline.training.loop import Trainer

    def full(self: Trainer) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 99 GiB")

    monkeypatch.setattr(Trainer, "run", full)
    fails(train(), 1, "out of memory; try", "a smaller batch")


# ---- signals -------------------------------------------------------------------------------------


@pytest.fixture
def start(toy, tmp_path) -> Callable[..., subprocess.Popen[bytes]]:
    """Start a training of its own process."""
    processes = []

    def run(*options: str, name: str = "model") -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "bin" / "train_ctc.py")]
        command += map(str, toy.arguments(tmp_path / name, *options))
        process = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


def wait_for_epochs(process: subprocess.Popen[bytes], model: Path, count: int) -> None:
    """Wait until a training has finished so many epochs more, or ended."""
    path = model / "metrics.jsonl"
    before, end = lines_of(path), time.monotonic() + 60
    while process.poll() is None and lines_of(path) < before + count and time.monotonic() < end:
        time.sleep(0.005)


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def whole_epochs(model: Path) -> int:
    """How many epochs a directory holds; every file under a final name must be whole."""
    if (model / "config.json").exists():
        ModelDir.open(model)
    for file in model.rglob("*.safetensors"):
        if not file.name.startswith("."):
            read_weights(file)
    if (model / "provenance.json").exists():
        json.loads((model / "provenance.json").read_text())
    if (model / "metrics.jsonl").exists():
        lines = metrics(model)
        assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    if not (model / "checkpoints" / "last.pt").exists():
        return 0
    return load_state(model / "checkpoints" / "last.pt")["progress"]["epoch"]


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_nothing_is_half_written(start, tmp_path, signum, status):
    process = start("--epochs=100000", "--patience=0")
    wait_for_epochs(process, tmp_path / "model", 2)
    process.send_signal(signum)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status, err.decode()
    assert b"Traceback" not in err
    assert whole_epochs(tmp_path / "model") >= 1
    assert not list((tmp_path / "model").rglob(".*"))
    assert not (tmp_path / "model" / "final.safetensors").exists()


def without_times(model: Path) -> list[dict[str, float]]:
    times = ("seconds", "frames_per_second", "sha256")
    return [{k: v for k, v in line.items() if k not in times} for line in metrics(model)]


def kill_and_finish(start, train, tmp_path: Path, kills: int) -> int:
    """Kill a training at random moments, going on each time; how often it had begun by then.

    It ends with the bytes of one that was never killed.
    """
    options = (
        *(f"--epochs={12 * kills}", "--patience=0", "--save-every=0", "--optimizer=adam"),
        *("--weight-noise=0.05", "--input-noise=0.1", "--speed=0.1", "--average=0.9"),
    )
    assert train(*options, name="whole").status == 0
    randomly, killed = random.Random(1), 0
    for _ in range(kills):
        process = start(*options)
        wait_for_epochs(process, tmp_path / "model", 1)
        time.sleep(randomly.uniform(0.0, 0.06))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        whole_epochs(tmp_path / "model")
    done = train(*options)
    assert done.status == 0, done.err
    assert "continuing after epoch" in done.err
    for file in ("final.safetensors", "checkpoints/best.safetensors"):
        whole = (tmp_path / "whole" / file).read_bytes()
        assert (tmp_path / "model" / file).read_bytes() == whole, file
    assert without_times(tmp_path / "model") == without_times(tmp_path / "whole")
    return killed


def test_killed_and_gone_on_with_it_gives_the_same_bytes(start, train, tmp_path):
    assert kill_and_finish(start, train, tmp_path, kills=2) == 2


@pytest.mark.slow
def test_killed_ten_times_it_still_gives_the_same_bytes(start, train, tmp_path, capsys):
    killed = kill_and_finish(start, train, tmp_path, kills=10)
    with capsys.disabled():
        print(f" {killed}/10 kills, final weights byte-identical")
    assert killed == 10


def test_a_second_training_touches_nothing_of_the_first(toy, train, tmp_path):
    model = tmp_path / "model"
    assert train("--epochs=1").status == 0
    (model / "checkpoints" / "last.pt").unlink()  # as in the first epoch of the first
    (model / "final.safetensors").unlink()
    before = (model / "config.json").read_bytes()
    with (model / "train.log").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fails(train("--epochs=1", "--seed=7"), 1, "another training writes here")
    assert (model / "config.json").read_bytes() == before
