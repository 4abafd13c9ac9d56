"""Deep Speech 2 in training: it learns, and utterances that do not fit are named."""

import pytest
import torch

from pipeline.errors import DataError
from pipeline.nn.encoders.deep_speech2 import DeepSpeech2Config
from pipeline.nn.layers import initialise
from pipeline.nn.models import CtcModel
from pipeline.text.tokens import Tokens
from pipeline.training.dataset import Batch, Utterance
from pipeline.training.objectives.ctc import CtcObjective
from pipeline.training.objectives.objective import fitting, token_metric

torch.set_num_threads(1)

TOKENS = Tokens(["<blk>", *(f"p{k}" for k in range(1, 20))])
TWO_D = {
    "channels": (4, 4),
    "time_kernels": (5, 3),
    "time_strides": (2, 1),
    "freq_kernels": (5, 3),
    "freq_strides": (2, 1),
}
KINDS = {
    "relu": {},
    "relu without norm": {"batch_norm": False},
    "gru": {"cell": "gru"},
    "forward gru": {"cell": "gru", "bidirectional": False, "lookahead": 4},
}


def objective_of(**options: object) -> CtcObjective:
    config = DeepSpeech2Config(input_dim=16, layers=2, cells=48, **TWO_D, **options)
    model = CtcModel(config.build(), num_tokens=len(TOKENS.symbols))
    initialise(model, scale=0.1, generator=torch.Generator().manual_seed(0))
    return CtcObjective(model, token_metric(TOKENS))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_utterances_are_learnt(kind: str) -> None:
    """Greedy decoding has no error, with the running averages of the norms."""
    objective = objective_of(**KINDS[kind])
    generator = torch.Generator().manual_seed(1)
    lengths, labels = torch.tensor([60, 45]), torch.tensor([12, 9])
    batch = Batch(
        ["a", "b"],
        torch.randn(2, 60, 16, generator=generator),
        lengths,
        torch.randint(1, 20, (2, 12), generator=generator),
        labels,
    )
    optimizer = torch.optim.Adam(objective.model.parameters(), lr=2e-3)
    for step in range(600):
        objective.model.train()
        optimizer.zero_grad()
        objective.losses(batch).sum().backward()
        torch.nn.utils.clip_grad_norm_(objective.model.parameters(), 5.0)
        optimizer.step()
        if step % 20 == 19:
            objective.model.eval()
            with torch.no_grad():
                scores = objective.evaluate([batch])
            if scores.error_rate == 0.0:
                return
    pytest.fail(f"{scores.error_rate} % after {step + 1} updates, loss {scores.loss}")


def test_utterances_shorter_than_their_tokens_after_the_stride_are_named() -> None:
    """Two outputs for three frames; equal neighbours need a blank between them."""
    objective = objective_of()
    utterances = [
        Utterance("enough", "", 5, (1, 2, 3)),
        Utterance("short", "", 4, (1, 2, 3)),
        Utterance("repeats", "", 6, (1, 1, 1)),
    ]
    with pytest.raises(DataError, match="2 utterances are too short for their tokens") as error:
        fitting(utterances, objective, skip_short=False)
    assert "short: 4 frames, 5 needed for 3 tokens" in str(error.value)
    assert "repeats: 6 frames, 9 needed for 3 tokens" in str(error.value)
    assert fitting(utterances, objective, skip_short=True) == utterances[:1]
