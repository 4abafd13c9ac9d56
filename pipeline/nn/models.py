"""The networks, and `build_model`, which makes one by its architecture.

[G13] A. Graves, A. Mohamed, G. Hinton, "Speech Recognition with Deep Recurrent Neural Networks",
2013.
"""

import os
from collections import Counter

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.kernels.search.fusion import LstmWeights
from pipeline.kernels.search.model import SearchWeights, State
from pipeline.nn.config import ModelConfig
from pipeline.nn.encoders.encoder import Encoder
from pipeline.nn.framewise import FramewiseModel
from pipeline.nn.joiner import BLANK, Joiner
from pipeline.nn.layers import Linear, log_softmax
from pipeline.nn.predictor import Predictor

__all__ = [
    "BLANK",
    "CtcModel",
    "FramewiseModel",
    "Model",
    "PredictorModel",
    "TransducerModel",
    "build_model",
    "require_room",
]


class CtcModel(nn.Module):
    """An encoder with a linear output layer over K + 1 tokens, [G13] eq. 13."""

    def __init__(self, encoder: Encoder, *, num_tokens: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.output = Linear(encoder.output_dim, num_tokens)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, F), (N,) -> log Pr(k|t), (N, T', V), [G13] eq. 14, and (N,) lengths."""
        encoded, lengths = self.encoder(features, lengths)
        return log_softmax(self.output(encoded)), lengths


class PredictorModel(nn.Module):
    """A predictor with an output layer over K labels without the blank: next-token prediction."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.predictor = predictor
        self.output = Linear(predictor.output_dim, predictor.num_labels)

    def forward(self, targets: Tensor, lengths: Tensor) -> Tensor:
        """(N, U), (N,) -> log Pr(y_{u+1}|y_1 … y_u), (N, U+1, K); label k is column k - 1."""
        logits: Tensor = self.output(self.predictor(targets, lengths))
        return log_softmax(logits)

    def search_weights(self) -> LstmWeights:
        """The network as a language model for a search, with V logits (the blank's is unused)."""
        weight = nn.functional.pad(self.output.weight, (0, 0, 1, 0))
        bias = nn.functional.pad(self.output.bias, (1, 0))
        return self.predictor.search_weights(weight, bias)


class TransducerModel(nn.Module):
    """An RNN transducer: encoder, predictor and joiner."""

    def __init__(self, encoder: Encoder, predictor: Predictor, joiner: Joiner) -> None:
        super().__init__()
        self.encoder = encoder
        self.predictor = predictor
        self.joiner = joiner

    @property
    def num_tokens(self) -> int:
        """The number V of tokens with the blank."""
        return self.predictor.num_labels + 1

    def join(self, encoded: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
        """Logits over the whole lattice.

        Args:
            encoded: the encoder's output, (N, T, E).
            targets: token ids, (N, U).
            target_lengths: the number of tokens of each utterance, (N,).

        Returns:
            (N, T, U+1, V).
        """
        from_encoder = self.joiner.project_encoder(encoded)
        from_predictor = self.joiner.project_predictor(self.predictor(targets, target_lengths))
        logits: Tensor = self.joiner(from_encoder[:, :, None, :], from_predictor[:, None, :, :])
        return logits

    def losses(
        self, encoded: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor
    ) -> Tensor:
        """The loss -ln Pr(y|x) of each utterance, (N,), in nats.

        The logits of the whole lattice are never in memory at once.

        Args:
            encoded: the encoder's output, (N, T, E).
            lengths: the number of frames of each utterance in it, (N,).
            targets: token ids, (N, U).
            target_lengths: the number of tokens of each utterance, (N,).
        """
        from_encoder = self.joiner.project_encoder(encoded)
        from_predictor = self.joiner.project_predictor(self.predictor(targets, target_lengths))
        return self.joiner.losses(from_encoder, from_predictor, targets, lengths, target_lengths)

    # The methods of `pipeline.kernels.search.model.SearchModel`, which a search calls.

    def start(self, count: int) -> tuple[State, Tensor]:
        """The predictor's state and its input to the joiner, (N, J), after ∅."""
        tokens = torch.zeros(count, dtype=torch.int64, device=self.predictor.layer.bias.device)
        return self.step(self.predictor.start(count), tokens)

    def step(self, state: State, tokens: Tensor) -> tuple[State, Tensor]:
        """The predictor's state and its input to the joiner, (N, J), after one more token (N,)."""
        state = self.predictor.step(state, tokens)
        return state, self.joiner.project_predictor(state.h)

    def log_probs(self, frames: Tensor, projected: Tensor) -> Tensor:
        """log Pr(k|t,u), (N, V), of (N, J) and (N, J), which broadcast: [G13] eq. 18."""
        logits: Tensor = self.joiner(frames, projected)
        return log_softmax(logits)

    def search_weights(self) -> SearchWeights:
        """The weights of predictor and joiner."""
        projection, bias, *output = self.joiner.search_weights()
        return SearchWeights(self.predictor.search_weights(projection, bias), *output)


Model = CtcModel | FramewiseModel | PredictorModel | TransducerModel


def require_room(config: ModelConfig, *, num_tokens: int, where: object) -> None:
    """Raise ConfigError if half of this machine's memory cannot hold the weights of a network.

    A training needs as much again for the gradients. Nothing of that size is made to find out.

    Args:
        config: the architecture.
        num_tokens: the number V of tokens with the blank.
        where: the file of the architecture, for the message.
    """
    with torch.device("meta"):
        parameters = dict(build_model(config, num_tokens=num_tokens).named_parameters())
    sizes: Counter[str] = Counter()
    for name, tensor in parameters.items():
        sizes[name.partition(".")[0]] += 4 * tensor.numel()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if sizes.total() <= memory // 2:
        return
    part = max((n for n in sizes if getattr(config, n, None)), key=lambda n: sizes[n])
    numbers = {k: v for k, v in vars(getattr(config, part)).items() if type(v) is int}
    key = max(numbers, key=lambda k: numbers[k])
    raise ConfigError(
        f"{where}: {part}.{key} = {numbers[key]}: the network would have weights of "
        f"{sizes.total() / 2**30:.1f} GiB, but this machine has {memory / 2**30:.1f} GiB of "
        f"memory; lower it, or another number of [{part}]"
    )


def build_model(config: ModelConfig, *, num_tokens: int) -> Model:
    """Make the network of an architecture; its weights are not initialised."""
    match config:
        case ModelConfig(encoder=None, predictor=predictor) if predictor is not None:
            return PredictorModel(Predictor(predictor, num_tokens=num_tokens))
        case ModelConfig(encoder=encoder, predictor=None, framewise=framewise) if (
            encoder is not None and framewise is not None
        ):
            return FramewiseModel(encoder.build(), framewise, num_tokens=num_tokens)
        case ModelConfig(encoder=encoder, predictor=None) if encoder is not None:
            return CtcModel(encoder.build(), num_tokens=num_tokens)
        case ModelConfig(encoder=encoder, predictor=predictor, joiner=joiner):
            assert encoder is not None
            assert predictor is not None
            assert joiner is not None
            encode, predict = encoder.build(), Predictor(predictor, num_tokens=num_tokens)
            dims = {"encoder_dim": encode.output_dim, "predictor_dim": predict.output_dim}
            return TransducerModel(encode, predict, joiner.build(**dims, num_tokens=num_tokens))
