"""compute_cmvn_stats.py against Kaldi, and its errors."""

from pathlib import Path

import kaldiio
import numpy as np
import pytest

from pipeline.tables import MatrixReader, MatrixWriter, VectorWriter, read_matrix

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


def test_weights_count_frames_as_often_as_they_say(run_bin, tmp_path) -> None:
    rng = np.random.default_rng(1)
    feats = {f"u{n}": rng.normal(size=(5 + n, 3)).astype(np.float32) for n in range(4)}
    times = {utt: rng.integers(0, 4, len(matrix)) for utt, matrix in feats.items()}
    with MatrixWriter(f"ark:{tmp_path}/f.ark") as one, MatrixWriter(f"ark:{tmp_path}/r.ark") as two:
        for utt, matrix in feats.items():
            one.write(utt, matrix)
            two.write(utt, np.repeat(matrix, times[utt], axis=0))
    with VectorWriter(f"ark:{tmp_path}/w.ark") as writer:
        for utt, weights in times.items():
            writer.write(utt, weights.astype(np.float32))
    (tmp_path / "spk2utt").write_text("a u0 u1\nb u2 u3\n")
    for options in ([], [f"--spk2utt=ark:{tmp_path}/spk2utt"]):
        target = "ark:{}" if options else "{}"
        weights = f"--weights=ark:{tmp_path}/w.ark"
        for name, more in (("f", [weights]), ("r", [])):
            run_bin(
                "compute_cmvn_stats.py", *options, *more, f"ark:{tmp_path}/{name}.ark",
                target.format(f"{tmp_path}/{name}.stats"), check=True,
            )  # fmt: skip
        one, two = (
            list(dict(MatrixReader(f"ark:{tmp_path}/{name}.stats")).values())
            if options
            else [read_matrix(f"{tmp_path}/{name}.stats")]
            for name in "fr"
        )
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)
    with VectorWriter(f"ark:{tmp_path}/w.ark") as writer:
        writer.write("u0", np.ones(4, np.float32))
    done = run_bin(
        "compute_cmvn_stats.py", weights, f"ark:{tmp_path}/f.ark", f"ark:{tmp_path}/o.stats"
    )
    assert b"u0: has 4 weights, but 5 frames" in done.stderr
    assert b"u1: has no weights in --weights" in done.stderr
