"""The recording conditions of the demo corpus: room, line, noise, sample rate and level.

Arrays are float64 with shape (T,). All random numbers come from the generator that is passed in.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

RATE = 16000  # sample rate of the corpus in Hz
_TAPS = 32  # taps of the resampler
_PHASES = 512
_PASS_BAND = 0.92  # as a fraction of the lower Nyquist frequency
_KAISER_BETA = 8.0
_NOISES = ("white", "pink", "hum", "babble")


@dataclass(frozen=True)
class Channel:
    """A speaker's recording conditions.

    Attributes:
        rt60_s: the reverberation time in seconds.
        direct_db: the energy of the direct sound relative to that of the reverberation.
        tilt_db: the gain at 8 kHz relative to that at 100 Hz.
        bumps: peaks or dips of the line, as (Hz, dB).
        noise: the kind of noise: white, pink, hum or babble.
        snr_db: the signal-to-noise ratio, from which each utterance differs by up to 3 dB.
        seed: the seed of the random reflections of the room.
    """

    rt60_s: float
    direct_db: float
    tilt_db: float
    bumps: tuple[tuple[float, float], ...]
    noise: str
    snr_db: float
    seed: int


def draw_channel(rng: np.random.Generator, noise: int, quietness: float) -> Channel:
    """Draw random recording conditions.

    Args:
        rng: the random numbers for the room and the line.
        noise: a number that selects the kind of noise, modulo the number of kinds.
        quietness: from 0 for the loudest noise to 1 for the least noise.
    """
    return Channel(
        rt60_s=float(rng.uniform(0.08, 0.35)),
        direct_db=float(rng.uniform(6.0, 18.0)),
        tilt_db=float(rng.uniform(-9.0, 6.0)),
        bumps=tuple((float(rng.uniform(300, 6000)), float(rng.uniform(-5, 5))) for _ in range(2)),
        noise=_NOISES[noise % len(_NOISES)],
        snr_db=14.0 + 18.0 * quietness,
        seed=int(rng.integers(2**31)),
    )


def resample(samples: np.ndarray, ratio: float) -> np.ndarray:
    """Resample to ``ratio`` times the rate with a Kaiser-windowed sinc of 32 taps."""
    count = int(len(samples) * ratio)
    positions = np.arange(count) / ratio
    whole = np.floor(positions).astype(np.int64)
    phases = np.round((positions - whole) * _PHASES).astype(np.int64)
    padded = np.pad(samples, (_TAPS // 2 - 1, _TAPS // 2 + 1))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _TAPS)[whole]
    found: np.ndarray = np.einsum("ij,ij->i", windows, _sinc_table(min(1.0, ratio))[phases])
    return found


@cache
def _sinc_table(ratio: float) -> np.ndarray:
    """The filter for every fraction of a sample, (phases + 1, taps)."""
    cutoff = ratio * _PASS_BAND
    times = np.arange(_TAPS) - (_TAPS // 2 - 1) - np.arange(_PHASES + 1)[:, None] / _PHASES
    inside = np.clip(1.0 - (times / (_TAPS / 2)) ** 2, 0.0, None)
    table = cutoff * np.sinc(cutoff * times) * np.i0(_KAISER_BETA * np.sqrt(inside))
    return np.asarray(table / table.sum(axis=1, keepdims=True))


def record(
    speech: np.ndarray, channel: Channel, babble: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The recording of an utterance, int16 (T,), with the same length and without delay.

    Args:
        speech: (T,) at 16 kHz, with silence at both ends.
        channel: the recording conditions of the speaker.
        babble: (B,), other speech, used if the noise of the channel is babble.
        rng: the random numbers for the differences between utterances.
    """
    room = _filter(speech, _reflections(channel), channel)
    noise = _noise(channel, len(speech), babble, rng)
    snr_db = channel.snr_db + rng.uniform(-3.0, 3.0)
    level = np.sqrt(np.mean(room[speech != 0] ** 2)) * 10 ** (-snr_db / 20)
    mixed = room + noise * level / np.sqrt(np.mean(noise**2))
    peak = 10 ** (-rng.uniform(2.0, 20.0) / 20)
    found: np.ndarray = np.round(mixed * (peak * 32767 / np.abs(mixed).max())).astype(np.int16)
    return found


def _reflections(channel: Channel) -> np.ndarray:
    """The impulse response of a room: the direct sound, then noise that decays 60 dB in RT60."""
    rng = np.random.default_rng(channel.seed)
    times = np.arange(int(channel.rt60_s * RATE)) / RATE
    tail: np.ndarray = rng.standard_normal(len(times)) * np.exp(
        -np.log(1000.0) * times / channel.rt60_s
    )
    tail[: RATE // 500] = 0.0
    tail *= np.sqrt(10 ** (-channel.direct_db / 10) / np.sum(tail**2))
    tail[0] = 1.0
    return tail


def _filter(speech: np.ndarray, response: np.ndarray, channel: Channel) -> np.ndarray:
    size = 1 << int(len(speech) + len(response) - 1).bit_length()
    octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / RATE), 50.0) / 100.0)
    gain_db = channel.tilt_db * octaves / np.log2(80.0)
    for centre, height in channel.bumps:
        gain_db += height * np.exp(-0.5 * ((octaves - np.log2(centre / 100.0)) / 0.5) ** 2)
    spectrum = np.fft.rfft(speech, size) * np.fft.rfft(response, size) * 10 ** (gain_db / 20)
    return np.fft.irfft(spectrum, size)[: len(speech)]


def _noise(
    channel: Channel, count: int, babble: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Noise of the kind of the channel, at an arbitrary level."""
    white = rng.standard_normal(count)
    if channel.noise == "white":
        return white
    if channel.noise == "babble":
        start = int(rng.integers(len(babble)))
        return np.take(babble, np.arange(start, start + count), mode="wrap") + 0.02 * white
    frequencies = np.fft.rfftfreq(count, 1 / RATE)
    pink = np.fft.irfft(np.fft.rfft(white) / np.sqrt(np.maximum(frequencies, 20.0)), count)
    if channel.noise == "pink":
        return pink
    times = np.arange(count) / RATE
    hum = sum(np.sin(2 * np.pi * (60 * k * times + rng.random())) / k for k in range(1, 13))
    return np.asarray(hum + pink * 0.5 / pink.std())


def mix_babble(voices: list[np.ndarray]) -> np.ndarray:
    """The sum of several utterances, (B,), with RMS 1 and the length of the longest."""
    mixed: np.ndarray = np.zeros(max(len(voice) for voice in voices))
    for voice in voices:
        mixed += np.resize(voice, len(mixed))
    return np.asarray(mixed / np.sqrt(np.mean(mixed**2)))


def sphere_bytes(samples: np.ndarray) -> bytes:
    """The bytes of a NIST SPHERE file: a header of 1024 bytes, then 16-bit samples, little-endian.

    Args:
        samples: int16 (T,) at 16 kHz.
    """
    fields = (
        "channel_count -i 1",
        f"sample_count -i {len(samples)}",
        f"sample_rate -i {RATE}",
        f"sample_min -i {samples.min()}",
        f"sample_max -i {samples.max()}",
        "sample_n_bytes -i 2",
        "sample_byte_format -s2 01",
        "sample_sig_bits -i 16",
    )
    header = "\n".join(("NIST_1A", "   1024", *fields, "end_head", "")).encode()
    return header.ljust(1024, b" ") + samples.astype("<i2").tobytes()
