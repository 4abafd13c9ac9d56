"""Recordings: all formats, and all faults that a recording can have."""

import io
import shlex
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.errors import AudioError, PipelineError, TableError
from pipeline.frontend.audio import WavReader, audio_duration_s, read_audio

RATE = 16000
PCM = np.random.default_rng(1).integers(-20000, 20000, 3000).astype(np.int16)


def encode(fmt: str, subtype: str, samples: np.ndarray = PCM, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=fmt, subtype=subtype)
    return buffer.getvalue()


def sphere(samples: np.ndarray = PCM, *, size: int = 1024, **fields: object) -> bytes:
    """A NIST SPHERE file as LDC corpora have them; a field that is None is left out."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    values: dict[str, object] = {
        "channel_count": channels,
        "sample_rate": RATE,
        "sample_n_bytes": 2,
        "sample_sig_bits": 16,
        "sample_coding": "pcm",
        "sample_byte_format": "01",
        "sample_count": len(samples),
    } | fields
    lines = [
        f"{name} -i {value}" if isinstance(value, int) else f"{name} -s{len(str(value))} {value}"
        for name, value in values.items()
        if value is not None
    ]
    header = f"NIST_1A\n{size:7d}\n" + "\n".join([*lines, "end_head"]) + "\n"
    order = ">i2" if values["sample_byte_format"] == "10" else "<i2"
    return header.encode().ljust(size, b" ") + samples.astype(order).tobytes()


def wav(sizes: tuple[int, int] | None = None, *, samples: np.ndarray = PCM) -> bytearray:
    """A WAV file, with its RIFF and data sizes replaced."""
    data = bytearray(encode("WAV", "PCM_16", samples))
    if sizes:
        data[4:8], data[40:44] = (struct.pack("<I", size) for size in sizes)
    return data


def ogg(subtype: str) -> bytes:
    tone = np.sin(np.arange(40000) * 0.1).astype(np.float32) * 0.3
    return encode("OGG", subtype, tone)


@pytest.fixture
def save(tmp_path: Path):
    def write(data: bytes | bytearray, name: str = "a.wav") -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


# ---- formats -----------------------------------------------------------------------------------

EXACT = {
    "wav": encode("WAV", "PCM_16"),
    "wavex": encode("WAVEX", "PCM_16"),
    "rifx": None,
    "flac": encode("FLAC", "PCM_16"),
    "wav24": encode("WAV", "PCM_24", PCM),
    "float": encode("WAV", "FLOAT", (PCM / 32768).astype(np.float32)),
    "sphere": sphere(),
    "sphere-10": sphere(sample_byte_format="10"),
    "sphere-2048": sphere(size=2048, database_id="TIMIT", utterance_id="aks0_sa1"),
    "sphere-no-count": sphere(sample_count=None),
    "sphere-no-coding": sphere(sample_coding=None),
}
buffer = io.BytesIO()
with soundfile.SoundFile(buffer, "w", RATE, 1, "PCM_16", "BIG", "WAV") as rifx:
    rifx.write(PCM)
EXACT["rifx"] = buffer.getvalue()


@pytest.mark.parametrize("kind", EXACT)
def test_sixteen_bits_come_through_exactly(kind: str, save) -> None:
    samples, rate = read_audio(save(EXACT[kind]), sample_rate=RATE)
    assert rate == RATE
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, PCM.astype(np.float32))


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        (encode("NIST", "ULAW"), 1000),
        (encode("WAV", "PCM_U8"), 256),
    ],
    ids=["sphere-ulaw", "wav-8-bit"],
)
def test_coarse_codings_are_close(data: bytes, tolerance: float, save) -> None:
    samples, _ = read_audio(save(data), sample_rate=RATE)
    np.testing.assert_allclose(samples, PCM, atol=tolerance)


@pytest.mark.parametrize(
    ("fmt", "subtype"), [("OGG", "OPUS"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")]
)
def test_lossy_formats(fmt: str, subtype: str, save) -> None:
    tone = (np.sin(np.arange(16000) * 0.1) * 8000).astype(np.int16)
    samples, rate = read_audio(save(encode(fmt, subtype, tone)), sample_rate=None)
    assert (len(samples), rate) == (16000, RATE)
    middle = slice(2000, 14000)
    assert np.corrcoef(samples[middle], tone[middle])[0, 1] > 0.99
    assert 7000 < np.abs(samples[middle]).max() < 9500


@pytest.mark.parametrize(
    "sizes", [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF024, 0x7FFFF000), (36, 0)]
)
def test_wav_written_to_a_pipe_has_no_sizes(sizes: tuple[int, int], save) -> None:
    path = save(wav(sizes))
    np.testing.assert_array_equal(read_audio(path, sample_rate=RATE)[0], PCM)
    assert audio_duration_s(path) == len(PCM) / RATE


def test_flac_written_to_a_pipe_has_no_length(save) -> None:
    data = bytearray(encode("FLAC", "PCM_16"))
    data[21] &= 0xF0  # STREAMINFO's 36 bits of total samples
    data[22:26] = bytes(4)
    with pytest.raises(
        AudioError, match=r"a\.flac: the FLAC header states no length.*; encode to a f"
    ):
        read_audio(save(data, "a.flac"), sample_rate=RATE)


def test_chunks_around_the_audio_are_passed_over(save) -> None:
    data = wav()
    extra = b"LIST" + struct.pack("<I", 5) + b"hello\0"  # an odd chunk is padded
    data = data[:36] + extra + data[36:] + extra
    data[4:8] = struct.pack("<I", len(data) - 8)
    np.testing.assert_array_equal(read_audio(save(data), sample_rate=RATE)[0], PCM)


def test_sphere_header_may_count_fewer_samples_than_follow(save) -> None:
    path = save(sphere(sample_count=1000), "a.wav")
    np.testing.assert_array_equal(read_audio(path, sample_rate=RATE)[0], PCM[:1000])
    assert audio_duration_s(path) == 1000 / RATE


def test_duration(save) -> None:
    assert audio_duration_s(save(EXACT["flac"], "a.flac")) == len(PCM) / RATE


@pytest.mark.parametrize("make", [lambda s: encode("WAV", "PCM_16", s), sphere])
def test_a_channel_can_be_chosen(make, save) -> None:
    stereo = np.stack([PCM, -PCM], axis=1)
    path = save(make(stereo))
    with pytest.raises(
        AudioError, match=r"a\.wav: has 2 channels; choose one, such as --channel=0"
    ):
        read_audio(path, sample_rate=RATE)
    np.testing.assert_array_equal(read_audio(path, sample_rate=RATE, channel=1)[0], -PCM)
    with pytest.raises(AudioError, match=r"there is no --channel=2"):
        read_audio(path, sample_rate=RATE, channel=2)


# ---- what is wrong -----------------------------------------------------------------------------

NAN = np.array([0.1, np.nan, 0.2], np.float32)
WRONG = {
    "empty": (b"", "empty file"),
    "text": (b"FAKS0_SX43 sil d ih\n" * 50, "cannot be read as audio .*WAV, FLAC"),
    "zeros": (bytes(5000), "cannot be read as audio"),
    "no samples": (wav(samples=PCM[:0]), "holds no samples"),
    "no samples, sphere": (sphere(sample_count=0), "holds no samples"),
    "nan": (encode("WAV", "FLOAT", NAN), "NaN or infinite"),
    "infinity": (encode("WAV", "FLOAT", NAN * 0 + np.inf), "NaN or infinite"),
    "wav cut": (wav()[:-1], "truncated, 5999 bytes of audio of the 6000 in its header"),
    "wav cut in its header": (wav()[:30], "truncated, no audio"),
    "sphere cut": (sphere()[:-2], "truncated, 5998 bytes of audio for 3000 samples"),
    "sphere cut in its header": (sphere()[:100], "SPHERE header is incomplete"),
    "flac cut": (EXACT["flac"][:-500], "truncated or damaged"),
    "opus cut in a page": (ogg("OPUS")[:-10], "truncated, its last Ogg page"),
    "vorbis cut in a page": (ogg("VORBIS")[:-10], "truncated, its last Ogg page"),
    "opus cut between pages": (ogg("OPUS")[: ogg("OPUS").rindex(b"OggS")], "last Ogg page"),
    "shorten": (
        sphere(sample_coding="pcm,embedded-shorten-v2.00"),
        r"compressed with embedded-shorten-v2\.00; convert it first: sph2pipe",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_errors_name_the_file_and_what_to_do(kind: str, save) -> None:
    data, message = WRONG[kind]
    with pytest.raises(AudioError, match=rf"a\.wav: .*{message}.*"):
        read_audio(save(data), sample_rate=None)


def test_another_rate_is_refused(save) -> None:
    path = save(encode("WAV", "PCM_16", rate=8000))
    with pytest.raises(
        AudioError, match=r"of 8000 Hz, but .* is 16000; resample it.*sox IN -r 160"
    ):
        read_audio(path, sample_rate=RATE)
    assert read_audio(path, sample_rate=None)[1] == 8000


def test_files_that_are_none(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.wav", tmp_path):
        with pytest.raises(AudioError, match=str(path)):
            read_audio(str(path), sample_rate=RATE)


# ---- pipes and tables --------------------------------------------------------------------------


def test_pipes_run_only_when_allowed(save) -> None:
    command = f"cat {shlex.quote(save(wav()))} |"
    samples, _ = read_audio(command, sample_rate=RATE, allow_pipes=True)
    np.testing.assert_array_equal(samples, PCM)
    with pytest.raises(PipelineError, match="--allow-pipes"):
        read_audio(command, sample_rate=RATE)


def test_a_pipe_that_fails_is_an_error_though_its_data_look_whole(save) -> None:
    command = f"cat {shlex.quote(save(wav()))}; exit 3 |"
    with pytest.raises(AudioError, match="3"):
        read_audio(command, sample_rate=RATE, allow_pipes=True)


def test_scp_table(tmp_path: Path, save) -> None:
    good, bad = save(wav()), save(b"", "b.wav")
    (tmp_path / "wav.scp").write_text(f"u1 {good}\nu2 {bad}\nu3 {good}\n")
    read = []
    for key, recording in WavReader(f"scp:{tmp_path / 'wav.scp'}"):
        try:
            read.append((key, len(recording.read(sample_rate=RATE)[0])))
        except AudioError as error:
            read.append((key, str(error).partition(";")[0]))
    assert read == [("u1", 3000), ("u2", f"{bad}: empty file"), ("u3", 3000)]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A wav archive and its scp, written by Kaldi's own table code."""
    import kaldi_native_io as native

    where = tmp_path / "wav.ark"
    with native.WaveWriter(f"ark,scp:{where},{tmp_path / 'wav.scp'}") as writer:
        for key, samples in (("u1", PCM), ("u2", PCM[:700])):
            writer.write(key, native.WaveData(RATE, samples[None].astype(np.float32)))
    return where


@pytest.mark.parametrize("kind", ["ark:{}/wav.ark", "scp:{}/wav.scp", "ark:cat {}/wav.ark |"])
def test_wav_archives(kind: str, archive: Path) -> None:
    reader = WavReader(kind.format(archive.parent))
    read = {key: wav.read(sample_rate=RATE)[0] for key, wav in reader}
    assert list(read) == ["u1", "u2"]
    np.testing.assert_array_equal(read["u1"], PCM)
    np.testing.assert_array_equal(read["u2"], PCM[:700])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "u2: has 1435 of 1436 bytes; the archive is truncated"),
        (lambda data: data[:2], "ends after the key b'u1'"),
        (lambda data: b"u1 \0BFM " + data, "not a RIFF file"),
        (lambda data: b"u1 " + bytes(wav((0, 0))), "not a RIFF file with its length"),
        (lambda data: b"x" * 5000, "a key is missing; is this"),
    ],
    ids=["truncated", "key only", "features", "no length", "no archive"],
)
def test_broken_archives(change, message: str, archive: Path) -> None:
    archive.write_bytes(change(archive.read_bytes()))
    with pytest.raises(TableError, match=rf"wav\.ark: .*{message}"):
        list(WavReader(f"ark:{archive}"))
