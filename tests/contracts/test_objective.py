"""A new objective is one file and one ``case``: a toy, frame-wise cross-entropy, is trained."""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.nn.models import CtcModel
from pipeline.training import run
from pipeline.training.dataset import Batch, Utterance
from pipeline.training.objectives.kinds import make_objective
from pipeline.training.objectives.objective import DevScores, Objective, Total

# ---- the file of the objective -------------------------------------------------------------------


class ToyObjective(Objective):
    """Each frame has a target: the tokens of the utterance, stretched over its frames."""

    metric = "frame error"

    def __init__(self, model: CtcModel) -> None:
        super().__init__()
        self.model = model

    def targets(self, utterance: Utterance, frames: int) -> list[int]:
        indices = [t * len(utterance.tokens) // frames for t in range(frames)]
        return [
            0 if t and indices[t] != indices[t - 1] else utterance.tokens[index]
            for t, index in enumerate(indices)
        ]

    def frames_needed(self, utterance: Utterance) -> int:
        return 2 * len(utterance.tokens)

    def losses(self, batch: Batch) -> Tensor:
        log_probs, _ = self.model(batch.features, batch.lengths)
        picked = log_probs.gather(2, batch.targets[:, :, None]).squeeze(2)
        inside = torch.arange(picked.shape[1]) < batch.target_lengths[:, None]
        return -(picked * inside).sum(dim=1)

    def evaluate(self, batches: Iterable[Batch], total: Total = list) -> DevScores:
        nats, wrong, frames = 0.0, 0, 0
        for batch in batches:
            best = self.model(batch.features, batch.lengths)[0].argmax(dim=2)
            inside = torch.arange(best.shape[1]) < batch.target_lengths[:, None]
            nats += float(self.losses(batch).sum())
            wrong += int(((best != batch.targets) & inside).sum())
            frames += int(batch.target_lengths.sum())
        nats, wrong_in_all, frames_in_all = total((nats, wrong, frames))
        return DevScores(nats / frames_in_all, 100.0 * wrong_in_all / frames_in_all)


# ---- the added case ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def one_more_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(kind: str, model: object, *others: object, **more: object) -> Objective:
        match kind, model:
            case "ctc", CtcModel():
                return ToyObjective(model)
        return make_objective(kind, model, *others, **more)

    monkeypatch.setattr(run, "make_objective", chosen)


def test_it_is_trained_and_decoded(toy, execute: Callable, tmp_path: Path) -> None:
    model = tmp_path / "model"
    options = ("--optimizer=adam", "--learning-rate=0.02", "--batch-size=2", "--epochs=120")
    stop = ("--stop-on=error-rate", "--patience=0", "--schedule=linear")
    done = execute("train_ctc.py", *toy.arguments(model, *options, *stop))
    assert done.status == 0, done.err
    assert "dev frame error" in done.err
    lines = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    assert {line["metric"] for line in lines} == {"frame error"}
    assert lines[0]["dev_loss"] > 1.0 > 0.7 > lines[-1]["dev_loss"]  # nats a frame
    assert lines[0]["dev_loss"] < 2 * math.log(4)
    assert min(line["dev_error_rate"] for line in lines) < 25.0

    hyp = tmp_path / "hyp"
    feats = f"scp:{toy.dev}/feats.scp"
    done = execute("decode_ctc.py", "--beam=4", model, feats, f"ark,t:{hyp}")
    assert done.status == 0, done.err
    assert hyp.read_text() == (toy.dev / "text").read_text()


def test_utterances_too_short_for_it_are_left_out(toy, execute: Callable, tmp_path: Path) -> None:
    """The objective states the frames that it needs; one utterance has too many tokens for that."""
    text = toy.train / "text"
    first, *rest = text.read_text().splitlines()
    utt = first.split()[0]
    text.write_text("\n".join([f"{utt} {' '.join(['a', 'b'] * 20)}", *rest]) + "\n")
    faster = ("--epochs=1", "--speed=0.3")  # which changes the number of frames
    done = execute("train_ctc.py", *toy.arguments(tmp_path / "model", *faster))
    assert done.status == 0, done.err
    assert "1 too short" in done.err
