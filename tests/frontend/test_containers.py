"""Headers of recordings: sizes that a writer to a pipe left open, cut files, odd fields."""

import io
import os
import random
import shlex
import socket
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.errors import AudioError
from pipeline.frontend.audio import audio_duration_s, decode_audio, read_audio

RATE = 16000
BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
OPEN = (0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def encode(fmt: str, subtype: str, samples: np.ndarray, endian: str = "FILE") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format=fmt, subtype=subtype, endian=endian)
    return buffer.getvalue()


def noise(frames: int, channels: int) -> np.ndarray:
    values = np.random.default_rng(frames).integers(-20000, 20000, (frames, channels))
    return values.astype(np.int16)


def wav_of_a_stream(seed: int) -> tuple[bytes, bytes, int, int]:
    """A WAV with its sizes, one without, its number of channels, and the size that it states."""
    draw = random.Random(seed)
    subtype, channels = draw.choice(sorted(BYTES)), draw.choice([1, 2, 3, 5, 6])
    endian = draw.choice(["LITTLE", "BIG"]) if subtype != "PCM_U8" else "LITTLE"
    order = "little" if endian == "LITTLE" else "big"
    fmt = draw.choice(["WAV", "WAVEX"]) if endian == "LITTLE" else "WAV"
    frames = draw.randrange(20, 400)
    frames -= frames * channels % 2  # no byte of padding, which a stream cannot tell from audio
    whole = encode(fmt, subtype, noise(frames, channels), endian)
    frame, size = BYTES[subtype] * channels, draw.choice(OPEN)
    if draw.random() < 0.7:
        size -= size % frame  # as sox rounds it
    at = whole.index(b"data")
    if draw.random() < 0.5:  # as ffmpeg writes it
        text = bytes(draw.randrange(1, 40))
        chunk = b"LIST" + len(text).to_bytes(4, order) + text + bytes(len(text) % 2)
        whole = whole[:at] + chunk + whole[at:]
        at += len(chunk)
    riff = draw.choice([0, 36, 0xFFFFFFFF, (size + 36) & 0xFFFFFFFF, 12345, 0x7FFFF024])
    cut = bytearray(whole)
    cut[4:8], cut[at + 4 : at + 8] = riff.to_bytes(4, order), size.to_bytes(4, order)
    return whole, bytes(cut), channels, size


@pytest.mark.parametrize("seed", range(200))
def test_a_wav_of_a_stream_is_read_to_its_end(seed: int) -> None:
    whole, stream, channels, _ = wav_of_a_stream(seed)
    for channel in range(channels):
        expected, _ = decode_audio(whole, "a.wav", sample_rate=RATE, channel=channel)
        found, _ = decode_audio(stream, "a.wav", sample_rate=RATE, channel=channel)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("seed", range(60))
def test_a_wav_that_is_cut_is_refused(seed: int) -> None:
    """Sizes that are no writer's mark, small and large ones."""
    whole, _, _, _ = wav_of_a_stream(seed)
    at = whole.index(b"data")
    order = "little" if whole[:4] == b"RIFF" else "big"
    left = len(whole) - at - 8
    draw = random.Random(seed)
    large = [size + draw.randrange(-(10**6), -(10**4)) for size in OPEN[1:]]
    for size in (left + 1, left + 10_000, 3_000_000_000, *large):
        cut = whole[: at + 4] + size.to_bytes(4, order) + whole[at + 8 :]
        with pytest.raises(AudioError, match=f"truncated, {left} bytes of audio of the {size} in"):
            decode_audio(cut, "a.wav", sample_rate=RATE)


