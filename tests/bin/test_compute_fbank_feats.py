"""compute_fbank_feats.py, and what the three programs that compute features share."""

import io
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile

CONF = Path(__file__).resolve().parents[2] / "egs" / "timit" / "conf"
NOISE = np.random.default_rng(0).integers(-3000, 3000, 16000).astype(np.int16)


def wav(samples: np.ndarray = NOISE, rate: int = 16000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


@pytest.fixture
def scp(tmp_path: Path):
    """``scp(u1=bytes, …)``: an scp rspecifier of recordings with these bytes."""

    def write(options: str = "", **recordings: bytes) -> str:
        lines = []
        for key, data in recordings.items():
            (tmp_path / f"{key}.wav").write_bytes(data)
            lines.append(f"{key} {tmp_path / key}.wav\n")
        (tmp_path / "wav.scp").write_text("".join(lines))
        return f"scp{options}:{tmp_path / 'wav.scp'}"

    return write


def load(path: Path) -> dict[str, np.ndarray]:
    return dict(kaldiio.load_ark(str(path)))


def test_equal_to_kaldi(run_bin, golden: Path, tmp_path: Path) -> None:
    folder = golden / "kaldi_feats"
    done = run_bin(
        "compute_fbank_feats.py",
        f"--config={CONF / 'fbank.conf'}",
        f"--write-utt2dur=ark,t:{tmp_path / 'utt2dur'}",
        f"--write-num-frames=ark,t:{tmp_path / 'utt2num_frames'}",
        "scp:wav.scp",
        f"ark,scp:{tmp_path / 'f.ark'},{tmp_path / 'f.scp'}",
        cwd=folder,
        check=True,
    )
    assert done.stdout == b""
    assert done.stderr.splitlines()[-1].endswith(b"Done 2 utterances, 0 failed")
    ours, expected = load(tmp_path / "f.ark"), load(folder / "fbank41.ark")
    assert list(ours) == list(expected)
    for utt_id in expected:
        np.testing.assert_allclose(ours[utt_id], expected[utt_id], atol=5e-4)
    assert (tmp_path / "utt2dur").read_text() == "utt1 2.58 \nutt2 4.343 \n"
    assert (tmp_path / "utt2num_frames").read_text() == "utt1 256 \nutt2 432 \n"
    assert len((tmp_path / "f.scp").read_text().splitlines()) == 2


def test_kaldis_option_dialect(run_bin, golden: Path, tmp_path: Path) -> None:
    folder = golden / "kaldi_feats"
    options = ("--num_mel_bins=40", "--use-energy=true", "--htk-compat", "true")
    run_bin(
        "compute_fbank_feats.py",
        *options,
        "--snip-edges=false",
        "scp:wav.scp",
        f"ark:{tmp_path / 'f.ark'}",
        cwd=folder,
        check=True,
    )
    for utt_id, expected in load(folder / "fbank41_htk_nosnip.ark").items():
        np.testing.assert_allclose(load(tmp_path / "f.ark")[utt_id], expected, atol=5e-3)


def test_same_bytes_every_time_however_the_work_is_split(run_bin, scp) -> None:
    recordings = {"u1": wav(), "u2": wav(NOISE[::-1])}
    whole = run_bin("compute_fbank_feats.py", "--dither=1", scp(**recordings), "ark:-", check=True)
    parts = [
        run_bin("compute_fbank_feats.py", "--dither=1", scp(**{key: data}), "ark:-", check=True)
        for key, data in recordings.items()
    ]
    assert whole.stdout == b"".join(part.stdout for part in parts)


def test_a_bad_utterance_is_named_and_the_others_go_on(run_bin, scp) -> None:
    recordings = {
        "u1": wav(),
        "u2-short": wav(NOISE[:300]),
        "u3-rate": wav(rate=8000),
        "u4-cut": wav()[:-10],
        "u5": wav(),
    }
    for options, status in (("", 1), (",p", 0)):
        done = run_bin("compute_fbank_feats.py", scp(options, **recordings), "ark,t:-")
        assert done.returncode == status
        assert [line.split()[0] for line in done.stdout.splitlines() if b"[" in line] == [
            b"u1",
            b"u5",
        ]
        log = done.stderr.decode()
        assert "u2-short: 0.01875 s of audio are shorter than a frame of 25 ms; leave" in log
        assert "u3-rate.wav: has a sample rate of 8000 Hz, but" in log
        assert "u4-cut.wav: truncated" in log
        assert log.splitlines()[-1].endswith("Done 2 utterances, 3 failed")
        assert "Traceback" not in log


def test_nothing_done_is_a_failure(run_bin, scp) -> None:
    done = run_bin("compute_fbank_feats.py", scp(",p", u1=b""), "ark:-")
    assert done.returncode == 1
    assert b"nothing was done" in done.stderr


def test_short_recordings_can_be_left_out(run_bin, scp) -> None:
    recordings = {"u1": wav(), "u2": wav(NOISE[:300])}
    done = run_bin(
        "compute_fbank_feats.py", "--min-duration=0.5", scp(**recordings), "ark:-", check=True
    )
    assert b"Done 1 utterances, 0 failed, 1 shorter than --min-duration" in done.stderr


def test_a_channel_can_be_chosen(run_bin, scp) -> None:
    stereo = scp(u1=wav(np.stack([NOISE, NOISE[::-1]], axis=1)))
    refused = run_bin("compute_fbank_feats.py", stereo, "ark:-")
    assert refused.returncode == 1
    assert b"has 2 channels; choose one, such as --channel=0" in refused.stderr
    right = run_bin("compute_fbank_feats.py", "--channel=1", stereo, "ark:-", check=True)
    mono = run_bin("compute_fbank_feats.py", scp(u1=wav(NOISE[::-1])), "ark:-", check=True)
    assert right.stdout == mono.stdout


def test_commands_in_a_wav_scp_run_only_when_allowed(run_bin, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav())
    (tmp_path / "wav.scp").write_text(f"u1 cat {tmp_path / 'a.wav'} |\n")
    command = ("compute_fbank_feats.py", f"scp:{tmp_path / 'wav.scp'}", "ark:-")
    refused = run_bin(*command)
    assert refused.returncode == 1
    assert b"--allow-pipes" in refused.stderr
    run_bin(command[0], "--allow-pipes", *command[1:], check=True)


def test_wav_archive_from_stdin(run_bin, scp) -> None:
    archive = b"u1 " + wav() + b"u2 " + wav(NOISE[::-1])
    piped = run_bin("compute_fbank_feats.py", "ark:-", "ark:-", stdin=archive, check=True)
    direct = run_bin(
        "compute_fbank_feats.py", scp(u1=wav(), u2=wav(NOISE[::-1])), "ark:-", check=True
    )
    assert piped.stdout == direct.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--num-mel-bins=2",), "--num-mel-bins must be from 3 to 1000"),
        (("--num-mel-bin=40",), "--num-mel-bins"),
        (("--use-energy=maybe",), "true or false"),
        (("--window-type=kaiser",), "--window-type must be one of povey"),
    ],
)
def test_options_that_are_wrong(arguments, message: str, run_bin, scp) -> None:
    done = run_bin("compute_fbank_feats.py", *arguments, scp(u1=wav()), "ark:-")
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_help_has_every_option_with_its_default(run_bin) -> None:
    text = " ".join(run_bin("compute_fbank_feats.py", "--help", check=True).stdout.decode().split())
    for expected in (
        "--num-mel-bins <int> number of triangular mel filters [default: 23]",
        "0 makes features reproducible (Kaldi: 1) [default: 0.0]",
        "--frame-length <float> length of a frame, in ms [default: 25.0]",
        "[default: no-use-energy]",
        "--allow-pipes",
    ):
        assert expected in text
