"""The predictor: the prediction network of [G12] section 2.1.

[G12] A. Graves, "Sequence Transduction with Recurrent Neural Networks", 2012.
[G13] A. Graves, A. Mohamed, G. Hinton, "Speech Recognition with Deep Recurrent Neural Networks",
2013.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.kernels.lstm.layer import peephole_lstm_step
from pipeline.kernels.ragged import layout, pack, unpack
from pipeline.kernels.search.model import State
from pipeline.nn.layers import RecurrentLayer
from pipeline.options import REQUIRED, Options, option


@dataclass(frozen=True, kw_only=True)
class PredictorConfig(Options):
    """Options of a `Predictor`."""

    cells: int = option(REQUIRED, "number of LSTM cells; 128 in [G12], 250 in [G13]", low=1)
    dropout: float = option(
        0.0, "probability of dropout on the output; 0 in the papers", low=0, below=1
    )


class Predictor(nn.Module):
    """One unidirectional LSTM layer over the tokens so far, [G12] eq. 2.

    The input for a token is a one-hot vector of size K = V - 1, without an element for the blank;
    the input for the start ∅ is a vector of zeros.
    """

    def __init__(self, config: PredictorConfig, *, num_tokens: int) -> None:
        super().__init__()
        self.num_labels = num_tokens - 1
        self.layer = RecurrentLayer(
            input_dim=self.num_labels, cells=config.cells, cell="lstm", bidirectional=False
        )
        self.dropout = nn.Dropout(config.dropout)
        self.output_dim = config.cells

    def forward(self, targets: Tensor, lengths: Tensor) -> Tensor:
        """Hidden vectors h_0 … h_U after ∅, y_1, …, y_U.

        Args:
            targets: token ids 1 … K, (N, U), with any values in the padding.
            lengths: the number of tokens of each utterance, (N,).

        Returns:
            (N, U+1, H).
        """
        return self.read(self.one_hot(targets), lengths)

    def one_hot(self, targets: Tensor) -> Tensor:
        """The input vectors of tokens: (N, U) ids -> (N, U, K), zeros for the blank."""
        one_hot = nn.functional.one_hot(targets.clamp(0, self.num_labels), self.num_labels + 1)
        return one_hot[:, :, 1:].to(self.layer.w_input.dtype)

    def read(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Do the same as `forward` with input vectors (N, U, K), through which gradients flow."""
        start = inputs.new_zeros(len(inputs), 1, self.num_labels)
        ragged = layout(lengths + 1, inputs.shape[1] + 1)
        rows: Tensor = self.layer(pack(torch.cat([start, inputs], dim=1), ragged), ragged)
        return unpack(self.dropout(rows), ragged)

    def start(self, count: int) -> State:
        """The state before ∅: zeros, (N, H)."""
        zeros = self.layer.w_hidden.new_zeros(count, self.output_dim)
        return State(zeros, zeros)

    def step(self, state: State, tokens: Tensor) -> State:
        """The state after one more token of each sequence.

        Args:
            state: the state before, (N, H).
            tokens: token ids, (N,); id 0 is the start ∅.
        """
        columns = self.layer.w_input[0].t()  # (K, 4H): row k - 1 is W e_k
        inputs = columns[(tokens - 1).clamp(min=0)] * (tokens > 0)[:, None]
        assert self.layer.peepholes is not None
        return State(
            *peephole_lstm_step(
                inputs + self.layer.bias[0],
                *state,
                self.layer.w_hidden[0],
                self.layer.peepholes[0],
            )
        )

    def search_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """W e_k + b of every token k, (V, 4H), with b for ∅; recurrent weights; peepholes."""
        assert self.layer.peepholes is not None
        columns = torch.nn.functional.pad(self.layer.w_input[0].t(), (0, 0, 1, 0))
        return columns + self.layer.bias[0], self.layer.w_hidden[0], self.layer.peepholes[0]