def test_through_files_and_pipes(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    whole = encode("WAV", "PCM_24", noise(500, 1))
    at = whole.index(b"data")
    path.write_bytes(whole[: at + 4] + (0x7FFFEFFF).to_bytes(4, "little") + whole[at + 8 :])
    expected, _ = decode_audio(whole, "a.wav", sample_rate=RATE)
    pipe = f"cat {shlex.quote(str(path))} |"
    for name in (str(path), pipe):
        found, _ = read_audio(name, sample_rate=RATE, allow_pipes=True)
        np.testing.assert_array_equal(found, expected)
    assert audio_duration_s(str(path)) == 500 / RATE


# Where the size of the audio stands, and what a writer to a pipe puts there.
OTHERS = {
    "RF64": (lambda d: d.index(b"ds64") + 16, 8, "little", [0, 2**64 - 1, 2**63 - 1]),
    "W64": (lambda d: d.index(b"data") + 16, 8, "little", [2**63 - 1, 2**64 - 1]),
    "AIFF": (lambda d: d.index(b"SSND") + 4, 4, "big", [0, 0xFFFFFFFF, 0x7FFFFFFF]),
    "CAF": (lambda d: d.index(b"data") + 4, 8, "big", [2**64 - 1]),
    "AU": (lambda d: 8, 4, "big", [0xFFFFFFFF]),
}


@pytest.mark.parametrize("fmt", OTHERS)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_other_formats_of_a_stream_are_read_to_their_end(fmt: str, subtype: str) -> None:
    place, wide, order, sizes = OTHERS[fmt]
    whole = encode(fmt, subtype, noise(300, 2))
    if fmt == "CAF":  # libsndfile ends it with a chunk, a stream has none
        whole = whole[: whole.index(b"data") + 16 + 300 * 2 * BYTES[subtype]]
    at = place(whole)
    expected = noise(300, 2)[:, 1].astype(np.float32)
    for size in sizes:
        data = bytearray(whole)
        data[at : at + wide] = size.to_bytes(wide, order)
        total = {"AIFF": 4, "RF64": 20}.get(fmt, 0)  # the size of the file is open, too
        if total:
            data[total : total + 4] = bytes(4)
        found, _ = decode_audio(bytes(data), "a", sample_rate=RATE, channel=1)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("fmt", [*OTHERS, "WAV", "WAVEX", "NIST", "FLAC"])
@pytest.mark.parametrize("seed", range(12))
def test_a_file_that_was_cut_anywhere_is_refused_in_one_line(fmt: str, seed: int, capfd) -> None:
    whole = encode(fmt, "PCM_16", noise(1500, 1))
    if fmt in ("CAF", "AIFF"):  # what follows the audio may be lost
        whole = whole[: whole.index(b"data" if fmt == "CAF" else b"SSND") + 3016]
    left = random.Random(seed).randrange(1, len(whole))
    with pytest.raises(AudioError, match=r"^a\.x: .*(truncated|cannot be read|incomplete)"):
        decode_audio(whole[:left], "a.x", sample_rate=RATE)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


# ---- SPHERE --------------------------------------------------------------------------------------


def sphere(*lines: str, size: str = "   1024") -> bytes:
    usual = ["channel_count -i 1", "sample_rate -i 16000", "sample_n_bytes -i 2"]
    usual += ["sample_coding -s3 pcm", "sample_byte_format -s2 01", "sample_count -i 100"]
    header = f"NIST_1A\n{size}\n" + "\n".join([*usual, *lines, "end_head"]) + "\n"
    return header.encode("latin-1").ljust(1024, b" ") + noise(100, 1).tobytes()


FIELDS = ("channel_count", "sample_rate", "sample_n_bytes", "sample_count")
ODD = ("-5", "²", "¼", "1e3", "x", "", "0x10", "9" * 40, "1 2", "-0", "+7", "3.5")


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", ODD)
def test_odd_numbers_in_a_sphere_header_are_named(field: str, value: str) -> None:
    usual = sphere().decode("latin-1").partition("\n" + field)
    data = usual[0] + f"\n{field} -i {value}\n" + usual[2].partition("\n")[2]
    with pytest.raises(AudioError, match=rf"^a\.sph: the SPHERE header states {field} '"):
        decode_audio(data.encode("latin-1"), "a.sph", sample_rate=None)


@pytest.mark.parametrize("field", FIELDS)
def test_other_faults_of_a_sphere_header(field: str) -> None:
    with pytest.raises(AudioError, match=f"the SPHERE header has two values of {field}; convert"):
        decode_audio(sphere(f"{field} -i 3"), "a.sph", sample_rate=None)
    for size in ("      ²", "     -1", "9999999", "      0", "      x"):
        with pytest.raises(AudioError, match=r"incomplete|truncated"):
            decode_audio(sphere(size=size), "a.sph", sample_rate=None)
    huge = sphere().replace(b"sample_count -i 100", b"sample_count -i 999999999999")
    with pytest.raises(AudioError, match=r"truncated, \d+ bytes of audio for 999999999999 samples"):
        decode_audio(huge, "a.sph", sample_rate=None)


def test_a_wav_without_a_sample_rate() -> None:
    data = bytearray(encode("WAV", "PCM_16", noise(100, 1)))
    data[24:28] = bytes(4)
    with pytest.raises(AudioError, match=r"a\.wav: .*(sample rate|cannot be read)"):
        decode_audio(bytes(data), "a.wav", sample_rate=None)


# ---- what is no file -----------------------------------------------------------------------------


def test_a_recording_must_be_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(tmp_path, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{folder}/socket")  # its name may be 108 bytes long
        finally:
            os.close(folder)
        for path, said in (
            (
                tmp_path / "fifo",
                "is a FIFO, not a file with a recording; name a file, or a command",
            ),
            (Path("/dev/zero"), "is a device, not a file with a recording"),
            (Path("/dev/null"), "is a device, not a file with a recording"),
            (tmp_path / "socket", "cannot read"),
            (tmp_path, "cannot read: Is a directory"),
        ):
            with pytest.raises(AudioError, match=f"{path}: {said}"):
                read_audio(str(path), sample_rate=None)


def test_what_a_shell_hands_over_may_be_a_pipe() -> None:
    data = encode("WAV", "PCM_16", noise(100, 1))
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    samples, _ = read_audio(f"/dev/fd/{reading}", sample_rate=RATE)
    os.close(reading)
    assert len(samples) == 100
