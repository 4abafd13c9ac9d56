"""Weight noise: noise from N(0, σ²) within the block, the clean weights after it.

[G13] A. Graves, A. Mohamed, G. Hinton, "Speech Recognition with Deep Recurrent Neural Networks",
2013, section 3.4.
"""

import pytest
import torch
from torch import nn

from pipeline.training.weight_noise import weight_noise


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(300, 300), nn.Linear(300, 20))


@pytest.mark.parametrize("sigma", [0.075, 0.5])
def test_noise_is_normal_with_mean_0_and_the_given_sigma(model, sigma):
    clean = weights(model)
    with weight_noise(model, sigma, generator()):
        noise = (weights(model) - clean) / sigma
    n = len(noise)  # about 96,000
    assert abs(float(noise.mean())) < 4 / n**0.5
    assert abs(float(noise.std()) - 1.0) < 4 / (2 * n) ** 0.5
    assert abs(float((noise**4).mean()) - 3.0) < 4 * (96 / n) ** 0.5  # the normal's kurtosis


def test_every_weight_has_its_own_noise(model):
    clean = [p.detach().clone() for p in model.parameters()]
    with weight_noise(model, 0.1, generator()):
        for parameter, value in zip(model.parameters(), clean, strict=True):
            assert (parameter != value).all()


def test_clean_weights_come_back_to_the_bit(model):
    clean = weights(model)
    with weight_noise(model, 0.075, generator()):
        assert not torch.equal(weights(model), clean)
    assert torch.equal(weights(model), clean)


def test_clean_weights_come_back_after_an_error(model):
    clean = weights(model)
    with pytest.raises(KeyboardInterrupt), weight_noise(model, 0.075, generator()):
        raise KeyboardInterrupt
    assert torch.equal(weights(model), clean)


def test_each_draw_is_another(model):
    source, draws = generator(), []
    for _ in range(2):
        with weight_noise(model, 0.1, source):
            draws.append(weights(model))
    assert not torch.equal(*draws)
    with weight_noise(model, 0.1, generator()):
        assert torch.equal(weights(model), draws[0])


def test_none_is_drawn_for_sigma_0(model):
    source, clean = generator(), weights(model)
    before = source.get_state()
    with weight_noise(model, 0.0, source):
        assert torch.equal(weights(model), clean)
    assert torch.equal(source.get_state(), before)


def test_gradients_are_those_at_the_noisy_weights():
    model = nn.Linear(1, 1, bias=False)
    with weight_noise(model, 1.0, generator()):
        noisy = model.weight.detach().clone()
        (model.weight**2).sum().backward()
    assert torch.equal(model.weight.grad, 2 * noisy)
    assert not torch.equal(model.weight.detach(), noisy)
