"""The networks: the papers' numbers of weights and equations; padding and batches do not matter.

[G12] A. Graves, "Sequence Transduction with Recurrent Neural Networks", 2012.
[G13] A. Graves, A. Mohamed, G. Hinton, "Speech Recognition with Deep Recurrent Neural Networks",
2013.
"""

import re
import tomllib
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.kernels.ragged import layout, pack, unpack
from pipeline.kernels.recurrent import reference
from pipeline.kernels.search.transducer import State, transducer_beam_search
from pipeline.kernels.transducer.loss import transducer_loss
from pipeline.nn.config import (
    JoinerConfig,
    ModelConfig,
    PredictorConfig,
    load_model_config,
)
from pipeline.nn.encoders.recurrent import RecurrentConfig, RecurrentEncoder, stack_frames
from pipeline.nn.joiner import SumJoiner, TanhJoiner
from pipeline.nn.layers import RecurrentLayer, count_weights, initialise
from pipeline.nn.models import CtcModel, PredictorModel, TransducerModel, build_model
from pipeline.nn.predictor import Predictor

torch.set_num_threads(1)

M = TypeVar("M", bound=torch.nn.Module)

EGS = Path(__file__).resolve().parents[2] / "egs"
TIMIT = EGS / "timit" / "conf"

# [G12] section 3.2; [G13] Table 1 in full, where Trans-3l-250h and PreTrans-3l-250h are one size.
WEIGHTS = {
    "g12_predictor": 91_431,
    "g12_ctc": 169_768,
    "g12_transducer": 261_328,
    "ctc_3l_500h_tanh": 3_688_062,
    "ctc_1l_250h": 780_562,
    "ctc_1l_622h": 3_793_018,
    "ctc_2l_250h": 2_284_062,
    "ctc_3l_421h_uni": 3_786_957,
    "ctc_3l_250h": 3_787_562,
    "ctc_5l_250h": 6_794_562,
    "trans_3l_250h": 4_335_312,
}


def drawn(module: M, *, scale: float = 0.5, seed: int = 0) -> M:
    """``module`` with random weights, in float64 and evaluation mode."""
    module = module.double().eval()
    initialise(module, scale=scale, generator=torch.Generator().manual_seed(seed))
    return module


def model_of(kind: str, joiner: str = "tanh", *, num_tokens: int = 5, stack: int = 1):
    config = ModelConfig(
        encoder=RecurrentConfig(input_dim=3, layers=2, cells=4, stack_frames=stack),
        predictor=PredictorConfig(cells=6),
        joiner=JoinerConfig(kind=joiner, dim=7),
    )
    return drawn(build_model(config.part(kind, "here"), num_tokens=num_tokens))


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


# ---- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_counted_as_in_the_papers(name: str) -> None:
    path = TIMIT / f"{name}.toml"
    config = load_model_config(path)
    assert config.num_tokens is not None
    assert count_weights(build_model(config, num_tokens=config.num_tokens)) == WEIGHTS[name]
    header = path.read_text(encoding="utf-8").splitlines()[0]
    match = re.fullmatch(r"# \[G1[23]\] Table 1, .*: ([\d,]+) weights", header)
    assert match, f"{path}: the first line names the row and its weights"
    assert int(match[1].replace(",", "")) == WEIGHTS[name]


def test_every_architecture_of_the_papers_is_in_the_table() -> None:
    papers = {p.stem for p in TIMIT.glob("*.toml") if "Table 1" in p.read_text().splitlines()[0]}
    assert papers == set(WEIGHTS)


@pytest.mark.parametrize("path", sorted(EGS.rglob("*.toml")), ids=lambda p: str(p.relative_to(EGS)))
def test_every_shipped_architecture_builds(path: Path) -> None:
    config = load_model_config(path)
    sections = tomllib.loads(path.read_text(encoding="utf-8"))
    kinds = [
        k for k, needed in [("ctc", "encoder"), ("predictor", "predictor")] if needed in sections
    ]
    kinds += ["transducer"] if "joiner" in sections else []
    assert config.kind in kinds
    for kind in kinds:
        part = config.part(kind, str(path))
        assert part.kind == kind
        network = build_model(part, num_tokens=config.num_tokens or 62)
        wanted = {"ctc": CtcModel, "predictor": PredictorModel, "transducer": TransducerModel}
        assert type(network) is wanted[kind]


