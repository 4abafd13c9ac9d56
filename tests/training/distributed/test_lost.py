"""If one of several processes fails, hangs or gets a signal, all end; the command continues."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.data_dir import read_map
from pipeline.models.model_dir import ModelDir
from pipeline.models.weights import load_state
from pipeline.tables import read_matrix

OPTIONS = ("--epochs=40", "--patience=0", "--batch-size=2", "--learning-rate=0.01")
NOISE = ("--weight-noise=0.02", "--input-noise=0.1", "--optimizer=adam", "--save-every=0.01")
Start = Callable[..., list]


def spoil(folder: Path, utt_id: str, toy: object) -> None:
    """Put a NaN into an utterance's features."""
    feats = {utt: read_matrix(rx).copy() for utt, rx in read_map(folder / "feats.scp").items()}
    feats[utt_id][0, 0] = np.nan
    toy.write_feats(folder, feats)


def ends(ranks: list, seconds: float = 30.0) -> list[int | None]:
    return [rank.wait(seconds) for rank in ranks]


def continue_and_compare(
    model: Path, toy: object, together: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Continue the training in ``model``; its weights are those of an undisturbed one."""
    options = (*OPTIONS, *NOISE)
    said = together("train_ctc.py", toy.arguments(model, *options))
    assert "continuing after epoch" in said[0]
    together("train_ctc.py", toy.arguments(tmp_path / "whole", *options))
    whole = (tmp_path / "whole" / "final.safetensors").read_bytes()
    assert (model / "final.safetensors").read_bytes() == whole


@pytest.mark.parametrize("where", ["train", "dev"])
def test_bad_data_in_one_process_are_reported_once(
    where: str, toy: object, start: Start, tmp_path: Path
) -> None:
    folder = toy.path / where
    utterances = sorted(read_map(folder / "feats.scp"))
    spoil(folder, utterances[-1], toy)
    options = ("--epochs=3", "--batch-size=2", "--cmvn=none")
    ranks = start("train_ctc.py", toy.arguments(tmp_path / "model", *options), 3)
    assert ends(ranks) == [1, 1, 1]
    assert ranks[0].said.count("ERROR") == 1
    assert utterances[-1] in ranks[0].said
    assert "Traceback" not in ranks[0].said
    assert [rank.said for rank in ranks[1:]] == ["", ""]


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (["--epochs=0"], 2, "--epochs must be 1 or more"),
        (["--timeout=0"], 2, "--timeout must be above 0"),
        (["--timeout=nan"], 2, "--timeout must be"),
        (["--device=cuda"], 2, "torch sees no CUDA device"),
        (["--init=nowhere"], 1, "nowhere"),
    ],
)
def test_an_error_of_all_processes_is_reported_once(
    options: list[str], status: int, text: str, toy: object, start: Start, tmp_path: Path
) -> None:
    ranks = start("train_ctc.py", toy.arguments(tmp_path / "model", *options))
    assert ends(ranks) == [status, status]
    assert text in ranks[0].said
    assert ranks[0].said.count("ERROR") == 1
    assert ranks[1].said == ""


def test_processes_with_different_options_do_not_start(
    toy: object, start: Start, tmp_path: Path
) -> None:
    """As in ``srun -n2 sh -c 'train_ctc.py … exp/$SLURM_PROCID'``."""
    ranks = start(
        "train_ctc.py",
        toy.arguments(tmp_path / "model", "--epochs=2"),
        per_rank=lambda rank: [f"--seed={rank}"],
    )
    assert ends(ranks) == [2, 2]
    assert "seed: 0 in rank 0, 1 in rank 1" in ranks[0].said
    assert "WORLD_SIZE=1" in ranks[0].said
    assert ranks[1].said == ""
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_and_the_training_can_be_continued(
    victim: int,
    toy: object,
    start: Start,
    together: Callable[..., list[str]],
    tmp_path: Path,
) -> None:
    model = tmp_path / "model"
    ranks = start("train_ctc.py", toy.arguments(model, *OPTIONS, *NOISE))
    ranks[victim].wait_until(lambda: (model / "checkpoints" / "previous.pt").exists())
    os.kill(ranks[victim].pid, signal.SIGKILL)
    began = time.monotonic()
    other = ranks[1 - victim]
    assert other.wait(20.0) == 1
    assert time.monotonic() - began < 10.0
    assert ranks[victim].wait() == -signal.SIGKILL
    assert f"rank {1 - victim} of 2 on " in other.said
    assert "lost the connection to another process (" in other.said
    assert "the same command continues from it" in other.said
    assert "Traceback" not in other.said
    assert not (model / "final.safetensors").exists()
    continue_and_compare(model, toy, together, tmp_path)


def test_a_process_that_hangs_is_waited_for_only_so_long(
    toy: object, start: Start, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    ranks = start("train_ctc.py", toy.arguments(model, *OPTIONS, *NOISE, "--timeout=0.05"))
    ranks[0].wait_until(lambda: (model / "checkpoints" / "previous.pt").exists())
    os.kill(ranks[1].pid, signal.SIGSTOP)
    began = time.monotonic()
    assert ranks[0].wait() == 1
    assert 1.0 < time.monotonic() - began < 20.0
    assert "lost the connection to another process (" in ranks[0].said
    assert load_state(ModelDir.open(model).last_path)["progress"]["epoch"] < 40
    os.kill(ranks[1].pid, signal.SIGCONT)
    assert ranks[1].wait() == 1


def test_a_process_that_never_starts_is_waited_for_only_so_long(
    toy: object, start: Start, tmp_path: Path
) -> None:
    arguments = toy.arguments(tmp_path / "model", "--epochs=1", "--timeout=0.03")
    (first,) = start("train_ctc.py", arguments, only=(0,))
    assert first.wait(20.0) == 1
    assert "rank 0 of 2 on " in first.said
    assert "no rendezvous with the others at 127.0.0.1:" in first.said
    assert "(timed out); are all of them started?" in first.said
    assert "Traceback" not in first.said
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("signalled", [(1,), (0, 1)])
def test_a_signal_to_any_process_saves_once_and_ends_all(
    signum: int,
    status: int,
    signalled: tuple[int, ...],
    toy: object,
    start: Start,
    together: Callable[..., list[str]],
    tmp_path: Path,
) -> None:
    model = tmp_path / "model"
    ranks = start("train_ctc.py", toy.arguments(model, *OPTIONS, *NOISE))
    ranks[0].wait_until(lambda: (model / "checkpoints" / "previous.pt").exists())
    for rank in signalled:
        os.kill(ranks[rank].pid, signum)
    assert ends(ranks) == [status, status], [rank.said for rank in ranks]
    assert ranks[0].said.count("the same command continues") == 1
    assert ranks[0].said.count("interrupted") == (1 if signum == signal.SIGINT else 0)
    assert ranks[1].said == ""
    if signalled == (1,) and signum == signal.SIGTERM:
        continue_and_compare(model, toy, together, tmp_path)


def test_a_second_training_in_the_same_directory_is_refused(
    toy: object, start: Start, tmp_path: Path
) -> None:
    """Only the first process takes the lock, and only it reports the error."""
    model = tmp_path / "model"
    ranks = start("train_ctc.py", toy.arguments(model, *OPTIONS, *NOISE, "--epochs=1000"))
    ranks[0].wait_until(lambda: (model / "checkpoints" / "previous.pt").exists())
    others = start("train_ctc.py", toy.arguments(model, *OPTIONS, *NOISE, "--epochs=1000"))
    assert ends(others) == [1, 1]
    assert others[0].said.count("another training writes here") == 1
    assert others[1].said == ""
    os.kill(ranks[0].pid, signal.SIGTERM)
    assert ends(ranks) == [143, 143]
