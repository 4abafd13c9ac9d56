"""Decode a table of features into a table of hypotheses."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from pipeline.decoding.recogniser import Recogniser, decode
from pipeline.errors import DataError
from pipeline.kernels.transducer_search import Hypothesis
from pipeline.model_dir import ModelDir
from pipeline.tables import MatrixReader, TextWriter
from pipeline.training.setup import choose_device


class Counter(Protocol):
    """Who is told what went well and what did not."""

    def ok(self, count: int = 1) -> None:
        """Count successes."""

    def fail(self, key: str, error: object) -> None:
        """Count a failure."""

    def require_some(self) -> None:
        """Raise DataError if nothing was done."""


@dataclass(frozen=True, kw_only=True)
class DecodeArguments:
    """What a decode command is told."""

    kind: str
    model_dir: Path
    rspecifier: str
    wspecifier: str
    beam: int
    nbest: int
    nbest_wspecifier: str
    device: str
    threads: int
    length_normalise: bool = False
    allow_pipes: bool = False


def decode_table(arguments: DecodeArguments, counter: Counter) -> str:
    """Decode every utterance of a table, in its order; returns a word on the speed.

    An utterance that cannot be decoded is told to ``counter`` and left out.
    """
    torch.set_num_threads(max(1, arguments.threads))
    torch.set_flush_denormal(True)
    recogniser = Recogniser(
        ModelDir.open(arguments.model_dir, kind=arguments.kind),
        choose_device(arguments.device),
        beam=arguments.beam,
        length_normalise=arguments.length_normalise,
    )
    started, frames = time.monotonic(), 0
    reader = MatrixReader(arguments.rspecifier, allow_pipes=arguments.allow_pipes)
    with contextlib.ExitStack() as stack:
        hyps = stack.enter_context(TextWriter(arguments.wspecifier))
        nbest = None
        if arguments.nbest_wspecifier:
            nbest = stack.enter_context(TextWriter(arguments.nbest_wspecifier))
        for utt_id, length, result in decode(recogniser, reader):
            frames += length
            if isinstance(result, DataError):
                counter.fail(utt_id, str(result).removeprefix(f"{utt_id}: "))
                continue
            hyps.write(utt_id, recogniser.symbols(result[0]))
            if nbest is not None:
                _write_nbest(nbest, utt_id, result[: arguments.nbest], recogniser)
            counter.ok()
        counter.require_some()
    for _ in range(reader.skipped):
        counter.fail("an entry of the table", "not readable, skipped")
    seconds = time.monotonic() - started
    return f"{frames} frames in {seconds:.1f} s"


def _write_nbest(
    writer: TextWriter, utt_id: str, hyps: list[Hypothesis], recogniser: Recogniser
) -> None:
    for rank, hyp in enumerate(hyps, start=1):
        writer.write(f"{utt_id}-{rank}", f"{hyp.log_prob:.4f} {recogniser.symbols(hyp)}".rstrip())
