"""Small random models on disk and utterances for them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.frontend.cmvn import CmvnStats
from pipeline.models.model_dir import ModelDir
from pipeline.models.weights import save_weights
from pipeline.nn.config import JoinerConfig, ModelConfig, PredictorConfig
from pipeline.nn.encoders.recurrent import RecurrentConfig
from pipeline.nn.layers import initialise
from pipeline.nn.models import build_model
from pipeline.plots.utterance import PlottedUtterance, load_model, make_utterance
from pipeline.text.tokens import Tokens

MELS, FRAMES = 5, 13
SYMBOLS = ["ah", "p", "s$x", "sil"]  # a token may hold a dollar


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def features() -> np.ndarray:
    """(13, 18): five filters and the energy, with their differences, away from 0."""
    from pipeline.frontend.deltas import add_deltas

    static = np.random.default_rng(0).normal(7.0, 2.0, (FRAMES, MELS + 1)).astype(np.float32)
    return add_deltas(static, order=2, window=2)


@pytest.fixture(scope="session")
def make_model(
    tmp_path_factory: pytest.TempPathFactory, features: np.ndarray
) -> Callable[[str], Path]:
    """A model directory with random weights: ``ctc``, ``tanh`` or ``sum``; -plain: no front end."""

    def make(name: str) -> Path:
        kind, _, plain = name.partition("-")
        path = tmp_path_factory.getbasetemp() / f"model-{name}"
        if path.exists():
            return path
        conf = tmp_path_factory.mktemp("conf")
        (conf / "fbank.conf").write_text(f"--num-mel-bins={MELS}\n--use-energy=true\n")
        (conf / "delta.conf").write_text("--delta-order=2\n")
        encoder = RecurrentConfig(input_dim=features.shape[1], layers=1, cells=8, stack_frames=2)
        joiner = None
        if kind != "ctc":
            joiner = JoinerConfig(kind=kind, dim=7 if kind == "tanh" else 0)
        config = ModelConfig(
            num_tokens=len(SYMBOLS) + 1,
            encoder=encoder,
            predictor=None if kind == "ctc" else PredictorConfig(cells=6),
            joiner=None if kind == "ctc" else joiner,
        )
        stats = CmvnStats.zeros(features.shape[1])
        stats.accumulate(features)
        tokens = Tokens.from_text([SYMBOLS])
        front_end = None if plain else conf
        directory = ModelDir.create(
            path, config, tokens, cmvn=stats, front_end=front_end, options={}
        )
        model = build_model(config, num_tokens=len(tokens))
        initialise(model, scale=1.0, generator=torch.Generator().manual_seed(3))
        save_weights(model, directory.weights_path)
        return path

    return make


@pytest.fixture(scope="session")
def utterance(
    make_model: Callable[[str], Path], features: np.ndarray
) -> Callable[..., PlottedUtterance]:
    """The utterance ``utt$1`` as a model reads it."""

    def make(name: str, *, reference: tuple[int, ...] | None = None) -> PlottedUtterance:
        directory = ModelDir.open(make_model(name))
        model = load_model(directory)
        return make_utterance(directory, model, "utt$1", features, reference=reference)

    return make
