"""The predictor: the prediction network of [G12] section 2.1.

[G12] A. Graves, "Sequence Transduction with Recurrent Neural Networks", 2012.
[G13] A. Graves, A. Mohamed, G. Hinton, "Speech Recognition with Deep Recurrent Neural Networks",
2013.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.kernels.ragged import layout, pack, unpack
from pipeline.kernels.search.fusion import LstmWeights
from pipeline.kernels.search.model import State
from pipeline.nn.layers import MOST_CELLS, RecurrentLayer
from pipeline.options import REQUIRED, Options, option, require


@dataclass(frozen=True, kw_only=True)
class PredictorConfig(Options):
    """Options of a `Predictor`."""

    cells: int = option(
        REQUIRED, "number of LSTM cells; 128 in [G12], 250 in [G13]", low=1, most=MOST_CELLS
    )
    projection: int = option(
        0,
        "size of the recurrent projection of H. Sak et al., 2014; 0: none",
        low=0,
        most=MOST_CELLS,
    )
    nonrecurrent_projection: int = option(
        0,
        "size of the non-recurrent projection of H. Sak et al., 2014, beside the recurrent one; "
        "0: none",
        low=0,
        most=MOST_CELLS,
    )
    dropout: float = option(
        0.0, "probability of dropout on the output; 0 in the papers", low=0, below=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.nonrecurrent_projection or self.projection > 0,
            "nonrecurrent-projection",
            "0 without a recurrent projection",
        )


class Predictor(nn.Module):
    """One unidirectional LSTM layer of H cells over the tokens so far, [G12] eq. 2.

    The input for a token is a one-hot vector of size K = V - 1, without an element for the blank;
    the input for the start ∅ is a vector of zeros.
    """

    def __init__(self, config: PredictorConfig, *, num_tokens: int) -> None:
        super().__init__()
        self.num_labels = num_tokens - 1
        self.layer = RecurrentLayer(
            input_dim=self.num_labels,
            cells=config.cells,
            cell="lstm",
            bidirectional=False,
            projection=config.projection,
            nonrecurrent=config.nonrecurrent_projection,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.output_dim = self.layer.output_dim

    def forward(self, targets: Tensor, lengths: Tensor) -> Tensor:
        """Hidden vectors h_0 … h_U after ∅, y_1, …, y_U.

        Args:
            targets: token ids 1 … K, (N, U), with any values in the padding.
            lengths: the number of tokens of each utterance, (N,).

        Returns:
            (N, U+1, P+Q), P = H and Q = 0 without projections.
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
        """The state before ∅: zeros, what comes out (N, P+Q) and c (N, H)."""
        state = self.layer.start(count)
        return state._replace(h=state.h.new_zeros(count, self.output_dim))

    def step(self, state: State, tokens: Tensor) -> State:
        """The state after one more token of each sequence.

        Args:
            state: the state before, what came out (N, P+Q) and c (N, H).
            tokens: token ids, (N,); id 0 is the start ∅.
        """
        columns = self.layer.w_input[0].t()  # (K, 4H): row k - 1 is W e_k
        inputs = columns[(tokens - 1).clamp(min=0)] * (tokens > 0)[:, None]
        return State(*self.layer.recurrence.direction(0).step(inputs + self.layer.bias[0], *state))

    def search_weights(self, weight: Tensor, bias: Tensor) -> LstmWeights:
        """The network and a linear layer on it for a compiled search.

        A recurrent projection W_r is folded into the weights after it: W_h (W_r m) = (W_h W_r) m,
        and so is the non-recurrent one, which only ``weight`` reads.

        Args:
            weight: (J, P+Q) of the linear layer.
            bias: (J,).
        """
        recurrence = self.layer.recurrence.direction(0)
        _, recurrent, peepholes, projection, _ = recurrence
        assert peepholes is not None
        if projection is not None and recurrence.projections is not None:
            recurrent, weight = recurrent @ projection, weight @ recurrence.projections
        columns = torch.nn.functional.pad(self.layer.w_input[0].t(), (0, 0, 1, 0))
        inputs = columns + self.layer.bias[0]  # of ∅, a vector of zeros, only the bias
        return LstmWeights(inputs, recurrent, peepholes, weight, bias)
