"""Several processes that train together give the result of one, up to rounding, each time."""

import fcntl
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.data.data_dir import read_map, write_map
from pipeline.errors import ModelError, PipelineError, UsageError
from pipeline.models.device import choose_device
from pipeline.models.model_dir import ModelDir
from pipeline.models.weights import read_weights
from pipeline.tables import IntegersWriter, MatrixReader, read_matrix
from pipeline.training import provenance
from pipeline.training.distributed.processes import World, portable

OPTIONS = (
    *("--epochs=3", "--patience=0", "--batch-size=3", "--optimizer=sgd", "--learning-rate=0.01"),
    *("--weight-noise=0.02", "--input-noise=0.1", "--speed=0.1", "--clip-norm=5", "--average=0.9"),
    *("--schedule=linear", "--stop-on=error-rate"),
)
Together = Callable[..., list[str]]


def final(path: Path) -> bytes:
    return (path / "final.safetensors").read_bytes()


def same_to_rounding(one: Path, other: Path) -> None:
    """Weights and numbers of two trainings."""
    mine, theirs = (read_weights(ModelDir.open(path).weights_path) for path in (one, other))
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor, rtol=1e-4, atol=1e-6)
    lines = [
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (one, other)
    ]
    for a, b in zip(*lines, strict=True):
        for key in ("train_loss", "dev_loss", "dev_error_rate"):
            assert b[key] == pytest.approx(a[key], rel=1e-4)


@pytest.mark.parametrize("kind", ["ctc", "predictor", "transducer"])
def test_two_processes_give_what_one_gives(
    kind: str, toy: object, execute: Callable[..., object], tmp_path: Path, together: Together
) -> None:
    """Batches of three of four utterances: one process gets fewer, and once none."""
    options = OPTIONS
    if kind == "transducer":
        options = (*OPTIONS, "--ctc-weight=0.3")
    if kind == "predictor":  # reads no features
        options = tuple(o for o in OPTIONS if not o.startswith(("--input-noise", "--speed")))
    done = execute(f"train_{kind}.py", *toy.arguments(tmp_path / "one", *options))
    assert done.status == 0, done.err
    arguments = toy.arguments(tmp_path / "two", *options)
    said = together(f"train_{kind}.py", arguments, kernels="")
    assert "on cpu, 2 processes" in said[0]
    assert said[1] == ""
    same_to_rounding(tmp_path / "one", tmp_path / "two")
    assert json.loads((tmp_path / "two" / "provenance.json").read_text())["processes"] == 2


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


@pytest.mark.parametrize("size", [2, 3])
def test_batch_norm_over_two_processes_is_that_of_one(
    size: int, toy: object, execute: Callable[..., object], tmp_path: Path, together: Together
) -> None:
    """The parts are uneven, and with two batches of three and one a process gets nothing once."""
    (toy.path / "model.toml").write_text(DEEP_SPEECH_2)
    options = ("--epochs=3", "--patience=0", f"--batch-size={size}", "--average=0.9")
    options = (*options, "--learning-rate=0.02", "--sortagrad", "--clip-norm=1")
    done = execute("train_ctc.py", *toy.arguments(tmp_path / "one", *options))
    assert done.status == 0, done.err
    together("train_ctc.py", toy.arguments(tmp_path / "two", *options), kernels="")
    same_to_rounding(tmp_path / "one", tmp_path / "two")
    name = "encoder.layers.0.before.norm.running_var"
    weights = read_weights(tmp_path / "two" / "final.safetensors")
    assert (weights[name] - 1.0).abs().max() > 0.01


NORMS = """
import torch
from torch import nn
from pipeline.nn.sequence_norm import SequenceNorm
from pipeline.training.distributed.norms import NormSums
from pipeline.training.distributed.processes import World

world = World()
network = nn.Sequential(*(nn.Sequential(nn.Linear(2, 2), SequenceNorm(2)) for _ in range(3)))
norms = NormSums(network, world)
norms.begin()
with world.together():
    if world.rank == 0:
        network(torch.randn(5, 2)).sum().backward()
    else:
        network[0](torch.randn(4, 2))  # and then there is no memory left
        norms.finish()
    print(norms.done, [float(n.running_mean[0]) for n in norms.norms], flush=True)
world.leave()
raise SystemExit
"""


