"""Augmentation of features: noise, masks, speed and formants."""

import math

import pytest
import torch

from pipeline.training.augment import Streams, augment, move_channels, resample
from pipeline.training.train_options import TransducerTrainOptions


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def features() -> torch.Tensor:
    """Features of ones, (40, 12)."""
    return torch.ones(40, 12)


def changed(features: torch.Tensor, seed: int = 0, streams: int = 1, **options: object):
    before = features.clone()
    out = augment(features, TransducerTrainOptions(**options), Streams(streams), generator(seed))
    assert torch.equal(features, before), "the features that came in were changed"
    return out


def test_nothing_is_changed_by_default(features):
    assert torch.equal(changed(features), features)


def test_input_noise_has_its_sigma(features):
    noise = changed(features.repeat(10, 10), input_noise=0.5) - 1.0
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
        masked = (out == 0.0).all(dim=1)
        assert torch.equal(masked, (out == 0.0).any(dim=1))
        positions = masked.nonzero().flatten().tolist()
        assert positions == list(range(positions[0], positions[-1] + 1)) if positions else True
        widths.add(len(positions))
        one_frame = changed(features[:1], seed, time_masks=1)
        assert (one_frame == 1.0).all()  # a fifth of it is none
    assert widths == set(range(40 // 5 + 1))


def test_a_time_mask_is_no_wider_than_asked(features):
    for seed in range(50):
        out = changed(features, seed, time_masks=1, time_mask_width=2)
        assert int((out == 0.0).all(dim=1).sum()) <= 2


def test_a_frequency_mask_covers_the_same_band_of_every_stream(features):
    widths = set()
    for seed in range(100):
        out = changed(features, seed, streams=3, freq_masks=1, freq_mask_width=2)
        bands = (out == 0.0).all(dim=0).reshape(3, 4)  # static, Δ, ΔΔ of 4 channels
        assert torch.equal(bands[0], bands[1])
        assert torch.equal(bands[0], bands[2])
        widths.add(int(bands[0].sum()))
    assert widths == {0, 1, 2}


def test_masks_wider_than_the_features_are_cut(features):
    out = changed(features, freq_masks=3, freq_mask_width=1000, time_masks=3, time_mask_width=1000)
    assert out.shape == features.shape


def test_a_mask_removes_noise_too(features):
    out = changed(features, input_noise=1.0, freq_masks=50, freq_mask_width=12)
    assert (out == 0.0).all(dim=0).any()


# ---- speed and formants --------------------------------------------------------------------------


def test_speed_changes_the_number_of_frames_and_little_else():
    """A ramp stays a ramp with the same start and another slope."""
    ramp = torch.arange(100.0)[:, None]
    for speed in (0.9, 1.0, 1.1):
        out = resample(ramp, speed)
        assert len(out) == int(100 / speed)
        torch.testing.assert_close(out[:, 0], (torch.arange(len(out)) * speed).clamp(max=99.0))
    assert resample(ramp[:1], 1.5).shape == (1, 1)


def test_derivatives_grow_with_speed():
    out = resample(torch.ones(50, 6), 1.1, streams=3)
    torch.testing.assert_close(out[0], torch.tensor([1.0, 1.0, 1.1, 1.1, 1.21, 1.21]))


def hertz_of(channel: float, count: int) -> float:
    low, high = (1127.0 * math.log1p(f / 700.0) for f in (20.0, 8000.0))
    return 700.0 * math.expm1((low + (high - low) * (channel + 1) / (count + 1)) / 1127.0)


@pytest.mark.parametrize("factor", [0.9, 1.1])
@pytest.mark.parametrize("peak", [8, 20, 30])
def test_a_formant_moves_by_the_factor(factor, peak):
    """The peak is among 40 mel filters after the energy, in both streams."""
    shape = torch.exp(-0.5 * ((torch.arange(40.0) - peak) / 2.0) ** 2)
    stream = torch.cat([torch.tensor([7.0]), shape])
    out = move_channels(torch.cat([stream, stream])[None], factor, Streams(2, 1))[0]
    assert torch.equal(out[:41], out[41:])
    assert out[0] == 7.0
    found = float((out[1:41] * torch.arange(40.0)).sum() / out[1:41].sum())
    assert hertz_of(found, 40) == pytest.approx(factor * hertz_of(peak, 40), rel=0.02)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_formant_of_a_spectrogram_moves_by_the_factor(factor):
    """Column k is at k times 50 Hz; the first is the energy, which stays."""
    columns = torch.arange(161.0)
    spectrum = torch.exp(-0.5 * ((columns - 60.0) / 4.0) ** 2)
    spectrum[0] = 7.0
    out = move_channels(spectrum[None], factor, Streams(1, 1, linear=True))[0]
    assert out[0] == 7.0
    found = float((out[1:] * columns[1:]).sum() / out[1:].sum())
    assert found == pytest.approx(factor * 60.0, rel=0.01)


def test_speed_and_warp_are_drawn_within_their_limits(features):
    lengths = {len(changed(features, seed, speed=0.1)) for seed in range(200)}
    assert min(lengths) == 36
    assert max(lengths) == 44
    assert all(len(changed(features, seed, warp=0.1)) == 40 for seed in range(20))


def test_formants_move_only_in_mel_filters():
    features = torch.randn(20, 8)
    options = TransducerTrainOptions(warp=0.2)
    assert torch.equal(augment(features, options, Streams(2), generator()), features)
    moved = augment(features, options, Streams(2, 1), generator())
    assert not torch.equal(moved, features)
    assert torch.equal(moved[:, [0, 4]], features[:, [0, 4]])


def test_an_utterance_that_would_be_too_short_is_not_sped_up(features):
    options = TransducerTrainOptions(speed=0.2)
    lengths = [
        len(augment(features, options, Streams(), generator(seed), least_frames=38))
        for seed in range(100)
    ]
    assert min(lengths) >= 38
    assert 40 in lengths
