"""The training loop: updates, the choice of the best epoch, interruption and continuation."""

import dataclasses
import json
import logging
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError, DataError, FeatureError, ModelError, UsageError
from pipeline.frontend.cmvn import CmvnStats
from pipeline.kernels import engines
from pipeline.models.model_dir import ModelDir, read_cmvn
from pipeline.models.weights import load_state, read_weights
from pipeline.nn.config import model_config_from
from pipeline.nn.layers import initialise
from pipeline.nn.models import build_model
from pipeline.nn.sequence_norm import SequenceNorm
from pipeline.text.tokens import Tokens
from pipeline.training import feature_reader, interrupts, loop
from pipeline.training.dataset import Utterance, load_dataset
from pipeline.training.distributed.norms import NormSums
from pipeline.training.loop import Trainer
from pipeline.training.objectives.ctc import CtcObjective
from pipeline.training.objectives.next_token import NextTokenObjective
from pipeline.training.objectives.objective import DevScores, fitting, token_metric
from pipeline.training.objectives.transducer import TransducerObjective
from pipeline.training.optimizer import learning_rate
from pipeline.training.train_options import TransducerTrainOptions

TOKENS = Tokens(["<blk>", "a", "b", "c"])
CPU = torch.device("cpu")
SMALL = TransducerTrainOptions(optimizer="adam", learning_rate=0.01, epochs=4, patience=0)
ENCODER = {"input_dim": 6, "layers": 1, "cells": 4}
PARTS = {
    "ctc": {"encoder": ENCODER},
    "predictor": {"predictor": {"cells": 4}},
    "transducer": {"encoder": ENCODER, "predictor": {"cells": 4}, "joiner": {"dim": 4}},
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make_trainer(toy, tmp_path) -> Callable[..., Trainer]:
    """A trainer on the toy corpus; the same ``name`` is the same model directory."""

    def make(
        options: TransducerTrainOptions = SMALL,
        *,
        kind: str = "ctc",
        name: str = "model",
        dropout: float = 0.0,
        cmvn: bool = True,
        train: list[Utterance] | None = None,
    ) -> Trainer:
        parts = {k: dict(v) for k, v in PARTS[kind].items()}
        if "encoder" in parts:
            parts["encoder"]["dropout"] = dropout
        config = model_config_from({"num_tokens": 4, **parts}, where="test")
        path = tmp_path / name
        if (path / "config.json").exists():
            directory = ModelDir.open(path)
        else:
            stats = read_cmvn(toy.train / "cmvn.ark", 6) if cmvn and kind != "predictor" else None
            directory = ModelDir.create(
                path, config, TOKENS, cmvn=stats, front_end=None, options={}
            )
        model = build_model(config, num_tokens=4)
        initialise(model, scale=0.1, generator=torch.Generator().manual_seed(options.seed))
        objective = {
            "ctc": lambda: CtcObjective(model, token_metric(TOKENS)),
            "predictor": lambda: NextTokenObjective(model),
            "transducer": lambda: TransducerObjective(
                model, token_metric(TOKENS), ctc_weight=options.ctc_weight
            ),
        }[kind]()
        initialise(objective.auxiliary, scale=0.1, generator=torch.Generator().manual_seed(1))
        reads = kind != "predictor"
        return Trainer(
            model,
            objective,
            directory,
            options,
            train=train or load_dataset(toy.train, TOKENS, with_features=reads),
            dev=load_dataset(toy.dev, TOKENS, with_features=reads),
            device=CPU,
        )

    return make


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


def final_bytes(trainer: Trainer) -> bytes:
    trainer.run()
    return trainer.directory.weights_path.read_bytes()


def metrics(trainer: Trainer) -> list[dict[str, float]]:
    text = (trainer.directory.path / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def one_batch(trainer: Trainer) -> loop.Batch:
    return next(trainer._prepared(1, trainer._batches(1)))


def scripted(trainer: Trainer, scores: list[DevScores]) -> None:
    """Give these dev scores, one per epoch, and record the weights at each evaluation."""
    remaining = iter(scores)
    trainer.seen = []

    def evaluate(batches: Iterator[loop.Batch], total: object) -> DevScores:
        list(batches)
        assert not trainer.model.training
        trainer.seen.append(weights(trainer.model))
        return next(remaining)

    trainer.objective.evaluate = evaluate


# ---- one update ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ctc", "predictor", "transducer"])
def test_an_update_is_a_step_down_the_gradient_of_the_summed_loss(make_trainer, kind):
    options = dataclasses.replace(
        SMALL, optimizer="sgd", momentum=0.0, learning_rate=0.5, batch_size=3
    )
    trainer = make_trainer(options, kind=kind)
    batch, before = one_batch(trainer), weights(trainer.model)
    losses = trainer.objective.losses(batch)
    losses.sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    counts = trainer._update(batch, torch.Generator())
    assert losses.shape == (3,)
    assert counts.tokens == int(batch.target_lengths.sum())
    assert counts.frames == int(batch.lengths.sum())
    assert counts.nats == pytest.approx(float(losses.detach().sum()), rel=1e-6)
    torch.testing.assert_close(weights(trainer.model), before - 0.5 * gradient)


def test_momentum_is_that_of_the_options(make_trainer):
    options = dataclasses.replace(SMALL, optimizer="sgd", momentum=0.9, learning_rate=0.01)
    trainer = make_trainer(options)
    (group,) = trainer.optimizer.param_groups
    assert (type(trainer.optimizer).__name__, group["momentum"], group["lr"]) == ("SGD", 0.9, 0.01)


def test_weight_noise_changes_the_gradient_not_what_is_updated(make_trainer):
    options = dataclasses.replace(
        SMALL, optimizer="sgd", momentum=0.0, learning_rate=0.5, weight_noise=0.075
    )
    trainer = make_trainer(options)
    batch, clean = one_batch(trainer), weights(trainer.model)
    at = []
    losses_of = trainer.objective.losses
    trainer.objective.losses = lambda batch: at.append(weights(trainer.model)) or losses_of(batch)
    trainer._update(batch, torch.Generator().manual_seed(4))
    gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    torch.testing.assert_close(weights(trainer.model), clean - 0.5 * gradient, rtol=0, atol=1e-7)
    noise = at[0] - clean
    assert abs(float(noise.std()) - 0.075) < 4 * 0.075 / (2 * len(noise)) ** 0.5


def test_noise_is_drawn_for_every_update_and_never_at_evaluation(make_trainer):
    options = dataclasses.replace(SMALL, epochs=2, weight_noise=0.075, learning_rate=1e-30)
    trainer = make_trainer(options)
    clean, drawn, evaluated = weights(trainer.model), [], []
    losses_of, evaluate = trainer.objective.losses, trainer.objective.evaluate
    trainer.objective.losses = lambda b: (
        drawn.append(weights(trainer.model) - clean) or losses_of(b)
    )
    trainer.objective.evaluate = lambda b, total: (
        evaluated.append(weights(trainer.model)) or evaluate(b)
    )
    trainer.run()
    assert len(drawn) == 2 * len(trainer.train)
    sums = {round(float(noise.sum()), 6) for noise in drawn}
    assert len(sums) == len(drawn)
    assert all(torch.allclose(w, clean, atol=1e-12) for w in evaluated)
    saved = read_weights(trainer.directory.weights_path)
    assert torch.allclose(torch.cat([saved[n].flatten() for n in saved]).sort()[0], clean.sort()[0])


def test_an_error_in_an_update_leaves_clean_weights(make_trainer):
    trainer = make_trainer(dataclasses.replace(SMALL, weight_noise=0.075))
    batch, clean = one_batch(trainer), weights(trainer.model)

    def interrupt(batch: loop.Batch) -> torch.Tensor:
        raise KeyboardInterrupt

    trainer.objective.losses = interrupt
    with pytest.raises(KeyboardInterrupt):
        trainer._update(batch, torch.Generator())
    assert torch.equal(weights(trainer.model), clean)


def test_gradients_are_scaled_down_to_the_norm(make_trainer):
    options = dataclasses.replace(
        SMALL, optimizer="sgd", momentum=0.0, learning_rate=1.0, clip_norm=0.25
    )
    trainer = make_trainer(options)
    batch, before = one_batch(trainer), weights(trainer.model)
    trainer._update(batch, torch.Generator())
    assert float((weights(trainer.model) - before).norm()) == pytest.approx(0.25, rel=1e-3)


def test_features_are_augmented_in_training_only(make_trainer, monkeypatch):
    calls = []
    real = feature_reader.augment
    monkeypatch.setattr(feature_reader, "augment", lambda *a, **k: calls.append(a) or real(*a, **k))
    options = dataclasses.replace(SMALL, epochs=1, input_noise=0.6, time_masks=2, freq_masks=2)
    trainer = make_trainer(options)
    seen = []
    evaluate = trainer.objective.evaluate

    def watch(batches: Iterator[loop.Batch], total: object) -> DevScores:
        kept = list(batches)
        seen.extend(b.features for b in kept)
        return evaluate(kept)

    trainer.objective.evaluate = watch
    trainer.run()
    assert len(calls) == len(trainer.train)
    by_length = sorted(trainer.dev, key=lambda u: (-u.num_frames, u.utt_id))
    clean = [trainer.reader.load(u) for u in by_length]
    for batch, features in zip(seen, clean, strict=True):
        np.testing.assert_array_equal(batch[0, : len(features)].numpy(), features)


def test_a_predictors_batches_are_not_augmented(make_trainer):
    options = dataclasses.replace(SMALL, epochs=1, input_noise=0.6, time_masks=2, freq_masks=2)
    make_trainer(options, kind="predictor").run()


def test_the_linear_schedule_warms_up_and_goes_down_to_almost_0(make_trainer):
    options = dataclasses.replace(SMALL, schedule="linear", epochs=10, learning_rate=0.1)
    trainer = make_trainer(options)
    total = 10 * len(trainer.train)
    rates = []
    for step in range(total):
        rates.append(learning_rate(options, epochs=0, done=step / total, share=1 / total))
    assert rates[0] == pytest.approx(0.05)  # 5 % of 40 updates: two to warm up
    assert max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) == 1
    assert np.all(np.diff(rates[2:]) < 0)
    assert 0.0 < rates[-1] < 0.1 / total * 2


def test_the_constant_schedule_is_constant():
    assert learning_rate(SMALL, epochs=3, done=0.5, share=0.1) == 0.01


def test_the_annealed_schedule_divides_the_rate_after_each_epoch(make_trainer):
    options = dataclasses.replace(SMALL, schedule="annealed", anneal=2.0, epochs=3)
    trainer = make_trainer(options)
    trainer.run()
    rates = [line["learning_rate"] for line in metrics(trainer)]
    assert rates == pytest.approx([0.01, 0.005, 0.0025])


# ---- Deep Speech 2's options ---------------------------------------------------------------------


def test_sortagrad_orders_only_the_first_epoch(make_trainer):
    options = dataclasses.replace(SMALL, sortagrad=True, batch_size=1)
    trainer, plain = make_trainer(options), make_trainer(SMALL, name="plain")
    frames = [batch[0].num_frames for batch in trainer._batches(1)]
    assert frames == sorted(u.num_frames for u in trainer.train)
    plain.options = dataclasses.replace(SMALL, batch_size=1)
    assert trainer._batches(2) == plain._batches(2)
    assert any(trainer._batches(e) != sorted(trainer._batches(e), key=str) for e in range(2, 9))


def test_nesterovs_momentum_looks_ahead(make_trainer):
    """w - λ (g + μ v) with v = μ v + g, by hand for the first update: λ (1 + μ) g."""
    options = dataclasses.replace(SMALL, optimizer="sgd", momentum=0.5, nesterov=True)
    trainer = make_trainer(options)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer._update(one_batch(trainer), torch.Generator())
    for p, old in zip(trainer.model.parameters(), before, strict=True):
        torch.testing.assert_close(p, old - 0.01 * 1.5 * p.grad)


@pytest.mark.parametrize("other", [{"optimizer": "adam"}, {"momentum": 0.0}])
def test_nesterov_needs_momentum(other):
    options = dataclasses.replace(SMALL, nesterov=True, **{"optimizer": "sgd", **other})
    with pytest.raises(ConfigError, match="--nesterov must be false without --optimizer=sgd and"):
        options.check()


# ---- the choice of the best epoch ----------------------------------------------------------------


def scores(*pairs: tuple[float, float]) -> list[DevScores]:
    return [DevScores(loss, error_rate) for loss, error_rate in pairs]


@pytest.mark.parametrize(("stop_on", "best"), [("loss", 2), ("error-rate", 3)])
def test_the_best_epoch_becomes_final(make_trainer, stop_on, best):
    trainer = make_trainer(dataclasses.replace(SMALL, stop_on=stop_on))
    scripted(trainer, scores((3.0, 50.0), (1.0, 40.0), (2.0, 30.0), (4.0, 60.0)))
    progress = trainer.run()
    assert (progress.epoch, progress.best_epoch) == (4, best)
    assert progress.best_score == {"loss": 1.0, "error-rate": 30.0}[stop_on]
    saved = read_weights(trainer.directory.weights_path)
    kept = torch.cat([saved[name].flatten() for name, _ in trainer.model.named_parameters()])
    assert torch.equal(kept, trainer.seen[best - 1])
    assert torch.equal(weights(trainer.model), kept)
    assert [line["best"] for line in metrics(trainer)] == [
        stop_on == "loss" or e <= 3 if e <= 2 else stop_on == "error-rate" and e == 3
        for e in range(1, 5)
    ]


def test_patience_counts_epochs_without_a_better_score(make_trainer):
    trainer = make_trainer(dataclasses.replace(SMALL, epochs=20, patience=3))
    scripted(trainer, scores(*((x, 0.0) for x in (5, 4, 4, 4.5, 3, 3, 3, 9, 1))))
    progress = trainer.run()
    assert (progress.epoch, progress.best_epoch) == (8, 5)


def test_patience_0_never_stops(make_trainer):
    trainer = make_trainer(dataclasses.replace(SMALL, epochs=6, patience=0))
    scripted(trainer, scores(*((x, 0.0) for x in (1, 2, 3, 4, 5, 6))))
    assert trainer.run().epoch == 6


def test_an_equal_score_is_not_better(make_trainer):
    trainer = make_trainer(dataclasses.replace(SMALL, epochs=3))
    scripted(trainer, scores((1, 0), (1, 0), (1, 0)))
    assert trainer.run().best_epoch == 1


def test_a_finished_training_is_not_trained_further(make_trainer):
    trainer = make_trainer()
    before = final_bytes(trainer)
    again = make_trainer()
    again.objective.losses = None  # would fail
    assert final_bytes(again) == before
    assert len(metrics(again)) == 4


def test_more_patience_continues_the_training(make_trainer):
    trainer = make_trainer(dataclasses.replace(SMALL, epochs=20, patience=1))
    scripted(trainer, scores((1, 0), (2, 0)))
    assert trainer.run().epoch == 2
    more = make_trainer(dataclasses.replace(SMALL, epochs=20, patience=2))
    scripted(more, scores((2, 0)))
    assert more.run().epoch == 3


def test_metrics_have_a_line_for_each_epoch(make_trainer):
    trainer = make_trainer()
    trainer.run()
    lines = metrics(trainer)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert set(lines[0]) == {
        *("epoch", "train_loss", "dev_loss", "dev_bits", "dev_error_rate", "metric"),
        *("best", "learning_rate", "frames_per_second", "updates", "skipped"),
        *("seconds", "sha256"),
    }
    for line in lines:
        assert line["dev_bits"] == pytest.approx(line["dev_loss"] / math.log(2))
        assert line["train_loss"] > 0


def test_metrics_of_an_epoch_that_is_done_again_are_replaced(make_trainer):
    trainer = make_trainer(dataclasses.replace(SMALL, epochs=2))
    trainer.run()
    path = trainer.directory.path / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"epoch": 3, "train_loss": 99}\n{"epoch": 4, "tra')
    again = make_trainer()
    again.run()
    assert [line["epoch"] for line in metrics(again)] == [1, 2, 3, 4]
    assert metrics(again)[2]["train_loss"] != 99


# ---- the same seed, and continuation -------------------------------------------------------------


NOISY = dataclasses.replace(
    SMALL, weight_noise=0.02, input_noise=0.1, time_masks=1, freq_masks=1, clip_norm=5.0
)


@pytest.mark.parametrize("kind", ["ctc", "predictor", "transducer"])
def test_a_seed_gives_the_same_bytes(make_trainer, kind):
    runs = {seed: [] for seed in (0, 0, 7)}
    for number, seed in enumerate((0, 0, 7)):
        options = dataclasses.replace(NOISY, seed=seed, epochs=2, batch_size=2)
        runs[seed].append(final_bytes(make_trainer(options, kind=kind, name=f"m{number}")))
    assert runs[0][0] == runs[0][1]
    assert runs[0][0] != runs[7][0]


@pytest.fixture
def use_engine(monkeypatch) -> Iterator[Callable[[str], None]]:
    """Chooses the kernels: "plain" torch, or what the machine has."""

    def choose(name: str) -> None:
        monkeypatch.setenv("PIPELINE_KERNELS", name)
        engines._has.cache_clear()

    yield choose
    monkeypatch.undo()
    engines._has.cache_clear()


@pytest.mark.parametrize("kind", ["ctc", "predictor", "transducer"])
def test_compiled_kernels_give_the_loss_curve_of_plain_torch(make_trainer, use_engine, kind):
    """They differ only in rounding, and the difference stays small over 60 updates."""
    options = dataclasses.replace(NOISY, optimizer="sgd", learning_rate=0.01, epochs=15)
    curves = {}
    for engine in ("plain", "compiled"):
        use_engine(engine)
        trainer = make_trainer(options, kind=kind, name=engine)
        trainer.run()
        curves[engine] = [[m["train_loss"], m["dev_loss"]] for m in metrics(trainer)]
    first, last = np.array(curves["plain"])[[0, -1]]
    assert (last < 0.97 * first).all()
    np.testing.assert_allclose(curves["compiled"], curves["plain"], rtol=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_a_continued_training_gives_the_bytes_of_an_uninterrupted_one(
    make_trainer, optimizer, schedule
):
    options = dataclasses.replace(NOISY, optimizer=optimizer, schedule=schedule)
    whole = final_bytes(make_trainer(options, name="whole", dropout=0.2))
    for stop_at in (1, 6, 11):  # of 16 updates
        name = f"stopped{stop_at}"
        trainer = make_trainer(options, name=name, dropout=0.2)
        losses_of, left = trainer.objective.losses, iter(range(stop_at))

        def fail(batch, losses_of=losses_of, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return losses_of(batch)

        trainer.objective.losses = fail
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
        assert not trainer.directory.weights_path.exists()
        again = make_trainer(options, name=name, dropout=0.2)
        assert final_bytes(again) == whole
        assert [line["epoch"] for line in metrics(again)] == [1, 2, 3, 4]


def full(**changed: object) -> TransducerTrainOptions:
    """All kinds of random changes at once, and averaged weights."""
    return dataclasses.replace(NOISY, **{"average": 0.9, "speed": 0.1, "batch_size": 2, **changed})


@pytest.mark.parametrize("kind", ["ctc", "predictor", "transducer"])
def test_a_checkpoint_within_an_epoch_gives_the_bytes_of_an_uninterrupted_training(
    make_trainer, kind
):
    options = full(save_every=0.0, optimizer="adamw", ctc_weight=0.3 * (kind == "transducer"))
    whole = final_bytes(make_trainer(options, kind=kind, name="whole", dropout=0.2))
    stop_at = iter((1, 1, 2, 0, 3))  # updates of each process; two are an epoch
    for left in stop_at:
        trainer = make_trainer(options, kind=kind, name="stopped", dropout=0.2)
        before = trainer.position.updates
        losses_of, left = trainer.objective.losses, iter(range(left))

        def fail(batch, losses_of=losses_of, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return losses_of(batch)

        trainer.objective.losses = fail
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
        assert before == 0
    again = make_trainer(options, kind=kind, name="stopped", dropout=0.2)
    assert final_bytes(again) == whole
    assert again.position.epoch == 4
    strip = ("seconds", "frames_per_second", "sha256")
    of_whole = ModelDir.open(again.directory.path.with_name("whole")).path / "metrics.jsonl"
    for mine, theirs in zip(metrics(again), of_whole.read_text().splitlines(), strict=True):
        theirs = json.loads(theirs)
        assert {k: v for k, v in mine.items() if k not in strip} == {
            k: v for k, v in theirs.items() if k not in strip
        }


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_the_update_and_saves_it(make_trainer, signum):
    whole = final_bytes(make_trainer(full(), name="whole"))
    trainer = make_trainer(full())
    losses_of, calls = trainer.objective.losses, []

    def signalled(batch):
        calls.append(batch)
        if len(calls) == 3:
            signal.raise_signal(signum)
        return losses_of(batch)

    trainer.objective.losses = signalled
    with pytest.raises(KeyboardInterrupt if signum == signal.SIGINT else SystemExit):
        trainer.run()
    state = load_state(trainer.directory.last_path)
    assert (state["progress"]["epoch"], state["progress"]["updates"]) == (1, 1)
    assert final_bytes(make_trainer(full())) == whole


def test_the_same_signal_twice_at_once_is_one(make_trainer):
    """Schedulers send a signal to a process group and to its members."""
    trainer = make_trainer(full())
    losses_of = trainer.objective.losses

    def signalled(batch):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        return losses_of(batch)

    trainer.objective.losses = signalled
    with pytest.raises(SystemExit):
        trainer.run()
    assert load_state(trainer.directory.last_path)["progress"]["updates"] == 1


def test_a_later_signal_acts_at_once(make_trainer, monkeypatch):
    monkeypatch.setattr(interrupts, "SAME_SIGNAL", 0.0)
    trainer = make_trainer(full())

    def signalled(batch):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("still here")

    trainer.objective.losses = signalled
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert not trainer.directory.last_path.exists()


def test_a_signal_that_was_ignored_stays_so(make_trainer):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        trainer = make_trainer(full(epochs=1))
        losses_of = trainer.objective.losses
        trainer.objective.losses = lambda b: signal.raise_signal(signal.SIGINT) or losses_of(b)
        assert trainer.run().epoch == 1
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_at_evaluation_saves_the_epochs_updates(make_trainer):
    whole = final_bytes(make_trainer(full(), name="whole"))
    trainer = make_trainer(full())
    evaluate = trainer.objective.evaluate

    def signalled(batches, total):
        signal.raise_signal(signal.SIGTERM)
        return evaluate(batches, total)

    trainer.objective.evaluate = signalled
    with pytest.raises(SystemExit) as leave:
        trainer.run()
    assert leave.value.code == 143
    assert load_state(trainer.directory.last_path)["progress"]["updates"] == 2
    assert final_bytes(make_trainer(full())) == whole


def test_a_damaged_state_is_replaced_by_the_one_before(make_trainer, caplog):
    whole = final_bytes(make_trainer(full(), name="whole"))
    trainer = make_trainer(full(epochs=2))
    trainer.run()
    last = trainer.directory.last_path
    last.write_bytes(last.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        assert final_bytes(make_trainer(full())) == whole
    assert f"{last}: damaged checkpoint" in caplog.text
    assert "continuing from" in caplog.text


def test_an_interruption_while_the_state_is_replaced_leaves_the_previous_one(
    make_trainer, monkeypatch
):
    whole = final_bytes(make_trainer(full(), name="whole"))
    trainer, replace, calls = make_trainer(full()), os.replace, []

    def die(source, target):
        replace(source, target)
        if Path(target).name == "previous.pt":
            calls.append(target)
            if len(calls) == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
    assert not trainer.directory.last_path.exists()
    assert final_bytes(make_trainer(full())) == whole


@pytest.mark.parametrize("after", ["save_weights", "append_metrics", "_save"])
def test_an_interruption_between_the_files_of_an_epoch_changes_nothing(
    make_trainer, monkeypatch, after
):
    """best.safetensors, metrics.jsonl and last.pt are written one after the other."""
    whole = final_bytes(make_trainer(NOISY, name="whole"))
    trainer, count = make_trainer(NOISY), iter(range(100))
    owner = Trainer if after == "_save" else loop
    real = getattr(owner, after)

    def die(*arguments: object) -> None:
        real(*arguments)
        if next(count) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, after, die)
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
    again = make_trainer(NOISY)
    assert final_bytes(again) == whole
    assert [line["epoch"] for line in metrics(again)] == [1, 2, 3, 4]


def test_more_epochs_continue_a_finished_training(make_trainer):
    whole = final_bytes(make_trainer(SMALL, name="whole"))
    make_trainer(dataclasses.replace(SMALL, epochs=2)).run()
    assert final_bytes(make_trainer(SMALL)) == whole


# ---- averages, epochs that are kept, batches by frames -------------------------------------------


def test_averages_are_evaluated_and_kept_and_the_weights_are_trained_on(make_trainer):
    options = dataclasses.replace(SMALL, average=0.5, epochs=1)
    trainer, seen, by_hand = make_trainer(options), [], []
    step, evaluate = trainer.optimizer.step, trainer.objective.evaluate
    trainer.optimizer.step = lambda: step() or by_hand.append(weights(trainer.model))
    trainer.objective.evaluate = lambda b, t: seen.append(weights(trainer.model)) or evaluate(b, t)
    start = weights(trainer.model)
    trainer.run()
    average = start
    for number, now in enumerate(by_hand, start=1):
        decay = min(0.5, number / (number + 9))
        average = decay * average + (1 - decay) * now
    torch.testing.assert_close(seen[0], average)
    assert not torch.equal(seen[0], by_hand[-1])
    saved = read_weights(trainer.directory.weights_path)
    names = [name for name, _ in trainer.model.named_parameters()]
    torch.testing.assert_close(torch.cat([saved[n].flatten() for n in names]), average)
    state = load_state(trainer.directory.last_path)["model"]
    assert torch.equal(torch.cat([state[n].flatten() for n in names]), by_hand[-1])


def test_the_last_epochs_are_kept(make_trainer):
    trainer = make_trainer(dataclasses.replace(SMALL, keep_epochs=2))
    trainer.run()
    names = [path.name for path in trainer.directory.epoch_paths()]
    assert names == ["epoch-0003.safetensors", "epoch-0004.safetensors"]
    assert torch.equal(
        read_weights(trainer.directory.epoch_path(4))["output.bias"],
        load_state(trainer.directory.last_path)["model"]["output.bias"],
    )


def test_batches_have_at_most_so_many_frames(make_trainer):
    trainer = make_trainer(dataclasses.replace(SMALL, batch_size=4, batch_frames=35))
    batches = trainer._batches(1)
    assert sorted(u.utt_id for b in batches for u in b) == sorted(u.utt_id for u in trainer.train)
    assert all(len(b) == 1 or len(b) * max(u.num_frames for u in b) <= 35 for b in batches)
    assert 1 < len(batches) < 4
    trainer.run()
    assert trainer.position.epoch == 4


def test_reading_ahead_changes_nothing(make_trainer):
    whole = final_bytes(make_trainer(full(), name="whole"))
    trainer = make_trainer(full())
    trainer.reads_ahead = True
    assert final_bytes(trainer) == whole


def test_an_error_while_reading_ahead_is_raised(make_trainer):
    trainer = make_trainer()
    trainer.reads_ahead = True
    trainer.train[2] = dataclasses.replace(trainer.train[2], num_frames=99)
    with pytest.raises(FeatureError, match="but utt2num_frames says 99"):
        trainer.run()


# ---- memory --------------------------------------------------------------------------------------


def test_a_batch_too_large_for_memory_is_split_and_a_too_large_utterance_skipped(
    make_trainer, caplog
):
    """The gradient is that of the other utterances."""
    options = dataclasses.replace(SMALL, optimizer="sgd", momentum=0.0, batch_size=4)
    trainer, other = make_trainer(options), make_trainer(options, name="other")
    batch, losses_of = one_batch(trainer), trainer.objective.losses
    huge = batch.utt_ids[2]

    def limited(part: loop.Batch) -> torch.Tensor:
        if len(part.utt_ids) > 1 or part.utt_ids == [huge]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 99 GiB")
        return losses_of(part)

    trainer.objective.losses = limited
    counts = trainer._update(batch, torch.Generator())
    assert counts.skipped == 1
    assert f"{huge}: {int(batch.lengths[2])} frames need more memory than there is" in caplog.text
    everyone, kept = other.objective.losses(batch), [0, 1, 3]
    everyone[kept].sum().backward()
    assert counts.nats == pytest.approx(float(everyone[kept].detach().sum()))
    for mine, theirs in zip(trainer.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_a_batch_too_large_for_its_norms_is_left_out(make_trainer, caplog):
    """Batch normalisation needs the whole batch, so it is not split."""
    options = dataclasses.replace(SMALL, optimizer="sgd", momentum=0.0, batch_size=4)
    trainer = make_trainer(options)
    trainer.model.encoder.norm = SequenceNorm(3)
    trainer.gradients.norms = NormSums(trainer.model, trainer.world)
    batch = one_batch(trainer)
    before = [p.detach().clone() for p in trainer.model.parameters()]

    def limited(part: loop.Batch) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 99 GiB")

    trainer.objective.losses = limited
    counts = trainer._update(batch, torch.Generator())
    assert (counts.skipped, counts.tokens) == (4, 0)
    assert "batch normalisation needs it whole; skipped: give a lower --batch-frames" in caplog.text
    for one, two in zip(trainer.model.parameters(), before, strict=True):
        assert torch.equal(one, two)


def test_another_error_is_no_lack_of_memory(make_trainer):
    trainer = make_trainer()

    def fail(batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    trainer.objective.losses = fail
    with pytest.raises(RuntimeError, match="shapes"):
        trainer.run()


# ---- precision and the loss beside the transducer's ----------------------------------------------


@pytest.mark.parametrize("kind", ["ctc", "predictor", "transducer"])
def test_half_precision_learns_about_the_same(make_trainer, kind):
    """The weights are still float32."""
    options = dataclasses.replace(SMALL, batch_size=4, epochs=8)
    exact, half = (
        make_trainer(options, kind=kind),
        make_trainer(dataclasses.replace(options, precision="bf16"), kind=kind, name="half"),
    )
    exact.run()
    half.run()
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}
    first, last = metrics(half)[0]["train_loss"], metrics(half)[-1]["train_loss"]
    assert last < 0.97 * first
    assert last == pytest.approx(metrics(exact)[-1]["train_loss"], rel=0.05)


def test_auxiliary_layers_are_on_the_device_of_the_training(make_trainer):
    trainer = make_trainer(dataclasses.replace(SMALL, ctc_weight=0.25), kind="transducer")
    meta = Trainer(
        trainer.model.to("meta"),
        trainer.objective,
        trainer.directory,
        trainer.options,
        train=trainer.train,
        dev=trainer.dev,
        device=torch.device("meta"),
    )
    assert {p.device.type for p in meta.parameters} == {"meta"}


def test_a_ctc_loss_beside_the_transducers(make_trainer):
    """Its layer is trained but is not part of the model, and the loss is the weighted sum."""
    options = dataclasses.replace(SMALL, ctc_weight=0.25, batch_size=3)
    trainer = make_trainer(options, kind="transducer")
    batch = one_batch(trainer)
    layer = trainer.objective.auxiliary["output"]
    initialise(layer, scale=0.1, generator=torch.Generator().manual_seed(1))
    both = trainer.objective.losses(batch)
    trainer.objective.ctc_weight = 0.0
    alone = trainer.objective.losses(batch)
    trainer.objective.ctc_weight = 1.0
    ctc = trainer.objective.losses(batch)
    torch.testing.assert_close(both, 0.75 * alone + 0.25 * ctc)
    trainer.objective.ctc_weight = 0.25
    before = layer.weight.detach().clone()
    trainer.run()
    assert not torch.equal(layer.weight, before)
    saved = read_weights(trainer.directory.weights_path)
    assert saved.keys() == trainer.model.state_dict().keys()


def test_more_tokens_than_frames_leave_the_transducers_loss_alone(make_trainer):
    trainer = make_trainer(dataclasses.replace(SMALL, ctc_weight=0.5), kind="transducer")
    batch = loop.Batch(
        ["u"], torch.zeros(1, 2, 6), torch.tensor([2]), torch.tensor([[1, 2, 3]]), torch.tensor([3])
    )
    with_ctc = trainer.objective.losses(batch)
    trainer.objective.ctc_weight = 0.0
    torch.testing.assert_close(with_ctc, trainer.objective.losses(batch))


# ---- losses that are not finite ------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_the_utterance_and_keeps_the_last_epoch(make_trainer):
    make_trainer(dataclasses.replace(SMALL, epochs=1)).run()
    trainer = make_trainer(dataclasses.replace(SMALL, batch_size=4))
    before = trainer.directory.last_path.read_bytes()
    losses_of = trainer.objective.losses

    def poisoned(batch: loop.Batch) -> torch.Tensor:
        return losses_of(batch) * torch.tensor(
            [math.inf if utt == "s1-u2" else 1.0 for utt in batch.utt_ids]
        )

    trainer.objective.losses = poisoned
    with pytest.raises(ModelError) as error:
        trainer.run()
    assert "the loss of s1-u2 is not finite; epoch 1 is kept in" in str(error.value)
    assert "in another directory with a lower --learning-rate" in str(error.value)
    assert trainer.directory.last_path.read_bytes() == before


def test_a_gradient_that_is_not_finite_stops_before_it_is_used(make_trainer):
    trainer = make_trainer(dataclasses.replace(SMALL, save_every=0.0))
    losses_of, calls = trainer.objective.losses, []

    def poisoned(batch: loop.Batch) -> torch.Tensor:
        losses = losses_of(batch)
        calls.append(batch.utt_ids[0])
        if len(calls) == 2:
            losses.register_hook(lambda grad: grad * math.nan)
        return losses

    trainer.objective.losses = poisoned
    with pytest.raises(ModelError) as error:
        trainer.run()
    assert f"the gradient of {calls[1]} is not finite; the previous state is kept" in str(
        error.value
    )
    state = load_state(trainer.directory.last_path)
    assert state["progress"]["updates"] == 1
    assert all(torch.isfinite(t).all() for t in state["model"].values())


@pytest.mark.parametrize("kind", ["ctc", "predictor", "transducer"])
def test_weights_that_blow_up_in_the_last_update_are_not_kept(make_trainer, kind):
    trainer = make_trainer(kind=kind)
    step, left = trainer.optimizer.step, iter(range(len(trainer.train) - 1))

    def blow_up() -> None:
        step()
        if next(left, None) is None:
            next(trainer.model.parameters()).data.fill_(math.nan)

    trainer.optimizer.step = blow_up
    with pytest.raises(ModelError, match=r"dev set after epoch 1 is not finite; nothing is kept"):
        trainer.run()
    assert not trainer.directory.last_path.exists()
    assert not trainer.directory.best_path.exists()
    assert not trainer.directory.weights_path.exists()


@pytest.mark.parametrize("kind", ["ctc", "predictor", "transducer"])
def test_weights_that_blow_up_are_seen_at_the_next_update(make_trainer, kind):
    trainer = make_trainer(kind=kind)
    for parameter in trainer.model.parameters():
        parameter.data.fill_(math.nan)
    with pytest.raises(
        ModelError, match=r"loss of s\d-u\d is not finite; .* or train with a lower"
    ):
        trainer.run()


def test_a_dev_loss_that_is_not_finite_stops(make_trainer):
    trainer = make_trainer()
    scripted(trainer, scores((2.0, 50.0), (math.nan, 100.0)))
    with pytest.raises(ModelError, match="the loss of the dev set after epoch 2 is not finite"):
        trainer.run()
    assert [line["epoch"] for line in metrics(trainer)] == [1]
    assert make_trainer()._resume() is None


# ---- utterances that do not fit ------------------------------------------------------------------


def test_a_wrong_count_of_frames_is_named(make_trainer, toy):
    path = toy.train / "utt2num_frames"
    path.write_text("".join(f"{line.split()[0]} 77\n" for line in path.read_text().splitlines()))
    with pytest.raises(FeatureError, match=r"s\d-u\d: \d+ frames, but utt2num_frames says 77"):
        make_trainer().run()


@pytest.mark.parametrize(
    ("tokens", "stack", "frames"),
    [
        ((), 1, 1),
        ((1,), 1, 1),
        ((1, 2, 3), 1, 3),
        ((1, 1, 1), 1, 5),  # a blank between equal neighbours
        ((1, 1, 2, 2), 1, 6),
        ((1, 2, 3), 2, 5),  # three groups of two frames, the last may be short
        ((1, 1), 3, 7),
    ],
)
def test_frames_that_ctc_needs(tokens, stack, frames):
    config = model_config_from(
        {"num_tokens": 4, "encoder": {**ENCODER, "stack_frames": stack}}, where=""
    )
    model = build_model(config, num_tokens=4)
    initialise(model, scale=0.1, generator=torch.Generator().manual_seed(0))
    objective = CtcObjective(model, token_metric(TOKENS))
    assert objective.frames_needed(Utterance("u", "", 0, tokens)) == frames

    def loss(num_frames: int) -> float:
        batch = loop.Batch(
            ["u"],
            torch.zeros(1, num_frames, 6),
            torch.tensor([num_frames]),
            torch.tensor([tokens], dtype=torch.int64),
            torch.tensor([len(tokens)]),
        )
        return float(objective.losses(batch).detach())

    assert math.isfinite(loss(frames))
    if frames > 1:
        assert loss(frames - 1) == math.inf


def long_and_short() -> list[Utterance]:
    return [Utterance("long", "", 9, (1, 2)), Utterance("short", "", 2, (1, 1))]


def ctc_objective() -> CtcObjective:
    model = build_model(model_config_from({"encoder": ENCODER}, where=""), num_tokens=4)
    return CtcObjective(model, token_metric(TOKENS))


def test_too_short_an_utterance_is_named_with_the_frames_it_needs():
    with pytest.raises(DataError) as error:
        fitting(long_and_short(), ctc_objective(), skip_short=False)
    assert "short: 2 frames, 3 needed for 2 tokens" in str(error.value)
    assert "--skip-short=true" in str(error.value)
    assert "long" not in str(error.value).replace("too long", "")


def test_too_short_an_utterance_is_skipped_by_default(caplog):
    left = fitting(long_and_short(), ctc_objective(), skip_short=True)
    assert [u.utt_id for u in left] == ["long"]
    assert "skipping 1 utterances too short" in caplog.text
    assert "short: 2 frames" in caplog.text


def test_if_all_are_too_short_there_is_nothing_to_train_on():
    with pytest.raises(DataError, match="no utterance is long enough"):
        fitting(long_and_short()[1:], ctc_objective(), skip_short=True)


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("stop_on", "wer"), ("optimizer", "Adam"), ("schedule", ""), ("device", "gpu")),
        *(("epochs", 0), ("epochs", -1), ("batch_size", 0), ("learning_rate", 0.0)),
        *(("learning_rate", math.nan), ("learning_rate", math.inf), ("learning_rate", -1.0)),
        *(("weight_noise", -0.1), ("patience", -1), ("seed", -1), ("seed", 10**400)),
        *(("threads", 0), ("init_scale", math.nan), ("momentum", -0.5), ("clip_norm", -1.0)),
    ],
)
def test_an_option_outside_its_range_is_named(name, value):
    with pytest.raises(UsageError, match="--" + name.replace("_", "-")):
        dataclasses.replace(TransducerTrainOptions(), **{name: value}).check()


def test_the_defaults_are_in_range_and_those_of_the_papers():
    options = TransducerTrainOptions()
    options.check()
    assert (options.optimizer, options.learning_rate, options.momentum) == ("sgd", 1e-4, 0.9)
    assert (options.batch_size, options.init_scale, options.weight_noise) == (1, 0.1, 0.0)


# ---- learning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_four_utterances_are_learnt(make_toy, execute, tmp_path, kind):
    toy = make_toy(tmp_path / "toy")
    architecture = (toy.path / "model.toml").read_text()
    (toy.path / "model.toml").write_text(architecture.replace('kind = "sum"', "dim = 32"))
    learn = ("--optimizer=adam", "--learning-rate=0.01", "--clip-norm=2", "--patience=0")
    *files, _, model_dir = toy.arguments(tmp_path / "model", *learn, "--epochs=100")
    done = execute(f"train_{kind}.py", *files, toy.train, model_dir)  # dev = train: by heart
    assert done.status == 0, done.err
    lines = [json.loads(x) for x in (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()]
    assert min(line["dev_error_rate"] for line in lines) == 0.0


def test_statistics_that_do_not_fit_are_named(tmp_path):
    from pipeline.tables import write_matrix

    path = tmp_path / "cmvn.ark"
    write_matrix(str(path), CmvnStats.zeros(5).matrix)
    with pytest.raises(FeatureError, match=r"cmvn\.ark: statistics of 5 columns, .* reads 6"):
        read_cmvn(path, 6)
    write_matrix(str(path), np.zeros((3, 3)))
    with pytest.raises(FeatureError, match=r"cmvn\.ark: the shape \(3, 3\)"):
        read_cmvn(Path(path), 6)
