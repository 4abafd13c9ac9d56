"""Options of the commands that draw an utterance, as a dataclass: each field is an option."""

from dataclasses import dataclass

from pipeline.options import option


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """Options of the commands that draw one utterance."""

    text: str = option("", "rspecifier of the reference; empty: the model's best hypothesis")
    beam: int = option(10, "beam of the search for the model's best hypothesis")
    from_audio: bool = option(False, "read recordings (a wav.scp) and compute their features")
    resample: bool = option(False, "resample recordings of another rate than the model's")
    channel: int = option(-1, "channel to read, from 0; -1: recordings must have only one")
    cmvn: str = option(
        "", "rspecifier of CMVN statistics by speaker; empty: those of the model or the utterance"
    )
    utt2spk: str = option(
        "", "rspecifier of each utterance's speaker; empty: --cmvn is by utterance"
    )
    allow_pipes: bool = option(False, "run the commands of scp entries")
    title: str = option("", "title above the picture; empty: utterance and model")