def test_a_process_that_cannot_go_on_takes_part_in_the_sums_that_are_left(
    tmp_path: Path, together: Together
) -> None:
    program = tmp_path / "norms.py"
    program.write_text(NORMS)
    one, two = together(str(program), [])
    assert one == two  # also the running averages
    assert one.startswith("6 ")


def test_streams_of_two_processes_give_what_one_gives(
    toy: object, execute: Callable[..., object], tmp_path: Path, together: Together
) -> None:
    """Three streams of four utterances; a training of two is continued within an epoch."""
    for folder in (toy.train, toy.dev):
        with IntegersWriter(f"ark,scp:{folder}/ali.ark,{folder}/ali.scp") as writer:
            for utt, matrix in MatrixReader(f"scp:{folder}/feats.scp"):
                writer.write(utt, matrix.argmax(axis=1) + 1)
    path = toy.path / "model.toml"
    path.write_text(path.read_text().replace("layers = 1", "layers = 1\nbidirectional = false"))
    options = [o for o in OPTIONS if not o.startswith("--speed")]
    options += ["--bptt=5", "--streams=3", "--save-every=0"]
    done = execute("train_framewise.py", *toy.arguments(tmp_path / "one", *options))
    assert done.status == 0, done.err
    arguments = toy.arguments(tmp_path / "two", *options)
    together("train_framewise.py", arguments, kernels="")
    same_to_rounding(tmp_path / "one", tmp_path / "two")
    whole = final(tmp_path / "two")
    (tmp_path / "two" / "checkpoints" / "last.pt").unlink()
    (tmp_path / "two" / "final.safetensors").unlink()
    together("train_framewise.py", arguments, kernels="")
    assert final(tmp_path / "two") == whole


BUFFERS = """
import torch
from pipeline.training.distributed.processes import World

world = World()
buffers = [torch.full((2,), float(world.rank)), torch.tensor(3.0 * world.rank)]
with world.together():
    world.average_buffers(buffers)
    print([b.tolist() for b in buffers], flush=True)
world.leave()
raise SystemExit
"""


def test_buffers_are_the_mean_over_the_processes(tmp_path: Path, together: Together) -> None:
    """Each process computes another part of every batch, so their running averages differ."""
    program = tmp_path / "buffers.py"
    program.write_text(BUFFERS)
    assert together(str(program), []) == ["[[0.5, 0.5], 1.5]\n"] * 2


def test_more_processes_than_utterances(
    toy: object, execute: Callable[..., object], tmp_path: Path, together: Together
) -> None:
    """Three processes, batches of two, a dev set of one utterance, one too short to train on."""
    one = next(iter(read_map(toy.dev / "text")))
    for name in ("text", "utt2spk", "feats.scp", "utt2num_frames"):
        write_map(toy.dev / name, {one: read_map(toy.dev / name)[one]})
    feats = {utt: read_matrix(rx) for utt, rx in read_map(toy.train / "feats.scp").items()}
    short = sorted(feats)[1]
    feats[short] = feats[short][:1]
    toy.write_feats(toy.train, feats)
    options = ("--epochs=2", "--batch-size=2", "--learning-rate=0.01")
    done = execute("train_ctc.py", *toy.arguments(tmp_path / "one", *options))
    assert done.status == 0, done.err
    said = together("train_ctc.py", toy.arguments(tmp_path / "three", *options), 3)
    assert said[0].count("skipping 1 utterances too short") == 1
    assert (
        "batches of at most 2 utterances leave some of 3 processes idle; raise --batch-size"
        in said[0]
    )
    assert said[0].endswith("Done 3 training utterances, 0 failed, 1 too short\n")
    assert said[1:] == ["", ""]
    same_to_rounding(tmp_path / "one", tmp_path / "three")


def test_the_same_bytes_each_time_also_after_an_interruption(
    toy: object, tmp_path: Path, together: Together
) -> None:
    whole, again = tmp_path / "whole", tmp_path / "again"
    options = (*OPTIONS, "--save-every=0")
    together("train_ctc.py", toy.arguments(whole, *options))
    together("train_ctc.py", toy.arguments(again, *options))
    assert final(again) == final(whole)
    # Continued from the state before the last epoch's end, the training gives the same weights.
    (whole / "checkpoints" / "last.pt").unlink()
    (whole / "final.safetensors").unlink()
    together("train_ctc.py", toy.arguments(whole, *options))
    assert final(whole) == final(again)


