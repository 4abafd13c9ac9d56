"""Reading recordings: WAV, FLAC, Ogg Opus, Ogg Vorbis, MP3 and NIST SPHERE, without a pipe.

libsndfile decodes the recordings. Faults that it does not report are found here: a SPHERE or RIFF
file that is shorter than its header states, an Ogg stream without its last page, NaN samples, and a
sample rate other than that of the features. Samples are on Kaldi's scale, which is that of 16-bit
integers; 16-bit recordings are reproduced exactly.
"""

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from pipeline.errors import AudioError, TableError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples: TypeAlias = NDArray[np.float32]

INT16_SCALE = 32768.0
STREAMING_SIZES = (0, 0x7FFFF000, 0xFFFFFFFF)  # sizes in RIFF headers that were written to a pipe
BLOCK = 1 << 20  # samples to decode at a time
UNKNOWN_LENGTH = 1 << 62  # libsndfile reports more samples than this for FLAC without a length


def read_audio(
    rxfilename: str, *, sample_rate: int | None, channel: int = -1, allow_pipes: bool = False
) -> tuple["Samples", int]:
    """Read one channel of a recording.

    Args:
        rxfilename: a file, ``-`` for stdin, ``file:OFFSET`` into a wav archive, or ``command |``.
        sample_rate: the sample rate in Hz that the recording must have; None accepts any rate.
        channel: the channel to read, from 0; -1 requires a recording of one channel.
        allow_pipes: whether ``command |`` may be run.

    Returns:
        float32 samples ``(S,)`` between -32768 and 32767, and the sample rate in Hz.

    Raises:
        AudioError: the file is missing, truncated, empty, not audio, or compressed with shorten; it
            has another sample rate or several channels, or holds NaN or infinite samples.
    """
    data = _load(rxfilename, allow_pipes=allow_pipes)
    return decode_audio(data, rxfilename, sample_rate=sample_rate, channel=channel)


def audio_duration_s(path: str) -> float:
    """The duration of a recording in seconds, according to its header.

    Raises:
        AudioError: as for ``read_audio``, as far as the header shows it.
    """
    sound, frames = _open(_load(path, allow_pipes=False), path)
    with sound:
        return float(frames / sound.samplerate)


def decode_audio(
    data: bytes, name: str, *, sample_rate: int | None, channel: int = -1
) -> tuple["Samples", int]:
    """Like ``read_audio``, for a recording in memory; error messages call it ``name``."""
    import numpy as np

    sound, frames = _open(data, name)
    with sound:
        rate = int(sound.samplerate)
        if sample_rate is not None and rate != sample_rate:
            raise AudioError(
                f"{name}: has a sample rate of {rate} Hz, but --sample-frequency is {sample_rate}; "
                f"resample it, e.g. sox IN -r {sample_rate} OUT, or change the option"
            )
        _check_channel(sound.channels, channel, name)
        samples = _decode(sound, frames, name)[:, max(channel, 0)] * np.float32(INT16_SCALE)
    if len(samples) == 0:
        raise AudioError(f"{name}: holds no samples; record it again or leave it out")
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: holds NaN or infinite samples; convert it again")
    return samples, rate


@dataclass(frozen=True)
class Recording:
    """An entry of a wav table that was not read yet; error messages call it ``name``."""

    name: str
    load: Callable[[], bytes]

    def read(self, *, sample_rate: int | None, channel: int = -1) -> tuple["Samples", int]:
        """The samples and the sample rate in Hz; see ``read_audio``."""
        return decode_audio(self.load(), self.name, sample_rate=sample_rate, channel=channel)


