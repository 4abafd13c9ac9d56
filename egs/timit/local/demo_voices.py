"""The speakers of the demo corpus: their voices and sentences, and where they stand in TIMIT."""

from dataclasses import dataclass

from demo_sentences import Sentence, make_prompts

from pipeline.synth.voices import Voice, draw_voice


@dataclass(frozen=True)
class SpeakerPlan:
    """Everything that determines the ten recordings of a speaker.

    Attributes:
        voice: the voice, with the speaker's name.
        dialect: 1 to 8, which only determines the directory.
        use: TRN or TST, as in SPKRINFO.TXT of TIMIT.
        part: train, dev or test.
        prompts: the sentences.
    """

    voice: Voice
    dialect: int
    use: str
    part: str
    prompts: tuple[Sentence, ...]

    @property
    def directory(self) -> str:
        """The directory of the recordings, relative to the root of the corpus."""
        top = "TRAIN" if self.use == "TRN" else "TEST"
        return f"{top}/DR{self.dialect}/{self.voice.speaker}"


def plan_speakers(seed: int, num_train: int, num_dev: int, num_test: int) -> list[SpeakerPlan]:
    """All speakers: those of TRAIN, then those of the development set and of the test set."""
    train_prompts, test_prompts = make_prompts(seed, num_train, num_dev + num_test)
    parts = ["train"] * num_train + ["dev"] * num_dev + ["test"] * num_test
    prompts = train_prompts + test_prompts
    return [
        SpeakerPlan(
            voice=draw_voice(seed, index),
            dialect=index // 2 % 8 + 1,
            use="TRN" if part == "train" else "TST",
            part=part,
            prompts=tuple(prompts[index]),
        )
        for index, part in enumerate(parts)
    ]
