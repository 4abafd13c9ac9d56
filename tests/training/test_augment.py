"""Noise and masks on features."""

import pytest
import torch

from pipeline.training.augment import augment
from pipeline.training.options import TrainOptions

LENGTHS = torch.tensor([40, 25, 1])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def features() -> torch.Tensor:
    """(3, 40, 12): ones, zero in the padding."""
    ones = torch.ones(3, 40, 12)
    for row, length in zip(ones, LENGTHS.tolist(), strict=True):
        row[length:] = 0.0
    return ones


def changed(features: torch.Tensor, seed: int = 0, streams: int = 1, **options: object):
    before = features.clone()
    out = augment(features, LENGTHS, TrainOptions(**options), streams, generator(seed))
    assert torch.equal(features, before), "the features that came in were changed"
    return out


def test_nothing_is_done_unless_asked(features):
    assert torch.equal(changed(features), features)


def test_input_noise_has_its_sigma_and_leaves_the_padding(features):
    out = changed(features, input_noise=0.5)
    inside = torch.arange(40) < LENGTHS[:, None]
    assert (out[~inside] == 0.0).all()
    noise = out[inside] - 1.0
    assert abs(float(noise.mean())) < 4 * 0.5 / noise.numel() ** 0.5
    assert abs(float(noise.std()) - 0.5) < 4 * 0.5 / (2 * noise.numel()) ** 0.5


def test_a_seed_gives_the_same_again(features):
    options = {"input_noise": 0.3, "time_masks": 2, "freq_masks": 2}
    assert torch.equal(changed(features, **options), changed(features, **options))
    assert not torch.equal(changed(features, **options), changed(features, seed=1, **options))


def test_a_time_mask_covers_whole_frames_and_at_most_a_fifth(features):
    widths = set()
    for seed in range(200):
        out = changed(features, seed, time_masks=1, time_mask_width=20)
        masked = (out[0] == 0.0).all(dim=1)
        assert torch.equal(masked, (out[0] == 0.0).any(dim=1))
        positions = masked.nonzero().flatten().tolist()
        assert positions == list(range(positions[0], positions[-1] + 1)) if positions else True
        widths.add(len(positions))
        assert out[2, 0].tolist() == [1.0] * 12  # one frame: a fifth of it is none
    assert widths == set(range(40 // 5 + 1))


def test_a_time_mask_is_no_wider_than_asked(features):
    for seed in range(50):
        out = changed(features, seed, time_masks=1, time_mask_width=2)
        assert int((out[0] == 0.0).all(dim=1).sum()) <= 2


def test_a_frequency_mask_covers_the_same_band_of_every_stream(features):
    widths = set()
    for seed in range(100):
        out = changed(features, seed, streams=3, freq_masks=1, freq_mask_width=2)
        bands = (out[0] == 0.0).all(dim=0).reshape(3, 4)  # static, Δ, ΔΔ of 4 channels
        assert torch.equal(bands[0], bands[1])
        assert torch.equal(bands[0], bands[2])
        widths.add(int(bands[0].sum()))
    assert widths == {0, 1, 2}


def test_masks_wider_than_the_features_are_cut(features):
    out = changed(features, freq_masks=3, freq_mask_width=1000, time_masks=3, time_mask_width=1000)
    assert out.shape == features.shape


def test_a_mask_removes_noise_too(features):
    out = changed(features, input_noise=1.0, freq_masks=50, freq_mask_width=12)
    assert (out[0] == 0.0).all(dim=0).any()
