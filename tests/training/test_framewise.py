"""Frame-wise training: subsequences with carried states are whole utterances; errors; resuming."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.nn.config import ModelConfig
from pipeline.nn.encoders.recurrent import RecurrentConfig
from pipeline.nn.framewise import FramewiseConfig, FramewiseModel, lengthened
from pipeline.nn.layers import initialise
from pipeline.nn.models import build_model
from pipeline.tables import IntegersWriter, MatrixReader
from pipeline.training.dataset import Utterance, make_batch
from pipeline.training.objectives.framewise import FramewiseObjective
from pipeline.training.subsequences import cut, make_subsequences, with_delay

torch.set_num_threads(1)

UNIDIRECTIONAL = "layers = 1\nbidirectional = false\nprojection = 8\nnonrecurrent_projection = 4"
FAST = ("--optimizer=adam", "--learning-rate=0.03", "--patience=0", "--stop-on=error-rate")


def write_alignments(folder: Path) -> None:
    """ali.scp of a toy corpus, whose features are largest in the column of the phone."""
    where = f"ark,scp:{folder}/ali.ark,{folder}/ali.scp"
    with IntegersWriter(where) as writer:
        for utt_id, features in MatrixReader(f"scp:{folder}/feats.scp"):
            writer.write(utt_id, features.argmax(axis=1).astype(np.int32) + 1)


@pytest.fixture
def aligned(toy):
    """A toy corpus with alignments, and an architecture that can be trained in parts."""
    for folder in (toy.train, toy.dev):
        write_alignments(folder)
    path = toy.path / "model.toml"
    path.write_text(path.read_text().replace("layers = 1", UNIDIRECTIONAL))
    return toy


# ---- the model -----------------------------------------------------------------------------------


def model_of(*, delay: int = 2, dtype: torch.dtype = torch.float64, **more: object):
    options = {"bidirectional": False, "projection": 3, "nonrecurrent_projection": 2, **more}
    encoder = RecurrentConfig(input_dim=3, layers=2, cells=5, **options)
    config = ModelConfig(encoder=encoder, framewise=FramewiseConfig(delay=delay))
    model = build_model(config, num_tokens=5)
    initialise(model, scale=0.5, generator=torch.Generator().manual_seed(0))
    assert isinstance(model, FramewiseModel)
    return model.to(dtype)


def utterances(lengths: list[int]) -> tuple[list[Utterance], Callable[[Utterance], np.ndarray]]:
    random = np.random.default_rng(0)
    features = {f"u{n}": random.normal(size=(t, 3)) for n, t in enumerate(lengths)}
    found = [
        Utterance(f"u{n}", "", t, tuple(map(int, random.integers(1, 5, size=t))))
        for n, t in enumerate(lengths)
    ]
    return found, lambda utterance: features[utterance.utt_id]


def test_outputs_come_later_and_name_the_frame() -> None:
    """Output t reads the frames up to t + delay; after the last one, this frame again."""
    model = model_of(delay=2).eval()
    x = torch.randn(1, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    log_probs, lengths = model(x, torch.tensor([6]))
    assert log_probs.shape == (1, 6, 4)
    assert lengths.tolist() == [6]
    other = x.clone()
    other[:, 4:] += 1.0
    changed, _ = model(other, torch.tensor([6]))
    assert torch.equal(changed[:, :2], log_probs[:, :2])
    assert not torch.equal(changed[:, 2], log_probs[:, 2])
    longer = torch.cat([x, x[:, -1:], x[:, -1:]], dim=1)
    encoded, _ = model.encoder(longer, torch.tensor([8]))
    expected = model.output(encoded[:, 2:]).log_softmax(dim=2)
    torch.testing.assert_close(log_probs, expected)


@torch.no_grad()
@pytest.mark.parametrize("junk", [0.0, float("nan")])
def test_a_batch_of_one_is_a_batch_of_many_to_the_bit(junk: float) -> None:
    model = model_of(dtype=torch.float32).eval()
    x = torch.randn(3, 7, 3, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([7, 4, 1])
    for n, length in enumerate(lengths.tolist()):
        x[n, length:] = junk
    batch, _ = model(x, lengths)
    for n, length in enumerate(lengths.tolist()):
        alone, _ = model(x[n : n + 1, :length], lengths[n : n + 1])
        assert torch.equal(alone[0], batch[n, :length])


@pytest.mark.parametrize("bidirectional", [True, False])
def test_gradients_are_those_of_finite_differences(bidirectional: bool) -> None:
    model = model_of(bidirectional=bidirectional)
    found, load = utterances([4, 2])
    batch = make_batch(found, load)
    objective = FramewiseObjective(model)
    names = [name for name, _ in model.named_parameters()]
    weights = [w.detach().clone().requires_grad_() for w in model.parameters()]

    def losses(*weights: Tensor) -> Tensor:
        given = dict(zip(names, weights, strict=True))
        log_probs, _ = torch.func.functional_call(model, given, (batch.features, batch.lengths))
        objective.model = lambda *_: (log_probs, None)
        return objective.losses(batch)

    assert torch.autograd.gradcheck(losses, weights)


def test_the_last_frame_is_repeated() -> None:
    x = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [9.0], [9.0]]])
    got = lengthened(x, torch.tensor([3, 1]), 2)
    assert got[0].flatten().tolist() == [1, 2, 3, 3, 3]
    assert got[1, :3].flatten().tolist() == [4, 4, 4]
    assert lengthened(x, torch.tensor([3, 1]), 0) is x


# ---- subsequences --------------------------------------------------------------------------------


def test_streams_read_the_utterances_in_turn() -> None:
    found, _ = utterances([5, 2, 4])
    updates = cut(found, 2, 3, delay=1)
    shown = [
        [part and (part.utterance.utt_id, part.first, part.last, part.is_end) for part in update]
        for update in updates
    ]
    assert shown == [
        [("u0", 0, 3, False), ("u1", 0, 3, True)],
        [("u0", 3, 6, True), ("u2", 0, 3, False)],
        [None, ("u2", 3, 5, True)],
    ]


def in_subsequences(model: FramewiseModel, lengths: list[int], size: int, streams: int):
    """Summed losses of an epoch without updates, and the gradients."""
    found, load = utterances(lengths)
    objective = FramewiseObjective(model, streams=streams)
    objective.carried.reset()
    model.zero_grad()
    total = torch.zeros(())
    for update in cut(found, streams, size, model.delay):
        parts = [part for part in update if part is not None]
        batch = make_subsequences(
            parts,
            lambda u: with_delay(torch.from_numpy(load(u)), u.tokens, model.delay),
        )
        losses = objective.losses(batch)
        losses.sum().backward()
        total = total + losses.sum().detach()
        again = [objective.losses(one) for one in batch.each()]
        torch.testing.assert_close(torch.cat(again), losses)
        objective.carried.commit()
    return total, [p.grad.clone() for p in model.parameters()]


def whole(model: FramewiseModel, lengths: list[int]):
    found, load = utterances(lengths)
    model.zero_grad()
    loss = FramewiseObjective(model).losses(make_batch(found, load)).sum()
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("delay", [0, 3])
@pytest.mark.parametrize(("size", "exact"), [(20, True), (4, False)])
def test_subsequences_have_the_losses_of_whole_utterances(
    size: int, exact: bool, delay: int
) -> None:
    """Their gradients too where an utterance fits into one; else gradients are cut."""
    model = model_of(delay=delay)
    lengths = [7, 12, 3, 9]
    loss, gradients = in_subsequences(model, lengths, size, 3)
    expected, theirs = whole(model, lengths)
    torch.testing.assert_close(loss, expected)
    pairs = zip(gradients, theirs, strict=True)
    same = [torch.allclose(a, b, rtol=1e-9, atol=1e-11) for a, b in pairs]
    assert all(same) == exact
    assert same[-1], "the output layer does not recur"


# ---- the program ---------------------------------------------------------------------------------


def metrics(model: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k != "sha256" and "second" not in k} for line in lines
    ]


@pytest.mark.parametrize("bptt", [0, 5])
def test_it_is_trained(aligned, execute: Callable, tmp_path: Path, bptt: int) -> None:
    model = tmp_path / "model"
    options = (*FAST, "--epochs=12", f"--bptt={bptt}", "--streams=2", "--delay=1")
    done = execute("train_framewise.py", *aligned.arguments(model, *options))
    assert done.status == 0, done.err
    assert "framewise model" in done.err
    found = metrics(model)
    assert {line["metric"] for line in found} == {"frame error"}
    assert found[-1]["dev_error_rate"] < 10.0 < found[0]["dev_error_rate"]
    config = json.loads((model / "config.json").read_text())
    assert config["kind"] == "framewise"
    assert config["model"]["framewise"] == {"delay": 1}


def test_what_a_model_is_not_for(aligned, execute: Callable, tmp_path: Path) -> None:
    model, feats = tmp_path / "model", f"scp:{aligned.dev}/feats.scp"
    done = execute("train_framewise.py", *aligned.arguments(model, "--epochs=1"))
    assert done.status == 0, done.err
    done = execute("recognize.py", "--stream", "--device=cpu", model, "a.wav")
    assert done.status == 1
    assert "model: cannot read a stream: a frame-wise model is searched from the end" in done.err
    done = execute("plot_posteriors.py", model, feats, "s0-u0", tmp_path / "picture.png")
    assert done.status == 1
    assert "model: a frame-wise model, of which there are no pictures" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("bptt", [0, 20])
def test_two_utterances_are_learnt_by_heart(
    make_toy: Callable, execute: Callable, tmp_path: Path, bptt: int
) -> None:
    toy = make_toy(tmp_path / "two", utterances=2)
    for folder in (toy.train, toy.dev):
        write_alignments(folder)
    path = toy.path / "model.toml"
    path.write_text(path.read_text().replace("layers = 1", UNIDIRECTIONAL))
    model = tmp_path / "model"
    options = (
        *FAST,
        "--epochs=400",
        f"--bptt={bptt}",
        "--streams=2",
        "--batch-size=2",
        "--delay=1",
    )
    done = execute("train_framewise.py", *toy.arguments(model, *options))
    assert done.status == 0, done.err
    assert min(line["dev_error_rate"] for line in metrics(model)) == 0.0
    hyp = tmp_path / "hyp"
    feats = f"scp:{toy.dev}/feats.scp"
    assert execute("decode_framewise.py", model, feats, f"ark,t:{hyp}").status == 0
    assert hyp.read_text() == (toy.dev / "text").read_text()


def test_an_interrupted_training_ends_with_the_same_bytes(
    aligned, execute: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.training.truncated import TruncatedTrainer

    options = (*FAST, "--epochs=2", "--bptt=5", "--streams=2", "--tensorboard=false")
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    done = execute("train_framewise.py", *aligned.arguments(straight, *options))
    assert done.status == 0, done.err
    count = [0]

    def after(self: TruncatedTrainer, epoch: int) -> None:
        count[0] += 1
        if count[0] in (2, 9):  # within an utterance: the states must be in the checkpoint
            self._save()
            raise KeyboardInterrupt

    monkeypatch.setattr(TruncatedTrainer, "_stop_or_save", after)
    for status in (130, 130, 0):
        done = execute("train_framewise.py", *aligned.arguments(stopped, *options))
        assert done.status == status, done.err
    for name in ("final.safetensors", "config.json"):
        assert (stopped / name).read_bytes() == (straight / name).read_bytes(), name
    assert metrics(stopped) == metrics(straight)


# ---- errors --------------------------------------------------------------------------------------


def wrong_alignments(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the alignment of the first utterance."""
    where = f"ark,scp:{folder}/ali.ark,{folder}/ali.scp"
    with IntegersWriter(where) as writer:
        for n, (utt_id, x) in enumerate(MatrixReader(f"scp:{folder}/feats.scp")):
            labels = x.argmax(axis=1).astype(np.int32) + 1
            writer.write(utt_id, labels if n else change(labels))


