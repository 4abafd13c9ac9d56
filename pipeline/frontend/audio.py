"""Reading recordings: WAV, FLAC, Ogg Opus, Ogg Vorbis, MP3 and NIST SPHERE, without a pipe.

libsndfile decodes the recordings, and ffmpeg, if it is installed, what libsndfile cannot read.
Faults that they do not report are found here: a file that is shorter than its header states, an Ogg
stream without its last page (see `containers`), NaN samples, and a sample rate other than the one
that is wanted. Samples are on Kaldi's scale, which is that of 16-bit integers; 16-bit recordings
are reproduced exactly.
"""

import io
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from pipeline.errors import AudioError, SpecifierError, TableError
from pipeline.frontend.containers import check_container, truncated
from pipeline.frontend.ffmpeg import decode_by_ffmpeg, find_ffmpeg

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples: TypeAlias = NDArray[np.float32]

INT16_SCALE = 32768.0
KNOWN_FORMATS = "WAV, FLAC, Ogg Opus, Ogg Vorbis, MP3 or NIST SPHERE"
NO_SIZE = 0x7FFFF000 - 4096  # bytes; from here on a size may be that of a writer to a pipe
PIECE = 1 << 24  # bytes to read at a time
NOT_KNOWN = (1, 4)  # libsndfile's numbers of errors: a format or coding that it does not know
BLOCK = 1 << 20  # samples to decode at a time
UNKNOWN_LENGTH = 1 << 62  # libsndfile reports more samples than this for FLAC without a length


def read_audio(
    rxfilename: str,
    *,
    sample_rate: int | None,
    channel: int = -1,
    allow_pipes: bool = False,
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
    data: bytes,
    name: str,
    *,
    sample_rate: int | None,
    channel: int = -1,
) -> tuple["Samples", int]:
    """Like ``read_audio``, for a recording in memory; error messages call it ``name``."""
    import numpy as np

    sound, frames = _open(data, name)
    with sound:
        rate = int(sound.samplerate)
        if sample_rate is not None and rate != sample_rate:
            raise AudioError(
                f"{name}: has a sample rate of {rate} Hz, but --sample-frequency is {sample_rate}; "
                f"resample it, e.g. sox IN -r {sample_rate} OUT, give --resample=true, or change "
                "the option"
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
    from pipeline.tables.specifiers import is_read_pipe, split_offset

    try:
        if not is_read_pipe(rxfilename):
            _require_file(split_offset(rxfilename)[0])
        with open_input(rxfilename, allow_pipes=allow_pipes) as stream:
            if split_offset(rxfilename)[1] is not None:  # in an archive, other recordings follow
                return _read_riff(stream, rxfilename)
            return stream.read()
    except (SpecifierError, TableError) as error:
        raise AudioError(str(error)) from error
    except OSError as error:
        raise AudioError(f"{rxfilename}: cannot read: {error.strerror}; copy it again") from error


def _require_file(path: str) -> None:
    """Raise AudioError for a device or a FIFO, which may never end, unless a shell made it."""
    if path.startswith(("/dev/fd/", "/dev/stdin", "/proc/")):
        return
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return  # reading it says what is wrong
    kinds = ((stat.S_ISFIFO, "a FIFO"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))
    for holds, kind in kinds:
        if holds(mode):
            what = f"{path}: is {kind}, not a file with a recording"
            raise AudioError(f'{what}; name a file, or a command such as "cat {path} |"')


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
    body = bytearray()
    if head[:4] == b"RIFF" and size not in (0, 0xFFFFFFFF):
        while len(body) < size and (piece := stream.read(min(PIECE, size - len(body)))):
            body += piece
    if not body or (len(body) < size and size >= NO_SIZE):
        raise TableError(
            f"{name}: not a RIFF file with its length in the header; make the archive with "
            "wav-copy or extract-segments"
        )
    if len(body) < size:
        raise TableError(
            f"{name}: has {len(body)} of {size} bytes; the archive is truncated: make it again"
        )
    return head + body


# ---- headers -----------------------------------------------------------------------------------


def _open(data: bytes, name: str) -> tuple[Any, int]:
    """The opened soundfile.SoundFile, and the number of samples per channel to read from it."""
    data, sample_count = check_container(data, name)
    sound = _sound_file(data, name)
    if sound.frames > UNKNOWN_LENGTH:
        raise AudioError(
            f"{name}: the FLAC header states no length, as after writing to a pipe; "
            "encode to a file, or pipe WAV instead"
        )
    if sound.samplerate <= 0:
        sound.close()
        raise AudioError(f"{name}: its header states no sample rate; convert it again")
    return sound, sound.frames if sample_count is None else sample_count


class _Bytes(io.BytesIO):
    """Bytes for libsndfile, which seeks before the start of damaged files."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return super().seek(0, io.SEEK_END)  # where there is nothing to read


def _sound_file(data: bytes, name: str) -> Any:
    """The opened soundfile.SoundFile; what libsndfile cannot read is decoded by ffmpeg first."""
    import soundfile

    try:
        return soundfile.SoundFile(_Bytes(data))
    except soundfile.LibsndfileError as error:
        reason, known = error.error_string.rstrip("."), error.code not in NOT_KNOWN
    program = find_ffmpeg()
    if known or program is None:
        advice = f"give {KNOWN_FORMATS}"
        if not known:
            advice += "; for M4A, AAC, WMA, AMR and others install ffmpeg, or convert them to WAV"
        raise AudioError(f"{name}: cannot be read as audio ({reason}); {advice}")
    decoded, _ = check_container(decode_by_ffmpeg(data, name, program), name)
    try:
        return soundfile.SoundFile(_Bytes(decoded))
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{name}: what ffmpeg makes of it cannot be read ({error.error_string.rstrip('.')}); "
            "convert it to WAV"
        ) from error


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
        truncated(name, f"{count} samples of {frames}")
    return np.concatenate(blocks) if blocks else np.zeros((0, sound.channels), np.float32)
