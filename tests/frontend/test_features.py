"""Features compared with Kaldi's; properties of options, deltas and normalisation."""

import contextlib
import dataclasses
import math
import time
from pathlib import Path

import kaldiio
import numpy as np
import pytest

from pipeline.errors import AudioError, ConfigError, FeatureError
from pipeline.frontend.audio import read_audio
from pipeline.frontend.cmvn import CmvnStats
from pipeline.frontend.deltas import add_deltas
from pipeline.frontend.feature_options import (
    DeltaOptions,
    FbankOptions,
    MfccOptions,
    SpectrogramOptions,
)
from pipeline.frontend.front_end import FrontEnd
from pipeline.frontend.spectra import (
    compute_fbank,
    compute_features,
    compute_mfcc,
    compute_spectrogram,
)
from pipeline.options import load_options

CONF = Path(__file__).resolve().parents[2] / "egs" / "timit" / "conf"
UTTERANCES = ("utt1", "utt2")
NOISE = np.random.default_rng(0).normal(scale=1000, size=16000).astype(np.float32)


@pytest.fixture(scope="module")
def kaldi(golden: Path):
    """``kaldi("fbank41")``: what Kaldi computed, by utterance."""
    folder = golden / "kaldi_feats"
    return lambda name: dict(kaldiio.load_ark(str(folder / f"{name}.ark")))


@pytest.fixture(scope="module")
def recordings(golden: Path) -> dict[str, np.ndarray]:
    folder = golden / "kaldi_feats"
    return {u: read_audio(str(folder / f"{u}.wav"), sample_rate=16000)[0] for u in UTTERANCES}


# ---- features ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "worst"),
    [
        ("fbank41", load_options(FbankOptions, CONF / "fbank.conf"), 5e-4),
        ("mfcc13", load_options(MfccOptions, CONF / "mfcc.conf"), 2e-3),
        (
            "fbank41_htk_nosnip",
            FbankOptions(num_mel_bins=40, use_energy=True, htk_compat=True, snip_edges=False),
            5e-3,
        ),
        ("spectrogram", SpectrogramOptions(), 2e-2),
    ],
)
def test_equal_to_kaldi(name: str, options, worst: float, kaldi, recordings) -> None:
    # Both transforms are in float32, with errors relative to a frame's loudest bin: the logarithm
    # of a bin that is 1e6 times weaker shows them. So nearly all cells to 1e-3, few outliers.
    for utt_id, expected in kaldi(name).items():
        ours = compute_features(recordings[utt_id], options)
        assert ours.shape == expected.shape
        assert ours.dtype == np.float32
        difference = np.abs(ours - expected)
        assert difference.max() < worst
        assert np.quantile(difference, 0.999) < 1e-3


def test_the_energy_is_first_or_as_in_htk_last(recordings) -> None:
    options = FbankOptions(use_energy=True)
    first = compute_fbank(recordings["utt1"], options)
    last = compute_fbank(recordings["utt1"], dataclasses.replace(options, htk_compat=True))
    np.testing.assert_array_equal(first[:, 0], last[:, -1])
    np.testing.assert_array_equal(first[:, 1:], last[:, :-1])


@pytest.mark.parametrize("snip_edges", [True, False])
@pytest.mark.parametrize("raw_energy", [True, False])
@pytest.mark.parametrize(
    "window_type", ["povey", "hamming", "hanning", "blackman", "sine", "rectangular"]
)
def test_the_spectrogram_agrees_with_the_filter_bank(
    window_type: str, raw_energy: bool, snip_edges: bool
) -> None:
    # The filters weigh power spectra linearly: a least-squares fit of one on the other is exact.
    frame = {"window_type": window_type, "raw_energy": raw_energy, "snip_edges": snip_edges}
    fbank = compute_fbank(NOISE, FbankOptions(use_energy=True, use_log_fbank=False, **frame))
    power = compute_spectrogram(NOISE, SpectrogramOptions(**frame))
    np.testing.assert_allclose(power[:, 0], fbank[:, 0], rtol=1e-5)
    low = np.exp(power[:, 1:40].astype(np.float64))
    first_filters = fbank[:, 1:6]
    fit, *_ = np.linalg.lstsq(low, first_filters, rcond=None)
    np.testing.assert_allclose(low @ fit, first_filters, rtol=1e-3, atol=1e-3 * low.max())


