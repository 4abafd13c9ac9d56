"""compute_mfcc_feats.py against Kaldi; what it shares with the others is tested with fbank."""

from pathlib import Path

import kaldiio
import numpy as np

CONF = Path(__file__).resolve().parents[2] / "egs" / "timit" / "conf"


def test_equal_to_kaldi(run_bin, golden: Path, tmp_path: Path) -> None:
    folder, out = golden / "kaldi_feats", tmp_path / "mfcc.ark"
    config = f"--config={CONF / 'mfcc.conf'}"
    run_bin("compute_mfcc_feats.py", config, "scp:wav.scp", f"ark:{out}", cwd=folder, check=True)
    ours = dict(kaldiio.load_ark(str(out)))
    for utt_id, expected in kaldiio.load_ark(str(folder / "mfcc13.ark")):
        np.testing.assert_allclose(ours[utt_id], expected, atol=2e-3)


def test_more_coefficients_than_filters(run_bin) -> None:
    done = run_bin("compute_mfcc_feats.py", "--num-ceps=24", "scp:none", "ark:-")
    assert done.returncode == 2
    assert b"--num-ceps must be 1 to --num-mel-bins" in done.stderr


def test_help(run_bin) -> None:
    text = " ".join(run_bin("compute_mfcc_feats.py", "--help", check=True).stdout.decode().split())
    assert "[default: 13]" in text
    assert "[default: use-energy]" in text
    assert "[default: 22.0]" in text
