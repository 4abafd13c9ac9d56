"""Models with random weights and real front ends, which read recordings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RATE = 8000
CONF = {
    "fbank": "--num-mel-bins=8\n--use-energy=true\n",
    "mfcc": "--num-mel-bins=10\n--num-ceps=5\n--snip-edges=false\n",
    "spectrogram": "--frame-length=8\n--snip-edges=false\n",
}


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """A function that makes a model directory; keys of ``encoder`` are those of an architecture."""

    def make(
        kind: str = "ctc",
        *,
        front_end: str = "fbank",
        conf: str = "",
        delta: str = "",
        cmvn: Any = "global",
        seed: int = 0,
        encoder_kind: str = "recurrent",
        symbols: str = "a b c d",
        scale: float = 1.0,
        **encoder: Any,
    ) -> Path:
        import torch

        from pipeline.frontend.cmvn import CmvnStats
        from pipeline.frontend.front_end import FrontEnd
        from pipeline.models.model_dir import ModelDir
        from pipeline.models.weights import save_weights
        from pipeline.nn.config import model_config_from
        from pipeline.nn.layers import initialise
        from pipeline.nn.models import build_model
        from pipeline.text.tokens import Tokens

        path = tmp_path / f"model-{seed}-{kind}-{front_end}"
        options = path.with_suffix(".conf")
        options.mkdir()
        text = f"--sample-frequency={RATE}\n{CONF[front_end]}{conf}"
        (options / f"{front_end}.conf").write_text(text)
        if delta:
            (options / "delta.conf").write_text(delta)
        features = FrontEnd.load(options)
        sections = {"encoder": {"layers": 2, "cells": 9, "bidirectional": False, **encoder}}
        sections["encoder"] |= {"input_dim": features.dim, "kind": encoder_kind}
        if kind != "ctc":
            sections |= {"predictor": {"cells": 7}, "joiner": {"kind": "tanh", "dim": 6}}
        config = model_config_from({"num_tokens": 5, **sections}, where="test").part(kind, "test")
        model = build_model(config, num_tokens=5)
        initialise(model, scale=scale, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            if kind == "ctc":
                model.output.bias[0] += scale**2
            elif kind == "transducer":
                model.joiner.output.bias[0] -= 1.0
        stats = CmvnStats.zeros(features.dim)
        stats.accumulate(features(noise(4000, seed=9), RATE))
        directory = ModelDir.create(
            path,
            config,
            Tokens(["<blk>", *symbols.split()]),
            cmvn=stats if cmvn == "global" else cmvn,
            front_end=options,
            options={},
        )
        save_weights(model, directory.weights_path)
        return path

    return make


def noise(count: int, *, seed: int) -> np.ndarray:
    """Samples of noise whose loudness changes."""
    g = np.random.default_rng(seed)
    loudness = np.exp(2.0 * np.sin(np.arange(count) / 300.0 + seed))
    return (300.0 * loudness * g.standard_normal(count)).astype(np.float32)
