"""Decode a table of features into a table of hypotheses."""

import contextlib
import time
from collections.abc import Callable
from typing import Protocol

import torch

from pipeline.decoding.options import DecodeOptions
from pipeline.decoding.recogniser import Recogniser, decode
from pipeline.errors import DataError, UsageError
from pipeline.features import CmvnStats
from pipeline.kernels.transducer_search import Hypothesis
from pipeline.model_dir import ModelDir
from pipeline.tables import MatrixReader, TextReader, TextWriter
from pipeline.training.setup import choose_device


class Counter(Protocol):
    """Who is told what went well and what did not."""

    def ok(self, count: int = 1) -> None:
        """Count successes."""

    def fail(self, key: str, error: object) -> None:
        """Count a failure."""

    def require_some(self) -> None:
        """Raise DataError if nothing was done."""


def decode_table(
    directory: ModelDir,
    rspecifier: str,
    wspecifier: str,
    options: DecodeOptions,
    counter: Counter,
    *,
    length_normalise: bool = False,
) -> str:
    """Decode every utterance of a table, in its order; returns a word on the speed.

    An utterance that cannot be decoded is told to ``counter`` and left out.

    Raises:
        UsageError: an option is out of its range.
        PipelineError: the model or a table cannot be used.
    """
    if options.nbest < 1 or options.threads < 1:
        raise UsageError("--nbest and --threads must be 1 or more")
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    recogniser = Recogniser(
        directory,
        choose_device(options.device),
        beam=options.beam,
        length_normalise=length_normalise,
    )
    started, frames = time.monotonic(), 0
    reader = MatrixReader(rspecifier, allow_pipes=options.allow_pipes)
    with contextlib.ExitStack() as stack:
        hyps = stack.enter_context(TextWriter(wspecifier))
        nbest = None
        if options.write_nbest:
            nbest = stack.enter_context(TextWriter(options.write_nbest))
        for utt_id, length, result in decode(recogniser, reader, _cmvn_of(directory, options)):
            frames += length
            if isinstance(result, DataError):
                counter.fail(utt_id, str(result).removeprefix(f"{utt_id}: "))
                continue
            hyps.write(utt_id, recogniser.symbols(result[0]))
            if nbest is not None:
                _write_nbest(nbest, utt_id, result[: options.nbest], recogniser)
            counter.ok()
        counter.require_some()
    for _ in range(reader.skipped):
        counter.fail("an entry of the table", "not readable, skipped")
    seconds = time.monotonic() - started
    return f"{frames} frames in {seconds:.1f} s"


def _cmvn_of(directory: ModelDir, options: DecodeOptions) -> Callable[[str], CmvnStats | None]:
    """From an utterance to its speaker's statistics."""
    if not directory.by_speaker:
        return lambda utt_id: None
    if not options.cmvn:
        raise UsageError(
            f"{directory.path} normalises by speaker: give --cmvn=scp:DATA_DIR/cmvn.scp "
            "--utt2spk=ark:DATA_DIR/utt2spk"
        )
    pipes = options.allow_pipes
    stats = {key: CmvnStats(m) for key, m in MatrixReader(options.cmvn, allow_pipes=pipes)}
    speaker_of = dict(TextReader(options.utt2spk)) if options.utt2spk else {u: u for u in stats}

    def find(utt_id: str) -> CmvnStats:
        if speaker_of.get(utt_id) not in stats:
            raise DataError(f"{utt_id}: no statistics of its speaker in {options.cmvn}")
        return stats[speaker_of[utt_id]]

    return find


def _write_nbest(
    writer: TextWriter, utt_id: str, hyps: list[Hypothesis], recogniser: Recogniser
) -> None:
    for rank, hyp in enumerate(hyps, start=1):
        writer.write(f"{utt_id}-{rank}", f"{hyp.log_prob:.4f} {recogniser.symbols(hyp)}".rstrip())
