#!/usr/bin/env python3
"""Record one speaker of the Mandarin demo corpus in a process of its own.

Usage: demo_speaker.py SEED TRAIN,DEV,TEST PER_SPEAKER TEXT INDEX OUT_DIR

make_demo_corpus.py runs this program once for each speaker, because espeak-ng reproduces the same
samples only in a new process. The separate process also keeps its GPL code apart.

See also: make_demo_corpus.py
"""

import sys
from pathlib import Path

import numpy as np
from demo_speakers import SpeakerPlan, plan_speakers

from pipeline.frontend.audio import wave_bytes
from pipeline.synth.acoustics import RATE, mix_babble, record, resample
from pipeline.synth.building import record_into
from pipeline.synth.espeak import RATE as VOICE_RATE
from pipeline.synth.espeak import Speaker
from pipeline.text.mandarin import characters

_MARGIN_S = (0.090, 0.220)  # shortest and longest silence at both ends
_BABBLE_VOICES = 6


def record_speaker(plan: SpeakerPlan, seed: int, directory: Path) -> None:
    """Write the WAV files of a speaker."""
    voice = plan.voice
    speaker = Speaker("cmn", voice.voice_file, words_per_minute=voice.words_per_minute)
    ratio = RATE / VOICE_RATE / voice.speed
    said: dict[str, np.ndarray] = {}
    for name, text in plan.sentences.items():
        characters(text, name)  # a Latin letter would switch the voice to English
        said[name] = resample(speaker.say(text)[0], ratio)
    speaker.close()
    babble = mix_babble(list(said.values())[:_BABBLE_VOICES])
    for name, speech in said.items():
        rng = np.random.default_rng([seed, 3, *name.encode()])
        margins = [int(rng.uniform(*_MARGIN_S) * RATE) for _ in range(2)]
        wav = record(np.pad(speech, margins), voice.channel, babble[::-1], rng)
        (directory / f"{name}.wav").write_bytes(wave_bytes(wav.astype(np.float32), RATE))


def main() -> int:
    """Record the speaker into OUT_DIR, which gets its name when it is complete."""
    seed, sizes, per_speaker, text, index, target = sys.argv[1:7]
    counts = tuple(int(size) for size in sizes.split(","))
    plan = plan_speakers(int(seed), counts, int(per_speaker), text)[int(index)]
    return record_into(Path(target), lambda partial: record_speaker(plan, int(seed), partial))


if __name__ == "__main__":
    sys.exit(main())
