"""A new encoder is one file and one ``case``: a toy encoder is trained and decoded like others."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.decoding.recogniser import Recogniser
from pipeline.errors import ConfigError
from pipeline.models.model_dir import ModelDir
from pipeline.models.weights import read_weights
from pipeline.nn import config
from pipeline.nn.config import load_model_config
from pipeline.nn.encoders.encoder import Encoder, EncoderConfig
from pipeline.nn.encoders.kinds import encoder_config
from pipeline.nn.layers import Linear, draw_uniform
from pipeline.options import REQUIRED, option
from pipeline.tables import read_matrix

# ---- the file of the encoder ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ToyConfig(EncoderConfig):
    """Options of a `ToyEncoder`; the widths are a list in the TOML file."""

    kind: str = option("toy", "kind of encoder", choices=("toy",))
    widths: tuple[int, ...] = option(REQUIRED, "sizes of the layers' output vectors", low=1)

    def build(self) -> "ToyEncoder":
        return ToyEncoder(self)


class ToyEncoder(Encoder):
    """Linear layers over every other frame, with batch normalisation after the first layer."""

    stride = 2

    def __init__(self, toy: ToyConfig) -> None:
        super().__init__()
        sizes = [toy.input_dim, *toy.widths]
        pairs = itertools.pairwise(sizes)
        self.layers = nn.ModuleList(Linear(before, after) for before, after in pairs)
        self.norm = nn.BatchNorm1d(toy.widths[0])
        self.shift = nn.Parameter(torch.empty(sizes[-1]))
        self.output_dim = sizes[-1]

    def initialise(self, scale: float, generator: torch.Generator) -> None:
        """Draw only the weights of this module; its layers draw their own."""
        draw_uniform([self.shift], 2 * scale, generator)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        return (lengths + 1) // 2

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x, lengths = features[:, ::2], self.output_lengths(lengths)
        inside = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        x = self.layers[0](x)
        rows = self.norm(x[inside])
        x = torch.zeros_like(x).masked_scatter(inside[:, :, None], torch.relu(rows))
        for layer in self.layers[1:]:
            x = torch.relu(layer(x))
        return x + self.shift, lengths


# ---- the added case ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def one_more_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(kind: str) -> type[EncoderConfig]:
        match kind:
            case "toy":
                return ToyConfig
        return encoder_config(kind)

    monkeypatch.setattr(config, "encoder_config", chosen)


ARCHITECTURE = """
[encoder]
kind = "toy"
input_dim = 6
widths = [12, 8]

[predictor]
cells = 8

[joiner]
dim = 8
"""
LEARN = ("--optimizer=adam", "--learning-rate=0.02", "--batch-size=2", "--schedule=linear")


DEEP_SPEECH_2 = """
[encoder]
kind = "deep_speech2"
input_dim = 6
channels = [4, 3]
time_kernels = [3, 3]
time_strides = [2, 1]
freq_kernels = [3, 3]
freq_strides = [1, 2]
layers = 2
cells = 12

[predictor]
cells = 8