class WavReader:
    """Iterate over a wav table as ``(key, Recording)``, with one recording in memory at a time.

    A wav table is ``scp:`` with file names, or ``ark:`` with RIFF files, as Kaldi's wav-copy and
    extract-segments write it.

    Raises:
        TableError: the table is damaged. A bad recording raises AudioError only when it is read.
    """

    def __init__(self, rspecifier: str, *, allow_pipes: bool = False) -> None:
        from pipeline.tables import parse_rspecifier

        self._rspecifier, self._allow_pipes = rspecifier, allow_pipes
        self._parsed = parse_rspecifier(rspecifier)
        self.permissive = self._parsed.permissive

    def __iter__(self) -> Iterator[tuple[str, Recording]]:
        return self._from_scp() if self._parsed.kind == "scp" else self._from_archive()

    def _from_scp(self) -> Iterator[tuple[str, Recording]]:
        from pipeline.tables import ScpReader

        for key, rxfilename in ScpReader(self._rspecifier):
            load = partial(_load, rxfilename, allow_pipes=self._allow_pipes)
            yield key, Recording(rxfilename, load)

    def _from_archive(self) -> Iterator[tuple[str, Recording]]:
        from pipeline.tables import open_input

        archive = self._parsed.rxfilename
        with open_input(archive) as stream:
            while key := _read_key(stream, archive):
                name = f"{archive}: {key}"
                yield key, Recording(name, partial(bytes, _read_riff(stream, name)))


def wave_bytes(samples: "Samples", rate: int) -> bytes:
    """The bytes of a 16-bit RIFF file with one channel, the form of recordings in Kaldi's archives.

    Args:
        samples: (S,), on the scale of 16-bit integers, to which they are rounded and clipped.
        rate: the sample rate in Hz.
    """
    import numpy as np
    import soundfile

    buffer = io.BytesIO()
    whole = np.clip(np.rint(samples), -INT16_SCALE, INT16_SCALE - 1).astype(np.int16)
    soundfile.write(buffer, whole, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


# ---- bytes -------------------------------------------------------------------------------------


def _load(rxfilename: str, *, allow_pipes: bool) -> bytes:
    from pipeline.tables import open_input
    from pipeline.tables.specifiers import split_offset

    try:
        with open_input(rxfilename, allow_pipes=allow_pipes) as stream:
            if split_offset(rxfilename)[1] is not None:  # in an archive, other recordings follow
                return _read_riff(stream, rxfilename)
            return stream.read()
    except TableError as error:
        raise AudioError(str(error)) from error
    except OSError as error:
        raise AudioError(f"{rxfilename}: cannot read: {error.strerror}; copy it again") from error


def _read_key(stream: BinaryIO, archive: str) -> str:
    """Read the key of the next entry; the empty text at the end."""
    key = bytearray()
    while (byte := stream.read(1)) not in (b" ", b"\t", b""):
        key += byte
        if len(key) > 4096:
            raise TableError(f"{archive}: a key is missing; is this an archive of wav files?")
    if key and not byte:
        raise TableError(f"{archive}: ends after the key {bytes(key)!r}; it is truncated")
    return key.decode(errors="replace")


def _read_riff(stream: BinaryIO, name: str) -> bytes:
    """Read one RIFF file from a stream that may hold more."""
    head = stream.read(8)
    size = int.from_bytes(head[4:8], "little")
    if head[:4] != b"RIFF" or size in STREAMING_SIZES:
        raise TableError(
            f"{name}: not a RIFF file with its length in the header; make the archive with "
            "wav-copy or extract-segments"
        )
    body = stream.read(size)
    if len(body) < size:
        raise TableError(
            f"{name}: has {len(body)} of {size} bytes; the archive is truncated: make it again"
        )
    return head + body


# ---- headers -----------------------------------------------------------------------------------


def _open(data: bytes, name: str) -> tuple[Any, int]:
    """The opened soundfile.SoundFile, and the number of samples per channel to read from it."""
    import soundfile

    if not data:
        raise AudioError(f"{name}: empty file; record it again or leave it out")
    sample_count = None
    if data.startswith(b"NIST_1A"):
        sample_count = _check_sphere(data, name)
    elif data.startswith((b"RIFF", b"RIFX")):
        data = _check_riff(data, name)
    elif data.startswith(b"OggS"):
        _check_ogg(data, name)
    try:
        sound = soundfile.SoundFile(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{name}: cannot be read as audio ({error.error_string.rstrip('.')}); "
            "give WAV, FLAC, Ogg Opus, Ogg Vorbis, MP3 or NIST SPHERE"
        ) from error
    if sound.frames > UNKNOWN_LENGTH:
        raise AudioError(
            f"{name}: the FLAC header states no length, as after writing to a pipe; "
            "encode to a file, or pipe WAV instead"
        )
    return sound, sound.frames if sample_count is None else sample_count


def _check_channel(channels: int, channel: int, name: str) -> None:
    if channel < 0 and channels > 1:
        raise AudioError(
            f"{name}: has {channels} channels; choose one, such as --channel=0 for the left"
        )
    if channel >= channels:
        raise AudioError(
            f"{name}: has {channels} channel(s), so there is no --channel={channel}; "
            f"the last is {channels - 1}"
        )


def _decode(sound: Any, frames: int, name: str) -> "NDArray[np.float32]":
    """Samples ``(frames, channels)`` between -1 and 1."""
    import numpy as np
    import soundfile

    blocks, count = [], 0
    try:
        while count < frames:
            block = sound.read(min(BLOCK, frames - count), dtype="float32", always_2d=True)
            if len(block) == 0:
                break
            blocks.append(block)
            count += len(block)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{name}: cannot be read beyond {count / sound.samplerate:.2f} s "
            f"({error.error_string.rstrip('.')}); it is truncated or damaged: copy it again"
        ) from error
    if count < frames:
        raise _truncated(name, f"{count} samples of {frames}")
    return np.concatenate(blocks) if blocks else np.zeros((0, sound.channels), np.float32)


