"""Recordings that ffmpeg decodes, by a stand-in for it and by ffmpeg itself; resampling."""

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.errors import AudioError
from pipeline.frontend import ffmpeg
from pipeline.frontend.audio import decode_audio, read_audio
from pipeline.frontend.resample import resample

TONE = (np.sin(np.arange(16000) * 0.1) * 8000).astype(np.int16)
FOREIGN = b"no format that libsndfile knows" * 9
REAL = shutil.which("ffmpeg")


def wav(samples: np.ndarray = TONE, rate: int = 16000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a program ffmpeg on PATH that notes its arguments, its folder and its input."""
    folder = tmp_path / "programs"
    folder.mkdir()
    stream = bytearray(wav())
    stream[4:8] = stream[40:44] = b"\xff" * 4  # as ffmpeg writes it to a pipe
    (tmp_path / "out.wav").write_bytes(stream)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(script: str = 'cat "$here/out.wav"') -> Path:
        note = f"here={tmp_path}\n"
        note += 'for word; do printf "%s\\0" "$word"; done > "$here/words"\n'
        note += 'for word; do case $word in file:*) cat "${word#file:}" > "$here/in";; esac; done\n'
        (folder / "ffmpeg").write_text(f"#!/bin/sh\n{note}cat > $here/stdin\n{script}\n")
        (folder / "ffmpeg").chmod(0o755)
        return tmp_path

    return make


NAMES = ["-i.m4a", "http:x.m4a", "concat:a.m4a", "a b'\"$x.m4a", "é.wma", "pipe:0.aac", "%03d.amr"]


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_recording_is_never_an_option_or_an_address(name, stand_in, monkeypatch):
    here = stand_in()
    monkeypatch.chdir(here)
    (here / name).write_bytes(FOREIGN)
    samples, rate = read_audio(name, sample_rate=16000)
    np.testing.assert_array_equal(samples, TONE)
    assert rate == 16000
    words = (here / "words").read_text().split("\0")[:-1]
    assert not [word for word in words if name in word]
    (opened,) = [word for word in words if word.startswith("file:")]
    assert words[words.index("-i") + 1] == opened
    assert opened.startswith("file:/")
    assert "-nostdin" in words
    assert words[words.index("-protocol_whitelist") + 1] == "file"
    formats = words[words.index("-format_whitelist") + 1].split(",")
    assert not {"hls", "concat", "dash", "lavfi", "image2", "sdp", "rtsp", "imf"} & set(formats)
    assert (here / "in").read_bytes() == FOREIGN
    assert (here / "stdin").read_bytes() == b""
    assert not Path(opened.removeprefix("file:")).exists()  # nothing is left


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'x: Invalid argument' >&2; exit 1", r"cannot be read as audio \(ffmpeg: x: Inv"),
        ("exit 3", r"cannot be read as audio \(ffmpeg: status 3\)"),
        ("exit 0", r"cannot be read as audio \(ffmpeg: status 0\)"),
        ("cat $here/out.wav; echo '[mov @ 0x55] partial file' >&2", r"damaged \(ffmpeg: mov: part"),
        ("echo nonsense", "what ffmpeg makes of it cannot be read"),
        ("kill -9 $$", r"cannot be read as audio \(ffmpeg: status -9\)"),
    ],
)
def test_what_ffmpeg_cannot_decode_is_said(script, said, stand_in):
    stand_in(script)
    with pytest.raises(AudioError, match=rf"^a\.m4a: .*{said}"):
        decode_audio(FOREIGN, "a.m4a", sample_rate=None)


def test_it_is_stopped_in_the_end(stand_in, monkeypatch):
    stand_in("exec sleep 60")
    monkeypatch.setattr(ffmpeg, "TIME_LIMIT_S", 0.2)
    with pytest.raises(AudioError, match=r"a\.m4a: ffmpeg has not decoded it in 0\.2 s; convert"):
        decode_audio(FOREIGN, "a.m4a", sample_rate=None)


def test_a_program_that_cannot_be_run(stand_in):
    here = stand_in()
    (here / "programs" / "ffmpeg").write_text("#!/gone\n")
    with pytest.raises(AudioError, match=r"a\.m4a: ffmpeg cannot be run .*; install it again"):
        decode_audio(FOREIGN, "a.m4a", sample_rate=None)


def test_without_it_the_message_says_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError, match=r"a\.m4a: cannot be read as audio .* install ffmpeg, or "):
        decode_audio(FOREIGN, "a.m4a", sample_rate=None)


@pytest.mark.parametrize("data", [wav()[:-10], wav()[:30], b"", b"OggS" + bytes(40)])
def test_damaged_files_of_known_formats_are_not_handed_on(data, stand_in):
    here = stand_in()
    with pytest.raises(AudioError):
        decode_audio(data, "a.wav", sample_rate=None)
    assert not (here / "words").exists()


# ---- ffmpeg itself -------------------------------------------------------------------------------


@pytest.mark.skipif(REAL is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("kind", ["m4a", "aac", "wma", "mka", "mov", "wv", "ac3", "tta"])
def test_ffmpeg_decodes(kind, tmp_path):
    path = tmp_path / f"-a b.{kind}"
    (tmp_path / "in.wav").write_bytes(wav(np.tile(TONE, 3)))
    command = [str(REAL), "-nostdin", "-loglevel", "error", "-i", "in.wav", f"file:{path.name}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this ffmpeg cannot write {kind}")
    samples, rate = read_audio(str(path), sample_rate=None)
    samples = resample(samples, rate, 16000, "a")
    assert abs(len(samples) - 48000) < 4000
    middle = samples[20000:20628]  # ten periods
    assert 7000 < np.abs(middle).max() < 9500
    peak = np.abs(np.fft.rfft(middle * np.hanning(628)))
    assert int(peak.argmax()) == 10
    data = path.read_bytes()
    with pytest.raises(AudioError, match=r"truncated or damaged|cannot be read"):
        decode_audio(data[: len(data) * 4 // 5 + 1], "a", sample_rate=None)


@pytest.mark.skipif(REAL is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize(
    "text", ["ffconcat version 1.0\nfile in.wav\n", "#EXTM3U\n#EXTINF:1,\n{}/in.wav\n"]
)
def test_lists_of_other_files_are_not_followed(text, tmp_path):
    (tmp_path / "in.wav").write_bytes(wav())
    (tmp_path / "a.m4a").write_text(text.format(tmp_path))
    with pytest.raises(AudioError, match="cannot be read as audio"):
        read_audio(str(tmp_path / "a.m4a"), sample_rate=None)


# ---- resampling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_a_tone_keeps_its_frequency(rate):
    tone = (np.sin(np.arange(rate) * 2 * np.pi * 500 / rate) * 8000).astype(np.float32)
    found = resample(tone, rate, 16000, "a")
    assert (len(found), found.dtype) == (16000, np.float32)
    expected = np.sin(np.arange(16000) * 2 * np.pi * 500 / 16000) * 8000
    assert np.abs(found - expected)[2000:14000].max() < 8
    np.testing.assert_array_equal(found, resample(tone, rate, 16000, "a"))


def test_it_is_done_only_when_asked_for():
    data = wav(TONE, 8000)
    with pytest.raises(AudioError, match=r"of 8000 Hz, but .*--resample=true"):
        decode_audio(data, "a", sample_rate=16000)
    samples, rate = decode_audio(data, "a", sample_rate=None)
    assert (len(resample(samples, rate, 16000, "a")), rate) == (32000, 8000)
    np.testing.assert_array_equal(resample(samples, rate, 8000, "a"), TONE)


@pytest.mark.parametrize("rate", [1, 100, 2_000_000, 2**31 - 1])
def test_rates_that_no_recording_has_are_refused(rate):
    with pytest.raises(AudioError, match=f"a: has a sample rate of {rate} Hz, too far from 16000"):
        resample(np.zeros(1000, np.float32), rate, 16000, "a")
