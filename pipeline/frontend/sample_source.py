"""Samples in chunks, of a recording in a file or while it arrives on standard input.

Standard input is read as it comes: raw 16-bit samples, or WAV with 16-bit samples. Whatever else
comes there, and every file, is decoded as a whole first, by `audio.read_audio`.
"""

import contextlib
import sys
import wave
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

from pipeline.errors import AudioError
from pipeline.frontend.audio import NO_SIZE, decode_audio, read_audio
from pipeline.frontend.containers import truncated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

MAGIC = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3", b"NIST": "NIST SPHERE"}


def sample_chunks(
    source: str, *, chunk_ms: float, raw_rate: int = 0, channel: int = -1
) -> tuple[int, Iterator["Samples"]]:
    """The sample rate in Hz of a recording, and its samples on the scale of 16-bit integers.

    Args:
        source: a file, or ``-`` for standard input.
        chunk_ms: the length of a chunk, ``(S,)``, in ms.
        raw_rate: the sample rate of raw 16-bit samples, little endian; 0: there is a header.
        channel: see `audio.read_audio`; raw samples are one channel.

    Raises:
        AudioError: as `audio.read_audio`; raw samples begin as a file with a header.
    """
    if raw_rate:
        return raw_rate, _raw_chunks(source, _size(raw_rate, chunk_ms))
    if source == "-":
        return _from_stream(sys.stdin.buffer, chunk_ms, channel)
    samples, rate = read_audio(source, sample_rate=None, channel=channel)
    return rate, _cut(samples, _size(rate, chunk_ms))


def _size(rate: int, chunk_ms: float) -> int:
    return max(1, round(rate * chunk_ms / 1000.0))


def _cut(samples: "Samples", size: int) -> Iterator["Samples"]:
    for first in range(0, len(samples), size):
        yield samples[first : first + size]


@contextlib.contextmanager
def _opened(source: str) -> Iterator[BinaryIO]:
    """A file, which is closed in the end, or standard input, which is not."""
    if source == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = open(source, "rb")  # noqa: SIM115
    except OSError as error:
        raise AudioError(f"{source}: cannot read: {error.strerror}; copy it again") from error
    with stream:
        yield stream


def _read(stream: BinaryIO, size: int) -> bytes:
    """``size`` bytes, fewer only at the end."""
    data = bytearray()
    while len(data) < size and (piece := stream.read(size - len(data))):
        data += piece
    return bytes(data)


def _raw_chunks(name: str, size: int) -> Iterator["Samples"]:
    is_first = True
    with _opened(name) as stream:
        while data := _read(stream, 2 * size):
            if is_first:
                _refuse_header(data, name)
            if len(data) % 2:
                raise AudioError(f"{name}: ends within a sample of 16 bits; is it raw PCM?")
            is_first = False
            yield _samples(data)


def _refuse_header(data: bytes, name: str) -> None:
    for magic, kind in MAGIC.items():
        if data.startswith(magic):
            raise AudioError(
                f"{name}: begins as a {kind} file, not with raw samples; leave off --raw-rate"
            )


def _samples(data: bytes, channels: int = 1, channel: int = 0) -> "Samples":
    import numpy as np

    whole = np.frombuffer(data, "<i2").reshape(-1, channels)[:, channel]
    return whole.astype(np.float32)


class _Noted:
    """A stream that cannot go back, and all that was read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.data = stream, bytearray()
        self.read: Callable[[int], bytes] = self._noted

    def _noted(self, size: int) -> bytes:
        piece = _read(self.stream, size)
        self.data += piece
        return piece


def _from_stream(
    stream: BinaryIO, chunk_ms: float, channel: int
) -> tuple[int, Iterator["Samples"]]:
    noted = _Noted(stream)
    try:
        sound = wave.Wave_read(noted)  # type: ignore[arg-type]
        if sound.getsampwidth() != 2:
            raise wave.Error("decoded as a whole")
    except (wave.Error, EOFError):
        samples, rate = _decoded(bytes(noted.data) + stream.read(), channel)
        return rate, _cut(samples, _size(rate, chunk_ms))
    noted.read, noted.data = lambda size: _read(stream, size), bytearray()
    rate, channels = sound.getframerate(), sound.getnchannels()
    if channels > 1 and channel < 0:
        raise AudioError(
            f"-: has {channels} channels; choose one, such as --channel=0 for the left"
        )
    if channel >= channels:
        raise AudioError(f"-: has {channels} channel(s), so there is no --channel={channel}")
    return rate, _wave_chunks(sound, noted.read, _size(rate, chunk_ms), max(channel, 0))


def _decoded(data: bytes, channel: int) -> tuple["Samples", int]:
    try:
        return decode_audio(data, "-", sample_rate=None, channel=channel)
    except AudioError as error:
        if not data or data.startswith(tuple(MAGIC)):
            raise
        raise AudioError(f"{error}; or --raw-rate, if these are raw 16-bit samples") from error


def _wave_chunks(
    sound: wave.Wave_read, read: Callable[[int], bytes], size: int, channel: int
) -> Iterator["Samples"]:
    channels, stated, count = sound.getnchannels(), sound.getnframes(), 0
    while data := sound.readframes(size) if stated else read(2 * channels * size):
        samples = _samples(data[: len(data) // (2 * channels) * 2 * channels], channels, channel)
        count += len(samples)
        yield samples
    # A writer to a pipe does not know the length, and states the greatest, or none.
    if count < stated and 2 * channels * stated < NO_SIZE:
        truncated("-", f"{count} samples of {stated}")