[joiner]
dim = 8
"""


@pytest.fixture
def corpus(toy):
    (toy.path / "model.toml").write_text(ARCHITECTURE)
    return toy


def train(execute: Callable, kind: str, corpus, path: Path, *options: str):
    done = execute(f"train_{kind}.py", *corpus.arguments(path, *LEARN, *options))
    assert done.status == 0, done.err
    return done


@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_it_is_trained_and_decoded(kind: str, corpus, execute: Callable, tmp_path: Path) -> None:
    model = tmp_path / "model"
    train(execute, kind, corpus, model, "--epochs=120", "--patience=0")
    directory = ModelDir.open(model)
    assert directory.config.encoder == ToyConfig(input_dim=6, widths=(12, 8))
    assert json.loads((model / "config.json").read_text())["model"]["encoder"]["kind"] == "toy"

    hyp, ctm = tmp_path / "hyp", tmp_path / "ctm"
    feats = f"scp:{corpus.dev}/feats.scp"
    options = ("--beam=4", f"--write-ctm={ctm}")
    done = execute(f"decode_{kind}.py", *options, model, feats, f"ark,t:{hyp}")
    assert done.status == 0, done.err
    recognised = hyp.read_text()
    text = (corpus.dev / "text").read_text()
    wrong = [line for line in text.splitlines() if line not in recognised.splitlines()]
    assert len(wrong) <= (0 if kind == "ctc" else 2), recognised  # of four, learnt by heart
    # The frame shift is 10 ms, and every other frame is read.
    starts = [float(line.split()[2]) for line in ctm.read_text().splitlines()]
    assert all(round(start * 100) % 2 == 0 for start in starts)
    assert max(starts) > (0.1 if kind == "ctc" else 0.01)

    recogniser = Recogniser(model)
    utt, rxfilename = (corpus.dev / "feats.scp").read_text().splitlines()[0].split()
    best = recogniser.recognise(utt, read_matrix(rxfilename)).hyps[0]
    assert f"{utt} {recogniser.symbols(best)}\n" in recognised
    assert recogniser.step_s == pytest.approx(0.02)


@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_deep_speech_2_is_trained_and_decoded(kind: str, corpus, execute, tmp_path: Path) -> None:
    """It learns four utterances by heart, and its batch norm is kept for decoding."""
    (corpus.path / "model.toml").write_text(DEEP_SPEECH_2)
    model, hyp = tmp_path / "model", tmp_path / "hyp"
    epochs = "--epochs=80" if kind == "ctc" else "--epochs=150"
    train(execute, kind, corpus, model, epochs, "--patience=0", "--sortagrad")
    feats = f"scp:{corpus.train}/feats.scp"
    done = execute(f"decode_{kind}.py", "--beam=4", model, feats, f"ark,t:{hyp}")
    assert done.status == 0, done.err
    recognised = hyp.read_text().splitlines()
    text = (corpus.train / "text").read_text().splitlines()
    assert len(set(text) - set(recognised)) <= (0 if kind == "ctc" else 2), recognised


@pytest.mark.parametrize("architecture", [ARCHITECTURE, DEEP_SPEECH_2])
def test_a_continued_training_gives_the_bytes_of_an_uninterrupted_one(
    architecture, corpus, execute, tmp_path
) -> None:
    (corpus.path / "model.toml").write_text(architecture)
    options = ("--patience=0", "--average=0.9", "--schedule=constant")
    train(execute, "ctc", corpus, tmp_path / "whole", *options, "--epochs=4")
    train(execute, "ctc", corpus, tmp_path / "parts", *options, "--epochs=2")
    train(execute, "ctc", corpus, tmp_path / "parts", *options, "--epochs=4")
    whole, parts = ((tmp_path / n / "final.safetensors").read_bytes() for n in ("whole", "parts"))
    assert whole == parts


def test_buffers_are_kept_and_averaged(corpus, execute: Callable, tmp_path: Path) -> None:
    options = ("--epochs=3", "--patience=0", "--keep-epochs=3")
    train(execute, "ctc", corpus, tmp_path / "model", *options)
    done = execute("average_models.py", "--last=2", tmp_path / "model", tmp_path / "mean")
    assert done.status == 0, done.err
    epochs = [read_weights(p) for p in ModelDir.open(tmp_path / "model").epoch_paths()]
    mean = read_weights(tmp_path / "mean" / "final.safetensors")
    name = "encoder.norm.running_mean"
    assert not torch.equal(epochs[0][name], epochs[1][name])
    torch.testing.assert_close(mean[name], (epochs[1][name] + epochs[2][name]) / 2)
    count = "encoder.norm.num_batches_tracked"
    assert mean[count] == epochs[2][count] == 6
    assert mean[count].dtype == torch.int64


def test_an_average_of_the_weights_has_one_of_the_buffers(corpus, execute, tmp_path) -> None:
    plain, averaged = tmp_path / "plain", tmp_path / "averaged"
    train(execute, "ctc", corpus, plain, "--epochs=2", "--patience=0")
    train(execute, "ctc", corpus, averaged, "--epochs=2", "--patience=0", "--average=0.9")
    last = [torch.load(p / "checkpoints" / "last.pt") for p in (plain, averaged)]
    name = "encoder.norm.running_mean"
    assert torch.equal(last[0]["model"][name], last[1]["model"][name])
    kept = read_weights(averaged / "checkpoints" / "best.safetensors")
    assert not torch.equal(kept[name], last[1]["model"][name])


def test_each_module_draws_its_own_first_weights(corpus, execute, tmp_path) -> None:
    """A norm has γ = 1 and β = 0; the layers' weights are uniform in the range of the option."""
    standing = ("--optimizer=sgd", "--momentum=0", "--learning-rate=1e-30")
    train(execute, "ctc", corpus, tmp_path / "m", "--epochs=1", "--init-scale=0.5", *standing)
    weights = read_weights(tmp_path / "m" / "final.safetensors")
    assert weights["encoder.norm.weight"].eq(1.0).all()
    assert weights["encoder.norm.bias"].abs().max() < 1e-20
    for name in ("encoder.layers.0.weight", "output.weight"):
        assert 0.3 < float(weights[name].abs().max()) <= 0.5
    assert 0.5 < float(weights["encoder.shift"].abs().max()) <= 1.0


def test_frames_for_outputs() -> None:
    encoder = ToyEncoder(ToyConfig(input_dim=3, widths=(2,)))
    assert [encoder.frames_for(n) for n in (1, 2, 3, 10)] == [1, 3, 5, 19]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("widths = [4, 0]", r"encoder.widths\[1\] must be 1 or more, not 0"),
        ('widths = [4, "a"]', r"encoder.widths\[1\]: int expected, not 'a'"),
        ("widths = 4", "encoder.widths: list of int expected, not 4"),
        ("width = [4]", r"encoder.width: unknown key; did you mean widths\?"),
    ],
)
def test_errors_in_its_options_are_named(corpus, line: str, problem: str) -> None:
    path = corpus.path / "model.toml"
    path.write_text(f'[encoder]\nkind = "toy"\ninput_dim = 6\n{line}\n')
    with pytest.raises(ConfigError, match=problem):
        load_model_config(path)


def test_an_unknown_kind(corpus) -> None:
    path = corpus.path / "model.toml"
    path.write_text('[encoder]\nkind = "tory"\ninput_dim = 6\n')
    with pytest.raises(ConfigError, match=r'encoder.kind: there is no encoder of kind "tory"'):
        load_model_config(path)
