"""Language models for shallow fusion: ARPA files, and networks of train_predictor.py."""

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
    """Load the language model of ``--lm``.

    Args:
        path: an ARPA file or a model directory; empty: no language model.
        tokens: the tokens of the recogniser.
        device: the device on which a network computes.
        weight: the weight of log P(y) in the score, ``--lm-weight``.
        bonus: the bonus for each token in nats, ``--insertion-bonus``.

    Raises:
        UsageError: the weight is negative.
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
        raise ModelError(f"{path}: has other tokens than the recogniser")
    model = directory.load_model(device)
    assert isinstance(model, PredictorModel)
    return Fusion(None, weight, bonus, model.search_weights())
