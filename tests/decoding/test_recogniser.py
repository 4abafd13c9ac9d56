"""Recognition of features with models that were trained on a toy corpus."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.data_dir import DataDir
from pipeline.decoding.decode_options import AnySearchOptions
from pipeline.decoding.recogniser import Recogniser
from pipeline.errors import DataError, FeatureError, ModelError, UsageError
from pipeline.models.model_dir import ModelDir
from pipeline.seals import unsealed
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
    def make(kind: str, *, beam: int = 4, **options: object) -> Recogniser:
        return Recogniser(
            ModelDir.open(trained / kind), CPU, AnySearchOptions(beam=beam, **options)
        )

    return make


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_utterances_of_the_training_set_are_recognised(trained, recogniser, features, kind, beam):
    text = DataDir(trained / "toy/dev").text
    model = recogniser(kind, beam=beam)
    found = {utt: model.symbols(model.recognise(utt, f).hyps[0]) for utt, f in features.items()}
    assert found == text


@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_hypotheses_come_best_first_and_are_distinct(recogniser, features, kind):
    hyps = recogniser(kind, beam=6).recognise("u", features["s1-u2"]).hyps
    assert 1 < len(hyps) <= 6
    scores = [hyp.log_prob for hyp in hyps]
    assert scores == sorted(scores, reverse=True)
    assert all(score <= 0.0 for score in scores)
    assert len({tuple(hyp.tokens) for hyp in hyps}) == len(hyps)


def test_the_greedy_path_of_a_transducer_is_one_of_those_of_its_tokens(recogniser, features):
    for matrix in [*features.values(), np.zeros((3, 6), np.float32)]:
        (greedy,) = recogniser("transducer", beam=1).recognise("u", matrix).hyps
        wide = recogniser("transducer", beam=50).recognise("u", matrix).hyps
        (same,) = [hyp for hyp in wide if hyp.tokens == greedy.tokens]
        assert -20.0 < greedy.log_prob <= same.log_prob + 1e-6


@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_the_model_normalises_by_its_own_statistics(trained, tmp_path, recogniser, features, kind):
    path = Path(shutil.copytree(trained / kind, tmp_path / kind))
    stats = ModelDir.open(path).cmvn()
    (path / "cmvn.ark").unlink()
    config = unsealed((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "cmvn": False}))
    plain = Recogniser(ModelDir.open(path), CPU, AnySearchOptions(beam=4))
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
    plain = recogniser("transducer", beam=6).recognise("u", features["s1-u2"]).hyps
    sorted_anew = (
        recogniser("transducer", beam=6, length_normalise=True)
        .recognise("u", features["s1-u2"])
        .hyps
    )
    assert {h.tokens for h in plain} == {h.tokens for h in sorted_anew}
    rates = [h.log_prob / max(1, len(h.tokens)) for h in sorted_anew]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("beam", [0, -3])
def test_a_beam_of_nothing_is_refused(recogniser, beam):
    with pytest.raises(UsageError, match=f"--beam must be 1 or more, not {beam}"):
        recogniser("ctc", beam=beam)


def test_a_predictor_cannot_recognise(recogniser):
    with pytest.raises(ModelError, match="predictor: a prediction network alone cannot recognise"):
        recogniser("predictor")


@pytest.mark.parametrize(
    ("matrix", "what"),
    [
        (np.zeros((5, 4), np.float32), "reads 6 per frame"),
        (np.zeros((0, 6), np.float32), "no frames"),
        (np.full((5, 6), np.nan, np.float32), "frame 0 is not finite"),
        (np.zeros(6, np.float32), "reads 6 per frame"),
    ],
)
@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_features_that_do_not_fit_are_named(recogniser, kind, matrix, what):
    with pytest.raises(FeatureError, match=f"utt9: .*{what}"):
        recogniser(kind).recognise("utt9", matrix)


@pytest.mark.parametrize("beam", [1, 6])
@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_tokens_have_spans_in_order(recogniser, features, kind, beam):
    model = recogniser(kind, beam=beam)
    for matrix in features.values():
        hyps, spans = model.recognise("u", matrix, with_spans=True)
        assert len(spans) == len(hyps[0].tokens)
        starts = [first for first, _ in spans]
        assert starts == sorted(starts)
        assert all(0 <= first < end <= len(matrix) for first, end in spans)
    assert model.recognise("u", matrix).spans == []


def test_prefix_search_finds_what_the_beam_finds(recogniser, features):
    for matrix in features.values():
        (one,) = recogniser("ctc", prefix_search=True).recognise("u", matrix).hyps
        assert one.tokens == recogniser("ctc", beam=20).recognise("u", matrix).hyps[0].tokens


@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_an_insertion_bonus_moves_the_length(recogniser, features, kind):
    lengths = [
        len(recogniser(kind, insertion_bonus=bonus).recognise("u", f).hyps[0].tokens)
        for bonus in (-60.0, 0.0, 60.0)
        for f in [features["s0-u0"]]
    ]
    assert lengths[0] < lengths[1] < lengths[2]


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("transducer", {"prefix_search": True}, "--prefix-search is for CTC models"),
        (
            "ctc",
            {"prefix_threshold": 0.0},
            "must be above 0 and at most 1, not 0",
        ),
        ("ctc", {"beam": 1, "insertion_bonus": 1.0}, "need a beam search"),
        ("ctc", {"lm_weight": -1.0}, "--lm-weight must be 0 or more, not -1"),
        ("transducer", {"max_tokens_per_frame": 0}, "--max-tokens-per-frame must be 1 or more"),
    ],
)
def test_options_that_do_not_go_together(recogniser, kind, options, said):
    with pytest.raises(UsageError, match=said):
        recogniser(kind, **options)


def test_weights_that_are_not_finite_are_an_error_of_the_utterance(recogniser, features):
    for kind in ("ctc", "transducer"):
        model = recogniser(kind)
        for weights in model.model.parameters():
            weights.data.fill_(float("nan"))
        with pytest.raises(DataError, match="utt7: "):
            model.recognise("utt7", features["s0-u0"])


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_one_frame_is_enough(recogniser, kind, beam):
    assert recogniser(kind, beam=beam).recognise("u", np.zeros((1, 6), np.float32))


def test_the_network_is_in_evaluation_mode(recogniser, features):
    model = recogniser("transducer")
    assert not model.model.training
    assert model.recognise("u", features["s0-u0"]) == model.recognise("u", features["s0-u0"])


def with_tokens(source: Path, path: Path, symbols: str) -> Path:
    """A copy of a model whose tokens have other names."""
    shutil.copytree(source, path)
    (path / "tokens.txt").write_text(
        "".join(f"{s} {n}\n" for n, s in enumerate(["<blk>", *symbols.split()]))
    )
    config = unsealed((path / "config.json").read_text())
    del config["options"]["tokens_sha256"]
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_unk_is_put_out_only_when_asked(trained, tmp_path, features, kind):
    path = with_tokens(trained / kind, tmp_path / kind, "a <unk> c")
    for beam in (1, 4, 60):
        for allowed in (False, True):
            options = AnySearchOptions(beam=beam, allow_unk=allowed)
            model = Recogniser(path, CPU, options)
            hyps = [model.recognise(utt, f).hyps for utt, f in features.items()]
            assert any(2 in hyps[0].tokens for hyps in hyps) == allowed
            assert all(2 not in h.tokens for some in hyps for h in some) or allowed
            assert all(np.isfinite(h.log_prob) for some in hyps for h in some)
