"""validate_data_dir.py as a user runs it."""

import pytest


def test_success_line_and_status(run_bin, make_data_dir) -> None:
    path = make_data_dir()
    done = run_bin("validate_data_dir.py", path)
    assert done.returncode == 0
    line = f"validate_data_dir.py: Successfully validated data-directory {path}\n"
    assert done.stdout.decode() == line
    assert done.stderr == b""


def test_wrong_field_count_of_utt2spk_fails(run_bin, make_data_dir) -> None:
    path = make_data_dir()
    (path / "utt2spk").write_text("s01-u1 s01 more\n")
    done = run_bin("validate_data_dir.py", path)
    assert done.returncode == 1
    assert f'{path}/utt2spk:1: "s01-u1 s01 more" is not of the form UTT SPK' in done.stderr.decode()
    assert b"Successfully" not in done.stdout + done.stderr


def test_all_problems_at_once(run_bin, make_data_dir) -> None:
    path = make_data_dir()
    (path / "text").write_bytes(b"s01-u2 <s>\r\ns01-u1 x")
    (path / "spk2gender").write_text("")
    done = run_bin("validate_data_dir.py", path)
    *problems, last = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert len(problems) == 6
    assert last == f"validate_data_dir.py: data-directory {path} has the problems above"


@pytest.mark.parametrize("option", ["--no-feats", "--feats=false", "--no-feats --no-text --no-wav"])
def test_kaldis_options(run_bin, make_data_dir, option: str) -> None:
    path = make_data_dir()
    (path / "feats.scp").unlink()
    assert run_bin("validate_data_dir.py", path).returncode == 1
    assert run_bin("validate_data_dir.py", *option.split(), path).returncode == 0


def test_speaker_order_and_characters(run_bin, make_data_dir) -> None:
    path = make_data_dir(speakers=2, utts=1)
    (path / "utt2spk").write_text("s01-u1 s02\ns02-u1 s01\n")
    (path / "spk2utt").write_text("s01 s02-u1\ns02 s01-u1\n")
    (path / "text").write_text("s01-u1 \x07\ns02-u1 b\n")
    assert run_bin("validate_data_dir.py", path).returncode == 1
    done = run_bin("validate_data_dir.py", "--no-spk-sort", "--non-print", path)
    assert done.returncode == 0
    assert b"WARNING (validate_data_dir.py)" in done.stderr
    assert b"2 utterances do not begin with their speaker's name" in done.stderr


def test_missing_directory_and_wrong_usage(run_bin, tmp_path) -> None:
    done = run_bin("validate_data_dir.py", tmp_path / "none")
    assert done.returncode == 1
    assert b"none: not a directory; give a data directory" in done.stderr
    assert run_bin("validate_data_dir.py").returncode == 2
    assert run_bin("validate_data_dir.py", "--no-such", tmp_path).returncode == 2


def test_the_end_of_the_recording_in_every_program(run_bin, make_data_dir) -> None:
    path = make_data_dir(speakers=2, utts=2)
    for name in ("feats.scp", "utt2num_frames", "spk2gender"):
        (path / name).unlink()
    utts = [line.split()[0] for line in (path / "text").read_text().splitlines()]
    (path / "segments").write_text("".join(f"{utt} r 0.{n} -1\n" for n, utt in enumerate(utts)))
    (path / "wav.scp").write_text("r r.wav\n")
    run_bin("validate_data_dir.py", "--no-feats", path, check=True)
    done = run_bin("fix_data_dir.py", path, check=True)
    assert done.stdout == b"fix_data_dir.py: kept all 4 utterances out of 4\n"
    run_bin("split_data.py", "--per-utt", path, 2, check=True)
    run_bin("subset_data_dir.py", "--first", path, 3, path.parent / "some", check=True)
    for end in ("-2", "-1.5", "0", "nan", "²", "٣", "1_0", "1e999", "9" * 400):
        (path / "segments").write_text(f"{utts[0]} r 0.0 {end}\n")
        done = run_bin("validate_data_dir.py", "--no-feats", path)
        assert b"or END = -1" in done.stderr, end
