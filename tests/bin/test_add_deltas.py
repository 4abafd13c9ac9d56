"""add_deltas.py against Kaldi."""

from pathlib import Path

import kaldiio
import numpy as np
import pytest

from pipeline.tables import write_matrix

CONF = Path(__file__).resolve().parents[2] / "egs" / "timit" / "conf"


@pytest.mark.parametrize(
    ("option", "before", "after"),
    [
        ("--delta-order=2", "fbank41", "fbank123"),
        (f"--config={CONF / 'delta.conf'}", "fbank41", "fbank123"),
        (f"--config={CONF / 'delta_mfcc.conf'}", "mfcc13", "mfcc26"),
    ],
)
def test_equal_to_kaldi(option, before, after, run_bin, golden: Path, tmp_path: Path) -> None:
    folder, out = golden / "kaldi_feats", tmp_path / "out.ark"
    run_bin("add_deltas.py", option, f"ark:{folder / before}.ark", f"ark:{out}", check=True)
    ours = dict(kaldiio.load_ark(str(out)))
    for utt_id, expected in kaldiio.load_ark(f"{folder / after}.ark"):
        np.testing.assert_allclose(ours[utt_id], expected, atol=1e-5)
        assert ours[utt_id].dtype == np.float32


def test_nan_is_named(run_bin) -> None:
    feats = b"u1  [\n 1 2\n 3 nan ]\nu2  [\n 1 2 ]\n"
    done = run_bin("add_deltas.py", "ark:-", "ark,t:-", stdin=feats)
    assert done.returncode == 1
    assert b"u1: frame 1 holds NaN or infinity" in done.stderr
    assert done.stdout.startswith(b"u2")
    assert done.stderr.splitlines()[-1].endswith(b"Done 1 utterances, 1 failed")


def test_options_that_are_wrong(run_bin) -> None:
    done = run_bin("add_deltas.py", "--delta-window=0", "ark:-", "ark:-")
    assert done.returncode == 2
    assert b"--delta-window must be from 1 to 1000, not 0" in done.stderr


def test_truncation_comes_before_the_deltas(run_bin, tmp_path) -> None:
    feats = np.random.default_rng(1).normal(size=(9, 5)).astype(np.float32)
    for name, matrix in (("whole", feats), ("part", feats[:, :3])):
        write_matrix(f"{tmp_path}/{name}", matrix)
        (tmp_path / f"{name}.scp").write_text(f"u {tmp_path}/{name}\n")
    one = run_bin("add_deltas.py", "--truncate=3", f"scp:{tmp_path}/whole.scp", "ark:-", check=True)
    two = run_bin("add_deltas.py", f"scp:{tmp_path}/part.scp", "ark:-", check=True)
    assert one.stdout == two.stdout
    done = run_bin("add_deltas.py", "--truncate=6", f"scp:{tmp_path}/whole.scp", "ark:-")
    assert b"the features have 5 columns, fewer than --truncate=6" in done.stderr
