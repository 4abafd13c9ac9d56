"""The joiner: one distribution over the tokens for each frame and each prefix."""

import torch
from torch import Tensor, nn


class TanhJoiner(nn.Module):
    """The output network of [G13], eq. 15-18, before the softmax.

    ``project_encoder`` gives l_t (eq. 15) and then W_lh l_t + b_h; ``project_predictor`` gives
    W_ph p_u; `forward` adds the two, applies tanh (eq. 16) and the output layer (eq. 17).
    """

    def __init__(self, *, encoder_dim: int, predictor_dim: int, dim: int, num_tokens: int) -> None:
        super().__init__()
        self.encoder_layer = nn.Linear(encoder_dim, dim)  # W h→ + W h← + b_l, eq. 15
        self.hidden_encoder = nn.Linear(dim, dim)  # W_lh, b_h
        self.hidden_predictor = nn.Linear(predictor_dim, dim, bias=False)  # W_ph
        self.output = nn.Linear(dim, num_tokens)  # W_hy, b_y

    def project_encoder(self, encoded: Tensor) -> Tensor:
        """(N, T, E) -> (N, T, dim)."""
        projected: Tensor = self.hidden_encoder(self.encoder_layer(encoded))
        return projected

    def project_predictor(self, predicted: Tensor) -> Tensor:
        """(N, U+1, P) -> (N, U+1, dim)."""
        projected: Tensor = self.hidden_predictor(predicted)
        return projected

    def forward(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """Projected (…, dim) and (…, dim), which broadcast, -> logits (…, V)."""
        logits: Tensor = self.output(torch.tanh(encoded + predicted))
        return logits


class SumJoiner(nn.Module):
    """f_t + g_u of [G12] eq. 12: each network has an output layer of its own, eq. 3 and 11."""

    def __init__(self, *, encoder_dim: int, predictor_dim: int, num_tokens: int) -> None:
        super().__init__()
        self.encoder_output = nn.Linear(encoder_dim, num_tokens)
        self.predictor_output = nn.Linear(predictor_dim, num_tokens)

    def project_encoder(self, encoded: Tensor) -> Tensor:
        """(N, T, E) -> f, (N, T, V)."""
        projected: Tensor = self.encoder_output(encoded)
        return projected

    def project_predictor(self, predicted: Tensor) -> Tensor:
        """(N, U+1, P) -> g, (N, U+1, V)."""
        projected: Tensor = self.predictor_output(predicted)
        return projected

    def forward(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """Projected (…, V) and (…, V), which broadcast, -> logits (…, V)."""
        return encoded + predicted
