"""compute_cmvn_stats.py against Kaldi, and its errors."""

from pathlib import Path

import kaldiio
import numpy as np
import pytest

FEATS = b"a1  [\n 1 2\n 3 4 ]\na2  [\n 5 6 ]\nb1  [\n 7 8 ]\n"


def text_matrices(out: bytes) -> dict[str, list[list[float]]]:
    """Text archive to rows, by key."""
    tables: dict[str, list[list[float]]] = {}
    for entry in out.decode().split("]"):
        key, bracket, rows = entry.partition("[")
        if bracket:
            tables[key.strip()] = [
                [float(value) for value in row.split()] for row in rows.strip().splitlines()
            ]
    return tables


def test_of_all_utterances_equal_to_kaldi(run_bin, golden: Path, tmp_path: Path) -> None:
    folder, out = golden / "kaldi_feats", tmp_path / "cmvn.mat"
    run_bin("compute_cmvn_stats.py", f"ark:{folder / 'fbank123.ark'}", out, check=True)
    assert out.read_bytes() == (folder / "cmvn_global.mat").read_bytes()


def test_of_speakers_equal_to_kaldi(run_bin, golden: Path, tmp_path: Path) -> None:
    folder, out = golden / "kaldi_feats", tmp_path / "cmvn.ark"
    run_bin(
        "compute_cmvn_stats.py",
        f"--spk2utt=ark:{folder / 'spk2utt'}",
        f"ark:{folder / 'fbank41.ark'}",
        f"ark:{out}",
        check=True,
    )
    assert out.read_bytes() == (folder / "cmvn_spk.ark").read_bytes()


def test_of_each_utterance(run_bin) -> None:
    done = run_bin("compute_cmvn_stats.py", "ark:-", "ark,t:-", stdin=FEATS, check=True)
    assert text_matrices(done.stdout) == {
        "a1": [[4, 6, 2], [10, 20, 0]],
        "a2": [[5, 6, 1], [25, 36, 0]],
        "b1": [[7, 8, 1], [49, 64, 0]],
    }


def test_speakers_come_in_the_order_of_spk2utt(run_bin, tmp_path: Path) -> None:
    (tmp_path / "spk2utt").write_text("a a1 a2\nb b1\n")
    option = f"--spk2utt=ark:{tmp_path / 'spk2utt'}"
    done = run_bin("compute_cmvn_stats.py", option, "ark:-", "ark,t:-", stdin=FEATS, check=True)
    assert text_matrices(done.stdout) == {
        "a": [[9, 12, 3], [35, 56, 0]],
        "b": [[7, 8, 1], [49, 64, 0]],
    }


def test_an_utterance_without_features_is_a_failure(run_bin, tmp_path: Path) -> None:
    (tmp_path / "spk2utt").write_text("a a1 a2 a3\nc c1\n")
    option = f"--spk2utt=ark:{tmp_path / 'spk2utt'}"
    done = run_bin("compute_cmvn_stats.py", option, "ark:-", "ark,t:-", stdin=FEATS)
    assert done.returncode == 1
    assert list(text_matrices(done.stdout)) == ["a"]
    assert b"a3: is in spk2utt but has no features" in done.stderr
    assert done.stderr.splitlines()[-1].endswith(b"Done 2 utterances, 2 failed")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"b1  [\n 1 2 3 ]\n", b"b1: the features have 3 columns, expected 2"),
        (b"b1  [\n 1 nan ]\n", b"b1: frame 0 holds NaN or infinity"),
    ],
)
def test_a_bad_utterance_is_named_and_spoils_no_statistics(
    bad, message, run_bin, tmp_path: Path
) -> None:
    out = tmp_path / "cmvn.mat"
    out.write_text("older")
    done = run_bin("compute_cmvn_stats.py", "ark:-", out, stdin=b"a1  [\n 1 2 ]\n" + bad)
    assert done.returncode == 1
    assert message in done.stderr
    assert out.read_text() == "older"
    done = run_bin("compute_cmvn_stats.py", "ark,p:-", out, stdin=b"a1  [\n 1 2 ]\n" + bad)
    assert done.returncode == 0
    np.testing.assert_array_equal(kaldiio.load_mat(str(out)), [[1, 2, 1], [1, 4, 0]])


def test_text_on_demand(run_bin) -> None:
    done = run_bin("compute_cmvn_stats.py", "--binary=false", "ark:-", "-", stdin=FEATS, check=True)
    assert done.stdout.split() == b"[ 16 20 4 84 120 0 ]".split()


def test_speakers_need_a_table(run_bin, tmp_path: Path) -> None:
    done = run_bin("compute_cmvn_stats.py", "--spk2utt=ark:x", "ark:-", tmp_path / "y")
    assert done.returncode == 2
    assert b"--spk2utt needs a table to write to; did you mean ark:" in done.stderr


def test_an_utterance_of_two_speakers(run_bin, tmp_path: Path) -> None:
    (tmp_path / "spk2utt").write_text("a a1\nb a1\n")
    option = f"--spk2utt=ark:{tmp_path / 'spk2utt'}"
    done = run_bin("compute_cmvn_stats.py", option, "ark:-", "ark,t:-", stdin=FEATS)
    assert done.returncode == 1
    assert b"a1 occurs twice" in done.stderr
