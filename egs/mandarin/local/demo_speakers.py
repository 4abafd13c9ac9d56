"""The speakers of the Mandarin demo corpus: voices, sentences and sets."""

from dataclasses import dataclass
from pathlib import Path

from demo_sentences import draw_sentences

from pipeline.errors import PhoneError
from pipeline.plain_text import read_lines
from pipeline.synth.voices import Voice, draw_voice
from pipeline.text.mandarin import characters

SETS = ("train", "dev", "test")


@dataclass(frozen=True)
class SpeakerPlan:
    """Everything that determines the recordings of a speaker.

    Attributes:
        voice: the voice, with the speaker's name.
        set: train, dev or test.
        sentences: the name of each recording, and its sentence.
    """

    voice: Voice
    set: str
    sentences: dict[str, str]


def plan_speakers(
    seed: int, counts: tuple[int, ...], per_speaker: int, text: str = ""
) -> list[SpeakerPlan]:
    """All speakers: those of train, then those of dev and of test.

    Args:
        seed: the seed of voices and sentences.
        counts: the numbers of speakers of train, dev and test.
        per_speaker: the number of sentences of a speaker.
        text: a file with a sentence a line in place of made-up ones; empty: made-up ones.
    """
    total = sum(counts) * per_speaker
    lines = read_sentences(text, total) if text else draw_sentences(seed, total)
    sets = [name for name, count in zip(SETS, counts, strict=True) for _ in range(count)]
    plans = []
    for index, name in enumerate(sets):
        voice = draw_voice(seed, index)
        own = lines[index * per_speaker : (index + 1) * per_speaker]
        said = {f"{voice.speaker}-{n:02}": line for n, line in enumerate(own, start=1)}
        plans.append(SpeakerPlan(voice, name, said))
    return plans


def read_sentences(path: str, count: int) -> list[str]:
    """The first ``count`` lines of a file.

    Raises:
        PhoneError: a line is not Mandarin, see `characters`, or there are too few lines.
    """
    try:
        lines = read_lines(Path(path), PhoneError)
    except OSError as error:
        raise PhoneError(f"{path}: {error.strerror}; give a text with a sentence a line") from error
    for number, line in enumerate(lines, start=1):
        characters(line, f"{path}:{number}")
    if len(lines) < count:
        raise PhoneError(
            f"{path}: has {len(lines)} lines, but the speakers need {count}; give more lines, or "
            "fewer speakers or sentences by --size and --per-speaker"
        )
    return [line.strip() for line in lines[:count]]
