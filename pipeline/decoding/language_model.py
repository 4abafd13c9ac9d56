"""A language model for shallow fusion: an ARPA file, or a network of train_predictor.py."""

from pathlib import Path

import torch

from pipeline.errors import ModelError, UsageError
from pipeline.kernels.search.fusion import NO_FUSION, Automaton, Fusion
from pipeline.models.model_dir import ModelDir
from pipeline.nn.models import PredictorModel
from pipeline.text.ngram import read_arpa
from pipeline.text.tokens import Tokens


def load_fusion(
    path: str, tokens: Tokens, device: torch.device, *, weight: float, bonus: float
) -> Fusion:
    """What ``--lm``, ``--lm-weight`` and ``--insertion-bonus`` ask for.

    Args:
        path: an ARPA file or a model directory; empty: no language model.
        tokens: the recogniser's.
        device: where a network computes.
        weight: of log P(y).
        bonus: a token.

    Raises:
        UsageError: a weight below 0 or without a model.
        DataError, ModelError: the model cannot be read or has other tokens.
    """
    if weight < 0:
        raise UsageError(f"--lm-weight must be 0 or more, not {weight:g}")
    if not path:
        return Fusion(bonus=bonus) if bonus else NO_FUSION
    if not Path(path).is_dir():
        return Fusion(Automaton(*read_arpa(path, tokens)), weight, bonus)
    directory = ModelDir.open(path, kind="predictor")
    if directory.tokens != tokens:
        raise ModelError(f"{path}: its tokens are not those of the recogniser")
    model = directory.load_model(device)
    assert isinstance(model, PredictorModel)
    return Fusion(None, weight, bonus, model.search_weights())