def with_label(labels: np.ndarray, label: int) -> np.ndarray:
    labels[1] = label
    return labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:-1], r"s0-u0: \d+ labels for \d+ frames; make the alignment again"),
        (lambda x: np.append(x, x[-1:]), r"s0-u0: \d+ labels for \d+ frames"),
        (lambda x: with_label(x, 4), "label of frame 1 is 4, but tokens.txt has the ids 1 to 3"),
        (lambda x: with_label(x, 0), "label of frame 1 is 0, but tokens.txt has the ids 1 to 3"),
    ],
)
def test_alignments_that_do_not_fit(
    aligned, execute: Callable, tmp_path: Path, change: Callable, message: str
) -> None:
    wrong_alignments(aligned.train, change)
    done = execute("train_framewise.py", *aligned.arguments(tmp_path / "model"))
    assert done.status == 1
    assert re.search(message, done.err), done.err


def test_missing_alignments(aligned, execute: Callable, tmp_path: Path) -> None:
    scp = aligned.dev / "ali.scp"
    first, *rest = scp.read_text().splitlines(keepends=True)
    scp.write_text("".join(rest))
    arguments = aligned.arguments(tmp_path / "model")
    done = execute("train_framewise.py", *arguments)
    assert done.status == 1
    assert "1 utterances are in only one of feats.scp and ali.scp" in done.err
    assert f"{first.split()[0]}: in feats.scp, not in ali.scp" in done.err
    scp.unlink()
    done = execute("train_framewise.py", *arguments)
    assert done.status == 1
    assert "ali.scp: no such file; make it with align_tokens.py" in done.err


