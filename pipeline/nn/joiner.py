"""The joiner: a distribution over the tokens for each pair of a frame and a prefix of the output.

[G12] A. Graves, "Sequence Transduction with Recurrent Neural Networks", 2012.
[G13] A. Graves, A. Mohamed, G. Hinton, "Speech Recognition with Deep Recurrent Neural Networks",
2013.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.kernels.transducer.joint_loss import joint_transducer_loss, sum_transducer_loss
from pipeline.nn.layers import MOST_CELLS, Linear
from pipeline.options import Options, option, require

BLANK = 0


@dataclass(frozen=True, kw_only=True)
class JoinerConfig(Options):
    """Options of a joiner."""

    kind: str = option(
        "tanh",
        "kind of joiner: tanh ([G13] eq. 15-18) or sum ([G12] eq. 12)",
        choices=("tanh", "sum"),
    )
    dim: int = option(
        0, "size of l_t and h_t,u of a tanh joiner; 250 in [G13]", low=0, most=MOST_CELLS
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kind != "tanh" or self.dim > 0, "dim", "given for a tanh joiner, such as 250")

    def build(self, *, encoder_dim: int, predictor_dim: int, num_tokens: int) -> "Joiner":
        """Make the network; its weights are not initialised.

        Args:
            encoder_dim: the size E of the encoder's vectors.
            predictor_dim: the size P of the predictor's vectors.
            num_tokens: the number V of tokens with the blank.
        """
        dims = {"encoder_dim": encoder_dim, "predictor_dim": predictor_dim}
        match self.kind:
            case "sum":
                return SumJoiner(**dims, num_tokens=num_tokens)
            case _:
                return TanhJoiner(**dims, dim=self.dim, num_tokens=num_tokens)


class TanhJoiner(nn.Module):
    """The output network of [G13], eq. 15-18, before the softmax.

    ``project_encoder`` gives l_t (eq. 15) and then W_lh l_t + b_h; ``project_predictor`` gives
    W_ph p_u; `forward` adds the two, applies tanh (eq. 16) and the output layer (eq. 17).
    """

    def __init__(self, *, encoder_dim: int, predictor_dim: int, dim: int, num_tokens: int) -> None:
        super().__init__()
        self.encoder_layer = Linear(encoder_dim, dim)  # W h→ + W h← + b_l, eq. 15
        self.hidden_encoder = Linear(dim, dim)  # W_lh, b_h
        self.hidden_predictor = Linear(predictor_dim, dim, bias=False)  # W_ph
        self.output = Linear(dim, num_tokens)  # W_hy, b_y

    def project_encoder(self, encoded: Tensor) -> Tensor:
        """(N, T, E) -> (N, T, dim)."""
        projected: Tensor = self.hidden_encoder(self.encoder_layer(encoded))
        return projected

    def project_predictor(self, predicted: Tensor) -> Tensor:
        """(N, U+1, P) -> (N, U+1, dim)."""
        projected: Tensor = self.hidden_predictor(predicted)
        return projected

    def forward(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """Logits (…, V) of projected vectors (…, dim) and (…, dim), which broadcast."""
        logits: Tensor = self.output(torch.tanh(encoded + predicted))
        return logits

    def search_weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """W_ph, a bias of zeros, W_hy and b_y."""
        projection = self.hidden_predictor.weight
        nothing = projection.new_zeros(len(projection))
        return projection, nothing, self.output.weight, self.output.bias

    def losses(
        self,
        encoded: Tensor,
        predicted: Tensor,
        targets: Tensor,
        lengths: Tensor,
        target_lengths: Tensor,
    ) -> Tensor:
        """The loss -ln Pr(y|x), (N,), of projected vectors (N, T, dim) and (N, U+1, dim).

        The logits (N, T, U+1, V) are never in memory as a whole.
        """
        return joint_transducer_loss(
            encoded,
            predicted,
            self.output.weight,
            self.output.bias,
            targets,
            lengths,
            target_lengths,
            blank=BLANK,
            reduction="none",
        )


class SumJoiner(nn.Module):
    """The sum f_t + g_u of [G12] eq. 12, where each network has an output layer, eq. 3 and 11."""

    def __init__(self, *, encoder_dim: int, predictor_dim: int, num_tokens: int) -> None:
        super().__init__()
        self.encoder_output = Linear(encoder_dim, num_tokens)
        self.predictor_output = Linear(predictor_dim, num_tokens)

    def project_encoder(self, encoded: Tensor) -> Tensor:
        """(N, T, E) -> f, (N, T, V)."""
        projected: Tensor = self.encoder_output(encoded)
        return projected

    def project_predictor(self, predicted: Tensor) -> Tensor:
        """(N, U+1, P) -> g, (N, U+1, V)."""
        projected: Tensor = self.predictor_output(predicted)
        return projected

    def forward(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """Logits (…, V) of projected vectors (…, V) and (…, V), which broadcast."""
        return encoded + predicted

    def search_weights(self) -> tuple[Tensor, Tensor, None, None]:
        """The predictor's output layer; there is none behind the sum."""
        return self.predictor_output.weight, self.predictor_output.bias, None, None

    def losses(
        self,
        encoded: Tensor,
        predicted: Tensor,
        targets: Tensor,
        lengths: Tensor,
        target_lengths: Tensor,
    ) -> Tensor:
        """The loss -ln Pr(y|x), (N,), of f (N, T, V) and g (N, U+1, V).

        It takes O(V·(T + U)) exponentials for each utterance.
        """
        return sum_transducer_loss(
            encoded, predicted, targets, lengths, target_lengths, blank=BLANK, reduction="none"
        )


Joiner = TanhJoiner | SumJoiner
