"""The kinds of objectives, and `make_objective`, which makes one by its name."""

from pathlib import Path

from pipeline.errors import UsageError
from pipeline.nn.models import CtcModel, FramewiseModel, Model, PredictorModel, TransducerModel
from pipeline.text.tokens import Tokens
from pipeline.training.objectives.ctc import CtcObjective
from pipeline.training.objectives.framewise import FramewiseObjective
from pipeline.training.objectives.next_token import NextTokenObjective
from pipeline.training.objectives.objective import Objective, token_metric
from pipeline.training.objectives.transducer import TransducerObjective
from pipeline.training.train_options import (
    FramewiseTrainOptions,
    TrainOptions,
    TransducerTrainOptions,
)


def make_objective(
    kind: str, model: Model, tokens: Tokens, options: TrainOptions, *, phone_map: Path | None
) -> Objective:
    """Make the objective of a training.

    Args:
        kind: ``ctc``, ``framewise``, ``predictor`` or ``transducer``.
        model: the network to train.
        tokens: the tokens of the network, whose kind decides the metric.
        options: the options of the training.
        phone_map: a map that folds phones to 39 before they are compared; None: no folding.

    Raises:
        UsageError: there is no such objective, or the network does not fit it.
        PhoneError: the map lacks a phone.
    """
    match kind, model:
        case "ctc", CtcModel():
            return CtcObjective(model, token_metric(tokens, phone_map))
        case "framewise", FramewiseModel():
            streams = options.used_streams if isinstance(options, FramewiseTrainOptions) else 0
            return FramewiseObjective(model, streams=streams)
        case "predictor", PredictorModel():
            return NextTokenObjective(model)
        case "transducer", TransducerModel():
            weight = options.ctc_weight if isinstance(options, TransducerTrainOptions) else 0.0
            return TransducerObjective(model, token_metric(tokens, phone_map), ctc_weight=weight)
    raise UsageError(f'no objective "{kind}" for a {type(model).__name__}')