def test_a_bidirectional_encoder_needs_whole_utterances(
    aligned, execute: Callable, tmp_path: Path
) -> None:
    path = aligned.path / "model.toml"
    path.write_text(path.read_text().replace("bidirectional = false", "bidirectional = true"))
    done = execute("train_framewise.py", *aligned.arguments(tmp_path / "model"))
    assert done.status == 2
    assert "give --bptt=0 to train with whole utterances" in done.err
    assert "bidirectional = false in [encoder]" in done.err
    arguments = aligned.arguments(tmp_path / "model", "--bptt=0", "--epochs=1")
    assert execute("train_framewise.py", *arguments).status == 0


def test_an_encoder_with_fewer_outputs_is_refused(
    aligned, execute: Callable, tmp_path: Path
) -> None:
    path = aligned.path / "model.toml"
    path.write_text(path.read_text().replace("layers = 1", "layers = 1\nstack_frames = 2"))
    done = execute("train_framewise.py", *aligned.arguments(tmp_path / "model"))
    assert done.status == 2
    assert "one for 2 frames; set stack_frames and strides in [encoder] to 1" in done.err


def test_speed_changes_the_numbers_of_frames(aligned, execute: Callable, tmp_path: Path) -> None:
    arguments = aligned.arguments(tmp_path / "model", "--speed=0.1")
    done = execute("train_framewise.py", *arguments)
    assert done.status == 2
    assert "--speed must be 0 with --bptt" in done.err
    arguments = aligned.arguments(tmp_path / "model", "--speed=0.3", "--bptt=0", "--epochs=1")
    assert execute("train_framewise.py", *arguments).status == 0


def test_subsequences_have_no_order_of_length(aligned, execute: Callable, tmp_path: Path) -> None:
    done = execute("train_framewise.py", *aligned.arguments(tmp_path / "model", "--sortagrad"))
    assert done.status == 2
    assert "--sortagrad must be false with --bptt" in done.err


@pytest.mark.parametrize("kernel", [1, 3])
def test_deep_speech2_learns_from_whole_utterances(
    aligned, execute: Callable, tmp_path: Path, kernel: int
) -> None:
    (aligned.path / "model.toml").write_text(
        f'[encoder]\nkind = "deep_speech2"\ninput_dim = 6\nchannels = [4]\nlayers = 1\ncells = 4\n'
        f"time_kernels = [{kernel}]\ntime_strides = [1]\nbidirectional = false\n"
    )
    done = execute("train_framewise.py", *aligned.arguments(tmp_path / "model"))
    assert done.status == 2
    assert "this encoder learns from whole ones" in done.err
    assert "give --bptt=0" in done.err
    arguments = aligned.arguments(tmp_path / "model", "--bptt=0", "--epochs=1")
    assert execute("train_framewise.py", *arguments).status == 0
