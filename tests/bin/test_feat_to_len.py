"""feat_to_len.py: lengths as Kaldi's feat-to-len, from headers alone."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["fbank41.ark", "fbank41.txt", "fbank41_cm1.ark"])
def test_lengths_and_their_sum(name: str, run_bin, golden: Path) -> None:
    rspecifier = f"ark:{golden}/kaldi_tables/{name}"
    done = run_bin("feat_to_len.py", rspecifier, "ark,t:-", check=True)
    assert done.stdout == b"utt1 256 \nutt2 432 \n"
    assert done.stderr.endswith(b"Done 2 utterances, 0 failed, 688 frames\n")
    assert run_bin("feat_to_len.py", rspecifier, check=True).stdout == b"688\n"


def test_ranges_count(run_bin, golden: Path, tmp_path: Path) -> None:
    ark = golden / "kaldi_tables" / "fbank41.ark"
    (tmp_path / "a.scp").write_text(f"a {ark}:5[10:19]\nb {ark}:5\n")
    done = run_bin("feat_to_len.py", f"scp:{tmp_path}/a.scp", f"ark,t:{tmp_path}/len", check=True)
    assert done.stdout == b""
    assert (tmp_path / "len").read_text() == "a 10 \nb 256 \n"


def test_failures(run_bin, golden: Path, tmp_path: Path) -> None:
    done = run_bin("feat_to_len.py", "ark:-", "ark,t:-")
    assert done.returncode == 1
    assert b"nothing was done" in done.stderr
    cut = tmp_path / "cut.ark"
    cut.write_bytes((golden / "kaldi_tables" / "fbank41.ark").read_bytes()[:-1])
    done = run_bin("feat_to_len.py", f"ark:{cut}", f"ark,t:{tmp_path}/len")
    assert done.returncode == 1
    assert b'cut.ark: key "utt2" byte ' in done.stderr
    assert not (tmp_path / "len").exists()
    done = run_bin("feat_to_len.py", f"ark,p:{cut}")
    assert (done.returncode, done.stdout) == (0, b"256\n")
    assert done.stderr.endswith(b"Done 1 utterances, 1 failed, 256 frames\n")


def test_closed_streams_end_in_a_word_and_not_in_a_traceback(tmp_path: Path) -> None:
    """``<&-`` reads as empty; writing to ``>&-`` is an error."""
    program = f"{sys.executable} {ROOT}/bin/feat_to_len.py"
    (tmp_path / "a.ark").write_text("u  [\n 1 2 ]\n")
    for line in (f"{program} ark:- <&-", f"{program} ark:{tmp_path}/a.ark >&-"):
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert done.returncode == 1, line
        assert "ERROR (feat_to_len.py)" in done.stderr
        assert "Traceback" not in done.stderr