@pytest.mark.parametrize("compute", [compute_fbank, compute_mfcc, compute_spectrogram])
@pytest.mark.parametrize(
    ("count", "snip", "frames"),
    [
        *((399, True, 0), (400, True, 1), (559, True, 1), (560, True, 2), (16000, True, 98)),
        *((79, False, 0), (80, False, 1), (240, False, 2), (16000, False, 100)),
    ],
)
def test_frame_counts(compute, count: int, snip: bool, frames: int) -> None:
    options = {compute_fbank: FbankOptions, compute_mfcc: MfccOptions}.get(
        compute, SpectrogramOptions
    )(snip_edges=snip)
    if frames == 0:
        with pytest.raises(
            FeatureError, match=r"s of audio are shorter than a frame of 25 ms; leave"
        ):
            compute(NOISE[:count], options)
    else:
        assert len(compute(NOISE[:count], options)) == frames


def test_reflection_at_the_ends_agrees_with_kaldi_native_fbank() -> None:
    # Three quarters of a frame: reflected on both sides.
    options = {"snip_edges": False, "raw_energy": True, "preemphasis_coefficient": 0.0}
    fbank = compute_fbank(NOISE[:300], FbankOptions(use_energy=True, **options))
    power = compute_spectrogram(NOISE[:300], SpectrogramOptions(**options))
    np.testing.assert_allclose(power[:, 0], fbank[:, 0], rtol=1e-5)


def test_digital_silence_is_finite() -> None:
    silence = np.zeros(4000, np.float32)
    for options in (FbankOptions(use_energy=True), MfccOptions(), SpectrogramOptions()):
        assert np.isfinite(compute_features(silence, options)).all()
    floored = compute_fbank(silence, FbankOptions(use_energy=True, energy_floor=1.0))
    np.testing.assert_array_equal(floored[:, 0], 0.0)
    floored = compute_spectrogram(silence, SpectrogramOptions(energy_floor=1.0))
    np.testing.assert_array_equal(floored[:, 0], 0.0)


def test_nan_samples_are_an_error() -> None:
    samples = NOISE.copy()
    samples[5000] = np.nan
    for options in (FbankOptions(), MfccOptions(), SpectrogramOptions()):
        with pytest.raises(FeatureError, match="frame 29 holds NaN or infinity"):
            compute_features(samples, options)


def test_dither_is_noise_and_the_same_each_time() -> None:
    noisy = MfccOptions(dither=1.0)
    once, again = compute_mfcc(NOISE, noisy), compute_mfcc(NOISE, noisy)
    np.testing.assert_array_equal(once, again)
    assert np.abs(once - compute_mfcc(NOISE, MfccOptions())).max() > 0
    # On silence it is all there is: a variance of 1 a sample.
    silence = np.zeros(16000, np.float32)
    energy = compute_fbank(silence, FbankOptions(dither=1.0, use_energy=True))[:, 0]
    np.testing.assert_allclose(np.exp(energy).mean() / 400, 1.0, rtol=0.05)


def test_subtract_mean() -> None:
    feats = compute_fbank(NOISE, FbankOptions(subtract_mean=True))
    np.testing.assert_allclose(feats.mean(axis=0), 0, atol=1e-4)


# ---- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (FbankOptions, {"num_mel_bins": 2}, "--num-mel-bins must be from 3 to 1000"),
        (FbankOptions, {"num_mel_bins": 200}, "--num-mel-bins must be smaller: a filter has no"),
        (FbankOptions, {"low_freq": 8000.0}, "--low-freq must be 0 Hz to less than 8000 Hz"),
        (FbankOptions, {"high_freq": 9000.0}, "--high-freq must be above --low-freq"),
        (FbankOptions, {"high_freq": -7990.0}, "--high-freq must be above --low-freq"),
        (MfccOptions, {"num_ceps": 24}, "--num-ceps must be 1 to --num-mel-bins"),
        (MfccOptions, {"cepstral_lifter": -1.0}, "--cepstral-lifter must be from 0 to "),
        (SpectrogramOptions, {"window_type": "kaiser"}, "--window-type must be one of povey, ham"),
        (SpectrogramOptions, {"frame_length": 0.1}, "--frame-length must be at least two"),
        (SpectrogramOptions, {"frame_shift": 0.01}, "--frame-shift must be at least one"),
        (
            SpectrogramOptions,
            {"frame_length": 24.99, "round_to_power_of_two": False},
            "--round-to-power-of-two must be true for frames of odd length",
        ),
        (SpectrogramOptions, {"preemphasis_coefficient": 2.0}, "--preemphasis-coefficient must"),
        (SpectrogramOptions, {"sample_frequency": 0.0}, "--sample-frequency must be above 0"),
        (SpectrogramOptions, {"dither": -1.0}, "--dither must be from 0 to "),
        (SpectrogramOptions, {"energy_floor": -1.0}, "--energy-floor must be from 0 to "),
        (DeltaOptions, {"delta_window": 0}, "--delta-window must be from 1 to 1000, not 0"),
        (DeltaOptions, {"delta_order": -1}, "--delta-order must be from 0 to 100, not -1"),
    ],
)
def test_options_out_of_range(kind, values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**values)


