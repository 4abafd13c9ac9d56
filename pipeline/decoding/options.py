"""What a decode command can be told: one dataclass, its fields the command's options."""

from dataclasses import dataclass, field
from typing import Any


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """Options of `pipeline.decoding.tables.decode_table`."""

    beam: int = _option(10, "hypotheses kept after each frame, W; 1: greedy")
    nbest: int = _option(10, "hypotheses an utterance in --write-nbest")
    write_nbest: str = _option("", "wspecifier of the n-best: UTT-1 log-probability tokens …")
    allow_pipes: bool = _option(False, "run commands that an scp file names")
    device: str = _option("auto", "cpu, cuda or auto")
    threads: int = _option(1, "CPU threads")
