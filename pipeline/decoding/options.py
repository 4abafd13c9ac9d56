"""What a decode command can be told: one dataclass, its fields the command's options."""

from dataclasses import dataclass

from pipeline.feature_options import option


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """Options of `pipeline.decoding.tables.decode_table`."""

    beam: int = option(10, "hypotheses kept after each frame, W; 1: greedy")
    nbest: int = option(10, "hypotheses an utterance in --write-nbest")
    write_nbest: str = option("", "wspecifier of the n-best: UTT-1 log-probability tokens …")
    cmvn: str = option("", "rspecifier of speakers' statistics, for models of --cmvn=speaker")
    utt2spk: str = option("", "rspecifier of each utterance's speaker; empty: --cmvn by utterance")
    allow_pipes: bool = option(False, "run commands that an scp file names")
    device: str = option("auto", "cpu, cuda or auto")
    threads: int = option(1, "CPU threads")
