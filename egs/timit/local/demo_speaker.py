#!/usr/bin/env python3
"""Record one speaker of the demo corpus in a process of its own.

Usage: demo_speaker.py SEED NUM_TRAIN NUM_DEV NUM_TEST INDEX OUT_DIR

make_demo_corpus.py runs this program once for each speaker, because espeak-ng reproduces the same
samples only in a new process. The separate process also keeps its GPL code apart.

See also: make_demo_corpus.py
"""

import sys
from pathlib import Path

import numpy as np
from demo_phones import Segment, phone_segments
from demo_sentences import Sentence
from demo_voices import SpeakerPlan, plan_speakers

from pipeline.synth.acoustics import RATE, mix_babble, record, resample, sphere_bytes
from pipeline.synth.building import record_into
from pipeline.synth.espeak import RATE as VOICE_RATE
from pipeline.synth.espeak import Event, Speaker

_MARGIN_S = (0.090, 0.220)  # shortest and longest h# at both ends
_BABBLE_VOICES = 6
_BETWEEN_WORDS = ("pau", "epi")


def record_speaker(plan: SpeakerPlan, seed: int, directory: Path) -> None:
    """Write the WAV, PHN, WRD and TXT files of a speaker."""
    voice = plan.voice
    speaker = Speaker("en-us", voice.voice_file, words_per_minute=voice.words_per_minute)
    ratio = RATE / VOICE_RATE / voice.speed
    said = [speaker.say(sentence.spoken) for sentence in plan.prompts]
    babble = mix_babble([resample(samples, ratio) for samples, _ in said[:_BABBLE_VOICES]])
    speaker.close()
    for sentence, (samples, events) in zip(plan.prompts, said, strict=True):
        rng = np.random.default_rng([seed, 3, *voice.speaker.encode(), *sentence.name.encode()])
        segments = phone_segments(samples, events)
        margins = [int(rng.uniform(*_MARGIN_S) * RATE) for _ in range(2)]
        speech = np.pad(resample(samples, ratio), margins)
        wav = record(speech, voice.channel, babble[::-1], rng)
        phones = _phone_lines(segments, ratio, margins[0], len(wav))
        words = word_spans(sentence, events, segments)
        stem = directory / sentence.name
        stem.with_suffix(".WAV").write_bytes(sphere_bytes(wav))
        _write(stem.with_suffix(".PHN"), phones)
        _write(stem.with_suffix(".WRD"), _scaled(words, ratio, margins[0]))
        _write(stem.with_suffix(".TXT"), [(0, len(wav), " ".join(sentence.words))])


def _phone_lines(
    segments: list[Segment], ratio: float, margin: int, count: int
) -> list[tuple[int, int, str]]:
    """The phones in samples at 16 kHz, contiguous from 0 to ``count``, with h# at both ends."""
    spans = _scaled([(s.start, s.end, s.label) for s in segments], ratio, margin)
    spans = [span for span in spans if span[1] > span[0]]
    return [(0, spans[0][0], "h#"), *spans, (spans[-1][1], count, "h#")]


def _scaled(
    spans: list[tuple[float, float, str]], ratio: float, margin: int
) -> list[tuple[int, int, str]]:
    return [(margin + round(a * ratio), margin + round(b * ratio), name) for a, b, name in spans]


def word_spans(
    sentence: Sentence, events: list[Event], segments: list[Segment]
) -> list[tuple[float, float, str]]:
    """The start, the end and the lower-case spelling of each word; times are phone boundaries.

    espeak-ng reports one start for two words that it speaks as one (``of the``). Such words share
    the time evenly.
    """
    edges = np.array([s.start for s in segments] + [segments[-1].end])
    found: dict[int, int] = {0: 0}
    for event in events:
        if event.position >= 0:
            index = int(np.searchsorted(sentence.starts, event.position, side="right")) - 1
            found.setdefault(max(index, 0), int(np.abs(edges - event.sample).argmin()))
    known = sorted(found)
    count = len(sentence.words)
    places = np.interp(
        range(count + 1), [*known, count], [*(found[k] for k in known), len(segments)]
    )
    starts = [round(float(place)) for place in places]
    spans = []
    for index, word in enumerate(sentence.words):
        first, last = starts[index], max(starts[index] + 1, starts[index + 1])
        while last - first > 1 and segments[last - 1].label in _BETWEEN_WORDS:
            last -= 1
        while last - first > 1 and segments[first].label in _BETWEEN_WORDS:
            first += 1
        span = float(edges[first]), float(edges[min(last, len(segments))])
        spans.append((*span, word.strip(",.?").lower()))
    return spans


def _write(path: Path, lines: list[tuple[int, int, str]]) -> None:
    path.write_text("".join(f"{a} {b} {name}\n" for a, b, name in lines), encoding="ascii")


def main() -> int:
    """Record the speaker into OUT_DIR, which gets its name when it is complete."""
    seed, num_train, num_dev, num_test, index = map(int, sys.argv[1:6])
    plan = plan_speakers(seed, num_train, num_dev, num_test)[index]
    return record_into(Path(sys.argv[6]), lambda partial: record_speaker(plan, seed, partial))


if __name__ == "__main__":
    sys.exit(main())
