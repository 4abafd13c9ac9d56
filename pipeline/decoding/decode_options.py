"""What a decode command can be told: one dataclass, its fields the command's options."""

from dataclasses import dataclass

from pipeline.options import option


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Options of `pipeline.decoding.recogniser.Recogniser`."""

    beam: int = option(10, "hypotheses kept after each frame, W; 1: greedy")
    length_normalise: bool = option(False, "sort by score / |y| [G12], not by score [G13]")
    max_tokens_per_frame: int = option(10, "tokens that a frame may add; transducers only")
    prefix_search: bool = option(False, "CTC: prefix search of [G12] in place of the beam")
    prefix_threshold: float = option(0.995, "of prefix search: cut where Pr(blank) is above")
    lm: str = option("", "language model: an ARPA file, or a directory of train_predictor.py")
    lm_weight: float = option(0.3, "of log P(y) by --lm")
    insertion_bonus: float = option(0.0, "added to a hypothesis' score for each token")


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(SearchOptions):
    """Options of `pipeline.decoding.decode_table.decode_table`."""

    nbest: int = option(10, "hypotheses an utterance in --write-nbest")
    write_nbest: str = option("", "wspecifier of UTT-1 score log-probability score/|y| tokens …")
    write_ctm: str = option("", "file of UTT 1 start duration token confidence, times in s")
    write_speed: str = option("", "file of a line of JSON: frames decoded, seconds that they took")
    from_audio: bool = option(False, "read recordings, a wav.scp, through the model's front end")
    channel: int = option(-1, "of recordings with several; -1: only one allowed")
    resume: bool = option(False, "go on where a run that was stopped had come to")
    cmvn: str = option("", "rspecifier of speakers' statistics, for models of --cmvn=speaker")
    utt2spk: str = option("", "rspecifier of each utterance's speaker; empty: --cmvn by utterance")
    allow_pipes: bool = option(False, "run commands that an scp file names")
    device: str = option("auto", "cpu, cuda or auto")
    threads: int = option(1, "utterances that are decoded at a time")