@pytest.mark.parametrize(("cells", "features", "directions"), [(5, 3, 1), (4, 7, 2)])
def test_an_lstm_layer_has_the_weights_of_the_equations(
    cells: int, features: int, directions: int
) -> None:
    layer = RecurrentLayer(
        input_dim=features, cells=cells, cell="lstm", bidirectional=directions == 2
    )
    one = 4 * cells * features + 4 * cells**2 + 3 * cells + 4 * cells
    assert count_weights(layer) == directions * one
    tanh = RecurrentLayer(
        input_dim=features, cells=cells, cell="tanh", bidirectional=directions == 2
    )
    assert count_weights(tanh) == directions * (cells * features + cells**2 + cells)


def test_the_predictor_has_no_input_column_for_the_blank() -> None:
    predictor = Predictor(PredictorConfig(cells=6), num_tokens=5)
    assert predictor.layer.w_input.shape == (1, 24, 4)


# ---- initial weights -----------------------------------------------------------------------------


def test_weights_are_uniform_in_a_tenth_and_repeatable() -> None:
    config = load_model_config(TIMIT / "g12_transducer.toml")
    model = build_model(config, num_tokens=40)

    def draw(seed: int) -> Tensor:
        initialise(model, scale=0.1, generator=torch.Generator().manual_seed(seed))
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    first = draw(1)
    assert first.abs().max() <= 0.1
    assert first.min() < -0.0999
    assert first.max() > 0.0999
    assert abs(first.mean()) < 1e-3
    assert first.std() == pytest.approx(0.2 / 12**0.5, rel=0.01)
    assert torch.equal(first, draw(1))
    assert not torch.equal(first, draw(2))
    for parameter in model.parameters():  # biases and peepholes too
        assert parameter.abs().max() > 0.0


