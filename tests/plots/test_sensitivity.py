"""Derivatives in the pictures agree with finite differences of the network."""

import numpy as np
import pytest
import torch

from pipeline.errors import DataError, ModelError, UsageError
from pipeline.frontend.deltas import add_deltas
from pipeline.plots.filter_bank import filter_bank
from pipeline.plots.segments import Segment
from pipeline.plots.sensitivity import compute_sensitivity, draw_sensitivity
from pipeline.plots.sensitivity_ctc import (
    Spike,
    compute_ctc_sensitivity,
    draw_ctc_sensitivity,
    find_spikes,
    log_odds,
)

TARGETS = [1, 3, 2, 1]
STEP = 1e-3


def inputs_of(utterance, static: np.ndarray) -> torch.Tensor:
    """The network inputs for changed static features: deltas, then normalisation."""
    whole = add_deltas(static, order=2, window=2)
    change = (whole - add_deltas(utterance.features[:, :6], order=2, window=2)) * utterance.scales
    return torch.from_numpy(utterance.inputs + change)[None]


def slope(utterance, frame: int, column: int, value) -> float:
    """The derivative of ``value(inputs)`` in one static feature, from two values."""
    both = []
    for step in (STEP, -STEP):
        static = utterance.features[:, :6].copy()
        static[frame, column] += step
        both.append(value(inputs_of(utterance, static)))
    return (both[0] - both[1]) / (2 * STEP)


@pytest.mark.parametrize("name", ["tanh", "sum"])
def test_a_transducers_derivatives(utterance, name: str) -> None:
    one = utterance(name)
    found = compute_sensitivity(one, TARGETS, frame=3, label=2)
    assert (found.frame, found.label, found.token) == (3, 2, 2)
    ids, count = torch.tensor([TARGETS]), torch.tensor([4])

    def value(inputs: torch.Tensor) -> float:
        encoded, _ = one.model.encoder(inputs, torch.tensor([13]))
        logits = one.model.join(encoded, ids, count)[0, 3, 2]
        return float(logits.log_softmax(0)[2])

    assert found.log_prob == pytest.approx(value(torch.from_numpy(one.inputs)[None]))
    assert found.to_inputs.shape == (13, 5)
    for frame, mel in ((0, 0), (6, 3), (7, 4), (12, 1)):  # column 0 is the energy
        wanted = slope(one, frame, mel + 1, value)
        assert found.to_inputs[frame, mel] == pytest.approx(wanted, rel=1e-4, abs=1e-8)
    assert np.abs(found.to_inputs).max() > 1e-4


@pytest.mark.parametrize("name", ["tanh", "sum"])
def test_derivatives_in_the_labels(utterance, name: str) -> None:
    one = utterance(name)
    found = compute_sensitivity(one, TARGETS, frame=3, label=2)
    model = one.model
    encoded, _ = model.encoder(torch.from_numpy(one.inputs)[None], torch.tensor([13]))
    rows = model.joiner.project_encoder(encoded)[0]

    def value(row: int, column: int, step: float) -> float:
        one_hot = model.predictor.one_hot(torch.tensor([TARGETS]))
        one_hot[0, row, column] += step
        predicted = model.predictor.read(one_hot, torch.tensor([4]))
        columns = model.joiner.project_predictor(predicted)[0]
        return float(model.joiner(rows[3], columns[2]).log_softmax(0)[2])

    for row, column in ((0, 0), (0, 3), (1, 2), (1, 0)):
        wanted = (value(row, column, STEP) - value(row, column, -STEP)) / (2 * STEP)
        assert found.to_labels[row, column] == pytest.approx(wanted, rel=1e-4)
    assert not found.to_labels[2:].any()  # not yet read at u = 2


def test_what_each_network_says_alone(utterance) -> None:
    """[G12] eq. 12: the output is the normalised product of the two."""
    found = compute_sensitivity(utterance("sum"), TARGETS)
    product = found.encoder_alone * found.predictor_alone
    np.testing.assert_allclose(found.output, product / product.sum(), rtol=1e-10)
    other = compute_sensitivity(utterance("tanh"), TARGETS)
    for probs in (other.output, other.encoder_alone, other.predictor_alone):
        assert probs.sum() == pytest.approx(1.0)


def test_the_point(utterance) -> None:
    one = utterance("tanh")
    found = compute_sensitivity(one, TARGETS)
    assert (found.label, found.frame) == (2, found.lattice.path[2])
    assert found.token == TARGETS[2]
    last = compute_sensitivity(one, TARGETS, label=4)
    assert (last.frame, last.token) == (6, 0)
    before = sum(frame < 5 for frame in found.lattice.path)
    assert compute_sensitivity(one, TARGETS, frame=5).label == before
    assert compute_sensitivity(one, TARGETS, token=4).token == 4
    assert compute_sensitivity(one, []).label == 0
    for point, text in (
        ({"frame": 7}, "--frame must be an encoder frame, 0 … 6"),
        ({"label": 5}, "--label must be 0 … 4"),
    ):
        with pytest.raises(UsageError, match=text):
            compute_sensitivity(one, TARGETS, **point)