EXTREMES = (math.nan, math.inf, -math.inf, -1e300, 1e300, 1e-300, 1e11, -1e11, 2**31, 10**30, 0)


@pytest.mark.parametrize("kind", [FbankOptions, MfccOptions, SpectrogramOptions, DeltaOptions])
def test_extreme_values_are_refused_or_harmless(kind, tmp_path: Path) -> None:
    """Each in 0.2 s and within memory; a file names the line."""
    for field in dataclasses.fields(kind):
        if isinstance(field.default, bool | str):
            continue
        for extreme in EXTREMES:
            value = extreme if math.isfinite(extreme) else float(extreme)
            whole = isinstance(field.default, int)
            if whole and not float(value).is_integer():
                continue
            path = tmp_path / "x.conf"
            name = field.name.replace("_", "-")
            path.write_text(f"--{name}={int(value) if whole else value}\n")
            started = time.process_time()
            try:
                options = load_options(kind, path)
            except ConfigError as error:
                assert str(error).startswith(f"{path}:"), (field.name, value)  # noqa: PT017
            else:
                if kind is DeltaOptions:
                    add_deltas(np.ones((3, 2), np.float32), order=options.delta_order)
                else:
                    with contextlib.suppress(FeatureError):
                        compute_features(NOISE[:1000], options)
            assert time.process_time() - started < 0.2, (field.name, value)


# ---- deltas ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "order"), [("fbank41", "fbank123", 2), ("mfcc13", "mfcc26", 1)]
)
def test_deltas_equal_kaldis(before: str, after: str, order: int, kaldi) -> None:
    # Sums of at most nine float32 products of values below 100.
    for utt_id, expected in kaldi(after).items():
        ours = add_deltas(kaldi(before)[utt_id], order=order)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
        assert ours.dtype == np.float32


def test_deltas_of_differences_are_not_padded_anew() -> None:
    feats = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    once = add_deltas(feats, order=1)[:, 3:]
    twice = add_deltas(once, order=1)[:, 3:]
    ours = add_deltas(feats, order=2)[:, 6:]
    np.testing.assert_allclose(ours[4:-4], twice[4:-4], atol=1e-6)
    assert np.abs(ours - twice)[[0, 1, -2, -1]].max() > 0.01


@pytest.mark.parametrize("window", [1, 2, 3])
def test_deltas_of_a_ramp_are_its_slope(window: int) -> None:
    ramp = np.arange(40, dtype=np.float32)[:, None] * 0.5
    feats = add_deltas(ramp, order=2, window=window)
    inside = slice(2 * window, -2 * window)
    np.testing.assert_allclose(feats[inside, 1], 0.5, atol=1e-5)
    np.testing.assert_allclose(feats[inside, 2], 0.0, atol=1e-5)


def test_deltas_of_one_frame_are_zero() -> None:
    feats = add_deltas(np.ones((1, 2), np.float32))
    np.testing.assert_allclose(feats, [[1, 1, 0, 0, 0, 0]], atol=1e-7)
    assert add_deltas(np.ones((3, 2), np.float32), order=0).shape == (3, 2)
    with pytest.raises(FeatureError, match="no frames"):
        add_deltas(np.ones((0, 2), np.float32))


# ---- normalisation -----------------------------------------------------------------------------


def stats_of(*utterances: np.ndarray) -> CmvnStats:
    stats = CmvnStats.zeros(utterances[0].shape[1])
    for feats in utterances:
        stats.accumulate(feats)
    return stats


def test_cmvn_stats_equal_kaldis(kaldi, golden: Path) -> None:
    # Kaldi squares in float32 and writes a plain file in float32: 2**-24 each.
    everyone = kaldiio.load_mat(str(golden / "kaldi_feats" / "cmvn_global.mat"))
    np.testing.assert_allclose(stats_of(*kaldi("fbank123").values()).matrix, everyone, rtol=2e-7)
    by_speaker, feats = kaldi("cmvn_spk"), kaldi("fbank41")
    assert by_speaker["spk1"].dtype == np.float64
    for speaker, utt_id in (("spk1", "utt1"), ("spk2", "utt2")):
        ours = stats_of(feats[utt_id])
        np.testing.assert_allclose(ours.matrix[0], by_speaker[speaker][0], rtol=1e-13)
        np.testing.assert_allclose(ours.matrix[1], by_speaker[speaker][1], rtol=6e-8)
        assert ours.count == len(feats[utt_id])


def test_normalised_features_equal_kaldis(kaldi, golden: Path) -> None:
    stats = CmvnStats(kaldiio.load_mat(str(golden / "kaldi_feats" / "cmvn_global.mat")))
    feats = kaldi("fbank123")
    # Kaldi multiplies and adds in float32, with terms of up to 10.
    for utt_id, expected in kaldi("fbank123_norm").items():
        ours = stats.apply(feats[utt_id], norm_vars=True)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)


