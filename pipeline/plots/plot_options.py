"""What a command that draws an utterance can be told: the fields are its options."""

from dataclasses import dataclass

from pipeline.options import option


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """Options of the commands that draw one utterance."""

    text: str = option("", "rspecifier of the reference; empty: what the model hears is taken")
    beam: int = option(10, "of the search for what the model hears")
    from_audio: bool = option(False, "read recordings, a wav.scp, through the model's front end")
    channel: int = option(-1, "of recordings with several; -1: only one allowed")
    cmvn: str = option("", "rspecifier of speakers' statistics, for models of --cmvn=speaker")
    utt2spk: str = option("", "rspecifier of each utterance's speaker; empty: --cmvn by utterance")
    allow_pipes: bool = option(False, "run commands that an scp file names")
    title: str = option("", "above the picture; empty: utterance and model")
