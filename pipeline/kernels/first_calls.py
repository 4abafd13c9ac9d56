"""What a training or a search asks of the kernels first: small calls that compile all they need.

On a CPU a kernel is compiled when it is first called, and kept for later processes. Each function
here calls what one command does, on small random inputs, so that a cluster's jobs need not all
compile the same, and so that the time it takes can be measured.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipeline.kernels.convolution.layer import convolution, shape_of
from pipeline.kernels.ctc.loss import ctc_loss
from pipeline.kernels.linear import SMALL, linear
from pipeline.kernels.ragged import layout
from pipeline.kernels.recurrent.layer import peephole_lstm, sweep_rows
from pipeline.kernels.recurrent.plain import Recurrence
from pipeline.kernels.row_convolution.layer import row_convolution
from pipeline.kernels.search.ctc import ctc_beam_search, ctc_prefix_search
from pipeline.kernels.search.framewise import Transitions, framewise_viterbi
from pipeline.kernels.search.fusion import LstmWeights
from pipeline.kernels.search.model import SearchWeights, State
from pipeline.kernels.search.transducer import transducer_beam_search, transducer_greedy
from pipeline.kernels.transducer.joint_loss import joint_transducer_loss

FRAMES, LABELS, VOCAB, CELLS = 12, 3, 20, 16
CHANNELS = (1, 32, 64)  # of convolutions: a product for few, for half a panel and for more


def _random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(shape, generator=generator) - 0.5).requires_grad_()


def _encoded(directions: int, *, trains: bool) -> Tensor:
    """Output of a recurrent layer and a linear one, (1, T, V), and all gradients in training."""
    with torch.inference_mode(not trains):
        hidden = _layers(directions)
        if trains:
            hidden.sum().backward()
    return hidden.detach().clone()


def _layers(directions: int) -> Tensor:
    cells = CELLS
    w_input, w_hidden, peepholes, bias = (
        _random(directions, *shape)
        for shape in ((4 * cells, cells), (4 * cells, cells), (3, cells), (4 * cells,))
    )
    lengths = torch.tensor([FRAMES])
    x = peephole_lstm(_random(1, FRAMES, cells), lengths, w_input, w_hidden, peepholes, bias)
    wide = _random(SMALL // (FRAMES * VOCAB) + 1, x.shape[2])
    padded = torch.nn.functional.pad(x, (0, len(wide) - x.shape[2]))
    return linear(padded, _random(VOCAB, len(wide)))


def _targets() -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (1, U), frames and labels of an utterance."""
    return torch.tensor([[1, 2, 1]]), torch.tensor([FRAMES]), torch.tensor([LABELS])


def train_ctc() -> None:
    """A training step of a CTC network."""
    log_probs = _encoded(2, trains=True).log_softmax(dim=2).transpose(0, 1).requires_grad_()
    ctc_loss(log_probs, *_targets()).backward()


def train_deep_speech2() -> None:
    """A training step of a CTC network with convolutions, gated units and a row convolution."""
    counts, ragged = torch.tensor([FRAMES]), layout(torch.tensor([FRAMES]), FRAMES)
    for channels in CHANNELS:
        weight = _random(channels, 2, 3, 3)
        shape = shape_of(weight, (1, 1), pads_time=True)
        convolution(_random(1, FRAMES, 4, 2), weight, counts, shape).sum().backward()
    recurrence = Recurrence("gru", _random(2, 3 * CELLS, CELLS))
    sweep_rows(_random(FRAMES, 2, 3 * CELLS), ragged, recurrence).sum().backward()
    row_convolution(_random(FRAMES, CELLS), _random(4, CELLS), ragged).sum().backward()
    train_ctc()


def train_transducer() -> None:
    """A training step of a transducer with a joiner of [G13]."""
    _encoded(2, trains=True)
    encoder, predictor = _random(1, FRAMES, CELLS), _random(1, LABELS + 1, CELLS)
    weights = _random(VOCAB, CELLS), _random(VOCAB)
    joint_transducer_loss(encoder, predictor, *weights, *_targets(), blank=0).backward()


def train_predictor() -> None:
    """A training step of a predictor alone."""
    _encoded(1, trains=True)


def ctc_greedy() -> None:
    """The best path through a CTC network's output."""
    _encoded(2, trains=False)


def ctc_beam() -> None:
    """A beam search through a CTC network's output."""
    ctc_beam_search(_encoded(2, trains=False)[0].log_softmax(dim=1), beam=4)


def ctc_prefix() -> None:
    """Prefix search in a CTC network's output, which is sure of most frames."""
    ctc_prefix_search((100.0 * _encoded(2, trains=False)[0]).log_softmax(dim=1))


def framewise() -> None:
    """The best labels of a frame-wise network's output."""
    scores = _encoded(1, trains=False)[0].double().numpy()
    labels = np.zeros(VOCAB)
    framewise_viterbi(scores, Transitions(labels, np.zeros((VOCAB, VOCAB)), labels), least=2)


class _Transducer:
    """Predictor and joiner with random weights."""

    def search_weights(self) -> SearchWeights:
        inputs, recurrent = _random(VOCAB, 4 * CELLS), _random(4 * CELLS, CELLS)
        out = _random(CELLS, CELLS), _random(CELLS)
        predictor = LstmWeights(inputs, recurrent, _random(3, CELLS), *out)
        return SearchWeights(predictor, _random(VOCAB, CELLS), _random(VOCAB))

    def start(self, count: int) -> tuple[State, Tensor]:
        state = State(_random(count, CELLS), _random(count, CELLS))
        return state, _random(count, CELLS)

    def step(self, state: State, tokens: Tensor) -> tuple[State, Tensor]:
        return state, _random(len(tokens), CELLS)

    def log_probs(self, frames: Tensor, projected: Tensor) -> Tensor:
        return _random(len(projected), VOCAB).log_softmax(dim=1)


def transducer_best_path() -> None:
    """The greedy path with a transducer."""
    _encoded(2, trains=False)
    lengths = torch.tensor([FRAMES])
    transducer_greedy(_random(1, FRAMES, CELLS).detach(), lengths, _Transducer())


def transducer_beam() -> None:
    """A beam search with a transducer."""
    _encoded(2, trains=False)
    lengths = torch.tensor([FRAMES])
    transducer_beam_search(_random(1, FRAMES, CELLS).detach(), lengths, _Transducer(), beam=4)


FIRST_CALLS: dict[str, Callable[[], None]] = {
    "train CTC": train_ctc,
    "train Deep Speech 2": train_deep_speech2,
    "train a transducer": train_transducer,
    "train a predictor": train_predictor,
    "decode CTC, best path": ctc_greedy,
    "decode CTC, beam search": ctc_beam,
    "decode CTC, prefix search": ctc_prefix,
    "decode a frame-wise network": framewise,
    "decode a transducer, greedy": transducer_best_path,
    "decode a transducer, beam search": transducer_beam,
}
