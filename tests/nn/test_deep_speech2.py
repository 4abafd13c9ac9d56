"""The encoder of Deep Speech 2: its tables, what must not matter, gradients, streams, errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.kernels.convolution.reference import convolution
from pipeline.kernels.recurrent import reference
from pipeline.nn.config import load_model_config
from pipeline.nn.deep_speech2 import Shifted
from pipeline.nn.encoders.deep_speech2 import DeepSpeech2Config, DeepSpeech2Encoder
from pipeline.nn.layers import count_weights, initialise
from pipeline.nn.sequence_norm import SequenceNorm

torch.set_num_threads(1)

CONF = Path(__file__).resolve().parents[2] / "egs" / "speechocean762" / "conf" / "deep_speech2"
TWO_D = {
    "channels": (3, 2),
    "time_kernels": (5, 3),
    "time_strides": (2, 1),
    "freq_kernels": (5, 3),
    "freq_strides": (2, 2),
}
ONE_D = {"channels": (6, 4), "time_kernels": (3, 5), "time_strides": (1, 2)}
FORWARD = {"bidirectional": False, "lookahead": 3}
KINDS = {
    "2d": {**TWO_D, "cell": "relu"},
    "1d": {**ONE_D, "cell": "relu"},
    "2d without norm": {**TWO_D, "batch_norm": False},
    "2d gru": {**TWO_D, "cell": "gru"},
    "2d forward": {**TWO_D, **FORWARD},
    "1d gru forward": {**ONE_D, **FORWARD, "cell": "gru"},
    "1d forward, no look-ahead": {**ONE_D, "bidirectional": False, "fully_connected": 0},
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind: str, *, cells: int = 7, input_dim: int = 11) -> DeepSpeech2Encoder:
    config = DeepSpeech2Config(input_dim=input_dim, layers=2, cells=cells, **KINDS[kind])
    encoder = config.build()
    initialise(encoder, scale=0.1, generator=torch.Generator().manual_seed(0))
    return encoder


def trained(encoder: DeepSpeech2Encoder) -> DeepSpeech2Encoder:
    """The encoder in evaluation mode, with running averages of some batches."""
    for seed in range(3):
        encoder(*batch([9, 14], seed=seed, dtype=next(encoder.parameters()).dtype))
    return encoder.eval()


def batch(
    lengths: list[int], *, seed: int = 1, dim: int = 11, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(lengths), max(lengths), dim, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.tensor(lengths)


# ---- the tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "millions"), [("5l_1r", 38.8), ("5l_3r", 38.7), ("7l_5r", 39.2), ("9l_7r", 38.3)]
)
def test_table_1_has_the_published_numbers_of_weights(rows: str, millions: float) -> None:
    for row in (rows, f"{rows}_bn", f"{rows}_gru"):
        encoder = built(row)
        assert round(count_weights(encoder) / 1e6, 1) == millions, row
        layers = len(encoder.convolutions) + len(encoder.layers) + len(encoder.fully_connected)
        assert f"{layers}l_{len(encoder.layers)}r" == rows
        assert (encoder.convolutions[0].after.norm is None) == (row == rows)


@pytest.mark.parametrize(
    ("row", "values"),
    [("1x1d", 1280), ("3x1d", 512), ("1x2d", 2592), ("2x2d", 1312), ("3x2d", 2016)],
)
def test_the_table_of_convolutions(row: str, values: int) -> None:
    encoder = built(f"conv_{row}")
    assert round(count_weights(encoder) / 1e6) == 35
    assert encoder.layers[0].w_input.shape[1] == values
    assert encoder.stride == 2
    assert len(encoder.layers) == 7


def test_all_files_are_of_the_tables() -> None:
    assert len(list(CONF.glob("*l_*r*.toml"))) == 12
    assert len(list(CONF.glob("conv_*.toml"))) == 5


def test_bins_and_context_of_the_convolutions() -> None:
    """161 -> 81 -> 41 -> 21, and 250 ms to the right of a frame: 5 + 2 · (5 + 5) frames."""
    encoder = built("conv_3x2d")
    assert [c.output_frequencies for c in encoder.convolutions] == [81, 41, 21]
    steps, right = 1, 0
    for layer in encoder.convolutions:
        right += steps * (layer.kernel[1] // 2)
        steps *= layer.stride[1]
    assert right == 25


def test_the_deployed_network() -> None:
    encoder = built("streaming")
    assert not encoder.bidirectional
    assert encoder.rows is not None
    assert len(encoder.rows.weight) == 81
    assert [layer.cell for layer in encoder.layers] == ["gru"] * 3


def built(name: str) -> DeepSpeech2Encoder:
    config = load_model_config(CONF / f"{name}.toml").encoder
    assert config is not None
    with torch.device("meta"):  # counts only
        encoder = config.build()
    assert isinstance(encoder, DeepSpeech2Encoder)
    return encoder


# ---- values --------------------------------------------------------------------------------------


def by_numpy(encoder: DeepSpeech2Encoder, x: np.ndarray) -> np.ndarray:
    """One utterance (T, F) in evaluation by loops: [DS2] section 3."""
    values = {name: v.double().numpy() for name, v in encoder.state_dict().items()}

    def finished(x: np.ndarray, prefix: str, *, clip: bool = True) -> np.ndarray:
        """B and the clipped ReLU of channels in the last axis."""
        if f"{prefix}.bias" in values:
            x = x + values[f"{prefix}.bias"]
        else:
            mean, variance, gain, offset = (
                values[f"{prefix}.norm.{name}"]
                for name in ("running_mean", "running_var", "weight", "bias")
            )
            x = (x - mean) / np.sqrt(variance + 1e-5) * gain + offset
        return reference.clipped_relu(x) if clip else x

    frames = x[:, :, None] if encoder.convolutions[0].frequencies > 1 else x[:, None, :]
    for k, layer in enumerate(encoder.convolutions):  # frames: (T, F, C)
        weight = values[f"convolutions.{k}.weight"]  # (C', C, freq, time)
        out = convolution(frames, weight, layer.stride)
        frames = finished(out, f"convolutions.{k}.after")
    rows = frames.reshape(len(frames), -1)
    for k, layer in enumerate(encoder.layers):
        gates = finished(rows @ values[f"layers.{k}.w_input"].T, f"layers.{k}.before", clip=False)
        total = np.zeros((len(rows), layer.output_dim))
        for d, w_hidden in enumerate(values[f"layers.{k}.w_hidden"]):
            one = reference.relu_rnn if layer.cell == "relu" else reference.gru
            step = -1 if d else 1
            identity, zeros = np.eye(len(w_hidden)), np.zeros(len(w_hidden))
            total += one(gates[::step], identity, w_hidden, zeros)[::step]
        rows = total
    if encoder.rows is not None:
        weight = values["rows.weight"]
        padded = np.pad(rows, [(0, len(weight)), (0, 0)])
        rows = np.array([(padded[t : t + len(weight)] * weight).sum(0) for t in range(len(rows))])
    for k in range(len(encoder.fully_connected)):
        prefix = f"fully_connected.{k}"
        rows = finished(rows @ values[f"{prefix}.weight"].T, f"{prefix}.after")
    return rows


@each_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_paper_in_loops(kind: str, dtype: torch.dtype) -> None:
    encoder = trained(make(kind).to(dtype))
    x, lengths = batch([13], dtype=dtype)
    with torch.no_grad():
        got, out_lengths = encoder(x, lengths)
    assert out_lengths.tolist() == [7]
    expected = by_numpy(encoder, x[0].double().numpy())
    assert np.abs(expected).max() > 0.1
    rtol, atol = (1e-9, 1e-10) if dtype == torch.float64 else (1e-3, 1e-4)
    np.testing.assert_allclose(got[0].numpy(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("junk", [7.0, float("nan"), float("inf")])
@each_kind
def test_batch_of_one_is_batch_of_many_to_the_bit(kind: str, junk: float) -> None:
    """In evaluation, whatever the padding holds."""
    encoder = trained(make(kind, cells=40, input_dim=11))
    lengths = [17, 30, 1, 2, 24, 0]
    x, n = batch(lengths)
    for row, length in zip(x, lengths, strict=True):
        row[length:] = junk
    with torch.no_grad():
        whole, out_lengths = encoder(x, n)
        for k, length in enumerate(lengths):
            alone, (count,) = encoder(x[k : k + 1, :length], n[k : k + 1])
            assert count == out_lengths[k] == (length + 1) // 2
            assert torch.equal(alone[0], whole[k, :count])
            assert not whole[k, count:].any()


@each_kind
def test_padding_does_not_change_the_gradients(kind: str) -> None:
    encoder = make(kind)
    x, lengths = batch([9, 4])
    longer = torch.cat([x, torch.full((2, 5, 11), float("nan"))], dim=1)
    longer[1, 4:] = float("nan")
    found = []
    for features in (x, longer):
        encoder.zero_grad()
        out, _ = encoder(features, lengths)
        out.square().sum().backward()
        found.append([out[:, :5], *(p.grad.clone() for p in encoder.parameters())])
    assert torch.equal(found[0][0], found[1][0])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


# ---- batch normalisation -------------------------------------------------------------------------


@pytest.mark.parametrize("add_up", [None, lambda sums: sums], ids=["torch's", "for processes"])
def test_statistics_are_those_of_all_valid_frames(add_up: object) -> None:
    """torch's norm of the frames, one after the other, of channels with several frequencies."""
    mine, theirs = SequenceNorm(3).double(), nn.BatchNorm1d(3, momentum=1.0).double()
    rows = 3.0 + 2.0 * torch.randn(12, 6, dtype=torch.float64)
    mine.add_up = add_up
    mine.weight.data.uniform_(0.5, 2.0)
    theirs.weight.data.copy_(mine.weight.data)
    inputs = [rows.clone().requires_grad_() for _ in range(2)]
    got, expected = mine(inputs[0]), theirs(inputs[1].view(24, 3)).view(12, 6)
    torch.testing.assert_close(got, expected)
    mix = torch.randn(12, 6, dtype=torch.float64)
    (got * mix).sum().backward()
    (expected * mix).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for one, two in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)
    torch.testing.assert_close(mine.running_mean, theirs.running_mean)
    torch.testing.assert_close(mine.running_var * 24 / 23, theirs.running_var)  # theirs: unbiased


