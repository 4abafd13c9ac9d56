"""One worker gives the bytes of the synchronous trainer; several train each utterance once."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.tables import IntegersWriter, MatrixReader

OPTIONS = (
    *("--epochs=3", "--patience=0", "--batch-size=3", "--optimizer=sgd", "--learning-rate=0.01"),
    *("--weight-noise=0.02", "--input-noise=0.1", "--speed=0.1", "--clip-norm=5", "--average=0.9"),
    *("--schedule=linear", "--stop-on=error-rate"),
)
ADAM = ("--epochs=3", "--patience=0", "--batch-size=2", "--optimizer=adam", "--learning-rate=0.01")
Together = Callable[..., list[str]]

DEEP_SPEECH_2 = """
[encoder]
kind = "deep_speech2"
input_dim = 6
channels = [3, 2]
time_kernels = [3, 3]
time_strides = [1, 1]
freq_kernels = [3, 3]
freq_strides = [2, 1]
layers = 2
cells = 5
"""


def final(path: Path) -> bytes:
    return (path / "final.safetensors").read_bytes()


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def add_alignments(toy: object) -> None:
    """Give all frames labels, and let the network read them one after the other."""
    model = toy.path / "model.toml"
    model.write_text(model.read_text().replace("[encoder]", "[encoder]\nbidirectional = false"))
    for folder in (toy.train, toy.dev):
        with IntegersWriter(f"ark,scp:{folder}/ali.ark,{folder}/ali.scp") as writer:
            for utt, matrix in MatrixReader(f"scp:{folder}/feats.scp"):
                writer.write(utt, matrix.argmax(axis=1) + 1)


def compare(
    program: str,
    options: tuple[str, ...],
    toy: object,
    together: Together,
    tmp_path: Path,
    *,
    shards: int = 1,
) -> None:
    """Train alone and with a coordinator, shards and one worker: the weights are the same bytes."""
    together(program, toy.arguments(tmp_path / "alone", *options), 1, kernels="")
    options = (*options, "--async", f"--shards={shards}")
    said = together(program, toy.arguments(tmp_path / "async", *options), 2 + shards, kernels="")
    assert f"asynchronous: 1 workers, {shards} shards" in said[0]
    assert said[1:] == [""] * (1 + shards)
    assert final(tmp_path / "async") == final(tmp_path / "alone")
    for one, other in zip(lines(tmp_path / "alone"), lines(tmp_path / "async"), strict=True):
        for name in ("train_loss", "dev_loss", "dev_error_rate", "best"):
            assert other[name] == one[name]
        assert [set(seen) for seen in other["asynchronous"]["staleness"]] == [{"0"}] * shards


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "kind",
    ["ctc", pytest.param("predictor", marks=SLOW), pytest.param("transducer", marks=SLOW)],
)
def test_one_worker_and_one_shard_give_what_one_process_gives(
    kind: str, toy: object, together: Together, tmp_path: Path
) -> None:
    options = OPTIONS
    if kind == "transducer":
        options = (*OPTIONS, "--ctc-weight=0.3")
    if kind == "predictor":  # reads no features
        options = tuple(o for o in OPTIONS if not o.startswith(("--input-noise", "--speed")))
    compare(f"train_{kind}.py", options, toy, together, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adagrad"])
def test_two_shards_and_other_optimisers(
    optimizer: str, toy: object, together: Together, tmp_path: Path
) -> None:
    options = tuple(o for o in OPTIONS if not o.startswith("--optimizer"))
    options = (*options, f"--optimizer={optimizer}")
    compare("train_ctc.py", options, toy, together, tmp_path, shards=2)


@pytest.mark.slow
def test_running_averages_of_batch_norm(toy: object, together: Together, tmp_path: Path) -> None:
    (toy.path / "model.toml").write_text(DEEP_SPEECH_2)
    compare("train_ctc.py", (*ADAM, "--average=0.9"), toy, together, tmp_path)


@pytest.mark.parametrize("bptt", [5, pytest.param(0, marks=SLOW)])
def test_streams(bptt: int, toy: object, together: Together, tmp_path: Path) -> None:
    """The streams of one worker take the utterances in the order of the synchronous trainer."""
    add_alignments(toy)
    options = tuple(o for o in OPTIONS if not o.startswith("--speed"))
    options = (*options, f"--bptt={bptt}", "--streams=3", "--delay=2")
    compare("train_framewise.py", options, toy, together, tmp_path)


@pytest.mark.parametrize(
    ("program", "more"),
    [
        pytest.param("train_ctc.py", ("--shards=2",), marks=SLOW),
        pytest.param(
            "train_ctc.py",
            ("--push-every=2", "--fetch-every=3", "--divide-by-staleness"),
            marks=SLOW,
        ),
        ("train_framewise.py", ("--bptt=4", "--streams=2", "--push-every=3", "--fetch-every=2")),
    ],
)
def test_two_workers_train_each_utterance_once_an_epoch(
    program: str, more: tuple[str, ...], toy: object, together: Together, tmp_path: Path
) -> None:
    add_alignments(toy)
    options = ("--epochs=4", "--patience=0", "--batch-size=1", "--learning-rate=0.01", *more)
    shards = 2 if "--shards=2" in more else 1
    options = ("--async", *options)
    together(program, toy.arguments(tmp_path / "model", *options), 3 + shards)  # two workers
    found = lines(tmp_path / "model")
    assert [line["epoch"] for line in found] == [1, 2, 3, 4]
    for line in found:
        facts = line["asynchronous"]
        assert facts["utterances"] == 4
        assert sum(share["utterances"] for share in facts["workers"].values()) == 4
        assert len(facts["staleness"]) == shards
        pushes = facts["updates"]
        if "train_ctc" in program:
            assert [sum(seen.values()) for seen in facts["staleness"]] == [pushes] * shards
        assert all(share["megabytes"] > 0 for share in facts["workers"].values())
    assert found[-1]["train_loss"] < found[0]["train_loss"]


# ---- Hogwild -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "adagrad"])
def test_one_hogwild_worker_gives_what_one_process_gives(
    optimizer: str, toy: object, together: Together, tmp_path: Path
) -> None:
    """The weights and the optimiser's values in shared memory are those of a training alone."""
    options = tuple(o for o in OPTIONS if not o.startswith("--optimizer"))
    options = (*options, f"--optimizer={optimizer}")
    together("train_ctc.py", toy.arguments(tmp_path / "alone", *options), 1, kernels="")
    options = (*options, "--async=hogwild", "--workers=1")
    (said,) = together("train_ctc.py", toy.arguments(tmp_path / "wild", *options), 1, kernels="")
    assert "worker1 (process" in said
    assert final(tmp_path / "wild") == final(tmp_path / "alone")


def test_hogwild_workers_train_each_utterance_once_an_epoch(
    toy: object, together: Together, tmp_path: Path
) -> None:
    options = ("--epochs=4", "--patience=0", "--learning-rate=0.01", "--async=hogwild")
    together("train_ctc.py", toy.arguments(tmp_path / "model", *options, "--workers=3"), 1)
    found = lines(tmp_path / "model")
    assert [line["asynchronous"]["utterances"] for line in found] == [4] * 4
    assert [sum(line["asynchronous"]["staleness"][0].values()) for line in found] == [4] * 4
    assert found[-1]["train_loss"] < found[0]["train_loss"]
