"""Recurrent layers: against the equations as printed, and against what must not matter."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.kernels.ragged import layout, pack, unpack
from pipeline.kernels.recurrent import reference
from pipeline.kernels.recurrent.layer import (
    peephole_lstm,
    peephole_lstm_step,
    recurrent_rows,
    sweep_rows,
    tanh_rnn,
)
from pipeline.kernels.recurrent.plain import GATES, Recurrence

torch.set_num_threads(1)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
RAGGED = [[5, 3, 1, 4], [1], [1, 1, 1], [7], [2, 6]]


def random_weights(
    directions: int, features: int, cells: int, *, gates: int = 4, seed: int = 0
) -> list[Tensor]:
    """w_input, w_hidden, (peepholes,) bias, in float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(gates * cells, features), (gates * cells, cells), (3, cells), (gates * cells,)]
    if gates == 1:
        del shapes[2]
    return [
        torch.randn(directions, *shape, generator=generator, dtype=torch.float64)
        for shape in shapes
    ]


def random_batch(lengths: list[int], features: int, *, seed: int = 1) -> tuple[Tensor, Tensor]:
    """(N, T, F) with random numbers in the padding as well, and (N,)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths), features)
    return torch.randn(shape, generator=generator, dtype=torch.float64), torch.tensor(lengths)


def layer(x: Tensor, lengths: Tensor, weights: list[Tensor]) -> Tensor:
    return (peephole_lstm if len(weights) == 4 else tanh_rnn)(x, lengths, *weights)


def by_reference(x: Tensor, lengths: Tensor, weights: list[Tensor]) -> np.ndarray:
    """The same by the reference: each sequence alone, the second direction backwards."""
    one = reference.peephole_lstm if len(weights) == 4 else reference.tanh_rnn
    directions, cells = weights[0].shape[0], weights[1].shape[2]
    out = np.zeros((*x.shape[:2], directions * cells))
    for n, length in enumerate(lengths.tolist()):
        sequence = x[n, :length].numpy()
        for d in range(directions):
            step = -1 if d else 1
            hidden = one(sequence[::step], *(w[d].numpy() for w in weights))[::step]
            out[n, :length, d * cells : (d + 1) * cells] = hidden
    return out


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gates", [4, 1], ids=["lstm", "tanh"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_values_are_those_of_the_reference(
    lengths: list[int], directions: int, gates: int, device: str
) -> None:
    weights = random_weights(directions, 3, 4, gates=gates)
    x, n = random_batch(lengths, 3)
    got = layer(x.to(device), n.to(device), [w.to(device) for w in weights]).cpu()
    np.testing.assert_allclose(got.numpy(), by_reference(x, n, weights), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("gates", [4, 1], ids=["lstm", "tanh"])
def test_float32_is_close_to_the_reference(gates: int) -> None:
    weights = random_weights(2, 3, 4, gates=gates)
    x, n = random_batch([5, 3], 3)
    got = layer(x.float(), n, [w.float() for w in weights])
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), by_reference(x, n, weights), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gates", [4, 1], ids=["lstm", "tanh"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("lengths", [[3, 1, 2], [1], [1, 1]], ids=str)
def test_gradients_are_those_of_finite_differences(
    lengths: list[int], directions: int, gates: int
) -> None:
    weights = [w.requires_grad_() for w in random_weights(directions, 2, 2, gates=gates)]
    x, n = random_batch(lengths, 2)
    assert torch.autograd.gradcheck(
        lambda x, *w: layer(x, n, list(w)), (x.requires_grad_(), *weights)
    )


def plain_lstm(x: Tensor, weights: list[Tensor]) -> Tensor:
    """One direction over one sequence by torch's own operations: the gradient's reference."""
    w_input, w_hidden, peepholes, bias = weights
    h = c = x.new_zeros(w_hidden.shape[1])
    hidden = []
    for x_t in x:
        x_i, x_f, x_c, x_o = (w_input @ x_t + w_hidden @ h + bias).chunk(4)
        i = torch.sigmoid(x_i + peepholes[0] * c)
        f = torch.sigmoid(x_f + peepholes[1] * c)
        c = f * c + i * torch.tanh(x_c)
        o = torch.sigmoid(x_o + peepholes[2] * c)
        h = o * torch.tanh(c)
        hidden.append(h)
    return torch.stack(hidden)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("lengths", [[9, 4, 1], [6]], ids=str)
def test_gradients_are_those_of_autograd_through_the_printed_equations(
    lengths: list[int], directions: int
) -> None:
    weights = [w.requires_grad_() for w in random_weights(directions, 3, 5)]
    x, n = random_batch(lengths, 3)
    x.requires_grad_()
    mix = torch.randn(len(lengths), max(lengths), directions * 5, dtype=torch.float64)
    (peephole_lstm(x, n, *weights) * mix).sum().backward()
    got = [t.grad.clone() for t in (x, *weights)]
    for t in (x, *weights):
        t.grad = None
    total = torch.zeros((), dtype=torch.float64)
    for k, length in enumerate(lengths):
        for d in range(directions):
            sequence = x[k, :length].flip(0) if d else x[k, :length]
            hidden = plain_lstm(sequence, [w[d] for w in weights])
            hidden = hidden.flip(0) if d else hidden
            total = total + (hidden * mix[k, :length, d * 5 : (d + 1) * 5]).sum()
    total.backward()
    for mine, tensor in zip(got, (x, *weights), strict=True):
        torch.testing.assert_close(mine, tensor.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("gates", [4, 1], ids=["lstm", "tanh"])
@pytest.mark.parametrize("junk", [1e3, float("nan"), float("inf")])
def test_padding_and_neighbours_change_nothing(gates: int, junk: float) -> None:
    weights = [w.requires_grad_() for w in random_weights(2, 3, 4, gates=gates)]
    x, n = random_batch([6, 2, 4], 3)

    def run(x: Tensor, lengths: Tensor) -> tuple[Tensor, list[Tensor]]:
        out = layer(x, lengths, weights)
        return out, list(torch.autograd.grad((out * out).sum(), weights))

    clean, clean_gradients = run(x, n)
    dirty = x.clone()
    for k, length in enumerate(n.tolist()):
        dirty[k, length:] = junk
    out, gradients = run(dirty, n)
    assert torch.equal(out, clean)
    for got, expected in zip(gradients, clean_gradients, strict=True):
        assert torch.equal(got, expected)
    for k, length in enumerate(n.tolist()):
        assert not out[k, length:].any(), "padding of the output is zero"
        alone, _ = run(x[k : k + 1, :length], n[k : k + 1])
        torch.testing.assert_close(out[k : k + 1, :length], alone, rtol=1e-12, atol=1e-13)


def test_the_gradient_in_the_padding_is_zero() -> None:
    x, n = random_batch([4, 2], 3)
    x.requires_grad_()
    peephole_lstm(x, n, *random_weights(2, 3, 4)).sum().backward()
    assert x.grad is not None
    assert not x.grad[1, 2:].any()
    assert x.grad[1, :2].all()


def test_order_of_the_batch_does_not_matter() -> None:
    weights = random_weights(2, 3, 4)
    x, n = random_batch([5, 1, 3], 3)
    order = torch.tensor([2, 0, 1])
    swapped = peephole_lstm(x[order], n[order], *weights)
    torch.testing.assert_close(swapped, peephole_lstm(x, n, *weights)[order])


@pytest.mark.parametrize("directions", [1, 2])
def test_without_peepholes_it_is_torchs_lstm(directions: int) -> None:
    features, cells = 3, 4
    w_input, w_hidden, peepholes, bias = random_weights(directions, features, cells)
    theirs = torch.nn.LSTM(
        features, cells, batch_first=True, bidirectional=directions == 2, dtype=torch.float64
    )
    copy_into(theirs, w_input, w_hidden, bias)
    x, n = random_batch([5, 2, 3], features)
    got = peephole_lstm(x, n, w_input, w_hidden, torch.zeros_like(peepholes), bias)
    torch.testing.assert_close(got, run_packed(theirs, x, n), rtol=1e-10, atol=1e-12)
    with_peepholes = peephole_lstm(x, n, w_input, w_hidden, peepholes, bias)
    assert (with_peepholes - got).abs().max() > 1e-3


@pytest.mark.parametrize("directions", [1, 2])
def test_with_a_projection_and_without_peepholes_it_is_torchs_lstm(directions: int) -> None:
    """torch's has two bias vectors, of which one is superfluous; ours has one."""
    w_input, w_hidden, _, bias = random_weights(directions, 3, 6)
    w_hidden = w_hidden[:, :, :4].contiguous()
    projection = random_weights(directions, 6, 4, gates=1)[0]
    theirs = torch.nn.LSTM(
        3, 6, batch_first=True, bidirectional=directions == 2, proj_size=4, dtype=torch.float64
    )
    copy_into(theirs, w_input, w_hidden, bias)
    with torch.no_grad():
        for d, suffix in enumerate(["", "_reverse"][:directions]):
            getattr(theirs, f"weight_hr_l0{suffix}").copy_(projection[d])
    x, n = random_batch([5, 2, 3], 3)
    weights = [w.requires_grad_() for w in (w_input, w_hidden, bias, projection)]
    got = peephole_lstm(x, n, w_input, w_hidden, None, bias, projection)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, n, batch_first=True, enforce_sorted=False)
    expected = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)[0]
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    got.square().sum().backward()
    expected.square().sum().backward()
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "weight_hr_l0")
    for name, weight in zip(names, weights, strict=True):
        for d, suffix in enumerate(["", "_reverse"][:directions]):
            grad = getattr(theirs, name + suffix).grad
            torch.testing.assert_close(weight.grad[d], grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("directions", [1, 2])
def test_the_tanh_layer_is_torchs_rnn(directions: int) -> None:
    w_input, w_hidden, bias = random_weights(directions, 3, 4, gates=1)
    theirs = torch.nn.RNN(
        3, 4, batch_first=True, bidirectional=directions == 2, dtype=torch.float64
    )
    copy_into(theirs, w_input, w_hidden, bias)
    x, n = random_batch([5, 2, 3], 3)
    got = tanh_rnn(x, n, w_input, w_hidden, bias)
    torch.testing.assert_close(got, run_packed(theirs, x, n), rtol=1e-10, atol=1e-12)


def copy_into(theirs: torch.nn.RNNBase, w_input: Tensor, w_hidden: Tensor, bias: Tensor) -> None:
    """torch's gates stand in the same order, i, f, g, o; its second bias is superfluous."""
    with torch.no_grad():
        for d, suffix in enumerate(["", "_reverse"][: len(w_input)]):
            getattr(theirs, f"weight_ih_l0{suffix}").copy_(w_input[d])
            getattr(theirs, f"weight_hh_l0{suffix}").copy_(w_hidden[d])
            getattr(theirs, f"bias_ih_l0{suffix}").copy_(bias[d])
            getattr(theirs, f"bias_hh_l0{suffix}").zero_()


def run_packed(theirs: torch.nn.RNNBase, x: Tensor, n: Tensor) -> Tensor:
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, n, batch_first=True, enforce_sorted=False)
    with torch.no_grad():
        return torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)[0]


