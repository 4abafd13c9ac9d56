"""Augmentation of normalised features in training: speed, vocal tract, noise and masks."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.training.train_options import AcousticTrainOptions

LOW_HZ, HIGH_HZ = 20.0, 8000.0  # range of the mel filters, which are evenly spaced in mel


class Streams(NamedTuple):
    """The layout of a feature matrix: streams of equal size, such as static, Δ and ΔΔ features."""

    number: int = 1
    bands_from: int | None = None  # first column of a stream that is a band; None: no bands
    linear: bool = False  # bands are as far apart in Hz, not in mel: a spectrogram


def augment(
    features: Tensor,
    options: AcousticTrainOptions,
    streams: Streams,
    generator: torch.Generator,
    *,
    least_frames: int = 1,
) -> Tensor:
    """Change the speed and the vocal tract of an utterance, add noise and mask parts of it.

    Args:
        features: the normalised features of one utterance, (T, F).
        options: the strength of each change.
        streams: the layout of the columns; all streams are moved and masked alike.
        generator: the source of the random numbers.
        least_frames: the speed is left unchanged if it would give fewer frames than this.

    Returns:
        (T', F), with T' = T unless the speed changes. A mask sets features to zero, which is the
        mean of each normalised coefficient.
    """
    speed, warp = 1.0, 1.0
    if options.speed > 0.0:
        speed += options.speed * _plus_or_minus(generator)
        if int(len(features) / speed) < least_frames:
            speed = 1.0
        features = resample(features, speed, streams.number)
    if options.warp > 0.0:
        warp += options.warp * _plus_or_minus(generator)
    if speed * warp != 1.0 and streams.bands_from is not None:
        features = move_channels(features, speed * warp, streams)
    if options.input_noise > 0.0:
        noise = torch.randn(features.shape, generator=generator)
        features = features + options.input_noise * noise
    return _mask(features, options, streams.number, generator)


def _plus_or_minus(generator: torch.Generator) -> float:
    """A random number, uniform in [-1, 1)."""
    return 2.0 * float(torch.rand(1, generator=generator)) - 1.0


def resample(features: Tensor, speed: float, streams: int = 1) -> Tensor:
    """Interpolate frames linearly: (T, F) -> (T', F), T' = T / speed rounded down, at least 1.

    Derivatives grow with the speed: stream d is multiplied by ``speed`` to the power d.
    """
    last = len(features) - 1
    count = max(1, int(len(features) / speed))
    at = (torch.arange(count) * speed).clamp(max=last)
    before = at.long()
    share = (at - before)[:, None]
    between = torch.lerp(features[before], features[(before + 1).clamp(max=last)], share)
    growth = speed ** torch.arange(streams)
    return between * growth.repeat_interleave(features.shape[1] // streams)


def move_channels(features: Tensor, factor: float, streams: Streams) -> Tensor:
    """Move the energy at f Hz to ``factor`` · f Hz, in the bands of each stream of (T, F)."""
    assert streams.bands_from is not None
    by_stream = features.view(len(features), streams.number, -1)
    bands = by_stream[:, :, streams.bands_from :]
    count = bands.shape[2]
    before, share = _sources(count, round(factor, 3), streams.linear)
    moved = by_stream.clone()
    moved[:, :, streams.bands_from :] = torch.lerp(
        bands[:, :, before], bands[:, :, (before + 1).clamp(max=count - 1)], share
    )
    return moved.view(len(features), -1)


@cache
def _sources(count: int, factor: float, linear: bool) -> tuple[Tensor, Tensor]:
    """For each of ``count`` bands: the band to interpolate from, and the next one's weight.

    Mel filter k is centred at (k + 1) / (count + 1) of the mel range, band k of a spectrogram at
    k + 1 times the frequency of the first.
    """
    numbers = torch.arange(count, dtype=torch.float64) + 1
    if linear:
        at = numbers / factor - 1
    else:
        low, high = _mel(torch.tensor([LOW_HZ, HIGH_HZ], dtype=torch.float64))
        hertz = 700.0 * torch.expm1((low + (high - low) * numbers / (count + 1)) / 1127.0)
        at = (_mel(hertz / factor) - low) / (high - low) * (count + 1) - 1
    at = at.clamp(0, count - 1)
    before = at.long()
    return before, (at - before).float()


def _mel(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hertz / 700.0)


def _mask(
    features: Tensor, options: AcousticTrainOptions, streams: int, generator: torch.Generator
) -> Tensor:
    if not (options.time_masks or options.freq_masks):
        return features
    features = features.clone()
    num_frames, channels = len(features), features.shape[1] // streams
    by_stream = features.view(num_frames, streams, channels)
    for _ in range(options.time_masks):
        # A mask covers at most a fifth of the utterance.
        widest = min(options.time_mask_width, num_frames // 5)
        start, stop = _stretch(num_frames, widest, generator)
        features[start:stop] = 0.0
    for _ in range(options.freq_masks):
        start, stop = _stretch(channels, min(options.freq_mask_width, channels), generator)
        by_stream[:, :, start:stop] = 0.0
    return features


def _stretch(size: int, widest: int, generator: torch.Generator) -> tuple[int, int]:
    """A random interval of a width up to ``widest`` within 0 … size."""
    width = int(torch.randint(0, widest + 1, (1,), generator=generator))
    start = int(torch.randint(0, size - width + 1, (1,), generator=generator))
    return start, start + width
