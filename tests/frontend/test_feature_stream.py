"""Features of a recording in chunks are those of the whole recording, to the last bit."""

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.frontend.feature_options import (
    DeltaOptions,
    FbankOptions,
    MfccOptions,
    SpectrogramOptions,
)
from pipeline.frontend.feature_stream import FeatureStream
from pipeline.frontend.front_end import FrontEnd

DELTAS = [None, DeltaOptions(), DeltaOptions(delta_order=1, delta_window=3)]


def random_front_end(kind: type, g: np.random.Generator) -> FrontEnd:
    options = {
        "sample_frequency": float(g.choice([8000, 16000])),
        "frame_length": float(g.choice([20, 25])),
        "frame_shift": float(g.choice([5, 10, 12.5, 30])),
        "dither": float(g.choice([0.0, 1.0])),
    }
    for name in ("snip_edges", "remove_dc_offset", "allow_downsample", "allow_upsample"):
        options[name] = bool(g.integers(2))
    if kind is not SpectrogramOptions:
        options |= {"use_energy": bool(g.integers(2)), "num_mel_bins": 20}
    return FrontEnd(kind(**options), DELTAS[g.integers(len(DELTAS))])


def streamed(
    front_end: FrontEnd, samples: np.ndarray, rate: int, g: np.random.Generator
) -> np.ndarray:
    stream, at, found = FeatureStream(front_end, rate, resampled=True, name="a"), 0, []
    most = int(g.choice([2, 50, 4000] if len(samples) < 1000 else [50, 4000]))
    while at < len(samples):
        size = int(g.integers(0, most + 1))
        found.append(stream.accept(samples[at : at + size]))
        at += size
    return np.concatenate([*found, stream.finish()])


@pytest.mark.parametrize("kind", [FbankOptions, MfccOptions, SpectrogramOptions])
def test_any_cut_at_any_rate(kind: type) -> None:
    g = np.random.default_rng(1)
    for _ in range(30):
        front_end = random_front_end(kind, g)
        count = int(g.choice([g.integers(1, 800), g.integers(300, 6000)]))
        samples = (2000.0 * g.standard_normal(count)).astype(np.float32)
        rate = int(g.choice([front_end.sample_rate, 44100, 11025]))
        whole, found = (
            outcome(lambda: front_end(samples, rate, resampled=True)),  # noqa: B023
            outcome(lambda: streamed(front_end, samples, rate, g)),  # noqa: B023
        )
        if isinstance(whole, str):  # too short for a frame
            assert found == whole or "holds no samples" in whole
        else:
            assert np.array_equal(found, whole)


def outcome(run: Callable[[], np.ndarray]) -> np.ndarray | str:
    """The features, or the message of the error."""
    try:
        return run()
    except PipelineError as error:
        return str(error)