def test_normalised_features_have_mean_0_and_deviation_1() -> None:
    rng = np.random.default_rng(3)
    utterances = [rng.normal(7, 3, (n, 4)).astype(np.float32) for n in (10, 200, 33)]
    stats = stats_of(*utterances)
    out = np.concatenate([stats.apply(u, norm_vars=True) for u in utterances])
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(out.std(axis=0), 1, atol=1e-6)
    means_only = np.concatenate([stats.apply(u) for u in utterances])
    np.testing.assert_allclose(means_only.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(means_only.std(axis=0), 3, atol=0.3)
    for norm_vars in (False, True):
        there = stats.apply(utterances[0], norm_vars=norm_vars)
        back = stats.apply(there, norm_vars=norm_vars, reverse=True)
        np.testing.assert_allclose(back, utterances[0], rtol=1e-5)
    np.testing.assert_array_equal(stats.apply(utterances[0], norm_means=False), utterances[0])


def test_a_constant_column_does_not_divide_by_zero() -> None:
    feats = np.full((10, 2), 3.0, np.float32)
    np.testing.assert_array_equal(stats_of(feats).apply(feats, norm_vars=True), 0.0)


def test_cmvn_errors() -> None:
    feats = np.ones((5, 3), np.float32)
    stats = stats_of(feats)
    with pytest.raises(FeatureError, match="the features have 4 columns, expected 3"):
        stats.accumulate(np.ones((5, 4), np.float32))
    with pytest.raises(FeatureError, match="the features have 4 columns, expected 3"):
        stats.apply(np.ones((5, 4), np.float32))
    with pytest.raises(FeatureError, match="frame 0 holds NaN or infinity"):
        stats.accumulate(feats * np.nan)
    assert stats.count == 5  # the failed calls have added nothing
    with pytest.raises(FeatureError, match="statistics have 0 frames"):
        CmvnStats.zeros(3).apply(feats)
    with pytest.raises(FeatureError, match=r"shape \(5, 3\) is not that of CMVN statistics"):
        CmvnStats(feats)
    with pytest.raises(ConfigError, match="--norm-vars needs --norm-means"):
        stats.apply(feats, norm_means=False, norm_vars=True)


# ---- front ends --------------------------------------------------------------------------------


@pytest.fixture
def front_end(tmp_path: Path):
    """``front_end(**{"fbank.conf": text, …})``: a directory with these files, loaded."""

    def make(**files: str) -> FrontEnd:
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        return FrontEnd.load(tmp_path)

    return make


@pytest.mark.parametrize(
    ("conf", "delta", "after"),
    [("fbank.conf", "delta.conf", "fbank123"), ("mfcc.conf", "delta_mfcc.conf", "mfcc26")],
)
def test_the_papers_front_ends(conf, delta, after, front_end, kaldi, recordings) -> None:
    loaded = front_end(
        **{conf: (CONF / conf).read_text(), "delta.conf": (CONF / delta).read_text()}
    )
    assert (loaded.sample_rate, loaded.frame_shift_ms) == (16000, 10.0)
    for utt_id, expected in kaldi(after).items():
        assert loaded.dim == expected.shape[1]
        np.testing.assert_allclose(loaded(recordings[utt_id], 16000), expected, atol=2e-3)


@pytest.mark.parametrize(
    ("files", "dim"),
    [
        ({"fbank.conf": "--num-mel-bins=40"}, 40),
        ({"fbank.conf": "--num-mel-bins=40\n--use-energy"}, 41),
        ({"mfcc.conf": ""}, 13),
        ({"spectrogram.conf": ""}, 257),
        ({"spectrogram.conf": "--round-to-power-of-two=false", "delta.conf": ""}, 603),
        ({"fbank.conf": "--sample-frequency=8000\n--frame-shift=20", "delta.conf": ""}, 69),
    ],
)
def test_dim_is_that_of_the_features(files: dict[str, str], dim: int, front_end) -> None:
    loaded = front_end(**files)
    feats = loaded(NOISE, loaded.sample_rate)
    assert feats.shape[1] == loaded.dim == dim


def test_front_end_errors(front_end, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"exactly one of fbank.conf, .* not none"):
        FrontEnd.load(tmp_path)
    with pytest.raises(AudioError, match="of 8000 Hz, but the model 16000; resample"):
        front_end(**{"fbank.conf": ""})(NOISE, 8000)
    with pytest.raises(ConfigError, match=r"not fbank.conf and mfcc.conf"):
        front_end(**{"fbank.conf": "", "mfcc.conf": ""})
