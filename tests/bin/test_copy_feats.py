"""copy_feats.py against Kaldi's copy-feats, and its exit status."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def kaldi(golden: Path) -> Path:
    return golden / "kaldi_tables"


@pytest.mark.parametrize("method", range(1, 8))
def test_compressed_as_kaldi(method: int, run_bin, kaldi: Path) -> None:
    options = ["--compress=true", f"--compression-method={method}"]
    done = run_bin("copy_feats.py", *options, f"ark:{kaldi}/fbank41.ark", "ark:-", check=True)
    assert done.stdout == (kaldi / f"fbank41_cm{method}.ark").read_bytes()
    assert done.stderr.splitlines()[-1] == b"LOG (copy_feats.py) Done 2 utterances, 0 failed"


def test_standard_input_to_text(run_bin, kaldi: Path) -> None:
    data = (kaldi / "fbank41.ark").read_bytes()
    done = run_bin("copy_feats.py", "ark:-", "ark,t:-", stdin=data, check=True)
    assert done.stdout == (kaldi / "fbank41.txt").read_bytes()


def test_archive_scp_and_lengths(run_bin, kaldi: Path, tmp_path: Path) -> None:
    ark, scp, lengths = tmp_path / "a.ark", tmp_path / "a.scp", tmp_path / "utt2num_frames"
    option = f"--write-num-frames=ark,t:{lengths}"
    run_bin("copy_feats.py", option, f"ark:{kaldi}/fbank41.ark", f"ark,scp:{ark},{scp}", check=True)
    assert lengths.read_text() == "utt1 256 \nutt2 432 \n"
    assert scp.read_text() == f"utt1 {ark}:5\nutt2 {ark}:42009\n"
    back = run_bin("copy_feats.py", f"scp:{scp}", "ark:-", check=True).stdout
    assert back == ark.read_bytes() == (kaldi / "fbank41.ark").read_bytes()


def test_one_matrix(run_bin, kaldi: Path, tmp_path: Path) -> None:
    text, binary = tmp_path / "a.txt", tmp_path / "a.mat"
    run_bin("copy_feats.py", "--binary=false", kaldi / "cmvn_global.mat", text, check=True)
    assert text.read_bytes().startswith(b" [\n  12868.85 6106.311 ")
    run_bin("copy_feats.py", text, binary, check=True)
    assert binary.stat().st_size == (kaldi / "cmvn_global.mat").stat().st_size
    run_bin("copy_feats.py", f"{kaldi}/fbank41.ark:5[0:1,0:2]", "-", "--binary=false", check=True)


def test_a_bad_entry(run_bin, kaldi: Path, tmp_path: Path) -> None:
    shutil.copy(kaldi / "fbank41.ark", tmp_path / "a.ark")
    scp = tmp_path / "a.scp"
    scp.write_text(f"utt0 {tmp_path}/none.ark:5\nutt1 {tmp_path}/a.ark:5\n")
    done = run_bin("copy_feats.py", f"scp:{scp}", f"ark:{tmp_path}/out.ark")
    assert done.returncode == 1
    assert done.stderr.decode().startswith(f'ERROR (copy_feats.py) {scp}:1: key "utt0": ')
    assert not (tmp_path / "out.ark").exists()
    done = run_bin("copy_feats.py", f"scp,p:{scp}", f"ark:{tmp_path}/out.ark")
    assert done.returncode == 0
    assert b"WARNING (copy_feats.py)" in done.stderr
    assert done.stderr.endswith(b"Done 1 utterances, 1 failed\n")


def test_commands_in_an_scp_need_leave(run_bin, kaldi: Path, tmp_path: Path) -> None:
    scp = tmp_path / "a.scp"
    scp.write_text(f"utt1 tail -c +6 {kaldi}/fbank41.ark |\n")
    done = run_bin("copy_feats.py", f"scp:{scp}", "ark:-")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"--allow-pipes" in done.stderr
    done = run_bin("copy_feats.py", "--allow-pipes", f"scp:{scp}", "ark:-", check=True)
    assert done.stdout.startswith(b"utt1 \0BFM ")


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (["ark:-", "ark:-"], 1, b"nothing was done"),
        (["ark:false |", "ark:-"], 1, b"false | failed with status 1"),
        (["ark:{kaldi}/fbank41.ark", "ark:| exit 3"], 1, b"| exit 3 failed with status 3"),
        (["ark:{kaldi}/fbank41.ark", "ark:/dev/full"], 1, b"/dev/full: No space left on device"),
        (["ark:{kaldi}/fbank41.ark", "scp:a.scp"], 1, b"a.scp: cannot read: No such file"),
        (["ark,x:a", "ark:-"], 2, b"unknown rspecifier option 'x'"),
        (["a.ark", "ark:-"], 2, b"ark:- is a table but a.ark is a file"),
        (["--compress", "--compression-method=8", "ark:-", "ark:-"], 2, b"less than or equal to 7"),
        (["--write-num-frames=ark:x", "a.mat", "b.mat"], 2, b"leave it off"),
    ],
)
def test_exit_status(arguments, status, why, run_bin, kaldi: Path) -> None:
    done = run_bin("copy_feats.py", *[word.format(kaldi=kaldi) for word in arguments])
    assert done.returncode == status
    assert why in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_reader_that_closes_the_pipe(run_bin, kaldi: Path, tmp_path: Path) -> None:
    done = run_bin("copy_feats.py", f"ark:{kaldi}/fbank41.ark", "ark,t:| head -c 5 >/dev/null")
    assert done.returncode == 141
    assert b"Traceback" not in done.stderr


def test_a_table_of_nothing_leaves_an_older_file(run_bin, tmp_path: Path) -> None:
    (tmp_path / "out.ark").write_text("older")
    done = run_bin("copy_feats.py", "ark:/dev/null", f"ark:{tmp_path}/out.ark")
    assert done.returncode == 1
    assert b"nothing was done" in done.stderr
    assert (tmp_path / "out.ark").read_text() == "older"
