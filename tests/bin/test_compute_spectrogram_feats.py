"""compute_spectrogram_feats.py against Kaldi; the rest is tested with fbank."""

from pathlib import Path

import kaldiio
import numpy as np


def test_equal_to_kaldi(run_bin, golden: Path, tmp_path: Path) -> None:
    folder, out = golden / "kaldi_feats", tmp_path / "spectrogram.ark"
    run_bin("compute_spectrogram_feats.py", "scp:wav.scp", f"ark:{out}", cwd=folder, check=True)
    ours = dict(kaldiio.load_ark(str(out)))
    for utt_id, expected in kaldiio.load_ark(str(folder / "spectrogram.ark")):
        np.testing.assert_allclose(ours[utt_id], expected, atol=2e-2)
        assert np.quantile(np.abs(ours[utt_id] - expected), 0.999) < 1e-3


def test_no_mel_options(run_bin) -> None:
    done = run_bin("compute_spectrogram_feats.py", "--num-mel-bins=40", "scp:none", "ark:-")
    assert done.returncode == 2
    assert b"--num-mel-bins" in done.stderr
