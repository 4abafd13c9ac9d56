"""MP3: lengths with and without a header that states them, tags, rates, and what is wrong."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.errors import AudioError
from pipeline.frontend.audio import audio_duration_s, read_audio
from pipeline.frontend.mpeg import read_head

COUNT = 60000
# Silence, noise and a tone: the frames of a variable bit rate differ in size.
SOUND = np.concatenate(
    [
        np.zeros(COUNT // 3),
        np.random.default_rng(0).standard_normal(COUNT // 3) * 0.1,
        np.sin(np.arange(COUNT // 3) * 0.05) * 0.5,
    ]
)
RATES = (8000, 16000, 22050, 24000, 32000, 44100, 48000)
MODES = ("CONSTANT", "VARIABLE")


def mp3(rate: int = 24000, mode: str = "CONSTANT", sound: np.ndarray = SOUND) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, rate, format="MP3", bitrate_mode=mode, compression_level=0.5)
    return buffer.getvalue()


def size_of_first(data: bytes) -> int:
    frame = read_head(data[:4])
    assert frame is not None
    return frame.size


def tag(body: bytes) -> bytes:
    """An ID3v2 tag."""
    size = bytes(len(body) >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + size + body


def picture(size: int) -> bytes:
    """A tag with an album's picture, in which heads of frames occur."""
    content = b"\0image/jpeg\0\3\0\xff\xd8" + b"\xff\xfb\x90\x64" * (size // 4)
    length = bytes(len(content) >> shift & 127 for shift in (21, 14, 7, 0))
    return tag(b"APIC" + length + b"\0\0" + content)


@pytest.fixture
def save(tmp_path: Path):
    def write(data: bytes, name: str = "a.mp3") -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rate", RATES)
def test_the_encoders_delay_is_taken_off(rate: int, mode: str, save) -> None:
    path = save(mp3(rate, mode))
    samples, found = read_audio(path, sample_rate=None)
    assert (len(samples), found) == (COUNT, rate)
    assert audio_duration_s(path) == COUNT / rate
    tone = slice(COUNT * 2 // 3 + 2000, COUNT - 2000)
    assert np.corrcoef(samples[tone], SOUND[tone])[0, 1] > 0.99


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rate", RATES)
def test_without_a_stated_length_all_frames_are_read(rate: int, mode: str, save) -> None:
    """As after a cut between frames, or from an old encoder: the length is not estimated."""
    whole = mp3(rate, mode)
    bare = whole[size_of_first(whole) :]
    at = count = 0
    while frame := read_head(bare[at : at + 4]):
        at, count = at + frame.size, count + 1
    samples, _ = read_audio(save(bare, "bare.mp3"), sample_rate=rate)
    decoded, _ = read_audio(save(whole), sample_rate=rate)
    lost = 529  # mpg123 takes off what a decoder adds
    assert len(samples) == count * (1152 if rate >= 32000 else 576) - lost
    delay = 576  # of the encoder, which nothing tells
    middle = slice(3000, COUNT - 3000)
    np.testing.assert_allclose(samples[delay:][middle], decoded[middle], atol=2)


@pytest.mark.parametrize("bare", [False, True])
def test_tags_and_pictures_do_not_matter(bare: bool, save) -> None:
    data = mp3()
    data = data[size_of_first(data) :] if bare else data
    plain, _ = read_audio(save(data), sample_rate=24000)
    for before, after in (
        (tag(b"TSSE\0\0\0\x05\0\0\x03Lavf"), b""),
        (picture(20000), b""),
        (tag(b"") + picture(400), b""),
        (b"", b"TAG".ljust(128, b" ")),
        (b"", b"APETAGEX" + bytes(100)),
        (b"", bytes(1000)),
    ):
        samples, _ = read_audio(save(before + data + after), sample_rate=24000)
        np.testing.assert_array_equal(samples, plain)


def test_a_channel_of_stereo_is_chosen(save) -> None:
    path = save(mp3(sound=np.stack([SOUND, np.zeros(COUNT)], axis=1)))
    with pytest.raises(AudioError, match=r"a\.mp3: has 2 channels; choose one, such as --ch"):
        read_audio(path, sample_rate=None)
    left, _ = read_audio(path, sample_rate=None, channel=0)
    right, _ = read_audio(path, sample_rate=None, channel=1)
    assert np.abs(left).max() > 10000
    assert np.abs(right).max() < 500


def test_the_content_counts_and_not_the_name(save) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, SOUND, 16000, format="WAV", subtype="PCM_16")
    wav = read_audio(save(buffer.getvalue(), "b.wav"), sample_rate=16000)[0]
    np.testing.assert_array_equal(
        read_audio(save(buffer.getvalue(), "b.mp3"), sample_rate=16000)[0], wav
    )
    assert len(read_audio(save(mp3(), "c.wav"), sample_rate=24000)[0]) == COUNT


WHOLE = mp3()
BARE = WHOLE[size_of_first(WHOLE) :]
DAMAGED = bytearray(BARE)
DAMAGED[len(BARE) // 2 : len(BARE) // 2 + 3000] = bytes(3000)
WRONG = {
    "cut": (WHOLE[:-1], "truncated, its last MP3 frame lacks 1 of"),
    "cut without a stated length": (BARE[:-5], "truncated, its last MP3 frame lacks 5 of"),
    "cut between frames": (WHOLE[: -size_of_first(BARE)], r"truncated, \d+ samples of 60000"),
    "cut in its first frame": (WHOLE[:100], "truncated, its last MP3 frame lacks"),
    "cut in its picture": ((picture(9000) + WHOLE)[:5000], "truncated, only a tag and no sound"),
    "only a tag": (picture(400), "truncated, only a tag and no sound"),
    "a hole": (bytes(DAMAGED), r"damaged, no MP3 after \d+ bytes, but then again; copy it again"),
    "a page": (b"<html>404</html>" * 50, "cannot be read as audio"),
    "a tag and a page": (tag(b"x" * 20) + b"<html>" * 99, "cannot be read as audio"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_said(kind: str, save) -> None:
    data, message = WRONG[kind]
    with pytest.raises(AudioError, match=rf"a\.mp3: {message}"):
        read_audio(save(data), sample_rate=None)


def test_mp3_is_read_wherever_wav_is(run_bin, tmp_path: Path) -> None:
    """wav.scp with MP3 of two rates: features, and segments of it."""
    for name, rate in (("a", 22050), ("b", 24000)):
        (tmp_path / f"{name}.mp3").write_bytes(mp3(rate))
    scp = tmp_path / "wav.scp"
    scp.write_text("".join(f"{n} {tmp_path / n}.mp3\n" for n in "ab"))
    frames = tmp_path / "frames"
    command = ("compute_fbank_feats.py", f"--write-num-frames=ark,t:{frames}", f"scp:{scp}")
    refused = run_bin(*command, f"ark:{tmp_path / 'x.ark'}")
    assert b"a.mp3: has a sample rate of 22050 Hz" in refused.stderr
    assert b"resample it: --resample" in refused.stderr
    run_bin(*command, "--resample=true", f"ark:{tmp_path / 'x.ark'}", check=True)
    expected = {
        n: (round(COUNT * 16000 / r) - 400) // 160 + 1 for n, r in (("a", 22050), ("b", 24000))
    }
    found = dict(line.split() for line in frames.read_text().splitlines())
    assert {name: int(number) for name, number in found.items()} == expected
    segments = tmp_path / "segments"
    segments.write_text("u1 b 0.5 1.5\n")
    cut = tmp_path / "cut.ark"
    run_bin("extract_segments.py", f"scp:{scp}", segments, f"ark:{cut}", check=True)
    data = cut.read_bytes().removeprefix(b"u1 ")
    assert soundfile.info(io.BytesIO(data)).frames == 24000
