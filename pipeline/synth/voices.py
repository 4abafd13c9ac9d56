"""The voices of a demo corpus: pitch, vocal tract, rate, room and noise of each speaker.

A voice is a voice file of espeak-ng: pitch range, scales of nine formants (the length of the vocal
tract and individual deviations), roughness, flutter, and for one voice in four a Klatt synthesizer
instead of the default one. `breath` and `echo` are not used, because the first gives different
samples in every process and the second fills the closures.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.synth.acoustics import Channel, draw_channel

_FORMANTS = 9
_WORDS_PER_MINUTE = (150.0, 200.0)
_STEPS = (0.8567, 0.7339, 0.6287, 0.5386)  # powers of 1 / 1.1673, where 1.1673^5 = 1.1673 + 1
_PITCH_HZ = {"M": (80.0, 135.0), "F": (155.0, 235.0)}  # the lower end of the pitch range
_TRACT_PERCENT = {"M": (92.0, 104.0), "F": (104.0, 117.0)}  # the scale of the formants


@dataclass(frozen=True)
class Voice:
    """A speaker without a text.

    Attributes:
        speaker: a name as in TIMIT, ``FXAB0``: sex, three letters and a digit.
        sex: M or F.
        voice_file: the voice variant for espeak-ng.
        words_per_minute: the speaking rate.
        speed: the factor by which the recording is played faster.
        channel: the room, the line and the noise.
    """

    speaker: str
    sex: str
    voice_file: str
    words_per_minute: int
    speed: float
    channel: Channel


def draw_voice(seed: int, index: int) -> Voice:
    """The voice of speaker number ``index``; every second one is a woman's."""
    rng = np.random.default_rng([seed, 2, index])
    sex = "MF"[index % 2]
    rate, quietness, tract, pitch = _spread(seed, index)
    return Voice(
        speaker=f"{sex}X{chr(65 + index // 26 % 26)}{chr(65 + index % 26)}{index // 676}",
        sex=sex,
        voice_file=_voice_file(
            rng, sex, _between(_TRACT_PERCENT[sex], tract), _between(_PITCH_HZ[sex], pitch)
        ),
        words_per_minute=int(_between(_WORDS_PER_MINUTE, rate)),
        speed=float(rng.uniform(0.92, 1.08)),
        channel=draw_channel(rng, index // 2, quietness),
    )


def _spread(seed: int, index: int) -> list[float]:
    """Four numbers in [0, 1), which consecutive speakers of either sex cover evenly.

    Otherwise dev and test, with eight speakers each, would differ in difficulty.
    """
    start = np.random.default_rng([seed, 4]).random(len(_STEPS)) + 0.5 * (index % 2)
    return [float(x) for x in (start + index // 2 * np.array(_STEPS)) % 1.0]


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + share * (ends[1] - ends[0])


def _voice_file(rng: np.random.Generator, sex: str, tract: float, low: float) -> str:
    """A voice file with formants scaled to ``tract`` percent and a pitch from ``low`` Hz."""
    high = low * rng.uniform(1.2, 1.8)
    lines = [
        "language variant",
        "name demo",
        f"gender {'male' if sex == 'M' else 'female'}",
        f"pitch {low:.0f} {high:.0f}",
        f"flutter {rng.integers(1, 9)}",
        f"roughness {rng.integers(0, 5)}",
        f"voicing {rng.integers(80, 131)}",
        f"consonants {rng.integers(80, 126)} {rng.integers(80, 126)}",
        f"stressAdd {' '.join(str(rng.integers(-15, 16)) for _ in range(8))}",
    ]
    for formant in range(_FORMANTS):
        scale = tract * rng.uniform(0.96, 1.04)
        height, width = rng.integers(75, 121), rng.integers(80, 141)
        lines.append(f"formant {formant} {scale:.0f} {height} {width}")
    if rng.random() < 0.25:
        lines.append(f"klatt {rng.integers(1, 5)}")
    return "\n".join(lines) + "\n"