def _truncated(name: str, what: str) -> AudioError:
    return AudioError(f"{name}: truncated, {what}; copy it again")


def _check_sphere(data: bytes, name: str) -> int | None:
    """Check a NIST SPHERE file; returns the sample_count of its header, or None if it has none."""
    size = data[8:16].strip()
    header = data[: int(size) if size.isdigit() else 0].decode("latin-1")
    fields = dict(re.findall(r"^(\w+) -\w+ (.*?)\s*$", header, flags=re.MULTILINE))
    if "end_head" not in header:
        raise AudioError(f"{name}: the SPHERE header is incomplete; copy the file again")
    coding = fields.get("sample_coding", "pcm")
    if "," in coding:  # e.g. pcm,embedded-shorten-v2.00
        raise AudioError(
            f"{name}: the SPHERE file is compressed with {coding.partition(',')[2]}; "
            "convert it first: sph2pipe -f wav IN OUT (sox cannot read it)"
        )
    numbers = {key: int(value) for key, value in fields.items() if value.isdigit()}
    if "sample_count" not in numbers:
        return None
    count = numbers["sample_count"]
    bytes_each = numbers.get("sample_n_bytes", 2) * numbers.get("channel_count", 1)
    present = len(data) - len(header)
    if present < count * bytes_each:
        raise _truncated(name, f"{present} bytes of audio for {count} samples")
    return count


def _check_riff(data: bytes, name: str) -> bytes:
    """Check a RIFF file; returns ``data``, with sizes filled in if it was written to a pipe."""
    order: Any = "little" if data[:4] == b"RIFF" else "big"
    riff_size = int.from_bytes(data[4:8], order)
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], order)
        left = len(data) - at - 8
        if data[at : at + 4] != b"data":
            at += 8 + size + size % 2
            continue
        if size in STREAMING_SIZES and riff_size + 8 != len(data):
            whole = left.to_bytes(4, order)
            total = (len(data) - 8).to_bytes(4, order)
            return data[:4] + total + data[8 : at + 4] + whole + data[at + 8 :]
        if size > left:
            raise _truncated(name, f"{left} bytes of audio of the {size} in its header")
        return data
    raise _truncated(name, "no audio follows its header")


def _check_ogg(data: bytes, name: str) -> None:
    """Check that the last Ogg page is complete and marked as the end of the stream (RFC 3533)."""
    at, last = 0, False
    while data[at : at + 4] == b"OggS" and at + 27 <= len(data):
        segments = data[at + 26]
        last = bool(data[at + 5] & 4)
        at += 27 + segments + sum(data[at + 27 : at + 27 + segments])
    if at > len(data) or not last:
        raise _truncated(name, "its last Ogg page is missing")