def test_the_transducers_picture(utterance) -> None:
    one = utterance("tanh")
    found = compute_sensitivity(one, TARGETS)
    figure = draw_sensitivity(one, found)
    to_labels, one_hot, _, spectrogram, to_inputs = figure.axes[:5]
    inputs = one_hot.images[0].get_array()
    assert np.argwhere(np.asarray(inputs)).tolist() == [[1, 0], [2, 2], [3, 1], [4, 0]]
    assert to_labels.images[0].get_array().shape == (5, 4)
    values = np.abs(found.to_inputs).T
    np.testing.assert_allclose(to_inputs.images[0].get_array().max(), values.max())
    assert spectrogram.get_xlim() == to_inputs.get_xlim()
    for axes in (to_labels, one_hot):  # K = 4 tokens, one a column
        ticks = [(tick.get_position()[0], tick.get_text()) for tick in axes.get_xticklabels()]
        assert ticks == [(0.5, "1"), (1.5, "2"), (2.5, "3"), (3.5, "4")]
        assert axes.get_xlabel().startswith("token k")
    titles = [axes.get_title() for axes in figure.axes]
    assert "predictor and\nencoder's mean" in titles


def test_a_ctc_models_derivatives(utterance) -> None:
    one = utterance("ctc")
    found = compute_ctc_sensitivity(one)
    spikes = [found.spikes[n] for n in found.chosen]
    assert 1 <= len(spikes) <= 3

    def value(inputs: torch.Tensor) -> float:
        log_probs, _ = one.model(inputs, torch.tensor([13]))
        probs = log_probs[0].exp()
        return sum(float(torch.logit(probs[s.frame, s.token])) for s in spikes)

    for frame, mel in ((0, 0), (5, 2), (12, 4)):
        wanted = slope(one, frame, mel + 1, value)
        assert found.to_inputs[frame, mel] == pytest.approx(wanted, rel=1e-4, abs=1e-8)


def test_log_odds_of_what_is_sure_are_finite() -> None:
    log_probs = torch.tensor([[0.0, -50.0], [-1.0, -1.0]], dtype=torch.float64)
    found = log_odds(log_probs, [Spike(0, 0), Spike(1, 1)])
    np.testing.assert_allclose(found.numpy(), [50.0, 0.0])


def test_spikes_are_runs_at_their_best_frame() -> None:
    probs = np.array([[0.6, 0.4, 0], [0.1, 0.9, 0], [0, 1, 0], [0, 0.1, 0.9], [0.2, 0.8, 0]])
    assert find_spikes(probs) == [Spike(1, 2), Spike(2, 3), Spike(1, 4)]
    assert find_spikes(np.array([[1.0, 0.0]])) == []


def test_phones_that_are_asked_for(utterance) -> None:
    one = utterance("ctc")
    emitted = {spike.token for spike in compute_ctc_sensitivity(one).spikes}
    (token, *_), (missing, *_) = emitted, {1, 2, 3, 4} - emitted
    (name,) = one.symbols([token])
    found = compute_ctc_sensitivity(one, [name])
    assert {found.spikes[n].token for n in found.chosen} == {token}
    assert len(found.chosen) == sum(s.token == token for s in found.spikes)
    with pytest.raises(UsageError, match='no token "zz"'):
        compute_ctc_sensitivity(one, ["zz"])
    with pytest.raises(DataError, match="never the most probable"):
        compute_ctc_sensitivity(one, one.symbols([missing]))
    with pytest.raises(ModelError, match="is a transducer model; give a ctc model"):
        compute_ctc_sensitivity(utterance("tanh"))


def test_the_ctc_picture_marks_what_is_chosen(utterance) -> None:
    one = utterance("ctc")
    found = compute_ctc_sensitivity(one)
    (name,) = one.symbols([found.spikes[found.chosen[0]].token])
    segments = [Segment(0.0, 0.05, "other"), Segment(0.05, 0.13, name)]
    figure = draw_ctc_sensitivity(one, found, segments=segments, segments_label="by hand")
    outputs, to_inputs, _, by_hand = figure.axes[:4]
    assert [t.get_fontweight() for t in by_hand.texts] == ["normal", "bold"]
    bold = [n for n, t in enumerate(outputs.texts) if t.get_fontweight() == "bold"]
    assert bold == found.chosen
    low, high = to_inputs.images[0].get_clim()
    assert low == -high
    assert len(draw_ctc_sensitivity(one, found).axes) < len(figure.axes)


def test_without_a_front_end_derivatives_are_in_the_inputs(utterance) -> None:
    one = utterance("ctc-plain")
    assert one.front_end is None
    found = compute_ctc_sensitivity(one)
    assert found.to_inputs.shape == (13, 18)
    assert one.bank == filter_bank(None, 18)
    np.testing.assert_array_equal(one.spectrogram, one.inputs)
    assert "normalised feature" in one.bank.derivative