def test_one_process_alone_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = World()
    assert (world.size, world.rank, world.is_first) == (1, 0, True)
    assert world.share([1, 2, 3]) == [1, 2, 3]
    assert world.sum([1.5, 2.0]) == [1.5, 2.0]
    assert world.gather("a") == ["a"]
    assert world.from_first(lambda: "b") == "b"
    with world.together():
        world.wait()
    with pytest.raises(KeyError), world.together():
        raise KeyError
    world.leave()


# ---- agreement -----------------------------------------------------------------------------------


class Found(World):
    """A world whose processes pass ``found`` to `gather`."""

    def __init__(self, *found: object) -> None:
        super().__init__()
        self.found = list(found)

    def gather(self, mine: object) -> list[object]:
        return self.found


def test_a_process_with_another_option_is_named() -> None:
    with pytest.raises(UsageError, match=r"same command.*\n  epochs: 3 in rank 0, 4 in rank 1$"):
        Found({"epochs": 3, "seed": 0}, {"epochs": 4, "seed": 0}).require_same(
            {"epochs": 3, "seed": 0}
        )
    Found({"epochs": 3}, {"epochs": 3}).require_same({"epochs": 3})


def test_two_processes_do_not_share_a_gpu() -> None:
    with pytest.raises(UsageError, match="a: 2 processes have the same GPU; start one process"):
        Found(("a", "x"), ("a", "x"), ("a", "y")).use(torch.device("cpu"))
    Found(("a", "x"), ("b", "x")).use(torch.device("cpu"))  # on two machines


def test_all_have_a_gpu_or_none() -> None:
    world = Found(("a", "x"), ("b", ""))
    world.size = 2
    with pytest.raises(UsageError, match=r"no GPU for 1 of 2 processes \(on b\)"):
        world.use(torch.device("cpu"))
    Found(("a", ""), ("a", "")).use(torch.device("cpu"))


@pytest.mark.parametrize(("visible", "gpu"), [(4, 3), (1, 0), (2, 1)])
def test_each_process_takes_the_gpu_of_its_number(
    visible: int, gpu: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device("cuda") == torch.device("cuda", gpu)
    assert taken == [torch.device("cuda", gpu)]


def test_a_programming_error_is_sent_with_its_rank_and_traceback() -> None:
    try:
        raise KeyError("here")
    except KeyError as error:
        sent = portable(error, "rank 1 of 2 on n2")
    assert str(sent) == "rank 1 of 2 on n2: KeyError: 'here'"
    assert 'raise KeyError("here")' in sent.__notes__[0]
    mended = PipelineError("a")
    assert portable(mended, "rank 1 of 2 on n2") is mended


# ---- the lock ------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", provenance.RESTARTS)
def test_a_restarted_training_waits_for_the_lock_of_a_lost_process(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    level = logging.getLogger("pipeline").level
    with (tmp_path / "train.log").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        began = time.monotonic()
        with pytest.raises(ModelError, match="writes here"), provenance.log_file(tmp_path, World()):
            pass
        assert time.monotonic() - began < 0.5
        monkeypatch.setenv(variable, "1")
        threading.Timer(0.2, lambda: fcntl.flock(held, fcntl.LOCK_UN)).start()
        with provenance.log_file(tmp_path, World()):
            assert time.monotonic() - began >= 0.2
    logging.getLogger("pipeline").setLevel(level)


def test_a_lock_that_stays_is_an_error_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    monkeypatch.setattr(provenance, "LOCK_PATIENCE", 0.1)
    with (tmp_path / "train.log").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ModelError, match="writes here"), provenance.log_file(tmp_path, World()):
            pass


def test_the_directory_of_another_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trainings start at once; the second makes the directory but does not get the lock."""

    def taken(file: object, directory: Path) -> None:
        raise ModelError("taken")

    monkeypatch.setattr(provenance, "_lock", taken)
    with pytest.raises(ModelError), provenance.log_file(tmp_path / "model", World()):
        pass
    assert (tmp_path / "model" / "train.log").exists()
