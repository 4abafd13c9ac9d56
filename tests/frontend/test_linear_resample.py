"""Resampling: Kaldi's formula term by term, tones, lengths, and who asks for it."""

import math

import numpy as np
import pytest
import soundfile

from pipeline.errors import AudioError
from pipeline.frontend.feature_options import FbankOptions
from pipeline.frontend.linear_resample import CUTOFF, ZEROS, linear_resample
from pipeline.frontend.resample import resample, to_rate

RATES = [(16000, 8000), (8000, 16000), (44100, 16000), (11025, 16000), (48000, 16000), (7, 5)]


def by_the_formula(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Every output sample as a sum over all input samples, in float64."""
    cutoff = CUTOFF * 0.5 * min(rate, new_rate)
    out = []
    for n in range(-(-len(samples) * new_rate // rate)):
        times = np.arange(len(samples)) / rate - n / new_rate
        inside = np.abs(times) < ZEROS / (2 * cutoff)
        window = 0.5 * (1 + np.cos(2 * math.pi * cutoff / ZEROS * times))
        kernel = np.array([
            2 * cutoff if t == 0 else math.sin(2 * math.pi * cutoff * t) / (math.pi * t)
            for t in times
        ])  # fmt: skip
        out.append(np.sum(samples * kernel * window * inside) / rate)
    return np.array(out)


@pytest.mark.parametrize(("rate", "new_rate"), RATES)
@pytest.mark.parametrize("length", [0, 1, 2, 63, 200])
def test_every_sample_is_kaldis_sum(rate: int, new_rate: int, length: int) -> None:
    samples = np.random.default_rng(length).normal(0, 1000, length).astype(np.float32)
    found = linear_resample(samples, rate, new_rate)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_the_formula(samples, rate, new_rate), atol=0.02)


@pytest.mark.parametrize(("rate", "new_rate"), RATES[:-1])
def test_a_tone_stays_a_tone(rate: int, new_rate: int) -> None:
    tone = np.sin(2 * math.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    expected = np.sin(2 * math.pi * 440 * np.arange(new_rate) / new_rate)
    np.testing.assert_allclose(
        linear_resample(tone, rate, new_rate)[50:-50], expected[50:-50], atol=0.01
    )


def at_rate(samples, rate: int, *, resampled: bool = False, **allowed: bool) -> np.ndarray:
    options = FbankOptions(sample_frequency=16000, **allowed)
    told = {"name": "a", "whose": "the model", "remedy": "give --resample"}
    return to_rate(samples, rate, options, resampled=resampled, **told)


def test_only_what_is_allowed_is_resampled() -> None:
    samples = np.ones(1000, np.float32)
    assert at_rate(samples, 16000) is samples
    for rate, way, other in ((8000, "up", "down"), (32000, "down", "up")):
        expected = linear_resample(samples, rate, 16000)
        found = at_rate(samples, rate, resampled=True, **{f"allow_{way}sample": True})
        np.testing.assert_array_equal(found, expected)  # Kaldi's before soxr's
        allowed = {f"allow_{other}sample": True}
        with pytest.raises(AudioError, match=f"of {rate} Hz, but the model 16000; .*--resample"):
            at_rate(samples, rate, **allowed)
        np.testing.assert_array_equal(
            at_rate(samples, rate, resampled=True, **allowed), resample(samples, rate, 16000, "a")
        )
    for rate in (10, 10**8):
        with pytest.raises(AudioError, match="too far from 16000 Hz"):
            at_rate(samples, rate, allow_upsample=True, allow_downsample=True)


def test_features_of_any_rate_by_an_options_file_of_kaldi(run_bin, tmp_path) -> None:
    lines = []
    for rate in (8000, 16000, 44100):
        tone = (8000 * np.sin(2 * math.pi * 440 * np.arange(rate) / rate)).astype(np.int16)
        soundfile.write(tmp_path / f"{rate}.wav", tone, rate)
        lines.append(f"u{rate:05d} {tmp_path}/{rate}.wav\n")
    (tmp_path / "wav.scp").write_text("".join(lines))
    conf = tmp_path / "fbank.conf"
    for value, status in (("false", 1), ("true", 0)):
        conf.write_text(
            f"--allow-downsample={value}\n--allow-upsample={value}\n--max-feature-vectors=-1\n"
        )
        done = run_bin(
            "compute_fbank_feats.py", f"--config={conf}", f"--write-utt2dur=ark,t:{tmp_path}/dur",
            f"--write-num-frames=ark,t:{tmp_path}/frames", f"scp:{tmp_path}/wav.scp",
            f"ark:{tmp_path}/f.ark",
        )  # fmt: skip
        assert done.returncode == status, done.stderr
    assert (tmp_path / "dur").read_text() == "u08000 1 \nu16000 1 \nu44100 1 \n"
    assert {line.split()[1] for line in (tmp_path / "frames").read_text().splitlines()} == {"98"}
