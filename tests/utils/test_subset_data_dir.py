"""subset_data_dir.py: each way of choosing."""

from pathlib import Path

import pytest

from pipeline.data.data_dir import DataDir, validate


def chosen(run_bin, source: Path, *words: object) -> list[str]:
    target = source.parent / "some"
    run_bin("subset_data_dir.py", *words[:-1], source, *words[-1:], target, check=True)
    assert validate(target) == []
    return DataDir(target).utt_ids


def test_first_last_shortest(run_bin, make_data_dir) -> None:
    source = make_data_dir(speakers=2, utts=2)
    (source / "utt2num_frames").write_text("s01-u1 9\ns01-u2 7\ns02-u1 8\ns02-u2 7\n")
    assert chosen(run_bin, source, "--first", 3) == ["s01-u1", "s01-u2", "s02-u1"]
    assert chosen(run_bin, source, "--last", 1) == ["s02-u2"]
    assert chosen(run_bin, source, "--shortest", 2) == ["s01-u2", "s02-u2"]


def test_speakers_and_per_speaker(run_bin, make_data_dir) -> None:
    source = make_data_dir(speakers=4, utts=3)
    utts = chosen(run_bin, source, "--speakers", 5)
    assert len(utts) == 6
    assert len({utt.partition("-")[0] for utt in utts}) == 2
    utts = chosen(run_bin, source, "--per-spk", 2)
    assert utts == [f"s{s:02d}-u{u}" for s in range(1, 5) for u in (1, 2)]
    assert len(chosen(run_bin, source, "--per-spk", 99)) == 12


def test_random_choice_is_by_seed(run_bin, make_data_dir) -> None:
    source = make_data_dir(speakers=9)
    one = chosen(run_bin, source, 10)
    assert len(one) == 10
    assert chosen(run_bin, source, "--seed=0", 10) == one
    assert chosen(run_bin, source, "--seed", "1", 10) != one


def test_lists(run_bin, make_data_dir, tmp_path) -> None:
    source, target = make_data_dir(), tmp_path / "new" / "dev"
    (tmp_path / "utts").write_text("s03-u1 with more\ns01-u2\n\nunknown\n")
    done = run_bin("subset_data_dir.py", "--utt-list", tmp_path / "utts", source, target)
    assert done.returncode == 0
    assert b'utts:4: "unknown" is not in' in done.stderr
    assert DataDir(target).utt_ids == ["s01-u2", "s03-u1"]
    (tmp_path / "spks").write_text("s02\n")
    run_bin("subset_data_dir.py", f"--spk-list={tmp_path}/spks", source, target, check=True)
    assert DataDir(target).spk_ids == ["s02"]
    assert validate(target) == []


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--first", "SRC", "13", "DEST"], 1, "has only 12 utterances, not 13; choose a smaller N"),
        (["SRC", "0", "DEST"], 2, "N must be a whole number above 0, not '0'"),
        (["SRC", "x", "DEST"], 2, "N must be a whole number above 0, not 'x'"),
        (["SRC", "DEST"], 2, "expected SRC N DEST"),
        (["--first", "--last", "SRC", "1", "DEST"], 2, "--first and --last exclude each other"),
        (["SRC", "1", "SRC"], 2, "is both the source and the destination"),
        (["--utt-list=EMPTY", "SRC", "DEST"], 1, "has no name that is in"),
        (["--utt-list=NONE", "SRC", "DEST"], 1, "NONE: No such file"),
        (["--utt-list=EMPTY", "SRC", "3", "DEST"], 2, "expected SRC DEST"),
        (["NONE", "3", "DEST"], 1, "NONE: not a directory"),
        (["SRC", "3", "EMPTY/DEST"], 1, "cannot be written: Not a directory"),
    ],
)
def test_errors_leave_nothing(run_bin, make_data_dir, words, status, message) -> None:
    source = make_data_dir("SRC")
    (source.parent / "EMPTY").write_text("")
    done = run_bin("subset_data_dir.py", *words, cwd=source.parent)
    assert done.returncode == status
    assert message in done.stderr.decode()
    assert sorted(p.name for p in source.parent.iterdir()) == ["EMPTY", "SRC"]


def test_malformed_source(run_bin, make_data_dir, tmp_path) -> None:
    source = make_data_dir()
    (source / "text").write_bytes(b"s01-u1 x\ry\n")
    done = run_bin("subset_data_dir.py", "--first", source, 2, tmp_path / "some")
    assert done.returncode == 1
    assert b"text:1: the line holds a carriage return" in done.stderr
    assert not (tmp_path / "some").exists()