def test_step_by_step_is_the_sequence() -> None:
    w_input, w_hidden, peepholes, bias = random_weights(1, 3, 4)
    x, n = random_batch([6, 6], 3)
    h = c = torch.zeros(2, 4, dtype=torch.float64)
    hidden = []
    for t in range(6):
        projected = x[:, t] @ w_input[0].t() + bias[0]
        h, c = peephole_lstm_step(projected, h, c, w_hidden[0], peepholes[0])
        hidden.append(h)
    whole = peephole_lstm(x, n, w_input, w_hidden, peepholes, bias)
    torch.testing.assert_close(torch.stack(hidden, dim=1), whole, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("cell", "projects"), [("lstm", False), ("lstm", True), ("tanh", False)])
def test_a_recurrence_by_steps_is_the_sequence(cell: str, projects: bool) -> None:
    """One object serves the layer and the search, with a projection as well."""
    w_input, w_hidden, *peepholes, bias = random_weights(1, 3, 4, gates=GATES[cell])
    projection = None
    if projects:
        projection = random_weights(1, 4, 2, gates=1)[0]
        w_hidden = w_hidden[:, :, :2].contiguous()
    recurrence = Recurrence(cell, w_hidden, *(peepholes or [None]), projection)
    x, n = random_batch([6, 6], 3)
    ragged = layout(n, 6)
    h, c = torch.zeros(2, w_hidden.shape[2]).double(), torch.zeros(2, 4).double()
    hidden, one = [], recurrence.direction(0)
    for t in range(6):
        h, c = one.step(x[:, t] @ w_input[0].t() + bias[0], h, c)
        hidden.append(h)
    rows = recurrent_rows(pack(x, ragged), ragged, w_input, bias, recurrence)
    whole = unpack(rows, ragged)
    torch.testing.assert_close(torch.stack(hidden, dim=1), whole, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("cell", "projects"), [("lstm", False), ("lstm", True), ("tanh", False)])
