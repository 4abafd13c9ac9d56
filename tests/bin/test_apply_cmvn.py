"""apply_cmvn.py against Kaldi, and its errors."""

from pathlib import Path

import kaldiio
import numpy as np
import pytest

from pipeline.tables import MatrixReader, write_matrix

FEATS = b"a1  [\n 1 2\n 3 4 ]\nb1  [\n 7 8 ]\n"


def load(path: Path) -> dict[str, np.ndarray]:
    return dict(kaldiio.load_ark(str(path)))


def test_equal_to_kaldi(run_bin, golden: Path, tmp_path: Path) -> None:
    folder, out = golden / "kaldi_feats", tmp_path / "out.ark"
    stats, feats = folder / "cmvn_global.mat", f"ark:{folder / 'fbank123.ark'}"
    run_bin("apply_cmvn.py", "--norm-vars=true", stats, feats, f"ark:{out}", check=True)
    ours = load(out)
    for utt_id, expected in load(folder / "fbank123_norm.ark").items():
        assert ours[utt_id].dtype == np.float32
        # Kaldi multiplies and adds in float32, with terms of up to 10.
        np.testing.assert_allclose(ours[utt_id], expected, rtol=0, atol=2e-6)


def test_by_speaker(run_bin, golden: Path, tmp_path: Path) -> None:
    folder, out = golden / "kaldi_feats", tmp_path / "out.ark"
    tables = (f"ark:{folder / 'cmvn_spk.ark'}", f"ark:{folder / 'fbank41.ark'}", f"ark:{out}")
    option = f"--utt2spk=ark:{folder / 'utt2spk'}"
    run_bin("apply_cmvn.py", option, *tables, check=True)
    ours, feats = load(out), load(folder / "fbank41.ark")
    for utt_id in ("utt1", "utt2"):  # one utterance a speaker: its own mean
        expected = feats[utt_id] - feats[utt_id].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(ours[utt_id], expected, atol=2e-6)
    back = tmp_path / "back.ark"
    run_bin(
        "apply_cmvn.py", option, "--reverse", tables[0], f"ark:{out}", f"ark:{back}", check=True
    )
    for utt_id, again in load(back).items():
        np.testing.assert_allclose(again, feats[utt_id], atol=1e-5)


@pytest.fixture
def stats(tmp_path: Path):
    def write(text: str, name: str = "stats") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_means_can_stay(run_bin, stats) -> None:
    matrix = stats(" [\n 4 6 2\n 10 20 0 ]\n")
    done = run_bin(
        "apply_cmvn.py", "--norm-means=false", matrix, "ark:-", "ark,t:-", stdin=FEATS, check=True
    )
    assert done.stdout.split() == FEATS.split()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            " [\n 4 6 2\n 10 20 0\n 1 2 3 ]\n",
            b"stats: the shape (3, 3) is not that of CMVN statistics",
        ),
        (" [\n 4 nan 2\n 10 20 0 ]\n", b"stats: the CMVN statistics hold NaN or infinity"),
        (" [\n 4 6 0\n 10 20 0 ]\n", b"a1: the CMVN statistics have 0 frames"),
        (" [\n 4 6 8 2\n 10 20 30 0 ]\n", b"a1: the features have 2 columns, expected 3"),
    ],
)
def test_statistics_that_are_wrong(text: str, message: bytes, run_bin, stats) -> None:
    done = run_bin("apply_cmvn.py", stats(text), "ark:-", "ark,t:-", stdin=FEATS)
    assert done.returncode == 1
    assert message in done.stderr
    assert b"Traceback" not in done.stderr


def test_missing_statistics_and_speakers(run_bin, stats) -> None:
    table = stats("a  [\n 4 6 2\n 10 20 0 ]\n", "cmvn.ark")
    by_utterance = run_bin("apply_cmvn.py", f"ark:{table}", "ark:-", "ark,t:-", stdin=FEATS)
    assert by_utterance.returncode == 1
    assert b"cmvn.ark has no statistics of a1; compute" in by_utterance.stderr
    utt2spk = f"--utt2spk=ark:{stats('a1 a', 'utt2spk')}"
    for options, status in (("ark:-", 1), ("ark,p:-", 0)):
        done = run_bin("apply_cmvn.py", utt2spk, f"ark:{table}", options, "ark,t:-", stdin=FEATS)
        assert done.returncode == status
        assert b"b1: has no speaker in ark:" in done.stderr
        assert done.stdout.split() == b"a1 [ -1 -1 1 1 ]".split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--utt2spk=ark:x", "stats"), b"--utt2spk needs a table of statistics; did you mean ark:"),
        (("--norm-means=false", "--norm-vars=true", "stats"), b"--norm-vars needs --norm-means"),
    ],
)
def test_options_that_do_not_go_together(arguments, message: bytes, run_bin) -> None:
    done = run_bin("apply_cmvn.py", *arguments, "ark:-", "ark:-", stdin=FEATS)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize("dims", [[0], [1, 3], [0, 1, 2, 3]])
def test_skipped_columns_stay_as_they_are(run_bin, tmp_path, dims: list[int]) -> None:
    feats = np.random.default_rng(1).normal(3, 2, size=(20, 4)).astype(np.float32)
    write_matrix(f"{tmp_path}/f", feats)
    (tmp_path / "f.scp").write_text(f"u {tmp_path}/f\n")
    run_bin("compute_cmvn_stats.py", f"scp:{tmp_path}/f.scp", tmp_path / "s", check=True)
    found = []
    for options in ([], [f"--skip-dims={':'.join(map(str, dims))}"]):
        run_bin(
            "apply_cmvn.py", "--norm-vars=true", *options, tmp_path / "s",
            f"scp:{tmp_path}/f.scp", f"ark:{tmp_path}/o.ark", check=True,
        )  # fmt: skip
        found.append(dict(MatrixReader(f"ark:{tmp_path}/o.ark"))["u"])
    others = [n for n in range(4) if n not in dims]
    np.testing.assert_array_equal(found[1][:, dims], feats[:, dims])
    np.testing.assert_array_equal(found[1][:, others], found[0][:, others])
    for bad in ("4", "x", "1,2", "²"):
        done = run_bin(
            "apply_cmvn.py", f"--skip-dims={bad}", tmp_path / "s", f"scp:{tmp_path}/f.scp",
            "ark:/dev/null",
        )  # fmt: skip
        assert done.returncode in (1, 2)
        assert b"--skip-dims" in done.stderr
