"""From features to hypotheses, with models that have learnt a toy corpus."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data_dir import DataDir
from pipeline.decoding.recogniser import Recogniser, decode
from pipeline.errors import FeatureError, ModelError, UsageError
from pipeline.model_dir import ModelDir
from pipeline.tables import read_matrix

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def features(trained: Path) -> dict[str, np.ndarray]:
    return {u: read_matrix(rx) for u, rx in DataDir(trained / "toy/dev").feats_scp.items()}


@pytest.fixture(scope="session")
def recogniser(trained: Path) -> Callable[..., Recogniser]:
    def make(kind: str, *, beam: int = 4, **options: bool) -> Recogniser:
        return Recogniser(ModelDir.open(trained / kind), CPU, beam=beam, **options)

    return make


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_what_was_learnt_is_recognised(trained, recogniser, features, kind, beam):
    text = DataDir(trained / "toy/dev").text
    model = recogniser(kind, beam=beam)
    found = {utt: model.symbols(model.recognise(utt, f)[0]) for utt, f in features.items()}
    assert found == text


@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_hypotheses_come_best_first_and_are_distinct(recogniser, features, kind):
    hyps = recogniser(kind, beam=6).recognise("u", features["s1-u2"])
    assert 1 < len(hyps) <= 6
    scores = [hyp.log_prob for hyp in hyps]
    assert scores == sorted(scores, reverse=True)
    assert all(score <= 0.0 for score in scores)
    assert len({tuple(hyp.tokens) for hyp in hyps}) == len(hyps)


def test_the_greedy_path_of_a_transducer_has_the_probability_of_its_tokens(recogniser, features):
    for matrix in [*features.values(), np.zeros((3, 6), np.float32)]:
        (greedy,) = recogniser("transducer", beam=1).recognise("u", matrix)
        wide = recogniser("transducer", beam=50).recognise("u", matrix)
        (same,) = [hyp for hyp in wide if hyp.tokens == greedy.tokens]
        assert greedy.log_prob == pytest.approx(same.log_prob, abs=1e-3)


@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_the_model_normalises_by_its_own_statistics(trained, tmp_path, recogniser, features, kind):
    path = Path(shutil.copytree(trained / kind, tmp_path / kind))
    stats = ModelDir.open(path).cmvn()
    (path / "cmvn.ark").unlink()
    config = (path / "config.json").read_text()
    (path / "config.json").write_text(config.replace('"cmvn": true', '"cmvn": false'))
    plain = Recogniser(ModelDir.open(path), CPU, beam=4)
    for utt, matrix in features.items():
        normalised = stats.apply(matrix, norm_means=True, norm_vars=True)
        assert plain.recognise(utt, normalised) == recogniser(kind).recognise(utt, matrix)
    assert plain.recognise("u", features["s1-u2"]) != recogniser(kind).recognise(
        "u", features["s1-u2"]
    )


def test_float64_features_are_read(recogniser, features):
    model = recogniser("ctc")
    matrix = features["s0-u0"]
    assert model.recognise("u", matrix.astype(np.float64)) == model.recognise("u", matrix)


def test_length_normalisation_only_sorts_anew(recogniser, features):
    plain = recogniser("transducer", beam=6).recognise("u", features["s1-u2"])
    sorted_anew = recogniser("transducer", beam=6, length_normalise=True).recognise(
        "u", features["s1-u2"]
    )
    assert {h.tokens for h in plain} == {h.tokens for h in sorted_anew}
    rates = [h.log_prob / max(1, len(h.tokens)) for h in sorted_anew]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("beam", [0, -3])
def test_a_beam_of_nothing_is_refused(recogniser, beam):
    with pytest.raises(UsageError, match=f"--beam must be 1 or more, not {beam}"):
        recogniser("ctc", beam=beam)


def test_a_predictor_is_no_recogniser(recogniser):
    with pytest.raises(ModelError, match="predictor: a predictor alone recognises nothing"):
        recogniser("predictor")


@pytest.mark.parametrize(
    ("matrix", "what"),
    [
        (np.zeros((5, 4), np.float32), "reads 6 a frame"),
        (np.zeros((0, 6), np.float32), "no frames"),
        (np.full((5, 6), np.nan, np.float32), "frame 0 is not finite"),
        (np.zeros(6, np.float32), "reads 6 a frame"),
    ],
)
@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_features_that_do_not_fit_are_named(recogniser, kind, matrix, what):
    with pytest.raises(FeatureError, match=f"utt9: .*{what}"):
        recogniser(kind).recognise("utt9", matrix)


def test_an_utterance_that_fails_does_not_stop_the_others(recogniser, features):
    table = [
        ("a", features["s0-u0"]),
        ("b", np.full((5, 6), np.inf, np.float32)),
        ("c", features["s0-u1"]),
    ]
    found = list(decode(recogniser("ctc"), table))
    assert [(utt, frames) for utt, frames, _ in found] == [
        ("a", len(features["s0-u0"])),
        ("b", 5),
        ("c", len(features["s0-u1"])),
    ]
    assert isinstance(found[1][2], FeatureError)
    assert found[2][2] == recogniser("ctc").recognise("c", features["s0-u1"])


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_one_frame_is_enough(recogniser, kind, beam):
    assert recogniser(kind, beam=beam).recognise("u", np.zeros((1, 6), np.float32))


def test_the_network_is_in_evaluation_mode(recogniser, features):
    model = recogniser("transducer")
    assert not model.model.training
    assert model.recognise("u", features["s0-u0"]) == model.recognise("u", features["s0-u0"])
