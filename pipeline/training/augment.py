"""Noise and masks on normalised features, in training only."""

import torch
from torch import Tensor

from pipeline.training.options import TrainOptions


def augment(
    features: Tensor,
    lengths: Tensor,
    options: TrainOptions,
    streams: int,
    generator: torch.Generator,
) -> Tensor:
    """Add input noise and zero random stretches of frames and bands of channels.

    Args:
        features: (N, T, F), normalised, zero in the padding.
        lengths: (N,) frames.
        options: how much of what.
        streams: F is so many equal streams (static, Δ, ΔΔ); a band is masked in all of them.
        generator: where the random numbers come from.

    Returns:
        (N, T, F); zero is each coefficient's mean, so a mask removes what it covers.
    """
    if options.input_noise > 0.0:
        inside = torch.arange(features.shape[1]) < lengths[:, None]
        noise = torch.randn(features.shape, generator=generator) * options.input_noise
        features = features + noise * inside[:, :, None]
    if options.time_masks or options.freq_masks:
        features = features.clone()
    channels = features.shape[2] // streams
    for row, num_frames in zip(features, lengths.tolist(), strict=True):
        for _ in range(options.time_masks):
            # Never more than a fifth of an utterance at once.
            start, stop = _stretch(
                num_frames, min(options.time_mask_width, num_frames // 5), generator
            )
            row[start:stop] = 0.0
        for _ in range(options.freq_masks):
            start, stop = _stretch(channels, min(options.freq_mask_width, channels), generator)
            for stream in range(streams):
                row[:, stream * channels + start : stream * channels + stop] = 0.0
    return features


def _stretch(size: int, widest: int, generator: torch.Generator) -> tuple[int, int]:
    """A random interval of up to ``widest`` within 0 … size."""
    width = int(torch.randint(0, widest + 1, (1,), generator=generator))
    start = int(torch.randint(0, size - width + 1, (1,), generator=generator))
    return start, start + width
