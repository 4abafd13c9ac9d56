"""The error rates of a dev set: named by what the tokens are, and counted by it."""

from types import SimpleNamespace

import pytest
import torch

from pipeline.text.tokens import Tokens
from pipeline.training.objectives.objective import Tally, token_metric


@pytest.mark.parametrize(
    ("tokens", "ref", "hyp", "rates"),
    [
        (Tokens.from_text([["a", "b"]]), ["a", "b"], ["a"], {"PER": 50.0}),
        (
            Tokens.from_characters([["ab", "c"]]),
            ["ab", "c"],
            ["a", "c"],
            {"WER": 50.0, "CER": 100 / 3},
        ),
        (
            Tokens.from_bigrams([["ab", "c"]]),
            ["ab", "c"],
            ["b", "c"],
            {"WER": 50.0, "CER": 100 / 3},
        ),
        (Tokens.from_characters([["我们"]]), ["我们"], ["们"], {"CER": 50.0}),
    ],
)
def test_the_error_rates_are_those_of_the_tokens(
    tokens: Tokens, ref: list[str], hyp: list[str], rates: dict[str, float]
) -> None:
    metric = token_metric(tokens)
    tally = Tally(metric)
    target = torch.tensor([tokens.encode(ref)])
    batch = SimpleNamespace(targets=target, target_lengths=torch.tensor([target.shape[1]]))
    for _ in range(2):
        tally.add(torch.zeros(1), batch, [tokens.encode(hyp)])
    scores = tally.scores(list)
    assert {metric.name: scores.error_rate, **scores.others} == pytest.approx(rates)
