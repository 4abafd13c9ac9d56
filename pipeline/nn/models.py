"""The three networks that the recipe trains, and `build_model` that makes one from its config."""

import torch
from torch import Tensor, nn

from pipeline.kernels.search.fusion import LstmWeights
from pipeline.kernels.search.model import SearchWeights, State
from pipeline.nn.config import JoinerConfig, ModelConfig
from pipeline.nn.encoders.recurrent import Encoder
from pipeline.nn.joiner import BLANK, SumJoiner, TanhJoiner
from pipeline.nn.layers import Linear, log_softmax
from pipeline.nn.predictor import Predictor

__all__ = ["BLANK", "CtcModel", "Model", "PredictorModel", "TransducerModel", "build_model"]


class CtcModel(nn.Module):
    """Encoder and a linear output layer over K + 1 tokens, [G13] eq. 13."""

    def __init__(self, encoder: Encoder, *, num_tokens: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.output = Linear(encoder.output_dim, num_tokens)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, F), (N,) -> log Pr(k|t), (N, T', V), [G13] eq. 14, and (N,) lengths."""
        encoded, lengths = self.encoder(features, lengths)
        return log_softmax(self.output(encoded)), lengths


class PredictorModel(nn.Module):
    """The standalone prediction network: next-token prediction over K labels, no blank."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.predictor = predictor
        self.output = Linear(predictor.output_dim, predictor.num_labels)

    def forward(self, targets: Tensor, lengths: Tensor) -> Tensor:
        """(N, U), (N,) -> log Pr(y_{u+1}|y_1 … y_u), (N, U+1, K); label k is column k - 1."""
        logits: Tensor = self.output(self.predictor(targets, lengths))
        return log_softmax(logits)

    def search_weights(self) -> LstmWeights:
        """The network as a language model for a search; V logits, the blank's is not used."""
        weight = nn.functional.pad(self.output.weight, (0, 0, 1, 0))
        bias = nn.functional.pad(self.output.bias, (1, 0))
        return LstmWeights(*self.predictor.search_weights(), weight, bias)


class TransducerModel(nn.Module):
    """Encoder, predictor and joiner."""

    def __init__(
        self, encoder: Encoder, predictor: Predictor, joiner: TanhJoiner | SumJoiner
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.predictor = predictor
        self.joiner = joiner

    @property
    def num_tokens(self) -> int:
        """V, with the blank."""
        return self.predictor.num_labels + 1

    def join(self, encoded: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
        """Logits over the whole lattice.

        Args:
            encoded: the encoder's output, (N, T, E).
            targets: (N, U) token ids.
            target_lengths: (N,) tokens.

        Returns:
            (N, T, U+1, V).
        """
        rows = self.joiner.project_encoder(encoded)
        columns = self.joiner.project_predictor(self.predictor(targets, target_lengths))
        logits: Tensor = self.joiner(rows[:, :, None, :], columns[:, None, :, :])
        return logits

    def losses(
        self, encoded: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor
    ) -> Tensor:
        """-ln Pr(y|x) of each utterance, (N,), in nats; the logits are never all in memory.

        Args:
            encoded: the encoder's output, (N, T, E).
            lengths: (N,) frames of it.
            targets: (N, U) token ids.
            target_lengths: (N,) tokens.
        """
        rows = self.joiner.project_encoder(encoded)
        columns = self.joiner.project_predictor(self.predictor(targets, target_lengths))
        return self.joiner.losses(rows, columns, targets, lengths, target_lengths)

    # What a search asks for: `pipeline.kernels.search.model.SearchModel`.

    def start(self, count: int) -> tuple[State, Tensor]:
        """State and joiner input (N, J) of the predictor after ∅."""
        tokens = torch.zeros(count, dtype=torch.int64, device=self.predictor.layer.bias.device)
        return self.step(self.predictor.start(count), tokens)

    def step(self, state: State, tokens: Tensor) -> tuple[State, Tensor]:
        """State and joiner input (N, J) of the predictor after one more token each, (N,)."""
        state = self.predictor.step(state, tokens)
        return state, self.joiner.project_predictor(state.h)

    def log_probs(self, frames: Tensor, projected: Tensor) -> Tensor:
        """log Pr(k|t,u), [G13] eq. 18: (N, J) and (N, J), which broadcast, -> (N, V)."""
        logits: Tensor = self.joiner(frames, projected)
        return log_softmax(logits)

    def search_weights(self) -> SearchWeights:
        """The predictor's and the joiner's weights."""
        projection, bias, *output = self.joiner.search_weights()
        predictor = LstmWeights(*self.predictor.search_weights(), projection, bias)
        return SearchWeights(predictor, *output)


Model = CtcModel | PredictorModel | TransducerModel


def build_model(config: ModelConfig, *, num_tokens: int) -> Model:
    """The network that ``config`` describes, weights not yet initialised."""
    match config:
        case ModelConfig(encoder=None, predictor=predictor) if predictor is not None:
            return PredictorModel(Predictor(predictor, num_tokens=num_tokens))
        case ModelConfig(encoder=encoder, predictor=None) if encoder is not None:
            return CtcModel(Encoder(encoder), num_tokens=num_tokens)
        case ModelConfig(encoder=encoder, predictor=predictor, joiner=joiner):
            assert encoder is not None
            assert predictor is not None
            assert joiner is not None
            encode, predict = Encoder(encoder), Predictor(predictor, num_tokens=num_tokens)
            return TransducerModel(encode, predict, _joiner(joiner, encode, predict))


def _joiner(config: JoinerConfig, encoder: Encoder, predictor: Predictor) -> TanhJoiner | SumJoiner:
    dims = {"encoder_dim": encoder.output_dim, "predictor_dim": predictor.output_dim}
    num_tokens = predictor.num_labels + 1
    if config.kind == "sum":
        return SumJoiner(**dims, num_tokens=num_tokens)
    return TanhJoiner(**dims, dim=config.dim, num_tokens=num_tokens)
