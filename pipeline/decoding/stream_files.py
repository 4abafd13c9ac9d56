"""Recognition of recordings in chunks, for ``recognize.py --stream``."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

import numpy as np

from pipeline.decoding.recogniser import Recognition
from pipeline.decoding.stream_options import StreamOptions
from pipeline.decoding.streaming import StreamingRecogniser
from pipeline.errors import DataError
from pipeline.frontend.sample_source import sample_chunks

SHOWN = 40  # tokens of a partial result that are printed, from the last one back


class _Interrupts:
    """Ctrl-C ends the reading of samples, but leaves a chunk's recognition whole."""

    def __init__(self) -> None:
        self.is_reading = self.has_come = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.has_come = True
        if self.is_reading:
            raise KeyboardInterrupt

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle Ctrl-C like this within."""
        before = signal.signal(signal.SIGINT, self)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Ctrl-C interrupts what is done within."""
        try:
            self.is_reading = True
            yield
        finally:
            self.is_reading = False

    def next(self, chunks: Iterator[np.ndarray]) -> np.ndarray | None:
        """The next chunk; None at the end and after Ctrl-C."""
        try:
            with self.reading():
                return None if self.has_come else next(chunks, None)
        except KeyboardInterrupt:
            return None


def recognise_stream(
    recogniser: StreamingRecogniser,
    source: str,
    options: StreamOptions,
    *,
    channel: int = -1,
    resampled: bool = False,
    report: TextIO | None = None,
) -> tuple[Recognition, bool]:
    """Recognise a recording that is read in chunks.

    A line ``PARTIAL``, a tab, the source, a tab and the last tokens is reported after each chunk
    that changed them.

    Args:
        recogniser: the model with its search.
        source: a file, or ``-`` for standard input.
        options: how it is read.
        channel: the channel to read, from 0; -1: the recording must have only one.
        resampled: whether a recording of another sample rate is resampled.
        report: where partial results go; None: standard error.

    Returns:
        The hypotheses, and whether Ctrl-C ended the recording.

    Raises:
        AudioError, FeatureError: the recording cannot be read, or is shorter than a frame.
        KeyboardInterrupt: Ctrl-C came before a frame was heard.
    """
    report, interrupts = report or sys.stderr, _Interrupts()
    with interrupts.handled():
        with interrupts.reading():  # of the header, which may never come
            rate, chunks = sample_chunks(
                source, chunk_ms=options.chunk_ms, raw_rate=options.raw_rate, channel=channel
            )
        stream = recogniser.start(rate, resampled=resampled, name=source)
        before: tuple[int, ...] = ()
        while (samples := interrupts.next(chunks)) is not None:
            stream.accept_waveform(samples)
            recogniser.advance([stream])
            partial = stream.partial_result()
            if partial.tokens != before:
                before = partial.tokens
                last = partial._replace(tokens=before[-SHOWN:])
                more = "… " if len(before) > SHOWN else ""
                print("PARTIAL", source, more + recogniser.symbols(last), sep="\t", file=report)
        try:
            return stream.finish(), interrupts.has_come
        except DataError:
            if interrupts.has_come:
                raise KeyboardInterrupt from None
            raise
