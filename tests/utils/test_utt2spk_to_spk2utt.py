"""utt2spk_to_spk2utt.py and spk2utt_to_utt2spk.py, which undo each other."""

import pytest


def test_there_and_back(run_bin, make_data_dir) -> None:
    path = make_data_dir()
    done = run_bin("utt2spk_to_spk2utt.py", path / "utt2spk", check=True)
    assert done.stdout == (path / "spk2utt").read_bytes()
    done = run_bin("spk2utt_to_utt2spk.py", path / "spk2utt", check=True)
    assert done.stdout == (path / "utt2spk").read_bytes()


def test_stdin_and_order_of_first_appearance(run_bin) -> None:
    done = run_bin("utt2spk_to_spk2utt.py", stdin=b"u3 b\nu1 a\nu2 b\n", check=True)
    assert done.stdout == b"b u3 u2\na u1\n"
    done = run_bin("spk2utt_to_utt2spk.py", "-", stdin=done.stdout, check=True)
    assert done.stdout == b"u3 b\nu2 b\nu1 a\n"


@pytest.mark.parametrize(
    ("program", "data", "message"),
    [
        ("utt2spk_to_spk2utt.py", b"u1 a\nu2\n", "stdin:2: expected UTT SPK, not 'u2'"),
        ("utt2spk_to_spk2utt.py", b"u1 a b\n", "stdin:1: "),
        ("utt2spk_to_spk2utt.py", b"u1 a\nu1 b\n", 'stdin:2: "u1" occurs twice'),
        ("utt2spk_to_spk2utt.py", b"", "empty"),
        ("spk2utt_to_utt2spk.py", b"a u1\nb\n", "stdin:2: expected SPK UTT ..., not 'b'"),
        ("spk2utt_to_utt2spk.py", b"a u1\n\n", "stdin:2: "),
        ("spk2utt_to_utt2spk.py", b"a u1\nb u1\n", 'stdin:2: "u1" occurs twice'),
        ("spk2utt_to_utt2spk.py", b"", "empty"),
    ],
)
def test_bad_input_writes_nothing(run_bin, program: str, data: bytes, message: str) -> None:
    done = run_bin(program, stdin=data)
    assert done.returncode == 1
    assert message in done.stderr.decode()
    assert done.stdout == b""


@pytest.mark.parametrize("program", ["utt2spk_to_spk2utt.py", "spk2utt_to_utt2spk.py"])
def test_missing_file(run_bin, tmp_path, program: str) -> None:
    done = run_bin(program, tmp_path / "none")
    assert (done.returncode, b"none: No such file" in done.stderr) == (1, True)