def test_from_gates_it_is_the_same_layer(cell: str, projects: bool, dtype: torch.dtype) -> None:
    """A norm may stand before the sweep; without one, values and gradients are the layer's."""
    w_input, w_hidden, *peepholes, bias = random_weights(2, 3, 4, gates=GATES[cell])
    projection = None
    if projects:
        projection = random_weights(2, 4, 2, gates=1)[0]
        w_hidden = w_hidden[:, :, :2].contiguous()
    given = [w_input, bias, w_hidden, *(peepholes or [None]), projection]
    weights = [None if w is None else w.to(dtype).requires_grad_() for w in given]
    x, n = random_batch([5, 3, 1], 3)
    ragged = layout(n, 5)
    rows = pack(x.to(dtype), ragged)
    results = []
    for fused in (True, False):
        recurrence = Recurrence(cell, *weights[2:])
        if fused:
            out = recurrent_rows(rows, ragged, weights[0], weights[1], recurrence)
        else:
            gates = torch.einsum("rf,dgf->rdg", rows, weights[0]) + weights[1]
            kept = gates.clone()
            out = sweep_rows(gates, ragged, recurrence)
            assert torch.equal(gates, kept)  # another function may still need them
        known = [w for w in weights if w is not None]
        results.append([out, *torch.autograd.grad(out.square().sum(), known)])
    rtol, atol = (1e-4, 1e-5) if dtype == torch.float32 else (1e-9, 1e-11)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def test_a_norm_before_the_sweep() -> None:
    """Gradients flow through both, by finite differences."""
    _, w_hidden, peepholes, _ = random_weights(2, 3, 2)
    ragged = layout(torch.tensor([3, 2]), 3)

    def normalised(gates: Tensor, gain: Tensor, w_hidden: Tensor) -> Tensor:
        norm = (gates - gates.mean(dim=0)) / gates.std(dim=0) * gain
        return sweep_rows(norm, ragged, Recurrence("lstm", w_hidden, peepholes))

    gates = torch.randn(5, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    gain = torch.full((8,), 1.5, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for x in (gates, gain, w_hidden)]
    assert torch.autograd.gradcheck(normalised, inputs)


@pytest.mark.parametrize("name", ["gates", "w_hidden", "peepholes"])
def test_gates_that_do_not_fit_are_named(name: str) -> None:
    _, w_hidden, peepholes, _ = random_weights(1, 3, 2)
    shapes = {"gates": torch.zeros(4, 1, 8), "w_hidden": w_hidden, "peepholes": peepholes}
    shapes[name] = shapes[name][..., :-1]
    recurrence = Recurrence("lstm", shapes["w_hidden"].float(), shapes["peepholes"].float())
    with pytest.raises(ValueError, match=f"{name} has the shape"):
        sweep_rows(shapes["gates"], layout(torch.tensor([4]), 4), recurrence)


def test_one_step_by_hand() -> None:
    """[G13] eq. 3-7 with one cell and numbers that can be followed on paper."""
    ln3 = float(np.log(3.0))  # σ(ln 3) = 3/4, σ(0) = 1/2
    projected = torch.tensor([[ln3, 0.0, 0.5, 0.0]], dtype=torch.float64)
    w_hidden = torch.zeros(4, 1, dtype=torch.float64)
    c_before = 2.0
    peepholes = torch.tensor([[0.0], [ln3 / c_before], [0.0]], dtype=torch.float64)
    state = torch.tensor([[c_before]], dtype=torch.float64)
    h, c = peephole_lstm_step(projected, torch.zeros_like(state), state, w_hidden, peepholes)
    expected_c = 0.75 * c_before + 0.75 * np.tanh(0.5)
    assert c.item() == pytest.approx(expected_c)
    assert h.item() == pytest.approx(0.5 * np.tanh(expected_c))
    # The output gate sees the new cell state, not the old one (eq. 6).
    peepholes[2] = ln3 / expected_c
    h, _ = peephole_lstm_step(projected, torch.zeros_like(state), state, w_hidden, peepholes)
    assert h.item() == pytest.approx(0.75 * np.tanh(expected_c))


def test_saturated_gates_stay_finite() -> None:
    weights = [w.requires_grad_() for w in random_weights(2, 3, 4)]
    x, n = random_batch([20, 9], 3)
    out = peephole_lstm(1e4 * x, n, *weights)
    gradients = torch.autograd.grad(out.sum(), weights)
    assert all(torch.isfinite(t).all() for t in (out, *gradients))


def test_no_gradient_is_kept_when_none_is_needed() -> None:
    x, n = random_batch([3, 2], 3)
    assert not peephole_lstm(x, n, *random_weights(2, 3, 4)).requires_grad


def test_a_second_derivative_is_refused() -> None:
    x, n = random_batch([3], 3)
    out = peephole_lstm(x.requires_grad_(), n, *random_weights(1, 3, 4))
    (gradient,) = torch.autograd.grad(out.pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_batch_of_empty_sequences_gives_zeros(requires_grad: bool) -> None:
    weights = [torch.randn(*shape) for shape in [(2, 4, 3), (2, 4, 4), (2, 4)]]
    for weight in weights:
        weight.requires_grad_(requires_grad)
    output = tanh_rnn(torch.randn(2, 5, 3), torch.tensor([0, 0]), *weights)
    assert torch.equal(output, torch.zeros(2, 5, 8))
    if requires_grad:
        output.sum().backward()
        for weight in weights:
            assert weight.grad is not None
            assert not weight.grad.any()
