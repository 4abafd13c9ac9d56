"""The cells of Deep Speech 2: against torch's layers where they are the same, and by hand."""

import pytest
import torch
from torch import Tensor

from pipeline.kernels.ragged import layout, pack, unpack
from pipeline.kernels.recurrent.layer import recurrent_rows
from pipeline.kernels.recurrent.plain import CLIP, GATES, Recurrence

torch.set_num_threads(1)

CELLS = ["relu", "gru", "gru_tanh"]


def weights_of(cell: str, directions: int, *, features: int = 3, size: int = 4) -> list[Tensor]:
    """w_input, w_hidden, bias in float64."""
    generator = torch.Generator().manual_seed(0)
    gates = GATES[cell] * size
    shapes = [(gates, features), (gates, size), (gates,)]
    return [
        torch.randn(directions, *shape, generator=generator, dtype=torch.float64) / 2
        for shape in shapes
    ]


def batch_of(lengths: list[int], features: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (len(lengths), max(lengths), features)
    return torch.randn(shape, generator=generator, dtype=torch.float64), torch.tensor(lengths)


def layer(x: Tensor, lengths: Tensor, weights: list[Tensor], cell: str) -> Tensor:
    w_input, w_hidden, bias = weights
    ragged = layout(lengths, x.shape[1])
    rows = recurrent_rows(pack(x, ragged), ragged, w_input, bias, Recurrence(cell, w_hidden))
    return unpack(rows, ragged)


def into_torchs(theirs: torch.nn.RNNBase, weights: list[Tensor], cell: str) -> None:
    """Copy weights into a layer of torch, whose GRU stands r, z, candidate, with 1 - z for our z.

    torch's second bias acts within the product with r; it is zero here.
    """

    def ordered(w: Tensor) -> Tensor:
        if cell == "relu":
            return w
        z, r, candidate = w.chunk(3)
        return torch.cat([r, -z, candidate])

    with torch.no_grad():
        for d, suffix in enumerate(["", "_reverse"][: len(weights[0])]):
            for name, w in zip(("weight_ih", "weight_hh", "bias_ih"), weights, strict=True):
                getattr(theirs, f"{name}_l0{suffix}").copy_(ordered(w[d]))
            getattr(theirs, f"bias_hh_l0{suffix}").zero_()


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("cell", ["relu", "gru_tanh"])
def test_it_is_torchs_layer(cell: str, directions: int) -> None:
    """nn.RNN(nonlinearity="relu") below the clip and nn.GRU: values and all gradients."""
    make = {"relu": lambda *a, **k: torch.nn.RNN(*a, nonlinearity="relu", **k)}
    theirs = make.get(cell, torch.nn.GRU)(
        3, 4, batch_first=True, bidirectional=directions == 2, dtype=torch.float64
    )
    weights = weights_of(cell, directions)
    into_torchs(theirs, weights, cell)
    x, lengths = batch_of([5, 2, 3])
    inputs = [v.clone().requires_grad_() for v in (x, *weights)]
    mine = layer(inputs[0], lengths, inputs[1:], cell)
    assert mine.max() < CLIP
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x.requires_grad_(), lengths, batch_first=True, enforce_sorted=False
    )
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-12)
    mix = torch.randn(mine.shape, dtype=torch.float64)
    (mine * mix).sum().backward()
    (expected * mix).sum().backward()
    torch.testing.assert_close(inputs[0].grad, x.grad, rtol=1e-9, atol=1e-11)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0")
    for name, w in zip(names, inputs[1:], strict=True):
        got, wanted = w.grad[0], getattr(theirs, name).grad
        if cell != "relu":
            z, r, candidate = got.chunk(3)
            got = torch.cat([r, -z, candidate])
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("lengths", [[3, 1, 2], [1]], ids=str)
def test_gradients_are_those_of_finite_differences(
    lengths: list[int], cell: str, directions: int
) -> None:
    weights = [w.requires_grad_() for w in weights_of(cell, directions, features=2, size=2)]
    x, n = batch_of(lengths, 2)
    assert torch.autograd.gradcheck(
        lambda x, *w: layer(x, n, list(w), cell), (x.requires_grad_(), *weights)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell", CELLS)
def test_neighbours_and_padding_do_not_change_a_bit(cell: str, dtype: torch.dtype) -> None:
    weights = [w.to(dtype) for w in weights_of(cell, 2, size=37)]
    lengths = [7, 2, 19, 1, *range(3, 23)]
    x, n = batch_of(lengths)
    x = x.to(dtype)
    for k, length in enumerate(lengths):
        x[k, length:] = float("nan")
    whole = layer(x, n, weights, cell)
    for k, length in enumerate(lengths):
        alone = layer(x[k : k + 1, :length], n[k : k + 1], weights, cell)
        assert torch.equal(whole[k, :length], alone[0])
        assert not whole[k, length:].any()


def test_outputs_are_clipped_at_20_and_gradients_stop_there() -> None:
    """Three units whose inputs are below 0, within, and above the clip."""
    x = torch.tensor([[[1.0]]], dtype=torch.float64, requires_grad=True)
    w_input = torch.tensor([[[-3.0], [3.0], [30.0]]], dtype=torch.float64)
    zeros = torch.zeros(1, 3, 3, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64)
    out = layer(x, torch.tensor([1]), [w_input, *zeros], "relu")
    assert out.flatten().tolist() == [0.0, 3.0, 20.0]
    out.sum().backward()
    assert x.grad.item() == 3.0


def test_a_gru_by_hand() -> None:
    """One unit with z = 3/4 and r = 1/2: h_t = h_{t-1}/4 + 3/4 f(x + U h_{t-1}/2), [DS2]."""
    ln3 = torch.tensor(3.0, dtype=torch.float64).log().item()
    one = Recurrence("gru", torch.tensor([[0.0], [0.0], [5.0]], dtype=torch.float64))
    h = torch.tensor([[2.0]], dtype=torch.float64)
    projected = torch.tensor([[ln3, 0.0, 1.0]], dtype=torch.float64)
    got, _ = one.step(projected, h, h)
    assert got.item() == pytest.approx(2.0 / 4 + 3 / 4 * (1.0 + 5.0 * 2.0 / 2))


@pytest.mark.parametrize("cell", CELLS)
def test_by_steps_it_is_the_sequence(cell: str) -> None:
    weights = weights_of(cell, 1)
    x, n = batch_of([6, 6])
    one = Recurrence(cell, weights[1]).direction(0)
    h, hidden = torch.zeros(2, 4, dtype=torch.float64), []
    for t in range(6):
        h, _ = one.step(x[:, t] @ weights[0][0].t() + weights[2][0], h, h)
        hidden.append(h)
    whole = layer(x, n, weights, cell)
    torch.testing.assert_close(torch.stack(hidden, dim=1), whole, rtol=1e-12, atol=1e-13)