def test_running_averages_begin_with_plain_means() -> None:
    norm = SequenceNorm(1)
    for value in (1.0, 2.0, 6.0):
        norm(torch.full((4, 1), value))
    assert norm.running_mean.item() == pytest.approx(3.0)
    assert norm.running_var.item() == pytest.approx(0.0, abs=1e-6)
    norm.eval()
    assert norm(torch.full((4, 1), 3.0)).abs().max() < 1e-3
    assert int(norm.num_batches_tracked) == 3


@pytest.mark.parametrize(("add_up", "within"), [(None, 1e-2), (lambda sums: sums, 1e-3)])
def test_the_norm_of_a_large_mean_keeps_its_precision(add_up: object, within: float) -> None:
    norm = SequenceNorm(1)
    norm.add_up = add_up
    rows = 1e4 + torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
    out = norm(rows)
    assert out.mean().abs() < within  # the numbers themselves are rounded to 1e-3
    assert out.std().item() == pytest.approx(1.0, abs=1e-2)


# ---- gradients -----------------------------------------------------------------------------------


@each_kind
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    encoder = make(kind, cells=2, input_dim=5).double()
    x, lengths = batch([4, 3], dim=5, dtype=torch.float64)
    for part in encoder.modules():  # away from the corners of the ReLUs
        if isinstance(part, SequenceNorm | Shifted) and part.bias is not None:
            part.bias.data.fill_(2.5)
    names = [name for name, _ in encoder.named_parameters()]
    weights = [p.detach().clone().requires_grad_() for p in encoder.parameters()]

    def encoded(x: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        with nn.utils.stateless._reparametrize_module(encoder, given):
            return encoder(x, lengths)[0]

    assert torch.autograd.gradcheck(encoded, (x.requires_grad_(), *weights), fast_mode=True)


# ---- streams -------------------------------------------------------------------------------------

STREAMS = [kind for kind in KINDS if not KINDS[kind].get("bidirectional", True)]


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_in_random_chunks_is_the_whole_to_the_bit(kind: str) -> None:
    """200 cuttings, several streams at once, some of them without a new frame."""
    encoder = trained(make(kind, cells=20))
    random = np.random.default_rng(0)
    lengths = [0, 1, 2, 9, 23, 40]
    x, n = batch(lengths)
    with torch.no_grad():
        whole, counts = encoder(x, n)
        for _ in range(200 // len(lengths)):
            states, done, found = [encoder.start() for _ in lengths], [0] * len(lengths), []
            while done != lengths:
                left = [t - d for t, d in zip(lengths, done, strict=True)]
                sizes = [int(random.integers(0, 1 + min(9, frames))) for frames in left]
                chunks = [x[k, d : d + s] for k, (d, s) in enumerate(zip(done, sizes, strict=True))]
                done = [d + s for d, s in zip(done, sizes, strict=True)]
                ends = [False] * len(lengths)
                states, out = encoder.advance(states, chunks, ends)
                found.append(out)
            empty = [x.new_zeros(0, 11)] * len(lengths)
            found.append(encoder.advance(states, empty, [True] * len(lengths))[1])
            for k, count in enumerate(counts.tolist()):
                got = torch.cat([out[k] for out in found])
                assert torch.equal(got, whole[k, :count]), k


@pytest.mark.parametrize("kind", STREAMS)
def test_outputs_come_as_soon_as_their_context_is_there(kind: str) -> None:
    encoder = trained(make(kind))
    right = 0
    for layer in reversed(encoder.convolutions):
        right = right * layer.stride[1] + layer.kernel[1] // 2
    if encoder.rows is not None:
        right += encoder.stride * (len(encoder.rows.weight) - 1)
    x, _ = batch([right + 1])
    state = [encoder.start()]
    with torch.no_grad():
        state, (early,) = encoder.advance(state, [x[0, :right]], [False])
        assert len(early) == 0
        _, (first,) = encoder.advance(state, [x[0, right:]], [False])
        assert len(first) == 1


def test_a_bidirectional_encoder_says_why_it_reads_no_streams() -> None:
    assert make("2d forward").whole_only() == ""
    why = make("2d").whole_only()
    assert "both directions" in why
    assert "bidirectional = false" in why


# ---- errors in the architecture ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("channels = []", "encoder.channels must be a list of at least one number"),
        ("time_kernels = [11]", "encoder.time_kernels must be a list of 2, as of channels"),
        ("time_strides = [2]", "encoder.time_strides must be a list of 2, as of channels"),
        ("time_kernels = [4, 5]", "encoder.time_kernels must be odd numbers"),
        ("time_strides = [2, 9]", "encoder.time_strides must be at most the time_kernels"),
        ("freq_kernels = [3]", "encoder.freq_kernels must be a list of 2, as of channels, or none"),
        ("freq_strides = [2, 2]", "encoder.freq_strides must be a list of 2, as of channels, or"),
        ("lookahead = 3", "encoder.lookahead must be 0 for bidirectional layers"),
        ('cell = "lstm"', "encoder.cell must be one of relu, gru, gru_tanh, not 'lstm'"),
    ],
)
def test_errors_in_the_options_are_named(line: str, problem: str, tmp_path: Path) -> None:
    options = {
        "kind": '"deep_speech2"',
        "input_dim": "5",
        "channels": "[2, 2]",
        "time_kernels": "[3, 5]",
        "time_strides": "[1, 2]",
        "layers": "1",
        "cells": "2",
    }
    key, value = line.split(" = ")
    options[key] = value
    text = "\n".join(f"{key} = {value}" for key, value in options.items())
    (tmp_path / "model.toml").write_text(f"[encoder]\n{text}\n")
    with pytest.raises(ConfigError, match=problem):
        load_model_config(tmp_path / "model.toml")
