"""The lattice that is drawn is that of [G12] eq. 13-19."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.errors import DataError, ModelError, UsageError
from pipeline.kernels.transducer.align import transducer_align
from pipeline.kernels.transducer.reference import lattice as reference
from pipeline.plots.lattice import (
    compute_lattice,
    draw_lattice,
    forward_backward,
    need_transducer,
)


@pytest.mark.parametrize(("frames", "labels"), [(1, 0), (1, 3), (4, 0), (6, 3), (3, 7)])
def test_forward_and_backward_variables_are_the_references(frames: int, labels: int) -> None:
    random = np.random.default_rng(frames * 10 + labels)
    logits = random.normal(0, 3, (frames, labels + 1, 5))
    targets = random.integers(1, 5, labels).tolist()
    alpha, beta, null, label = reference(logits, targets, 0)
    found = forward_backward(null, label[:, :labels])
    np.testing.assert_allclose(found.log_alpha, alpha, rtol=1e-12)
    np.testing.assert_allclose(found.log_beta, beta, rtol=1e-12)
    assert found.log_likelihood == pytest.approx(beta[0, 0], rel=1e-12)
    assert len(found.diagonals()) == frames + labels
    assert found.check() < 1e-11


@pytest.mark.parametrize("name", ["tanh", "sum"])
def test_the_lattice_of_a_model(utterance, name: str) -> None:
    one = utterance(name)
    model, targets = need_transducer(one), [2, 1, 1, 4]
    found = compute_lattice(model, one.inputs, targets)
    features = torch.from_numpy(one.inputs)[None]
    encoded, lengths = model.encoder(features, torch.tensor([len(one.inputs)]))
    ids = torch.tensor([targets])
    loss = model.losses(encoded, lengths, ids, torch.tensor([4]))
    assert found.log_alpha.shape == (7, 5)
    assert found.log_likelihood == pytest.approx(-float(loss), rel=1e-9)
    np.testing.assert_allclose(found.diagonals(), found.log_likelihood, rtol=1e-12)
    frames = model.joiner.project_encoder(encoded)[0]
    assert found.path == transducer_align(frames, model, targets)


def test_inconsistent_lattices_are_not_drawn(utterance) -> None:
    one = utterance("tanh")
    found = compute_lattice(need_transducer(one), one.inputs, [1, 2])
    for spoiled, text in ((found.log_alpha[3, 1] + 1e-6, "diagonal t . u = 4"), (np.nan, "19")):
        alpha = found.log_alpha.copy()
        alpha[3, 1] = spoiled
        with pytest.raises(DataError, match=text):
            draw_lattice(one, dataclasses.replace(found, log_alpha=alpha), [1, 2])
    beta = found.log_beta.copy()
    beta[0, 0] -= 1e-6
    with pytest.raises(DataError, match=r"eq\. 19"):
        draw_lattice(one, dataclasses.replace(found, log_beta=beta), [1, 2])
    impossible = dataclasses.replace(found, log_null=np.full_like(found.log_null, -np.inf))
    with pytest.raises(DataError, match="weights of the model finite"):
        impossible.check()


def test_the_picture(utterance) -> None:
    one = utterance("tanh")
    found = compute_lattice(need_transducer(one), one.inputs, [1, 3])
    figure = draw_lattice(one, found, [1, 3], floor=5.0)
    alpha, beta, product, spectrogram = figure.axes[:4]
    for axes, values in ((alpha, found.log_alpha), (product, found.log_product)):
        image = axes.images[0]
        shown = np.maximum(values.T, values.max() - 5.0)
        np.testing.assert_array_equal(image.get_array(), shown)
        assert image.origin == "lower"
        assert image.get_clim() == (pytest.approx(values.max() - 5.0), values.max())
    assert [t.get_text() for t in beta.texts] == ["∅", "ah", "s$x"]
    assert spectrogram.images[0].get_array().shape == (5, 13)
    assert spectrogram.get_xlabel() == "time (s)"
    assert spectrogram.get_xlim() == (0.0, pytest.approx(0.14))  # 7 of the network's frames
    assert "utt$1" in figure.get_suptitle()
    with pytest.raises(UsageError, match="--floor"):
        draw_lattice(one, found, [1, 3], floor=0.0)


def test_a_ctc_model_has_no_lattice(utterance) -> None:
    with pytest.raises(ModelError, match="has no lattice"):
        need_transducer(utterance("ctc"))


def test_many_labels_are_numbered(utterance) -> None:
    one = utterance("tanh")
    targets = [1, 2] * 200
    found = compute_lattice(need_transducer(one), one.inputs, targets)
    figure = draw_lattice(one, found, targets)
    assert not figure.axes[0].texts
    assert len(figure.axes[0].get_yticks()) > 2