def test_initialising_leaves_the_global_generator_alone() -> None:
    module = torch.nn.Linear(2, 2)
    before = torch.get_rng_state()
    initialise(module, scale=0.1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


# ---- encoder -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "tanh"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_each_layer_reads_both_directions_of_the_one_below(cell: str, bidirectional: bool) -> None:
    """[G13] eq. 8-11, compared with the reference implementation."""
    config = RecurrentConfig(input_dim=3, layers=3, cells=4, cell=cell, bidirectional=bidirectional)
    encoder = drawn(RecurrentEncoder(config))
    x = normal(1, 6, 3)
    got, lengths = encoder(x, torch.tensor([6]))
    assert lengths.tolist() == [6]
    assert encoder.output_dim == got.shape[2] == (8 if bidirectional else 4)
    hidden = x[0].numpy()
    one = reference.peephole_lstm if cell == "lstm" else reference.tanh_rnn
    for layer in encoder.layers:
        names = ["w_input", "w_hidden", *(["peepholes"] if cell == "lstm" else []), "bias"]
        weights = [getattr(layer, name).detach().numpy() for name in names]
        views = [one(hidden, *(w[0] for w in weights))]
        if bidirectional:
            views.append(one(hidden[::-1], *(w[1] for w in weights))[::-1])
        hidden = np.concatenate(views, axis=1)
    np.testing.assert_allclose(got[0].detach().numpy(), hidden, rtol=1e-10, atol=1e-12)


def test_a_unidirectional_encoder_does_not_look_ahead() -> None:
    config = RecurrentConfig(input_dim=3, layers=2, cells=4, bidirectional=False)
    encoder = drawn(RecurrentEncoder(config))
    x = normal(1, 6, 3)
    other = x.clone()
    other[:, 4:] = 9.0
    n = torch.tensor([6])
    assert torch.equal(encoder(x, n)[0][:, :4], encoder(other, n)[0][:, :4])


@pytest.mark.parametrize("stack", [1, 2, 3])
@pytest.mark.parametrize("junk", [7.0, float("nan")])
def test_an_utterance_does_not_depend_on_its_batch(stack: int, junk: float) -> None:
    config = RecurrentConfig(input_dim=3, layers=2, cells=4, stack_frames=stack)
    encoder = drawn(RecurrentEncoder(config))
    x = normal(3, 7, 3)
    lengths = torch.tensor([7, 4, 1])
    for n, length in enumerate(lengths.tolist()):
        x[n, length:] = junk
    batch, out_lengths = encoder(x, lengths)
    assert out_lengths.tolist() == [-(-n // stack) for n in lengths.tolist()]
    for n, length in enumerate(lengths.tolist()):
        alone, (frames,) = encoder(x[n : n + 1, :length], lengths[n : n + 1])
        torch.testing.assert_close(batch[n, :frames], alone[0], rtol=1e-11, atol=1e-12)
        assert not batch[n, frames:].any()


def test_stacked_frames_stand_beside_each_other() -> None:
    x = torch.arange(1.0, 11.0).view(1, 5, 2)
    stacked = stack_frames(x, torch.tensor([5]), 2)
    assert stacked.tolist() == [[[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 0, 0]]]
    assert torch.equal(stack_frames(x, torch.tensor([5]), 1), x)


def test_dropout_acts_in_training_only() -> None:
    config = RecurrentConfig(input_dim=3, layers=2, cells=4, dropout=0.5)
    encoder = drawn(RecurrentEncoder(config))
    x, n = normal(1, 6, 3), torch.tensor([6])
    assert torch.equal(encoder(x, n)[0], encoder(x, n)[0])
    torch.manual_seed(0)
    encoder.train()
    assert not torch.equal(encoder(x, n)[0], encoder(x, n)[0])


# ---- predictor -----------------------------------------------------------------------------------


def test_the_predictor_reads_one_hot_labels_after_zeros() -> None:
    """[G12] section 2.1, compared with the reference: ŷ = (∅, y_1, …, y_U), with ∅ all zeros."""
    predictor = drawn(Predictor(PredictorConfig(cells=6), num_tokens=5))
    labels = [3, 1, 1, 4]
    inputs = np.zeros((5, 4))
    for u, k in enumerate(labels, start=1):
        inputs[u, k - 1] = 1.0
    layer = predictor.layer
    assert layer.peepholes is not None
    weights = [layer.w_input, layer.w_hidden, layer.peepholes, layer.bias]
    expected = reference.peephole_lstm(inputs, *(w[0].detach().numpy() for w in weights))
    got = predictor(torch.tensor([labels]), torch.tensor([4]))
    assert got.shape == (1, 5, 6)
    np.testing.assert_allclose(got[0].detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_single_steps_give_the_whole_sequence() -> None:
    predictor = drawn(Predictor(PredictorConfig(cells=6), num_tokens=5))
    targets = torch.tensor([[3, 1, 1, 4], [2, 2, 4, 1]])
    whole = predictor(targets, torch.tensor([4, 4]))
    start = torch.zeros(2, 1, dtype=torch.int64)
    state = predictor.start(2)
    assert not state.h.any()
    assert not state.c.any()
    for u, tokens in enumerate(torch.cat([start, targets], dim=1).t()):
        state = predictor.step(state, tokens)
        torch.testing.assert_close(state.h, whole[:, u], rtol=1e-11, atol=1e-12)


def test_the_start_does_not_depend_on_the_input_weights() -> None:
    predictor = drawn(Predictor(PredictorConfig(cells=6), num_tokens=5))
    zero = torch.zeros(1, dtype=torch.int64)
    before = predictor.step(predictor.start(1), zero)
    with torch.no_grad():
        predictor.layer.w_input.mul_(5.0)
    after = predictor.step(predictor.start(1), zero)
    assert torch.equal(before.h, after.h)
    assert torch.equal(before.c, after.c)


@pytest.mark.parametrize("junk", [0, 99, -1])
def test_padding_of_the_targets_changes_nothing(junk: int) -> None:
    predictor = drawn(Predictor(PredictorConfig(cells=6), num_tokens=5))
    ragged = torch.tensor([[3, 1, 4], [2, junk, junk], [junk, junk, junk]])
    lengths = torch.tensor([3, 1, 0])
    batch = predictor(ragged, lengths)
    for n, length in enumerate(lengths.tolist()):
        alone = predictor(ragged[n : n + 1, :length], lengths[n : n + 1])
        torch.testing.assert_close(batch[n, : length + 1], alone[0], rtol=1e-11, atol=1e-12)


def test_the_standalone_predictor_predicts_labels_without_the_blank() -> None:
    model = model_of("predictor")
    log_probs = model(torch.tensor([[3, 1], [2, 0]]), torch.tensor([2, 1]))
    assert log_probs.shape == (2, 3, 4)
    torch.testing.assert_close(log_probs.exp().sum(dim=-1), torch.ones(2, 3).double())


# ---- joiners -------------------------------------------------------------------------------------


def arrays(linear: torch.nn.Linear) -> tuple[np.ndarray, np.ndarray | None]:
    bias = None if linear.bias is None else linear.bias.detach().numpy()
    return linear.weight.detach().numpy(), bias


def test_the_tanh_joiner_is_the_output_network_of_the_paper() -> None:
    """[G13] eq. 15-17, computed for each node of the lattice."""
    joiner = drawn(TanhJoiner(encoder_dim=8, predictor_dim=6, dim=7, num_tokens=5))
    h, p = normal(1, 3, 8), normal(1, 4, 6, seed=1)
    rows, columns = joiner.project_encoder(h), joiner.project_predictor(p)
    got = joiner(rows[:, :, None], columns[:, None]).detach().numpy()
    w_l, b_l = arrays(joiner.encoder_layer)
    w_forward, w_backward = w_l[:, :4], w_l[:, 4:]
    (w_lh, b_h), (w_ph, no_bias) = arrays(joiner.hidden_encoder), arrays(joiner.hidden_predictor)
    w_hy, b_y = arrays(joiner.output)
    assert no_bias is None
    for t in range(3):
        forward, backward = h[0, t, :4].numpy(), h[0, t, 4:].numpy()
        l_t = w_forward @ forward + w_backward @ backward + b_l  # eq. 15
        for u in range(4):
            h_tu = np.tanh(w_lh @ l_t + w_ph @ p[0, u].numpy() + b_h)  # eq. 16
            np.testing.assert_allclose(got[0, t, u], w_hy @ h_tu + b_y, rtol=1e-11)  # eq. 17


def test_the_sum_joiner_multiplies_the_two_distributions() -> None:
    """[G12] eq. 3, 11-13: Pr(k|t,u) ∝ exp(f_t^k + g_u^k)."""
    joiner = drawn(SumJoiner(encoder_dim=8, predictor_dim=6, num_tokens=5))
    h, p = normal(1, 3, 8), normal(1, 4, 6, seed=1)
    rows, columns = joiner.project_encoder(h), joiner.project_predictor(p)
    got = joiner(rows[:, :, None], columns[:, None])[0].softmax(dim=-1).detach().numpy()
    (w_f, b_f), (w_g, b_g) = arrays(joiner.encoder_output), arrays(joiner.predictor_output)
    for t in range(3):
        f = w_f @ h[0, t].numpy() + b_f
        for u in range(4):
            density = np.exp(f) * np.exp(w_g @ p[0, u].numpy() + b_g)  # eq. 12
            np.testing.assert_allclose(got[t, u], density / density.sum(), rtol=1e-11)  # eq. 13


# ---- whole models --------------------------------------------------------------------------------


def test_ctc_log_probs_are_normalised_and_linear_in_the_encoder() -> None:
    model = model_of("ctc")
    x, lengths = normal(2, 6, 3), torch.tensor([6, 4])
    log_probs, out_lengths = model(x, lengths)
    assert log_probs.shape == (2, 6, 5)
    assert out_lengths.tolist() == [6, 4]
    torch.testing.assert_close(log_probs.exp().sum(dim=-1), torch.ones(2, 6).double())
    encoded, _ = model.encoder(x, lengths)
    y = encoded @ model.output.weight.t() + model.output.bias  # [G13] eq. 13
    torch.testing.assert_close(log_probs, y - y.logsumexp(dim=-1, keepdim=True))  # eq. 14


@pytest.mark.parametrize("joiner", ["tanh", "sum"])
def test_a_search_sees_the_lattice_of_training(joiner: str) -> None:
    model = model_of("transducer", joiner)
    x, frames = normal(2, 4, 3), torch.tensor([4, 4])
    targets, labels = torch.tensor([[3, 1, 1], [4, 2, 3]]), torch.tensor([3, 3])
    encoded, _ = model.encoder(x, frames)
    lattice = model.join(encoded, targets, labels).log_softmax(dim=-1)
    assert lattice.shape == (2, 4, 4, 5)
    rows = model.joiner.project_encoder(encoded)
    state, projected = model.start(2)
    for u in range(4):
        for t in range(4):
            got = model.log_probs(rows[:, t], projected)
            torch.testing.assert_close(got, lattice[:, t, u], rtol=1e-11, atol=1e-12)
        if u < 3:
            state, projected = model.step(state, targets[:, u])
            assert isinstance(state, State)


@pytest.mark.parametrize("joiner", ["tanh", "sum"])
def test_a_hypothesis_has_the_probability_that_the_loss_gives_it(joiner: str) -> None:
    model = model_of("transducer", joiner, num_tokens=3)
    with torch.no_grad():
        output = model.joiner.output if joiner == "tanh" else model.joiner.encoder_output
        output.bias[0] += 3.0  # makes blanks more likely, so that little is pruned
        encoded, _ = model.encoder(normal(1, 3, 3), torch.tensor([3]))
        frames = model.joiner.project_encoder(encoded)
        (hyps,) = transducer_beam_search(frames, torch.tensor([3]), model, beam=200)
        for hyp in hyps[:8]:
            targets = torch.tensor([hyp.tokens], dtype=torch.int64).view(1, -1)
            labels = torch.tensor([len(hyp.tokens)])
            logits = model.join(encoded, targets, labels)
            loss = transducer_loss(logits, targets, torch.tensor([3]), labels, blank=0)
            assert hyp.log_prob == pytest.approx(-loss.item(), abs=1e-3)


@pytest.mark.parametrize("joiner", ["tanh", "sum"])
def test_a_transducers_loss_does_not_depend_on_the_batch(joiner: str) -> None:
    model = model_of("transducer", joiner, stack=2)
    x, frames = normal(3, 7, 3), torch.tensor([7, 2, 5])
    targets, labels = torch.tensor([[3, 1, 1], [4, 0, 0], [0, 0, 0]]), torch.tensor([3, 1, 0])

    def losses(*rows: int) -> Tensor:
        n = list(rows)
        longest, most = int(frames[n].max()), int(labels[n].max())
        encoded, lengths = model.encoder(x[n, :longest], frames[n])
        logits = model.join(encoded, targets[n, :most], labels[n])
        return transducer_loss(
            logits, targets[n, :most], lengths, labels[n], blank=0, reduction="none"
        )

    alone = torch.cat([losses(n) for n in range(3)])
    torch.testing.assert_close(losses(0, 1, 2), alone, rtol=1e-11, atol=1e-12)


def test_every_weight_of_a_transducer_is_trained() -> None:
    model = model_of("transducer")
    encoded, lengths = model.encoder(normal(1, 5, 3), torch.tensor([5]))
    targets, labels = torch.tensor([[1, 2, 3, 4]]), torch.tensor([4])
    transducer_loss(model.join(encoded, targets, labels), targets, lengths, labels, 0).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0.0, name


# ---- recurrent projections, [S14] ----------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_projection_is_reachable_from_the_toml(bidirectional: bool, tmp_path: Path) -> None:
    """A layer of H cells and P projected values has 4HF + 4HP + PH + 3H + 4H weights."""
    path = tmp_path / "model.toml"
    text = "[encoder]\ninput_dim = 5\nlayers = 2\ncells = 7\nprojection = 3\n"
    path.write_text(f"{text}bidirectional = {str(bidirectional).lower()}\n")
    config = load_model_config(path)
    encoder = drawn(config.encoder.build())
    directions = 2 if bidirectional else 1
    assert encoder.output_dim == 3 * directions

    def weights(inputs: int) -> int:
        return directions * (4 * 7 * inputs + 4 * 7 * 3 + 3 * 7 + 3 * 7 + 4 * 7)

    assert count_weights(encoder) == weights(5) + weights(3 * directions)
    out, lengths = encoder(normal(2, 6, 5), torch.tensor([6, 4]))
    assert out.shape == (2, 6, 3 * directions)
    assert lengths.tolist() == [6, 4]


def test_a_tanh_layer_has_no_projection(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_text('[encoder]\ninput_dim=5\nlayers=2\ncells=7\ncell="tanh"\nprojection=3\n')
    with pytest.raises(ConfigError, match=r"encoder\.projection must be 0 for a cell without"):
        load_model_config(path)


def test_a_non_recurrent_projection_stands_beside_a_recurrent_one(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    text = "[encoder]\ninput_dim=5\nlayers=2\ncells=7\n[predictor]\ncells=7\n[joiner]\ndim=3\n"
    path.write_text(text.replace("cells=7\n", "cells=7\nnonrecurrent_projection=3\n"))
    wrong = r"\.nonrecurrent_projection must be 0 without a recurrent projection"
    with pytest.raises(ConfigError, match=f"encoder{wrong}\n.*predictor{wrong}"):
        load_model_config(path)
    both = "cells=7\nprojection=3\nnonrecurrent_projection=2\n"
    path.write_text(text.replace("cells=7\n", both))
    model = build_model(load_model_config(path), num_tokens=5)
    assert (model.encoder.output_dim, model.predictor.output_dim) == (10, 5)
    one = 4 * 7 * 4 + 4 * 7 * 3 + (3 + 2) * 7 + 3 * 7 + 4 * 7
    assert count_weights(model.predictor.layer) == one


@pytest.mark.parametrize("directions", [1, 2])
def test_a_layer_with_projections_is_the_reference(directions: int) -> None:
    layer = drawn(
        RecurrentLayer(
            input_dim=3, cells=6, cell="lstm", bidirectional=directions == 2, projection=4,
            nonrecurrent=2,
        )
    )  # fmt: skip
    lengths, x = torch.tensor([5, 2]), normal(2, 5, 3)
    ragged = layout(lengths, 5)
    got = unpack(layer(pack(x, ragged), ragged), ragged)
    named = {k: w.detach().numpy() for k, w in layer.named_parameters()}
    for n, length in enumerate(lengths.tolist()):
        for d in range(directions):
            step = -1 if d else 1
            weights = {k: w[d] for k, w in named.items()}
            one = reference.projected_lstm(x[n, :length].numpy()[::step], **weights)[::step]
            out = got[n, :length, 6 * d : 6 * d + 6].detach().numpy()
            np.testing.assert_allclose(out, one, rtol=1e-10, atol=1e-12)
    rows = pack(x, ragged).requires_grad_()
    weights = [w.detach().clone().requires_grad_() for w in layer.parameters()]
    names = [name for name, _ in layer.named_parameters()]

    def run(rows: Tensor, *weights: Tensor) -> Tensor:
        given = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(layer, given, (rows, ragged))

    assert torch.autograd.gradcheck(run, (rows, *weights))


@pytest.mark.parametrize("beside", [0, 3])
def test_a_search_reads_a_predictor_with_projections(beside: int) -> None:
    """The compiled search has projections folded; the plain one calls the network as it is."""
    config = PredictorConfig(cells=6, projection=4, nonrecurrent_projection=beside)
    predictor = Predictor(config, num_tokens=5)
    encoder = RecurrentConfig(input_dim=3, layers=1, cells=4).build()
    dims = {"encoder_dim": encoder.output_dim, "predictor_dim": predictor.output_dim}
    joiner = JoinerConfig(dim=7).build(**dims, num_tokens=5)
    model = drawn(TransducerModel(encoder, predictor, joiner), scale=0.7)
    with torch.inference_mode():
        encoded, lengths = encoder(normal(1, 9, 3), torch.tensor([9]))
        frames = joiner.project_encoder(encoded)
        (compiled,) = transducer_beam_search(frames, lengths, model, beam=4)
        model.search_weights = lambda: None
        (plain,) = transducer_beam_search(frames, lengths, model, beam=4)
    assert [h.tokens for h in compiled] == [h.tokens for h in plain]
    assert len(plain) == 4
    for a, b in zip(compiled, plain, strict=True):
        assert a.log_prob == pytest.approx(b.log_prob, abs=1e-9)


@pytest.mark.parametrize(("projection", "beside"), [(0, 0), (3, 0), (3, 2)])
def test_a_layer_reads_a_sequence_in_chunks(projection: int, beside: int) -> None:
    layer = drawn(
        RecurrentLayer(
            input_dim=3, cells=4, cell="lstm", bidirectional=False, projection=projection,
            nonrecurrent=beside,
        )
    ).float()  # fmt: skip
    x, state, found = normal(7, 3).float(), layer.start(1), []
    for rows in x.split([2, 0, 4, 1]):
        out, state = layer.advance(rows, layout(torch.tensor([len(rows)]), len(rows)), state)
        found.append(out)
    assert torch.equal(torch.cat(found), layer(x, layout(torch.tensor([7]), 7)))
